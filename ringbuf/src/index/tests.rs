use super::Index;
use proptest::prelude::*;

proptest! {
    #[test]
    fn distance_undoes_plus(start: u32, entries: u32) {
        let start = Index::new(start);
        prop_assert_eq!(start.plus(entries).since(start), entries);
    }

    /// Against counters too wide to wrap: notify if and only if the event lies in (old, new].
    #[test]
    fn an_event_is_passed_once(old: u32, ahead in 0u32..=1024, event in -5000i64..=5000) {
        let (old64, new64) = (i64::from(old), i64::from(old) + i64::from(ahead));
        let event64 = old64 + event;
        let new = Index::new(old).plus(ahead);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "modulo 2^32 is the point")]
        let event = Index::new(event64 as u32);
        prop_assert_eq!(new.passed(event, Index::new(old)), old64 < event64 && event64 <= new64);
    }
}

#[test]
fn a_step_back_is_a_long_way() {
    let here = Index::new(3);
    assert_eq!(Index::new(2).since(here), u32::MAX);
    assert_eq!(Index::new(u32::MAX).since(here), u32::MAX - 3);
    assert_eq!(here.since(Index::new(u32::MAX)), 4);
}

#[test]
fn debug_shows_the_raw_index() {
    assert_eq!(format!("{:?}", Index::new(0xfff0)), "0x0000fff0");
}
