use std::path::Path;

use super::*;

/// Kept recordings, by both ends.
fn kept(name: &str) -> Script {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name);
    let recording = Recording::load(&path).unwrap();
    Script::of(&recording, recording.devices()[0])
}

/// What passed the ring, without who saw it.
fn shared(script: &Script) -> Vec<String> {
    let passed = |step: &&Step| matches!(step, Step::Request { .. } | Step::Answer { .. });
    let text = |step: &Step| match step {
        Step::Request { number, entries, descriptors, .. } => {
            format!("{number} {:?} {descriptors:?}", trimmed(entries.as_flattened()))
        }
        step => format!("{step:?}"),
    };
    script.steps.iter().filter(passed).map(text).collect()
}

#[test]
fn a_script_that_is_written_down_is_the_same_script() {
    for name in ["backend.jsonl", "frontend.jsonl", "hostile.jsonl"] {
        let script = kept(name);
        let again = Script::of(&script.record(), &script.device);
        let other = again.steps.iter().zip(&script.steps).position(|(again, step)| again != step);
        assert_eq!((other, again.steps.len()), (None, script.steps.len()), "{name}");
    }
}

#[test]
fn what_is_left_out_leaves_no_gap() {
    let script = kept("backend.jsonl");
    let mut smaller = script.clone();
    let named = |step: &Step| match step {
        Step::Request { number, .. } | Step::Answer { to: Some(number), .. } => Some(*number),
        _ => None,
    };
    smaller.steps.retain(|step| named(step).is_none_or(|number| number % 3 == 1));
    let smaller = smaller.without_empty_publications();
    assert!(smaller.requests() > 3 && smaller.requests() < script.requests());
    let again = Script::of(&smaller.record(), &script.device);
    assert_eq!(again.requests(), smaller.requests());
    let honest = |step: &Step| !matches!(step, Step::Publish { beyond, .. } if *beyond != 0);
    assert!(again.steps.iter().all(honest), "{:?}", again.steps);
}

#[test]
fn both_ends_have_seen_the_same() {
    let (backend, frontend) = (kept("backend.jsonl"), kept("frontend.jsonl"));
    assert!(backend.requests() > 20);
    let sorted = |script| {
        let mut shared = shared(script);
        shared.sort();
        shared
    };
    assert_eq!(sorted(&backend), sorted(&frontend));
}

#[test]
fn a_state_comes_after_what_it_stands_for() {
    let script = kept("backend.jsonl");
    let at = |wanted: &str, is: &str| {
        script.steps.iter().position(|step| {
            matches!(step, Step::Node { of: End::Frontend, key, value: Some(value) } if key == wanted && (is.is_empty() || value == is))
        })
    };
    assert!(at("event-channel", "").unwrap() < at("state", "3").unwrap());
}
