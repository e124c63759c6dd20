use alloc::{format, vec::Vec};

use proptest::prelude::*;

use super::*;

fn event(path: &str, token: &str) -> WatchEvent {
    WatchEvent { path: path.into(), token: token.into() }
}

fn drain(queue: &mut EventQueue) -> Vec<WatchEvent> {
    core::iter::from_fn(|| queue.pop()).collect()
}

#[test]
fn equal_events_wait_once_in_the_order_of_the_first() {
    let mut queue = EventQueue::default();
    queue.watch("/a", "t");
    for path in ["/a/1", "/a/2", "/a/1"] {
        queue.push(event(path, "t"));
    }
    assert_eq!(drain(&mut queue), [event("/a/1", "t"), event("/a/2", "t")]);
    queue.push(event("/a/1", "t"));
    assert_eq!(drain(&mut queue), [event("/a/1", "t")], "taken ones may come again");
}

#[test]
fn a_flood_becomes_the_watched_path_and_spares_other_tokens() {
    let mut queue = EventQueue::default();
    queue.watch("/quiet", "q");
    queue.watch("/a", "t");
    queue.push(event("/quiet/x", "q"));
    for i in 0..100_000 {
        queue.push(event(&format!("/a/{i}"), "t"));
        assert!(queue.bytes() <= COLLAPSE_BYTES + 3);
    }
    let events = drain(&mut queue);
    assert_eq!(events[0], event("/quiet/x", "q"));
    assert!(events.contains(&event("/a", "t")));
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn unwatch_takes_back_what_waits() {
    let mut queue = EventQueue::default();
    queue.watch("/a", "t");
    queue.watch("/b", "t");
    queue.push(event("/a/1", "t"));
    queue.unwatch("/a", "t");
    assert_eq!(queue.len(), 1, "the token still watches /b, and extra events are legal");
    queue.unwatch("/b", "t");
    assert!(queue.is_empty());
    assert_eq!(queue.bytes(), 0);
}

proptest! {
    /// Whatever happens between, a pushed event is later represented by itself or by its watched path.
    #[test]
    fn nothing_is_lost(steps in prop::collection::vec((0u8..3, 0u32..4000, any::<bool>()), 1..3000)) {
        let mut queue = EventQueue::default();
        for token in 0..3 { queue.watch(&format!("/w{token}"), &format!("{token}")); }
        let mut owed = BTreeSet::new();
        let paid = |event: WatchEvent, owed: &mut BTreeSet<(String, String)>| {
            let everything = event.path == format!("/w{}", event.token);
            owed.retain(|(path, token)| *token != event.token || !(everything || *path == event.path));
        };
        for (token, name, take) in steps {
            let (path, token) = (format!("/w{token}/{name:0>300}"), format!("{token}"));
            queue.push(event(&path, &token));
            owed.insert((path, token));
            prop_assert!(queue.bytes() <= COLLAPSE_BYTES + 16);
            if take && let Some(event) = queue.pop() { paid(event, &mut owed) }
        }
        while let Some(event) = queue.pop() { paid(event, &mut owed) }
        prop_assert!(owed.is_empty());
        prop_assert!(queue.places.is_empty());
        prop_assert_eq!(queue.bytes(), 0);
    }
}
