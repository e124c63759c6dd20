use proptest::{prelude::*, sample::select};

use super::*;
use crate::keys::{BackendFeatures, DiskInfo, RequestMaxima};

const ABLE: Capacity = Capacity {
    ring_pages: 16,
    queues: 4,
    persistent: true,
    block_segments: 255,
    request_bytes: 1_044_480,
    requests: 256,
    indirect_segments: 256,
};

fn reductions(agreement: &Agreement) -> Vec<(&'static str, u32, u32)> {
    agreement.reductions().map(|Reduction { key, offered, used }| (key, offered, used)).collect()
}

fn any_capacity() -> impl Strategy<Value = Capacity> {
    let counts = (1..=32_u32, 1..=256_u32, any::<bool>());
    (counts, 11..=255_u16, 45056..=1_044_480_u32, 1..1000_u32, 0..=4096_u16).prop_map(
        |((ring_pages, queues, persistent), block_segments, request_bytes, requests, indirect_segments)| {
            Capacity {
                ring_pages,
                queues,
                persistent,
                block_segments,
                request_bytes,
                requests,
                indirect_segments,
            }
        },
    )
}

proptest! {
    #[test]
    fn neither_end_gets_more_than_it_offered(own in any_capacity(), peer in any_capacity(), abi in select(&Abi::ALL)) {
        let agreement = Agreement::between(&own, &peer, abi);
        for end in [own, peer] {
            prop_assert!(agreement.ring_pages <= end.ring_pages && agreement.queues <= end.queues);
            prop_assert!(agreement.persistent <= end.persistent);
            let most = match agreement.mode {
                SegmentMode::Blocks => {
                    prop_assert!(agreement.max_request_bytes <= end.request_bytes);
                    prop_assert!(agreement.max_requests <= end.requests);
                    end.block_segments
                }
                SegmentMode::Indirect => end.indirect_segments,
                SegmentMode::Direct => 11,
            };
            prop_assert!((11..=most).contains(&agreement.max_segments));
        }
        prop_assert!(agreement.max_requests <= abi.ring_entries(agreement.ring_pages));
        prop_assert!(agreement.max_request_bytes <= u32::from(agreement.max_segments) * 4096);
        prop_assert!(agreement.max_request_bytes >= 45056, "the original request always passes");
    }

    #[test]
    fn both_ends_agree(own in any_capacity(), peer in any_capacity(), abi in select(&Abi::ALL)) {
        let (ours, theirs) = (Agreement::between(&own, &peer, abi), Agreement::between(&peer, &own, abi));
        prop_assert_eq!(Agreement { reductions: theirs.reductions, ..ours }, theirs);
    }

    #[test]
    fn every_reduction_is_one(own in any_capacity(), peer in any_capacity(), abi in select(&Abi::ALL)) {
        for reduction in Agreement::between(&own, &peer, abi).reductions() {
            prop_assert!(reduction.used < reduction.offered, "{reduction:?}");
        }
    }
}

#[test]
fn equals_reduce_nothing() {
    let agreement = Agreement::between(&ABLE, &ABLE, Abi::X86_64);
    assert_eq!(reductions(&agreement), []);
    assert_eq!((agreement.mode, agreement.max_segments), (SegmentMode::Blocks, 255));
    assert_eq!((agreement.max_request_bytes, agreement.max_requests), (1_044_480, 256));
}

#[test]
fn a_plain_peer_gets_the_original_protocol_and_the_log_says_so() {
    let agreement = Agreement::between(&ABLE, &Capacity::ORIGINAL, Abi::X86_64);
    assert_eq!((agreement.ring_pages, agreement.queues, agreement.persistent), (1, 1, false));
    assert_eq!((agreement.mode, agreement.max_segments), (SegmentMode::Direct, 11));
    assert_eq!((agreement.max_request_bytes, agreement.max_requests), (45056, 32));
    assert_eq!(
        reductions(&agreement),
        [
            ("max-ring-pages", 16, 1),
            ("multi-queue-max-queues", 4, 1),
            ("feature-persistent", 1, 0),
            ("max-request-segments", 255, 11),
            ("feature-max-indirect-segments", 256, 0),
        ]
    );
}

#[test]
fn a_stock_linux_backend_does_not_bound_the_requests_of_a_large_ring() {
    let linux =
        BackendFeatures { max_ring_pages: 16, max_indirect_segments: 256, ..BackendFeatures::ORIGINAL };
    let agreement = Agreement::between(&ABLE, &linux.capacity(), Abi::X86_64);
    assert_eq!((agreement.mode, agreement.max_segments), (SegmentMode::Indirect, 256));
    assert_eq!((agreement.max_request_bytes, agreement.max_requests), (1 << 20, 512));
}

#[test]
fn eleven_segments_are_no_extension() {
    let stock2010 = Capacity { block_segments: 11, ..ABLE };
    assert_eq!(Agreement::between(&ABLE, &stock2010, Abi::Arm).mode, SegmentMode::Indirect);
    let peer = Capacity { block_segments: 12, ..ABLE };
    assert_eq!(Agreement::between(&ABLE, &peer, Abi::Arm).mode, SegmentMode::Blocks);
    let peer = Capacity { block_segments: 11, indirect_segments: 11, ..ABLE };
    assert_eq!(Agreement::between(&ABLE, &peer, Abi::Arm).mode, SegmentMode::Direct);
}

#[test]
fn the_32_bit_abi_has_24_segments_in_blocks() {
    let agreement = Agreement::between(&ABLE, &ABLE, Abi::X86_32);
    assert_eq!((agreement.mode, agreement.max_segments), (SegmentMode::Blocks, 24));
    assert!(reductions(&agreement).contains(&("max-request-segments", 255, 24)));
}

#[test]
fn a_forced_mode_is_that_one_or_direct() {
    for mode in [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect] {
        let forced = ABLE.only(mode);
        assert_eq!(Agreement::between(&forced, &ABLE, Abi::X86_64).mode, mode);
        let plain = Agreement::between(&forced, &Capacity::ORIGINAL, Abi::X86_64);
        assert_eq!(plain.mode, SegmentMode::Direct);
        assert_eq!(mode.as_str().parse(), Ok(mode));
    }
    assert_eq!("fast".parse::<SegmentMode>(), Err(UnknownMode));
}

#[test]
fn limits_take_the_disk_as_it_is() {
    let maxima = RequestMaxima { requests: 64, segments: 100, bytes: 300_000 };
    let peer =
        BackendFeatures { request_maxima: Some(maxima), max_ring_pages: 4, ..BackendFeatures::ORIGINAL };
    let disk = BackendDisk {
        sectors: 1 << 20,
        sector_size: 4096,
        physical_sector_size: 4096,
        info: DiskInfo::READ_ONLY | DiskInfo::REMOVABLE,
    };
    let operations = Operations { flush: true, ..Operations::default() };
    let limits = Agreement::between(&ABLE, &peer.capacity(), Abi::X86_64).limits(&disk, operations);
    assert_eq!((limits.max_segments, limits.max_request_bytes, limits.max_requests), (100, 300_000, 64));
    assert_eq!((limits.max_in_ring(), limits.max_entries()), (100, 8));
    assert!(limits.read_only && limits.operations.flush && !limits.operations.barrier);
    assert_eq!((limits.sectors, limits.sector_size), (1 << 20, 4096));
}
