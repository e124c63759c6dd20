//! What a guest can do wrong, and what it gets for it: a status for a request, the end of the queue for a ring.

use blkback::{
    config::Strategy,
    data::handle::{Order, Report},
};
use blkif_proto::{GrantRef, Op, Opcode, Segment, SegmentMode, Status};
use nix::errno::Errno;
use ringbuf::{Field, Index, RingMem};
use xen_platform::{Access, EventChannels, Lender};

use crate::guest::{Rig, SECTORS, Terms, strategies, whole};

/// A request of raw bytes in the 64-bit layout: operation, the byte after it, sector, segments.
fn raw(op: u8, arg: u8, sector: u64, segments: &[(u32, u8, u8)]) -> [u8; 112] {
    let mut entry = [0; 112];
    (entry[0], entry[1]) = (op, arg);
    entry[8..16].copy_from_slice(&0xFEED_FACE_CAFE_BEEFu64.to_le_bytes());
    entry[16..24].copy_from_slice(&sector.to_le_bytes());
    for (n, (gref, first, last)) in segments.iter().enumerate() {
        let at = 24 + n * 8;
        entry[at..at + 4].copy_from_slice(&gref.to_le_bytes());
        (entry[at + 4], entry[at + 5]) = (*first, *last);
    }
    entry
}

fn send(rig: &mut Rig, entry: &[u8; 112]) -> (Opcode, Status) {
    rig.push_raw(entry);
    rig.kick();
    rig.settle();
    let answer = rig.answer(1).expect("an answer");
    assert_eq!(answer.id, 0xFEED_FACE_CAFE_BEEF, "all 64 bits come back");
    assert_eq!(rig.answer(1), None);
    (answer.op, answer.status)
}

#[test]
fn bad_requests_get_a_status_and_the_ring_goes_on() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    let gref = pages.grants()[0].0;
    let page = [(gref, 0, 7)];
    let cases: &[(&str, [u8; 112], Status)] = &[
        ("reserved operation", raw(4, 0, 0, &[]), Status::NOT_SUPPORTED),
        ("unknown operation", raw(200, 1, 0, &page), Status::NOT_SUPPORTED),
        ("indirect on a direct connection", raw(6, 0, 0, &[]), Status::NOT_SUPPORTED),
        ("read of nothing", raw(0, 0, 0, &[]), Status::ERROR),
        ("12 segments", raw(0, 12, 0, &page), Status::ERROR),
        ("255 segments", raw(1, 255, 0, &page), Status::ERROR),
        ("first after last", raw(0, 1, 0, &[(gref, 5, 4)]), Status::ERROR),
        ("last beyond the page", raw(0, 1, 0, &[(gref, 0, 8)]), Status::ERROR),
        ("beyond the end", raw(0, 1, SECTORS - 7, &page), Status::ERROR),
        ("sector near 2^64", raw(0, 1, u64::MAX - 3, &page), Status::ERROR),
        ("foreign grant", raw(0, 1, 0, &[(gref ^ 0x5555_0000, 0, 7)]), Status::ERROR),
        ("grant 0", raw(1, 1, 0, &[(0, 0, 7)]), Status::ERROR),
        ("discard beyond the end", raw(5, 0, SECTORS, &[(1, 0, 0)]), Status::ERROR),
        ("discard of 2^64 - 1", raw(5, 0, 1, &[(u32::MAX, 255, 255), (0, 0, 0)]), Status::ERROR),
    ];
    for (name, entry, status) in cases {
        let mut entry = *entry;
        if *name == "discard of 2^64 - 1" {
            entry[24..32].fill(0xFF);
        }
        let (op, got) = send(&mut rig, &entry);
        assert_eq!(got, *status, "{name}");
        assert_eq!(op, Opcode(if entry[0] == 6 { entry[1] } else { entry[0] }), "{name}");
    }
    assert_eq!(rig.stats.failures(), cases.len() as u64);
    assert_eq!(rig.run(Op::Write, 0, &whole(&pages)), Status::OKAY, "the ring goes on");
    rig.give_back(pages);
    rig.finish();
}

/// Rules 4, 5 and 17: the handle is noise, and so is the sector of an empty flush.
#[test]
fn noise_is_ignored() {
    let mut rig = Rig::new(Terms::default());
    for op in [2, 3] {
        let mut flush = raw(op, 0, u64::MAX, &[(77, 9, 3)]);
        flush[2..4].fill(0xAA);
        assert_eq!(send(&mut rig, &flush), (Opcode(op), Status::OKAY));
    }
    let empty = raw(5, 0, 5, &[]);
    assert_eq!(send(&mut rig, &empty), (Opcode::DISCARD, Status::OKAY), "a discard of nothing");
    rig.finish();
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    for (strategy, persistent) in strategies() {
        let terms = Terms { strategy, persistent, read_only: true, ..Terms::default() };
        let mut rig = Rig::new(terms);
        let pages = rig.pages(1, Access::ReadWrite, 1);
        for op in [Op::Write, Op::WriteBarrier, Op::Flush] {
            assert_eq!(rig.run(op, 0, &whole(&pages)), Status::ERROR, "{op:?} with data");
        }
        assert_eq!(rig.run(Op::Discard { sectors: 8, secure: false }, 0, &[]), Status::ERROR);
        assert_eq!(rig.run(Op::Flush, 0, &[]), Status::OKAY);
        assert_eq!(rig.run(Op::Read, 0, &whole(&pages)), Status::OKAY);
        let mut got = [1; 4096];
        pages.mem().read(&mut got);
        assert_eq!(got, [0; 4096]);
        rig.finish();
    }
}

/// Reads into pages granted read-only must fail, not fault.
#[test]
fn grants_of_the_wrong_kind() {
    for (strategy, persistent) in strategies() {
        let mut rig = Rig::new(Terms { strategy, persistent, ..Terms::default() });
        let pages = rig.pages(2, Access::Read, 1);
        assert_eq!(rig.run(Op::Read, 0, &whole(&pages)), Status::ERROR, "{strategy:?} {persistent}");
        // One bad page spoils the request, and the good ones are let go of.
        let good = rig.pages(3, Access::ReadWrite, 1);
        let mut segments = whole(&good);
        segments.insert(1, Segment::page(GrantRef(0x7FFF_FFFF)));
        assert_eq!(rig.run(Op::Write, 0, &segments), Status::ERROR);
        assert_eq!(rig.run(Op::Read, 0, &segments), Status::ERROR);
        if !persistent {
            rig.give_back(good);
        }
        rig.give_back(pages);
        rig.finish();
    }
}

#[test]
fn indirect_requests_that_lie() {
    for (strategy, persistent) in strategies() {
        let mut rig =
            Rig::new(Terms { strategy, persistent, mode: SegmentMode::Indirect, ..Terms::default() });
        let indirect = |op: u8, segments: u16, gref: u32| {
            let mut entry = [0; 112];
            (entry[0], entry[1]) = (6, op);
            entry[2..4].copy_from_slice(&segments.to_le_bytes());
            entry[8..16].copy_from_slice(&0xFEED_FACE_CAFE_BEEFu64.to_le_bytes());
            entry[28..32].copy_from_slice(&gref.to_le_bytes());
            entry
        };
        // Descriptors that are pattern, not segments.
        let garbage = rig.pages(1, Access::ReadWrite, 3);
        let gref = garbage.grants()[0].0;
        assert_eq!(send(&mut rig, &indirect(0, 20, gref)), (Opcode::READ, Status::ERROR));
        assert_eq!(send(&mut rig, &indirect(1, 0, gref)), (Opcode::WRITE, Status::ERROR));
        assert_eq!(send(&mut rig, &indirect(1, 4097, gref)), (Opcode::WRITE, Status::ERROR));
        assert_eq!(send(&mut rig, &indirect(0, 20, 0x7000_0000)), (Opcode::READ, Status::ERROR));
        assert_eq!(send(&mut rig, &indirect(3, 20, gref)), (Opcode::FLUSH, Status::ERROR));
        assert_eq!(send(&mut rig, &indirect(6, 20, gref)), (Opcode::INDIRECT, Status::ERROR));
        if !persistent {
            rig.give_back(garbage);
        }
        rig.finish();
    }
}

#[test]
fn the_disks_errors_become_statuses() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::EOPNOTSUPP] {
        rig.faults.fail_reads(Some(errno));
        rig.faults.fail_writes(Some(errno));
        rig.faults.fail_flushes(Some(errno));
        assert_eq!(rig.run(Op::Read, 0, &whole(&pages)), Status::ERROR);
        assert_eq!(rig.run(Op::Write, 0, &whole(&pages)), Status::ERROR);
        assert_eq!(rig.run(Op::Flush, 0, &[]), Status::ERROR);
        assert_eq!(rig.run(Op::WriteBarrier, 0, &whole(&pages)), Status::ERROR);
    }
    rig.faults.fail_discards(Some(Errno::EOPNOTSUPP));
    let discard = Op::Discard { sectors: 8, secure: false };
    assert_eq!(rig.run(discard, 0, &[]), Status::NOT_SUPPORTED, "guests stop asking then");
    rig.faults.fail_discards(Some(Errno::EIO));
    assert_eq!(rig.run(discard, 0, &[]), Status::ERROR);
    rig.faults.fail_discards(None);
    assert_eq!(rig.run(discard, 0, &[]), Status::OKAY);
    assert_eq!(rig.run(Op::Discard { sectors: 8, secure: true }, 0, &[]), Status::NOT_SUPPORTED);
    rig.finish();
}

/// A disk that shrinks while it is served: its present size counts.
#[test]
fn impossible_indices_end_the_queue_and_nothing_else() {
    for wrong in [33, 1000, u32::MAX, 1 << 31] {
        let mut rig = Rig::new(Terms::default());
        rig.ring.mem().store(Field::ReqProd, Index::new(wrong));
        rig.events.notify(rig.port).unwrap();
        rig.settle();
        let report = rig.reports.try_recv().unwrap();
        assert!(
            matches!(&report, Report::Broken(key, text) if *key == rig.key && !text.is_empty()),
            "{report:?}"
        );
        // For good, also when the index becomes possible again.
        rig.ring.mem().store(Field::ReqProd, Index::new(0));
        rig.events.notify(rig.port).unwrap();
        rig.settle();
        assert!(rig.reports.try_recv().is_err());
        rig.finish();
    }
}

#[test]
fn a_request_without_all_its_blocks_ends_the_queue() {
    let mut rig = Rig::new(Terms { mode: SegmentMode::Blocks, ..Terms::default() });
    rig.push_raw(&raw(0, 100, 0, &[]));
    rig.kick();
    rig.settle();
    assert!(matches!(rig.reports.try_recv().unwrap(), Report::Broken(..)));
    rig.finish();
}

/// Requests taken before the offence are still answered, and drained.
#[test]
fn a_broken_queue_drains_what_it_took() {
    let mut rig = Rig::new(Terms::default());
    let pages = rig.pages(1, Access::ReadWrite, 1);
    rig.faults.hold(true);
    rig.push(Op::Write, 0, &whole(&pages));
    rig.kick();
    rig.settle();
    rig.ring.mem().store(Field::ReqProd, Index::new(500));
    rig.events.notify(rig.port).unwrap();
    rig.settle();
    assert!(matches!(rig.reports.try_recv().unwrap(), Report::Broken(..)));
    rig.order(Order::Drain(rig.key));
    rig.settle();
    assert!(rig.reports.try_recv().is_err(), "not before the disk is done");
    rig.faults.hold(false);
    rig.settle();
    assert!(matches!(rig.reports.try_recv().unwrap(), Report::Drained(_)));
    rig.give_back(pages);
}

/// Any bytes at all: an answer for each, and the queue lives.
#[test]
fn random_entries() {
    for (strategy, mode) in [
        (Strategy::Direct, SegmentMode::Direct),
        (Strategy::Copy, SegmentMode::Indirect),
        (Strategy::Persistent, SegmentMode::Indirect),
    ] {
        let mut rig = Rig::new(Terms { strategy, mode, persistent: true, ..Terms::default() });
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        for round in 0..2000u32 {
            let mut entry = [0; 112];
            for chunk in entry.chunks_mut(8) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                chunk.copy_from_slice(&seed.to_le_bytes()[..chunk.len()]);
            }
            entry[0] %= 8;
            if round % 2 == 0 {
                entry[1] %= 12;
            }
            let id = u64::from_le_bytes(entry[8..16].try_into().unwrap());
            rig.push_raw(&entry);
            rig.kick();
            rig.settle();
            assert_eq!(rig.answer(1).expect("an answer").id, id);
        }
        assert!(rig.reports.try_recv().is_err());
        rig.finish();
    }
}

/// A guest that dies with requests in flight: they end, and nothing of it stays mapped.
#[test]
fn a_guest_that_dies() {
    for (strategy, persistent) in strategies() {
        let mut rig = Rig::new(Terms { strategy, persistent, ..Terms::default() });
        let pages = rig.pages(4, Access::ReadWrite, 1);
        rig.faults.hold(true);
        rig.push(Op::Read, 0, &whole(&pages));
        rig.kick();
        rig.settle();
        let dom = rig.machine.domains()[1];
        rig.machine.destroy_domain(dom).unwrap();
        rig.faults.hold(false);
        rig.order(Order::Drain(rig.key));
        rig.settle();
        assert!(rig.reports.try_iter().any(|report| matches!(report, Report::Drained(_))));
        assert_eq!(rig.machine.leaks().mapped, 0, "{strategy:?} {persistent}");
        rig.lender.release(pages);
    }
}
