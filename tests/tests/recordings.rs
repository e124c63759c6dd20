//! What passes between both ends is recorded, played again to either, and made smaller where it differs.
//!
//! `tests/recordings` holds recordings of our own pair, by both of its ends, and of a hostile guest: each of both programs has to do
//! as then. A bug that a recording shows is found by that (tests/plants.toml).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use blkback::config::Strategy;
use blkif_observe::recording::{End, Event, Recording};
use blkif_proto::{Abi, Entry, GrantRef, Opcode, Response, Segment, Status, xenbus::State};
use ringbuf::Field;
use tests::{
    conformance::rig::{Processes, Raw, Rig, Wish},
    replay::{Difference, PATIENCE, Script, Step, minimise, play},
};

fn xensim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xensim"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name)
}

fn script(path: &Path) -> Script {
    let recording = Recording::load(path).unwrap();
    Script::of(&recording, recording.devices()[0])
}

fn replays(path: &Path, end: End) {
    let difference = play(&script(path), end, PATIENCE).unwrap();
    assert_eq!(difference, None, "{} against the {end:?}", path.display());
}

#[test]
fn the_daemon_does_as_in_kept_recordings() {
    ["backend.jsonl", "frontend.jsonl", "hostile.jsonl"]
        .iter()
        .for_each(|name| replays(&kept(name), End::Backend));
}

#[test]
fn the_frontend_does_as_in_kept_recordings() {
    ["backend.jsonl", "frontend.jsonl"].iter().for_each(|name| replays(&kept(name), End::Frontend));
}

/// The recipe of the kept recordings, with the programs as they are now.
#[test]
fn what_both_programs_record_is_done_again_by_either() {
    let folder = tempfile::tempdir().unwrap();
    let requests = [
        "write 0 64k",
        "write 1M 300k",
        "read 0 128k",
        "flush",
        "discard 0 32k",
        "read 63M 1M",
        "aio_read 5M 512k",
    ];
    let commands: String = requests.iter().map(|request| format!(" -c '{request}'")).collect();
    let line = format!("qemu-io -f raw{commands} \"$BLKIF_NBD_URI\"");
    let record = folder.path().to_str().unwrap();
    for more in [&[][..], &["--segments", "indirect"], &["--queues", "2", "--abi", "x86_32"]] {
        let run = ["run", "--size", "64", "--record", record];
        let output = xensim(&[&run[..], more, &["--", "sh", "-c", &line]].concat());
        assert!(output.status.success(), "{}", text(&output));
    }
    for number in 1..=3 {
        for name in ["backend", "frontend"] {
            let path = folder.path().join(format!("{name}-{number}.jsonl"));
            assert!(script(&path).requests() >= 10, "{}", path.display());
            replays(&path, End::Backend);
            replays(&path, End::Frontend);
        }
    }
}

/// What no honest guest does, and a daemon that records it.
#[test]
fn a_hostile_guest_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    hostile(folder.path());
    let path = folder.path().join("backend-1.jsonl");
    replays(&path, End::Backend);
    let seen = script(&path);
    let impossible =
        |step: &Step| matches!(step, Step::Publish { by: End::Frontend, beyond, .. } if *beyond != 0);
    assert!(seen.steps.iter().any(impossible), "the index that ran ahead");
    let vague = seen.steps.iter().filter(|step| matches!(step, Step::Request { vague: Some(_), .. }));
    assert_eq!(vague.count(), 1, "the request with a grant that is none");
}

fn hostile(folder: &Path) {
    let mut rig = Rig::new(Processes::One, Strategy::Direct, Abi::X86_64).unwrap();
    rig.configure(&format!("[daemon]\nshutdown-s = 0\nrecord = {folder:?}\n")).unwrap();
    let mut guest = rig.guest().unwrap();
    let mut connection = guest.connect(&Wish::default()).unwrap();
    let page = connection.segments(2, 7).unwrap();
    connection.okay(&Raw::write(1, 8, &page)).unwrap();
    connection.error(&Raw::read(1, u64::MAX, &page)).unwrap();
    connection.error(&Raw::read(1, 1 << 15, &page)).unwrap();
    connection.error(&Raw::read(2, 0, &[Segment::page(GrantRef(0xDEAD))])).unwrap();
    connection
        .error(&Raw::data(Opcode::READ, 3, 0, &[Segment { first_sect: 5, last_sect: 2, ..page[0] }]))
        .unwrap();
    connection.error(&Raw::data(Opcode::READ, 4, 0, &[])).unwrap();
    connection.ask(&Raw::data(Opcode(77), u64::MAX, 5, &page)).unwrap();
    // Twice the same id at once.
    connection.queue().push(&Raw::read(9, 0, &page).entries(Abi::X86_64)).unwrap();
    connection.queue().push(&Raw::write(9, 0, &page).entries(Abi::X86_64)).unwrap();
    connection.queue().kick().unwrap();
    (0..2).for_each(|_| _ = connection.queue().answer().unwrap());
    let index = connection.queue().index(Field::ReqProd);
    connection.queue().set_index(Field::ReqProd, index.wrapping_add(10_000));
    connection.queue().ring_bell().unwrap();
    guest.wait_backend(State::Closing).unwrap();
    drop(connection);
    rig.finish().unwrap();
}

/// A recording with an answer that no daemon of ours gives: the same as a daemon that gives another than was recorded.
fn wrong(number: usize) -> Recording {
    let mut recording = Recording::load(&kept("backend.jsonl")).unwrap();
    let answers = recording.entries.iter_mut().filter_map(|line| match &mut line.event {
        Event::Answer { bytes, .. } => Some(bytes),
        _ => None,
    });
    let bytes = answers.into_iter().nth(number).unwrap();
    let mut entry = [0; _];
    entry[..bytes.len()].copy_from_slice(bytes);
    let response = Response { status: Status::ERROR, ..Response::parse(&entry) };
    *bytes = response.emit().to_vec();
    recording
}

#[test]
fn a_recording_that_differs_is_made_as_small_as_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, small) = (folder.path().join("whole.jsonl"), folder.path().join("small.jsonl"));
    wrong(13).save(&whole).unwrap();
    let (whole, out) = (whole.to_str().unwrap(), small.to_str().unwrap());
    let output = xensim(&["replay", whole, "--minimise", "--out", out]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(
        text(&output).matches("the answer is okay, recorded was error").count(),
        2,
        "{}",
        text(&output)
    );
    let again = xensim(&["replay", out]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    let smaller = script(&small);
    assert_eq!(smaller.requests(), 1, "{}", text(&output));
    // Beside the handshake.
    let passes = |step: &&Step| !matches!(step, Step::Node { .. } | Step::Publish { by: End::Backend, .. });
    let left: Vec<&Step> = smaller.steps.iter().filter(passes).collect();
    assert!(
        matches!(left[..], [Step::Request { .. }, Step::Publish { .. }, Step::Answer { .. }]),
        "{left:?}"
    );
}

/// The minimiser alone, with an oracle that wants two requests of many, in their order.
#[test]
fn what_takes_two_requests_keeps_two() {
    let script = script(&kept("backend.jsonl"));
    let requests = |script: &Script| -> Vec<Vec<Entry>> {
        let entries =
            |step: &Step| if let Step::Request { entries, .. } = step { Some(entries.clone()) } else { None };
        script.steps.iter().filter_map(entries).collect()
    };
    let (third, last) = (requests(&script)[3].clone(), requests(&script)[17].clone());
    let found = minimise(&script, End::Backend, |script| {
        let requests = requests(script);
        let both = requests.contains(&third) && requests.contains(&last);
        Ok(both.then(|| Difference::Broken { reason: String::new() }))
    })
    .unwrap();
    assert_eq!(requests(&found.script), [third.clone(), last.clone()]);
    assert!(found.plays < 100, "{}", found.plays);
}

#[test]
fn what_does_as_recorded_is_not_made_smaller_and_what_is_no_recording_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let same = xensim(&[
        "replay",
        kept("backend.jsonl").to_str().unwrap(),
        "--minimise",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(same.status.success() && !out.exists(), "{}", text(&same));
    let nothing = folder.path().join("nothing");
    fs::write(&nothing, "{}\n").unwrap();
    let refused = xensim(&["replay", nothing.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("is no recording"), "{}", text(&refused));
    let unknown = xensim(&["replay", kept("backend.jsonl").to_str().unwrap(), "--device", "9/9"]);
    assert!(text(&unknown).contains("no device 9/9; there is 1/51712"), "{}", text(&unknown));
}
