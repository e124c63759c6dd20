use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::keys::tests::{ALL, Dir, GARBAGE};

fn single_ring(more: &[(&str, &str)]) -> Dir {
    let mut dir = Dir::of(&[("protocol", "x86_64-abi"), ("ring-ref", "8"), ("event-channel", "15")]);
    for (key, value) in more {
        dir = dir.with(key, value);
    }
    dir
}

fn frontend(dir: &Dir) -> Result<FrontendRecord, RecordError> {
    FrontendRecord::parse(dir.get(), &ALL)
}

fn any_frontend() -> impl Strategy<Value = FrontendRecord> {
    let dialects = [RingDialect::Order, RingDialect::NumPages, RingDialect::Pages2010];
    let maxima = (1..=256_u32, 1..=24_u16, 45056..=1_044_480_u32)
        .prop_map(|(requests, segments, bytes)| RequestMaxima { requests, segments, bytes });
    let shape = (select(dialects.to_vec()), 0..=5_u32, 1..=8_usize);
    (select(&Abi::ALL), any::<bool>(), option::of(maxima), shape).prop_flat_map(
        |(abi, persistent, request_maxima, (dialect, order, queues))| {
            let queue = (vec(any::<u32>().prop_map(GrantRef), 1 << order), any::<u32>())
                .prop_map(|(ring_refs, event_channel)| QueueRecord { ring_refs, event_channel });
            // One page looks the same in every dialect, and is read as the first.
            let dialect = if order == 0 { RingDialect::Order } else { dialect };
            vec(queue, queues).prop_map(move |queues| FrontendRecord {
                abi,
                dialect,
                queues,
                persistent,
                request_maxima,
            })
        },
    )
}

proptest! {
    #[test]
    fn frontend_records_round_trip(record in any_frontend()) {
        let dir = Dir::emitted(|put| record.emit(put));
        prop_assert_eq!(frontend(&dir), Ok(record.clone()));
        let several = record.queues.len() > 1;
        prop_assert_eq!(dir.0.contains_key("event-channel"), !several);
        prop_assert!(dir.keys().iter().all(|key| key.contains('/') || is_connection_key(key)), "{:?}", dir.keys());
    }

    #[test]
    fn what_an_earlier_driver_left_is_stale(old in any_frontend(), new in any_frontend()) {
        // Write the old record, delete what the new one calls stale, write the new one: only the new one is to be seen.
        let old = Dir::emitted(|put| old.emit(put)).with("state", "1").with("backend", "/x");
        let top: Vec<&str> = old.0.keys().map(|key| key.split('/').next().unwrap()).collect();
        let stale = new.stale(top);
        let kept = old.0.iter().filter(|(key, _)| !stale.contains(&key.split('/').next().unwrap()));
        let mut left: BTreeMap<String, String> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
        let written = Dir::emitted(|put| new.emit(put));
        left.append(&mut written.0.clone());
        prop_assert_eq!(left, written.with("state", "1").with("backend", "/x").0);
    }

    #[test]
    fn garbage_in_any_key_is_an_error_that_names_it(
        record in any_frontend(), pick: prop::sample::Index, garbage in select(&GARBAGE),
    ) {
        let mut dir = Dir::emitted(|put| record.emit(put));
        let key = pick.get(&dir.keys()).to_string();
        dir.0.insert(key.clone(), garbage.to_owned());
        let error = frontend(&dir).unwrap_err();
        prop_assert_eq!(error.key(), &key);
        prop_assert!(error.to_string().contains(&key));
        prop_assert!(error.to_string().len() < 200);
    }
}

#[test]
fn values_that_are_not_text_are_errors() {
    let bytes = |key: &str| (key == "protocol").then_some([0xFF_u8, 0xFE]);
    assert_eq!(FrontendRecord::parse(bytes, &ALL).unwrap_err().key(), "protocol");
    let long = "7".repeat(4000);
    let error = frontend(&single_ring(&[("event-channel", &long)])).unwrap_err();
    assert!(error.to_string().len() < 200, "a long value is shown shortened");
}

#[test]
fn an_absent_protocol_is_the_backends_default_and_an_unknown_one_is_refused() {
    let mut dir = single_ring(&[]);
    dir.0.remove("protocol");
    assert_eq!(frontend(&dir).unwrap().abi, Abi::DEFAULT_BACKEND);
    assert_eq!(frontend(&dir.with("protocol", "")).unwrap().abi, Abi::DEFAULT_BACKEND);
    assert_eq!(frontend(&single_ring(&[("protocol", "ia64-abi")])).unwrap_err().key(), "protocol");
}

#[test]
fn empty_values_are_absent_ones() {
    let grub = single_ring(&[("ring-ref", ""), ("event-channel", "")]);
    assert_eq!(frontend(&grub), Err(RecordError::Missing { key: "ring-ref".into() }));
    let some =
        single_ring(&[("ring-page-order", ""), ("multi-queue-num-queues", ""), ("feature-persistent", "")]);
    let record = frontend(&some).unwrap();
    assert_eq!((record.ring_pages(), record.queues.len(), record.persistent), (1, 1, false));
}

#[test]
fn each_dialect_has_its_own_names() {
    let refs =
        |dir: &Dir| frontend(dir).unwrap().queues[0].ring_refs.iter().map(|gref| gref.0).collect::<Vec<_>>();
    let numbered = [("ring-ref0", "100"), ("ring-ref1", "101"), ("ring-ref2", "102"), ("ring-ref3", "103")];

    let order = single_ring(&numbered).with("ring-page-order", "2");
    assert_eq!(refs(&order), [100, 101, 102, 103]);
    let pages = single_ring(&numbered).with("num-ring-pages", "4");
    assert_eq!(refs(&pages), [100, 101, 102, 103]);
    let of2010 = single_ring(&numbered).with("ring-pages", "3");
    assert_eq!(refs(&of2010), [8, 101, 102], "page 0 is ring-ref, and any number of pages will do");
    let both = single_ring(&numbered)
        .with("num-ring-pages", "4")
        .with("ring-page-order", "1")
        .with("ring-pages", "3");
    assert_eq!(refs(&both), [100, 101], "the order is preferred");
    assert_eq!(refs(&single_ring(&numbered)), [8], "an earlier driver's references do not count");
}

#[test]
fn a_key_for_one_page_takes_either_name() {
    for key in [("ring-page-order", "0"), ("num-ring-pages", "1")] {
        let mut dir = Dir::of(&[key, ("ring-ref0", "100"), ("event-channel", "1"), ("protocol", "arm-abi")]);
        assert_eq!(frontend(&dir).unwrap().queues[0].ring_refs, [GrantRef(100)], "{key:?}");
        dir = dir.with("ring-ref", "8");
        assert_eq!(frontend(&dir).unwrap().queues[0].ring_refs, [GrantRef(8)], "{key:?}");
    }
    let bare = Dir::of(&[("ring-ref0", "100"), ("event-channel", "1"), ("protocol", "arm-abi")]);
    assert_eq!(frontend(&bare), Err(RecordError::Missing { key: "ring-ref".into() }));
}

#[test]
fn more_than_was_offered_is_refused() {
    let offered = BackendFeatures { max_ring_pages: 4, max_queues: 2, ..ALL };
    for (key, value, min, max) in [
        ("ring-page-order", 3, 0, 2),
        ("num-ring-pages", 8, 1, 4),
        ("num-ring-pages", 0, 1, 4),
        ("ring-pages", 5, 1, 4),
        ("multi-queue-num-queues", 3, 1, 2),
        ("multi-queue-num-queues", 0, 1, 2),
        ("max-request-segments", 256, 1, 255),
        ("max-requests", 257, 1, 256),
        ("max-request-size", 1_044_481, 1, 1_044_480),
    ] {
        let dir = single_ring(&[(key, &value.to_string())]);
        let error = RecordError::OutOfRange { key: key.into(), value, min, max };
        assert_eq!(FrontendRecord::parse(dir.get(), &offered), Err(error));
    }
    let three = single_ring(&[("num-ring-pages", "3")]);
    assert_eq!(FrontendRecord::parse(three.get(), &offered).unwrap_err().key(), "num-ring-pages");
    // 25 segments would overlap on i386.
    let i386 = single_ring(&[("protocol", "x86_32-abi"), ("max-request-segments", "25")]);
    let error = RecordError::OutOfRange { key: "max-request-segments".into(), value: 25, min: 1, max: 24 };
    assert_eq!(frontend(&i386), Err(error));
}

#[test]
fn a_frontend_of_2010_is_welcome_at_a_backend_without_the_extension() {
    let dir = single_ring(&[
        ("ring-pages", "1"),
        ("max-requests", "32"),
        ("max-request-segments", "11"),
        ("max-request-size", "40960"),
    ]);
    let record = FrontendRecord::parse(dir.get(), &BackendFeatures::ORIGINAL).unwrap();
    assert_eq!(record.request_maxima, None);
    // And where there is the extension, eleven segments mean that it is not used.
    let record = FrontendRecord::parse(dir.get(), &ALL).unwrap();
    let agreement = Agreement::between(&ALL.capacity(), &record.capacity(), record.abi);
    assert_eq!(agreement.mode, SegmentMode::Indirect);
}

#[test]
fn windows_counts_one_queue_at_the_top() {
    let record = frontend(&single_ring(&[("multi-queue-num-queues", "1")])).unwrap();
    assert_eq!(record.queues, [QueueRecord { ring_refs: vec![GrantRef(8)], event_channel: 15 }]);
}

#[test]
fn an_agreement_written_down_is_the_same_at_the_other_end() {
    let able = Capacity { ring_pages: 4, queues: 2, ..ALL.capacity() };
    for (mode, abi) in [
        (SegmentMode::Blocks, Abi::X86_64),
        (SegmentMode::Indirect, Abi::Arm),
        (SegmentMode::Blocks, Abi::X86_32),
    ] {
        let ours = Agreement::between(&able.only(mode), &ALL.capacity(), abi);
        let queue =
            |n| QueueRecord { ring_refs: vec![GrantRef(n); ours.ring_pages as usize], event_channel: n };
        let record = FrontendRecord::new(&ours, ALL.dialect, (0..ours.queues).map(queue).collect());
        let dir = Dir::emitted(|put| record.emit(put));
        let read = frontend(&dir).unwrap();
        let theirs = Agreement::between(&ALL.capacity(), &read.capacity(), read.abi);
        assert_eq!((ours.mode, ours.max_segments), (mode, theirs.max_segments));
        assert_eq!(
            (ours.max_request_bytes, ours.max_requests),
            (theirs.max_request_bytes, theirs.max_requests)
        );
        assert_eq!(
            (ours.ring_pages, ours.queues, ours.mode),
            (theirs.ring_pages, theirs.queues, theirs.mode)
        );
    }
}
