use std::fs;

use super::*;
use crate::recording::{End, Event};

const HEADER: &str = r#"{"format":"blkif recording","version":1,"end":"frontend","program":"p"}"#;
const SIGNAL: &str = r#"{"at":5,"device":"1/51712","signalled":{"queue":2}}"#;

fn load(text: &str) -> Result<Recording, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    fs::write(&path, text).unwrap();
    let name = format!("{}", path.display());
    Recording::load(&path).map_err(|error| error.to_string().replace(&name, "r"))
}

#[test]
fn what_is_written_is_read() {
    let recording = load(&format!("{HEADER}\n{SIGNAL}\n")).unwrap();
    assert_eq!(recording.header.end, End::Frontend);
    assert_eq!(recording.entries[0].event, Event::Signalled { queue: 2 });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again");
    recording.save(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{HEADER}\n{SIGNAL}\n"));
}

#[test]
fn a_killed_programs_last_line_is_left_out() {
    assert_eq!(load(&format!("{HEADER}\n{SIGNAL}\n{SIGNAL}")).unwrap().entries.len(), 1);
    assert_eq!(load(&format!("{HEADER}\n{SIGNAL}\n{{\"at\":")).unwrap().entries.len(), 1);
}

#[test]
fn what_is_no_recording_is_refused_with_a_reason() {
    let second = HEADER.replace("\"version\":1", "\"version\":2");
    for (text, words) in [
        (String::new(), "r: is no recording"),
        ("{}".into(), "r: is no recording: missing field"),
        (format!("{second}\n"), "version 2 is not 1"),
        (format!("{}\n", HEADER.replace("blkif", "block")), "its format is \"block recording\""),
        (format!("{HEADER}\n{SIGNAL}\n{{\"at\":1}}\n"), "r:3: "),
        (format!("{HEADER}\n{}\n", SIGNAL.replace("signalled", "sung")), "r:2: "),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}
