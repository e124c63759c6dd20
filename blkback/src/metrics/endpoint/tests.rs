//! The server, with clients that behave and clients that do not.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    thread,
};

use super::*;
use crate::{
    metrics::{Entry, Label},
    stats::{QueueStats, WorkerStats},
};

/// A server, in a thread that ends with the test, and what it tells of.
struct Bench {
    address: SocketAddr,
    roll: Arc<Roll>,
}

fn config(listen: &str) -> MetricsConfig {
    MetricsConfig { listen: Some(listen.parse().unwrap()), group: None }
}

fn serve(endpoint: Endpoint, roll: &Arc<Roll>) {
    let roll = Arc::clone(roll);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(endpoint.serve(roll)).map(|_| ()).unwrap();
    });
}

impl Bench {
    fn start() -> Self {
        let endpoint = Endpoint::open(&config("127.0.0.1:0")).unwrap().unwrap();
        let address = endpoint.address().unwrap();
        let roll = Arc::new(Roll::new(vec![Arc::new(WorkerStats::default())]));
        serve(endpoint, &roll);
        Self { address, roll }
    }

    fn enter(&self, device: &str, connection: u64) -> (Entry, Arc<QueueStats>) {
        let stats = Arc::new(QueueStats::default());
        let label = Label { domain: "3".into(), device: device.into(), queue: 0 };
        (self.roll.enter(label, connection, &stats), stats)
    }

    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // It may have closed its end before all was written.
        _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn get(&self) -> String {
        self.say(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    }
}

#[test]
fn what_was_counted_is_told() {
    let bench = Bench::start();
    let (entry, stats) = bench.enter("51712", 1);
    stats.done.reads.add(7);
    stats.bytes_read.add(4096 * 7);
    stats.batches.add(5);
    stats.notifications.add(2);
    stats.ring_full.add_time(Duration::from_millis(1500));
    stats.stages.storage.record(Duration::from_micros(3), 7);
    let told = bench.get();
    let (head, text) = told.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(OPEN_METRICS), "{head}");
    let queue = "domain=\"3\",device=\"51712\",queue=\"0\"";
    for line in [
        format!("blkback_operations_total{{{queue},operation=\"read\"}} 7"),
        format!("blkback_transferred_bytes_total{{{queue},operation=\"read\"}} 28672"),
        format!("blkback_notifications_total{{{queue},outcome=\"sent\"}} 2"),
        format!("blkback_notifications_total{{{queue},outcome=\"suppressed\"}} 3"),
        format!("blkback_ring_full_seconds_total{{{queue}}} 1.5"),
        format!("blkback_stage_seconds_count{{{queue},stage=\"storage\"}} 7"),
        format!("blkback_stage_seconds_bucket{{le=\"0.000004\",{queue},stage=\"storage\"}} 7"),
        "blkback_worker_batches_total{worker=\"0\"} 0".to_owned(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    // A guest that was connected anew before its last connection had gone.
    let (_again, stats) = bench.enter("51712", 2);
    stats.done.reads.add(1);
    drop(entry);
    let again = format!("blkback_operations_total{{{queue},operation=\"read\"}} ");
    let text = bench.get();
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&again)).collect();
    assert_eq!(lines, ["1"]);
}

#[test]
fn what_makes_no_sense_is_told_so() {
    let bench = Bench::start();
    for (ask, status) in [
        (&b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
    ] {
        let told = bench.say(ask);
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{}: {told}", ask.escape_ascii());
    }
    let endless = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 4 * HEAD]].concat();
    assert!(bench.say(&endless).starts_with("HTTP/1.1 431"));
    assert!(bench.say(b"HEAD / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
    assert!(bench.get().ends_with("# EOF\n"));
}

/// Clients that ask for nothing, or do not take their answer, have all places for as long as they may, and then others have them.
#[test]
fn slow_clients_keep_nobody_out_for_ever() {
    let bench = Bench::start();
    let _entries: Vec<_> = (0..400).map(|device| bench.enter(&device.to_string(), 1)).collect();
    let clients = (0..2 * CONNECTIONS).map(|n| {
        let mut stream = TcpStream::connect(bench.address).unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        }
        stream
    });
    let _clients: Vec<_> = clients.collect();
    assert!(bench.get().ends_with("# EOF\n"));
}

#[test]
fn a_unix_socket_is_its_owners() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    let open = || Endpoint::open(&config(&format!("unix:{}", path.display()))).unwrap().unwrap();
    drop(open());
    // In the place of a dead daemon's.
    let endpoint = open();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    serve(endpoint, &Arc::new(Roll::default()));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.contains("# TYPE blkback_stage_seconds histogram"), "{told}");
}

#[test]
fn a_place_that_cannot_be_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let refused = Endpoint::open(&config(&place)).unwrap_err().to_string();
    assert!(refused.starts_with(&place), "{refused}");
    let refused = Endpoint::open(&config("unix:/proc/none/s")).unwrap_err().to_string();
    assert!(refused.starts_with("unix:/proc/none/s: "), "{refused}");
    let nobody = MetricsConfig { group: Some("no such group".into()), ..config("unix:/tmp/never") };
    assert!(Endpoint::open(&nobody).unwrap_err().to_string().contains("there is no group"));
}
