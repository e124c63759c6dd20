//! Every strategy, way of large requests and ABI carries the same bytes, and leaves nothing mapped that it must not.

use blkback::config::Strategy;
use blkif_proto::{Abi, Op, Segment, SegmentMode, Status};
use xen_platform::{Access, Lender, PAGE_SIZE};

use crate::guest::{Rig, Terms, pattern, strategies, whole};

/// Writes `count` pages at `sector`, reads them back elsewhere, compares.
fn round_trip(rig: &mut Rig, persistent: bool, count: usize, sector: u64) {
    let (from, to) =
        if persistent { (Access::ReadWrite, Access::ReadWrite) } else { (Access::Read, Access::ReadWrite) };
    let source = rig.pages(count, from, sector);
    assert_eq!(rig.run(Op::Write, sector, &whole(&source)), Status::OKAY);
    let target = rig.pages(count, to, 999);
    assert_eq!(rig.run(Op::Read, sector, &whole(&target)), Status::OKAY);
    let (mut sent, mut got) = (vec![0; count * PAGE_SIZE], vec![0; count * PAGE_SIZE]);
    source.mem().read(&mut sent);
    target.mem().read(&mut got);
    assert_eq!(sent, got);
    if !persistent {
        rig.give_back(source);
        rig.give_back(target);
    }
}

#[test]
fn every_strategy_mode_and_abi() {
    for (strategy, persistent) in strategies() {
        for mode in [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect] {
            for abi in Abi::ALL {
                let mut rig =
                    Rig::new(Terms { strategy, persistent, mode, abi, ring_pages: 2, ..Terms::default() });
                let most =
                    usize::from(rig.limits.max_segments).min(if abi == Abi::X86_64 { 600 } else { 60 });
                for (n, count) in
                    [1, 11, 12, 24, 25, 60, 255, 600].into_iter().filter(|c| *c <= most).enumerate()
                {
                    round_trip(&mut rig, persistent, count, n as u64 * 8 + 1);
                }
                // Once round the ring's end, whatever the requests' sizes.
                for n in 0..12 {
                    round_trip(&mut rig, persistent, (n * 5 % most).clamp(1, 17), 3);
                }
                rig.finish();
            }
        }
    }
}

#[test]
fn parts_of_pages_in_any_order_and_twice() {
    for (strategy, persistent) in strategies() {
        let mut rig = Rig::new(Terms { strategy, persistent, ..Terms::default() });
        let source = rig.pages(3, Access::ReadWrite, 5);
        let grefs = source.grants().to_vec();
        let part = |page: usize, first, sectors| Segment::part(grefs[page], first, sectors).unwrap();
        // The same page twice in one request is legal.
        let pieces = [part(2, 7, 1), part(0, 0, 3), part(1, 2, 6), part(0, 5, 2), part(2, 0, 1)];
        assert_eq!(rig.run(Op::Write, 100, &pieces), Status::OKAY);
        let mut expected = Vec::new();
        for piece in pieces {
            let page = grefs.iter().position(|gref| *gref == piece.gref).unwrap();
            let start = page * PAGE_SIZE + piece.offset();
            expected.extend((start..start + piece.bytes()).map(|at| pattern(5, at)));
        }
        let target = rig.pages(2, Access::ReadWrite, 6);
        let back = [
            Segment::part(target.grants()[1], 0, 8).unwrap(),
            Segment::part(target.grants()[0], 3, 5).unwrap(),
        ];
        assert_eq!(rig.run(Op::Read, 100, &back), Status::OKAY);
        let mut got = vec![0; 2 * PAGE_SIZE];
        target.mem().read(&mut got);
        assert_eq!(got[PAGE_SIZE..], expected[..PAGE_SIZE]);
        assert_eq!(got[3 * 512..PAGE_SIZE], expected[PAGE_SIZE..PAGE_SIZE + 5 * 512]);
        let untouched: Vec<u8> = (0..3 * 512).map(|at| pattern(6, at)).collect();
        assert_eq!(got[..3 * 512], untouched, "only what was named is written");
        rig.finish();
    }
}

/// Rule 21 and PROTOCOL.md 6.1: pages stay mapped up to the cap, writable, and all go at the end.
#[test]
fn persistent_pages_stay_within_their_cap() {
    for strategy in [Strategy::Persistent, Strategy::Direct] {
        let mut rig = Rig::new(Terms { strategy, persistent: true, cache_pages: 20, ..Terms::default() });
        let sets: Vec<_> = (0..4).map(|n| rig.pages(8, Access::ReadWrite, n)).collect();
        for round in 0..3 {
            for set in &sets {
                assert_eq!(rig.run(Op::Write, round * 64, &whole(set)), Status::OKAY);
                let kept = rig.stats.persistent_pages.get();
                assert!((8..=20).contains(&kept), "{kept} pages kept");
            }
        }
        for set in sets {
            rig.lender.release(set);
        }
        assert!(rig.lender.quarantined() <= 20);
        rig.finish();
    }
}

/// A grant that a request holds already is copied, not shared; a request larger than the whole cache works.
#[test]
fn a_cache_that_is_too_small_or_in_use() {
    for strategy in [Strategy::Persistent, Strategy::Direct] {
        for cache_pages in [0, 1, 3] {
            let mut rig = Rig::new(Terms { strategy, persistent: true, cache_pages, ..Terms::default() });
            let pages = rig.pages(8, Access::ReadWrite, 1);
            let twice: Vec<_> = whole(&pages).into_iter().take(5).flat_map(|s| [s, s]).collect();
            for _ in 0..3 {
                assert_eq!(rig.run(Op::Write, 0, &twice), Status::OKAY);
                assert_eq!(rig.run(Op::Write, 0, &whole(&pages)), Status::OKAY);
            }
            assert!(rig.machine.leaks().mapped as usize <= cache_pages + 1, "the ring and the cache");
            rig.finish();
        }
    }
}

/// Rule 22: without persistent grants everything is unmapped before the answer, also when the disk fails. (`give_back` fails
/// while the backend maps a page.)
#[test]
fn pages_are_let_go_before_the_answer_also_on_errors() {
    for (strategy, _) in strategies() {
        let mut rig = Rig::new(Terms { strategy, mode: SegmentMode::Indirect, ..Terms::default() });
        rig.faults.fail_reads(Some(nix::errno::Errno::EIO));
        rig.faults.fail_writes(Some(nix::errno::Errno::ENOSPC));
        let pages = rig.pages(40, Access::ReadWrite, 1);
        assert_eq!(rig.run(Op::Read, 0, &whole(&pages)), Status::ERROR);
        rig.give_back(pages);
        let pages = rig.pages(40, Access::Read, 1);
        assert_eq!(rig.run(Op::Write, 0, &whole(&pages)), Status::ERROR);
        rig.give_back(pages);
        rig.finish();
    }
}

#[test]
fn sectors_of_4096_bytes() {
    let mut rig = Rig::new(Terms { sector_size: 4096, ..Terms::default() });
    let pages = rig.pages(2, Access::ReadWrite, 1);
    assert_eq!(rig.run(Op::Write, 8, &whole(&pages)), Status::OKAY);
    assert_eq!(rig.run(Op::Write, 4, &whole(&pages)), Status::ERROR, "inside a sector");
    let half = [Segment::part(pages.grants()[0], 0, 4).unwrap()];
    assert_eq!(rig.run(Op::Write, 8, &half), Status::ERROR, "half a sector");
    rig.finish();
}
