//! What the real daemon, in its sandbox, tells of its guests, read by a parser that nobody here wrote; and its log of slow requests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use blkif_proto::{Abi, Opcode};
use serde::Deserialize;
use tests::{
    conformance::rig::{Guest, Raw, Wish},
    world::{Binaries, Disk, World},
};

/// A Python that has `prometheus_client`: the one that `BLKIF_PY` names, or `python3`.
fn python() -> String {
    std::env::var("BLKIF_PY").unwrap_or_else(|_| "python3".into())
}

/// What a client sees.
fn scrape(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    text.to_owned()
}

#[derive(Deserialize)]
struct Sample(String, BTreeMap<String, String>, f64);

/// Every sample of one guest, or of none, by its name and its labels but those of the queue.
struct Told(Vec<Sample>);

impl Told {
    fn parse(text: &str) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/metrics/parse.py");
        let (python, mut command) = (python(), Command::new(python()));
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{} (if {python} has no prometheus_client: run `tests/run setup`, and set BLKIF_PY to the Python it made)\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The value of a sample of a guest that has these labels too; what several queues have is added up.
    fn of(&self, guest: u16, name: &str, labels: &[(&str, &str)]) -> f64 {
        let domain = guest.to_string();
        let wanted = |sample: &&Sample| {
            let has = |(key, value): &(&str, &str)| sample.1.get(*key).is_some_and(|is| is == value);
            sample.0 == format!("blkback_{name}") && labels.iter().chain(&[("domain", &*domain)]).all(has)
        };
        let found: Vec<f64> = self.0.iter().filter(wanted).map(|sample| sample.2).collect();
        assert!(!found.is_empty(), "no {name} {labels:?}");
        found.iter().sum()
    }
}

#[test]
fn numbers_are_what_guests_did() {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    let socket = world.dir().join("metrics.sock");
    world.start_backend(&["--metrics".into(), format!("unix:{}", socket.display())]).unwrap();
    let image = world.dir().join("a.img");
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let busy = world.guest_with_disk(&Disk::new(image.to_str().unwrap())).unwrap();
    let idle = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
    let (dir, own, other) = (world.dir().to_owned(), busy.guest.0, idle.guest.0);
    let mut guest = Guest::of(&dir, busy, Abi::NATIVE).unwrap();
    let mut connection = guest.connect(&Wish::default()).unwrap();
    let mut bystander = Guest::of(&dir, idle, Abi::NATIVE).unwrap();
    let _connection = bystander.connect(&Wish::default()).unwrap();

    let reads = connection.reads(0..10).unwrap();
    connection.batch_okay(&reads).unwrap();
    let pages = connection.segments(2, 7).unwrap();
    for id in 20..23 {
        connection.okay(&Raw::write(id, 0, &pages)).unwrap();
    }
    connection.okay(&Raw::data(Opcode::FLUSH, 30, 0, &[])).unwrap();
    connection.okay(&Raw::discard(40, 8, 16)).unwrap();
    connection.error(&Raw::read(50, 1 << 40, &pages)).unwrap();

    let told = Told::parse(&scrape(&socket));
    let of = |name, labels: &[(&str, &str)]| told.of(own, name, labels);
    assert_eq!(of("requests_total", &[]), 16.0);
    for (operation, count, bytes) in
        [("read", 10.0, 40_960.0), ("write", 3.0, 24_576.0), ("discard", 1.0, 8192.0)]
    {
        assert_eq!(of("operations_total", &[("operation", operation)]), count, "{operation}");
        assert_eq!(of("transferred_bytes_total", &[("operation", operation)]), bytes, "{operation}");
    }
    assert_eq!(of("operations_total", &[("operation", "flush")]), 1.0);
    assert_eq!(of("errors_total", &[("cause", "refused")]), 1.0);
    assert_eq!(of("errors_total", &[]), 1.0, "all causes together");
    assert_eq!(of("in_flight", &[]), 0.0);
    assert_eq!(of("held_total", &[]), 0.0);
    assert_eq!(of("grants_total", &[("way", "mapped")]), 16.0, "ten pages read, six written");
    assert!(of("events_total", &[]) >= 1.0);
    let batches = of("notifications_total", &[]);
    assert!((1.0..=16.0).contains(&batches), "{batches}");
    for (stage, count) in [("ring", 16.0), ("data", 15.0), ("storage", 15.0), ("respond", 16.0)] {
        assert_eq!(of("stage_seconds_count", &[("stage", stage)]), count, "{stage}");
        assert_eq!(of("stage_seconds_bucket", &[("stage", stage), ("le", "+Inf")]), count, "{stage}");
        let seconds = of("stage_seconds_sum", &[("stage", stage)]);
        assert!((0.0..60.0).contains(&seconds), "{stage}: {seconds}");
    }
    assert!(of("stage_seconds_sum", &[("stage", "storage")]) > 0.0);
    // And the guest beside it.
    assert_eq!(told.of(other, "requests_total", &[]), 0.0);
    assert_eq!(told.of(other, "stage_seconds_count", &[]), 0.0);

    // A guest that has gone is told of no more.
    drop(connection);
    guest.close().unwrap();
    let text = scrape(&socket);
    assert!(!text.contains(&format!("domain=\"{own}\"")), "{text}");
    assert!(text.contains(&format!("domain=\"{other}\"")), "{text}");
}

#[test]
fn slow_requests_are_told_of_with_their_stages() {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    let config = world.dir().join("slow.toml");
    fs::write(&config, "[daemon]\nslow-ms = 200\n[disk]\nlimit = { read-iops = 2, burst-ms = 10 }\n")
        .unwrap();
    world.start_backend(&["--config".into(), config.display().to_string()]).unwrap();
    let vbd = world.guest_with_disk(&Disk::new("null:1M")).unwrap();
    let mut guest = Guest::of(world.dir(), vbd, Abi::NATIVE).unwrap();
    let mut connection = guest.connect(&Wish::default()).unwrap();
    let reads = connection.reads(0..3).unwrap();
    connection.batch_okay(&reads).unwrap();
    let words = world.backend_words();
    let line = words.lines().find(|line| line.contains("slow: ")).expect(&words);
    for word in ["queue=0", "op=Read", "bytes=4096", "ring=", "data=", "storage=", "respond=", "image=null "]
    {
        assert!(line.contains(word), "no {word} in {line}");
    }
    let ring = line.split_once("ring=").unwrap().1.split(' ').next().unwrap();
    assert!(ring.ends_with("ms") || ring.ends_with('s') && !ring.ends_with("µs"), "it was held: {line}");
    assert!(!words.contains(" op=Write"), "{words}");
}
