use std::fs;

use ringbuf::{BackRing, FrontRing, Heap, Layout, Tapped};

use super::*;
use crate::recording::Recording;

fn events(recording: &Recording) -> Vec<String> {
    recording.entries.iter().map(|entry| serde_json::to_value(&entry.event).unwrap().to_string()).collect()
}

#[test]
fn what_a_backend_sees_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend-1.jsonl");
    let recorder = Recorder::create(folder.path(), End::Backend, "test").unwrap();
    recorder.node("/local/domain/3/device/vbd/51712/queue-0/ring-ref", Some("8"));
    recorder.node("/local/domain/3/device/vbd/51712/queue-0/ring-ref", Some("8"));
    recorder.node("/local/domain/0/backend/vbd/3/51712/state", Some("4"));
    recorder.node("/local/domain/3/device/vbd/51712", None);
    recorder.node("/local/domain/3/device/suspend", Some("no disk's"));
    let memory = Heap::new(Layout::new(1, 112).unwrap());
    let mut front = FrontRing::init(memory.clone());
    let tape = Arc::new(recorder.tape("3/51712", 1));
    let mut back = BackRing::attach(Tapped::new(memory, Some(tape.clone()))).unwrap();
    front.push(&[1, 2, 0, 0]).unwrap();
    let _ = front.publish();
    tape.signalled();
    let mut entry = [0; 112];
    assert_eq!(back.available(), Ok(1));
    back.read(0, &mut entry).unwrap();
    back.consume(1).unwrap();
    tape.aside(7, &[1, 0]);
    back.respond(&[5, 0], 1).unwrap();
    let _ = back.publish();
    assert_eq!(back.available(), Ok(0));
    let recording = Recording::load(&path).unwrap();
    assert_eq!((recording.header.end, recording.devices()), (End::Backend, vec!["3/51712"]));
    assert!(recording.entries.is_sorted_by_key(|entry| entry.at));
    assert_eq!(
        events(&recording),
        [
            r#"{"node":{"key":"queue-0/ring-ref","of":"frontend","value":"8"}}"#,
            r#"{"node":{"key":"state","of":"backend","value":"4"}}"#,
            r#"{"node":{"key":"","of":"frontend","value":null}}"#,
            r#"{"published":{"by":"frontend","index":0,"queue":1}}"#,
            r#"{"signalled":{"queue":1}}"#,
            r#"{"published":{"by":"frontend","index":1,"queue":1}}"#,
            r#"{"request":{"bytes":"0x0102","index":0,"queue":1}}"#,
            r#"{"descriptors":{"bytes":"0x0100","id":7,"queue":1}}"#,
            r#"{"answer":{"bytes":"0x05","index":0,"queue":1}}"#,
            r#"{"published":{"by":"backend","index":1,"queue":1}}"#,
        ]
    );
}

#[test]
fn a_new_state_is_followed_by_all_that_it_stands_for() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::create(folder.path(), End::Backend, "test").unwrap();
    for state in ["3", "3", "6", "3"] {
        recorder.node("/local/domain/3/device/vbd/51712/state", Some(state));
        recorder.node("/local/domain/3/device/vbd/51712/event-channel", Some("9"));
    }
    let recording = Recording::load(&folder.path().join("backend-1.jsonl")).unwrap();
    let channels = events(&recording).into_iter().filter(|event| event.contains("event-channel"));
    assert_eq!(channels.count(), 3);
}

#[test]
fn a_full_recording_says_so_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frontend-1.jsonl");
    let recorder = Recorder::create(folder.path(), End::Frontend, "test").unwrap();
    recorder.lock().left = 100;
    let tape = recorder.tape("1/51712", 0);
    (0..3).for_each(|_| tape.signalled());
    let recording = Recording::load(&path).unwrap();
    assert_eq!(events(&recording), [r#"{"signalled":{"queue":0}}"#, r#"{"full":{}}"#]);
}

#[test]
fn it_is_for_its_owners_eyes() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    Recorder::create(folder.path(), End::Frontend, "test").unwrap();
    let meta = fs::metadata(folder.path().join("frontend-1.jsonl")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o77, 0);
}

#[test]
fn no_recording_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        Recorder::create(folder.path(), End::Backend, "test").unwrap();
    }
    for number in 1..=3 {
        assert!(Recording::load(&folder.path().join(format!("backend-{number}.jsonl"))).is_ok());
    }
    assert!(Recorder::create(&folder.path().join("nowhere"), End::Backend, "test").is_err());
}
