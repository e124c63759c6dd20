use super::*;
use crate::{
    Lender as _,
    bare::start::pv::tests::machine_frame,
    bare::{
        hypercall::tests::PEER,
        tests::{Bed, POOL, POOL_AT, world},
    },
};

/// The entry of a reference, as Xen sees it: flags, domain, frame.
fn entry_of(bed: &Bed, gref: GrantRef) -> (u16, u16, u32) {
    let entry = bed.world.machine.grants.entry(gref).unwrap();
    let short = |at| entry.word16(at).unwrap().load(Ordering::SeqCst);
    (short(0), short(2), entry.word32(4).unwrap().load(Ordering::SeqCst))
}

/// The peer maps the page, or lets go of it.
fn map(bed: &Bed, gref: GrantRef, mapped: bool) {
    let flags = bed.world.machine.grants.entry(gref).unwrap().word16(0).unwrap();
    if mapped {
        flags.fetch_or(1 << 3, Ordering::SeqCst)
    } else {
        flags.fetch_and(!(3 << 3), Ordering::SeqCst)
    };
}

fn lender(bed: &Bed) -> Lender {
    Lender::new(bed.world.machine.clone(), PEER)
}

#[test]
fn lent_pages_have_entries_and_taken_back_ones_none() {
    let bed = world();
    let mut lender = lender(&bed);
    let mut pages = lender.alloc(2).unwrap();
    assert!(pages.grants().is_empty());
    lender.lend(&mut pages, Access::Read).unwrap();
    let grants = pages.grants().to_vec();
    let frame = |page| u32::try_from(machine_frame(POOL_AT + page)).unwrap();
    assert_eq!(grants, [GrantRef(8), GrantRef(9)], "the first 8 are the tool stack's");
    assert_eq!(entry_of(&bed, grants[0]), (1 | 1 << 2, PEER.0, frame(0)));
    assert_eq!(entry_of(&bed, grants[1]), (1 | 1 << 2, PEER.0, frame(1)));
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    assert_eq!(entry_of(&bed, grants[1]).0, 1);
    lender.reclaim(&mut pages).unwrap();
    assert_eq!((entry_of(&bed, grants[0]).0, entry_of(&bed, grants[1]).0), (0, 0));
    lender.release(pages);
    assert_eq!(bed.world.machine.pool.take(POOL).unwrap().count(), POOL, "all are back");
}

#[test]
fn what_the_peer_maps_stays_lent() {
    let bed = world();
    let mut lender = lender(&bed);
    let mut pages = lender.alloc(3).unwrap();
    lender.lend(&mut pages, Access::Read).unwrap();
    let grants = pages.grants().to_vec();
    map(&bed, grants[1], true);
    assert_eq!(lender.reclaim(&mut pages), Err(GrantError::Busy(grants[1])));
    assert_eq!(lender.lend(&mut pages, Access::ReadWrite), Err(GrantError::Busy(grants[1])));
    assert_eq!(pages.lent(), Some(Access::Read));
    assert_eq!(grants.iter().map(|gref| entry_of(&bed, *gref).0).collect::<Vec<_>>(), [5, 13, 5]);
    map(&bed, grants[1], false);
    assert_eq!(lender.reclaim(&mut pages), Ok(()));
}

#[test]
fn a_page_that_the_peer_keeps_is_not_used_again_until_it_lets_go() {
    let bed = world();
    let mut lender = lender(&bed);
    let mut pages = lender.alloc(POOL).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    let kept = pages.grants()[5];
    map(&bed, kept, true);
    lender.release(pages);
    assert_eq!(lender.quarantined(), 1);
    assert_eq!(lender.alloc(POOL).map(drop), Err(GrantError::Exhausted));
    assert_eq!(lender.alloc(POOL - 6).unwrap().count(), POOL - 6, "all but those below it");
    map(&bed, kept, false);
    assert_eq!(lender.quarantined(), 0);
    assert_eq!(lender.alloc(6).unwrap().count(), 6);
}

#[test]
fn a_lender_that_is_gone_leaves_kept_pages_out_of_use() {
    let bed = world();
    let mut first = lender(&bed);
    let mut pages = first.alloc(1).unwrap();
    first.lend(&mut pages, Access::ReadWrite).unwrap();
    map(&bed, pages.grants()[0], true);
    first.release(pages);
    drop(first);
    assert_eq!(lender(&bed).alloc(POOL).map(drop), Err(GrantError::Exhausted));
}

#[test]
fn frames_too_large_for_an_entry_are_refused() {
    let bed = world();
    let grants = bed.world.machine.grants;
    assert_eq!(grants.permit(GrantRef(8), PEER, 1 << 32, Access::Read), Err(GrantError::Exhausted));
    let outside = GrantRef(u32::try_from(grants.len()).unwrap());
    assert_eq!(grants.permit(outside, PEER, 1, Access::Read), Err(GrantError::BadRef(outside)));
    assert_eq!(grants.revoke(GrantRef(u32::MAX)), Err(GrantError::BadRef(GrantRef(u32::MAX))));
}
