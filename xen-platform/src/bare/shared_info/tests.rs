use super::*;
use crate::page::tests::leaked;

#[test]
fn an_event_is_taken_once_and_not_while_masked() {
    let page = leaked(1);
    let shared = SharedInfo::new(page);
    for port in [Port(0), Port(63), Port(64), Port(4095)] {
        assert!(!shared.take(port));
        let (word, bit) = shared.word(PENDING, port).unwrap();
        word.fetch_or(bit, Ordering::Relaxed);
        assert!(shared.take(port) && !shared.take(port) && shared.is_masked(port));
        // Another comes while it is masked.
        word.fetch_or(bit, Ordering::Relaxed);
        assert!(!shared.is_pending(port) && !shared.take(port));
        shared.unmask(port);
        assert!(shared.take(port), "none is lost");
    }
}

#[test]
fn ports_that_cannot_be_have_no_bits() {
    let shared = SharedInfo::new(leaked(1));
    for port in [Port(4096), Port(u32::MAX)] {
        shared.mask(port);
        shared.unmask(port);
        assert!(!shared.take(port) && !shared.is_masked(port));
    }
}

#[test]
fn upcalls_are_masked_from_the_first() {
    let page = leaked(1);
    SharedInfo::new(page);
    assert_eq!(page.word16(0).unwrap().load(Ordering::Relaxed), u16::from_le_bytes([0, 1]));
}

#[test]
fn ticks_become_nanoseconds() {
    // 2 GHz: half a nanosecond a tick.
    let half = Sample { timestamp: 1000, system_time: 5, scale: 1 << 31, shift: 0 };
    assert_eq!(half.nanoseconds(3000), 1005);
    assert_eq!(Sample { shift: 1, ..half }.nanoseconds(3000), 2005);
    assert_eq!(Sample { shift: -1, ..half }.nanoseconds(3000), 505);
    assert_eq!(half.nanoseconds(900), 5, "a processor that lags behind does not turn time back");
    assert_eq!(Sample { shift: 127, ..half }.nanoseconds(u64::MAX), u64::MAX);
    assert_eq!(Sample { shift: i8::MIN, ..half }.nanoseconds(3000), 5);
}

#[test]
fn time_is_read_when_it_is_not_being_written() {
    let page = leaked(1);
    let shared = SharedInfo::new(page);
    let set = |at, value| page.word32(at).unwrap().store(value, Ordering::Relaxed);
    page.word64(SYSTEM_TIME).unwrap().store(42, Ordering::Relaxed);
    set(VERSION, 3);
    assert!(shared.sample().is_none());
    set(VERSION, 4);
    assert_eq!(shared.now(), Duration::from_nanos(42));
    set(TSC_TO_SYSTEM_MUL, u32::MAX);
    assert!(shared.now() > Duration::from_nanos(42));
}
