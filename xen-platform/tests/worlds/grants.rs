//! Rules about grants.

use blkif_proto::GrantRef;
use ringbuf::RingPages;
use xen_platform::{
    Access, BackWorld, CopyOp, DomId, FrontWorld, GrantError, Lender, Mapper, Mapping, PAGE_SIZE, Pages,
    grant::CopyEnd,
};

use crate::lab::{Lab, Pair};

type LenderOf<L> = <<L as Lab>::World as FrontWorld>::Lender;
type MapperOf<L> = <<L as Lab>::World as BackWorld>::Mapper;

fn ends<L: Lab>(lab: &L) -> (Pair<L>, LenderOf<L>, MapperOf<L>) {
    let pair = Pair::new(lab);
    let lender = pair.front.lender(DomId::DOM0).unwrap();
    let mapper = pair.back.mapper().unwrap();
    (pair, lender, mapper)
}

fn lent(lender: &mut impl Lender, count: usize, access: Access) -> Pages {
    let mut pages = lender.alloc(count).unwrap();
    lender.lend(&mut pages, access).unwrap();
    pages
}

fn copy(from: DomId, gref: GrantRef, offset: u32, local: CopyEnd<'_>) -> CopyOp<'_> {
    CopyOp { from, gref, offset, local, status: Ok(()) }
}

fn bytes_reach_the_other_end(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let pages = lent(&mut lender, 2, Access::ReadWrite);
    pages.mem().part(PAGE_SIZE, 5).unwrap().write(b"hello");
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, pages.grants(), Access::ReadWrite, &mut mapping).unwrap();
    let mut seen = [0; 5];
    mapping.page(1).unwrap().read(&mut seen);
    assert_eq!(&seen, b"hello");
    mapping.page(0).unwrap().write(b"there");
    pages.mem().read(&mut seen);
    assert_eq!(&seen, b"there");
    assert!(mapping.page(2).is_none());
}

fn pages_come_zeroed(lab: &impl Lab) {
    let (_, mut lender, _) = ends(lab);
    for _ in 0..2 {
        let pages = lender.alloc(200).unwrap();
        let mut bytes = vec![1; pages.mem().len()];
        pages.mem().read(&mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0));
        pages.mem().write(&vec![0xAA; pages.mem().len()]);
        lender.release(pages);
    }
}

fn only_what_was_granted_can_be_mapped(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 1, Access::ReadWrite);
    let gref = pages.grants()[0];
    let mut mapping = mapper.mapping();
    for other in [GrantRef(0), GrantRef(gref.0 ^ 1), GrantRef(100_000), GrantRef(u32::MAX)] {
        let refused = mapper.map(pair.guest, &[other], Access::Read, &mut mapping);
        assert_eq!(refused, Err(GrantError::BadRef(other)));
    }
    lender.reclaim(&mut pages).unwrap();
    assert!(pages.grants().is_empty());
    let refused = mapper.map(pair.guest, &[gref], Access::Read, &mut mapping);
    assert_eq!(refused, Err(GrantError::BadRef(gref)));
    assert!(mapping.is_empty());
}

fn only_the_named_domain_can_map(lab: &impl Lab) {
    let (pair, mut lender, _) = ends(lab);
    let pages = lent(&mut lender, 1, Access::ReadWrite);
    let stranger = lab.world(lab.guest());
    let mut mapper = stranger.mapper().unwrap();
    let mut mapping = mapper.mapping();
    let refused = mapper.map(pair.guest, pages.grants(), Access::Read, &mut mapping);
    assert_eq!(refused, Err(GrantError::BadRef(pages.grants()[0])));
}

fn nobody_lends_for_a_domain_that_is_not_there(lab: &impl Lab) {
    let (_, _, mut mapper) = ends(lab);
    let mut mapping = mapper.mapping();
    for dom in [DomId(77), DomId(u16::MAX), DomId::DOM0] {
        let refused = mapper.map(dom, &[GrantRef(8)], Access::Read, &mut mapping);
        assert_eq!(refused, Err(GrantError::NoDomain(dom)));
    }
    assert!(lab.world(DomId(77)).lender(DomId::DOM0).is_err());
}

fn read_only_stays_read_only(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let pages = lent(&mut lender, 1, Access::Read);
    let gref = pages.grants()[0];
    let mut mapping = mapper.mapping();
    let refused = mapper.map(pair.guest, &[gref], Access::ReadWrite, &mut mapping);
    assert_eq!(refused, Err(GrantError::ReadOnly(gref)));
    assert!(matches!(mapper.map_ring(pair.guest, &[gref]), Err(GrantError::ReadOnly(_))));
    mapper.map(pair.guest, &[gref], Access::Read, &mut mapping).unwrap();
    let mut ops = [copy(pair.guest, gref, 0, CopyEnd::From(b"overwritten"))];
    mapper.copy(&mut ops).unwrap();
    assert_eq!(ops[0].status, Err(GrantError::ReadOnly(gref)));
    let mut seen = [1; 11];
    pages.mem().read(&mut seen);
    assert_eq!(seen, [0; 11]);
}

fn what_is_mapped_cannot_be_revoked(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 3, Access::ReadWrite);
    let (refs, middle) = (pages.grants().to_vec(), pages.grants()[1]);
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, &[middle], Access::Read, &mut mapping).unwrap();
    assert_eq!(lender.reclaim(&mut pages), Err(GrantError::Busy(middle)));
    assert_eq!(pages.grants(), refs, "all stay lent");
    let mut others = mapper.mapping();
    mapper.map(pair.guest, &refs, Access::ReadWrite, &mut others).unwrap();
    others.clear();
    assert_eq!(lender.lend(&mut pages, Access::Read), Err(GrantError::Busy(middle)));
    assert_eq!(pages.lent(), Some(Access::ReadWrite));
    mapping.clear();
    lender.reclaim(&mut pages).unwrap();
    assert_eq!(lab.leaks().granted, 0);
}

fn mapped_twice_is_mapped_until_unmapped_twice(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 1, Access::ReadWrite);
    let refs = [pages.grants()[0]; 2];
    let (mut one, mut two) = (mapper.mapping(), mapper.mapping());
    mapper.map(pair.guest, &refs, Access::Read, &mut one).unwrap();
    mapper.map(pair.guest, &refs, Access::ReadWrite, &mut two).unwrap();
    assert_eq!(lab.leaks().mapped, 4);
    one.clear();
    one.clear();
    assert!(lender.reclaim(&mut pages).is_err(), "clearing twice unmaps once");
    drop(two);
    lender.reclaim(&mut pages).unwrap();
}

fn a_failed_map_leaves_nothing_mapped(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 2, Access::ReadWrite);
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, &pages.grants()[..1], Access::Read, &mut mapping).unwrap();
    let refs = [pages.grants()[0], pages.grants()[1], GrantRef(3)];
    let refused = mapper.map(pair.guest, &refs, Access::Read, &mut mapping);
    assert_eq!(refused, Err(GrantError::BadRef(GrantRef(3))));
    assert_eq!((mapping.len(), lab.leaks().mapped), (1, 1));
    assert!(matches!(mapper.map_ring(pair.guest, &refs), Err(GrantError::BadRef(GrantRef(3)))));
    assert!(mapper.map_ring(pair.guest, &[]).is_err());
    mapping.clear();
    lender.reclaim(&mut pages).unwrap();
}

fn one_holder_maps_pages_of_several_guests(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let other = lab.guest();
    let mut other_lender = lab.world(other).lender(DomId::DOM0).unwrap();
    let (mine, theirs) = (lent(&mut lender, 1, Access::Read), lent(&mut other_lender, 1, Access::Read));
    mine.mem().write(b"mine");
    theirs.mem().write(b"your");
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, mine.grants(), Access::Read, &mut mapping).unwrap();
    mapper.map(other, theirs.grants(), Access::Read, &mut mapping).unwrap();
    let mut seen = [[0; 4]; 2];
    (0..2).for_each(|index| _ = mapping.page(index).unwrap().read(&mut seen[index]));
    assert_eq!(seen, [*b"mine", *b"your"]);
    mapping.clear();
    assert_eq!(lab.leaks().mapped, 0);
}

fn neighbours_lie_beside_each_other(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let pages = lent(&mut lender, 100, Access::ReadWrite);
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, pages.grants(), Access::ReadWrite, &mut mapping).unwrap();
    let addresses: Vec<usize> = (0..100).map(|i| mapping.page(i).unwrap().as_ptr().addr()).collect();
    assert!(addresses.windows(2).all(|pair| pair[0] + PAGE_SIZE == pair[1]), "requests merge in the backend");
    let refs: Vec<u32> = pages.grants().iter().map(|gref| gref.0).collect();
    assert!(refs.windows(2).any(|pair| pair[0] + 1 != pair[1]), "references are in no useful order");
}

fn rings_are_contiguous_in_the_order_of_their_references(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let pages = lent(&mut lender, 4, Access::ReadWrite);
    let order = [2, 0, 3, 1];
    let refs = order.map(|index| pages.grants()[index]);
    for (index, byte) in (0..4).zip(*b"abcd") {
        pages.mem().part(index * PAGE_SIZE, 1).unwrap().write(&[byte]);
    }
    let ring = mapper.map_ring(pair.guest, &refs).unwrap();
    assert_eq!(ring.bytes(), 4 * PAGE_SIZE);
    assert!(ring.base().addr().get().is_multiple_of(PAGE_SIZE));
    assert_eq!(first_bytes(&ring), b"cadb");
    pages.mem().part(2 * PAGE_SIZE, 1).unwrap().write(b"z");
    assert_eq!(first_bytes(&ring), b"zadb", "shared, not copied");
    lender.release(pages);
    assert_eq!(lender.quarantined(), 4);
    drop(ring);
    assert_eq!(lender.quarantined(), 0);
}

/// The first byte of each page.
fn first_bytes(ring: &impl RingPages) -> Vec<u8> {
    #[expect(unsafe_code, reason = "looks at a ring without going through one")]
    // SAFETY: `RingPages` promises that this range is mapped, page aligned, while `ring` is borrowed.
    let mem = unsafe { xen_platform::SharedMem::new(ring.base(), ring.bytes()) };
    let byte = |page: usize| {
        let mut byte = [0];
        mem.part(page * PAGE_SIZE, 1).unwrap().read(&mut byte);
        byte[0]
    };
    (0..ring.bytes() / PAGE_SIZE).map(byte).collect()
}

fn copies_go_both_ways_and_stay_in_their_page(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 1, Access::ReadWrite);
    let (dom, gref) = (pair.guest, pages.grants()[0]);
    let (mut into, mut whole, mut over, mut bad) = ([0; 5], [0; PAGE_SIZE], [0; 2], [7; 4]);
    let mut ops = [
        copy(dom, gref, 4091, CopyEnd::From(b"hello")),
        copy(dom, gref, 4091, CopyEnd::Into(&mut into)),
        copy(dom, gref, 0, CopyEnd::Into(&mut whole)),
        copy(dom, gref, 4095, CopyEnd::Into(&mut over)),
        copy(dom, gref, u32::MAX, CopyEnd::From(b"x")),
        copy(dom, GrantRef(1), 0, CopyEnd::Into(&mut bad)),
        copy(dom, gref, 4096, CopyEnd::From(b"")),
    ];
    mapper.copy(&mut ops).unwrap();
    let status: Vec<_> = ops.iter().map(|op| op.status).collect();
    let range = |offset, len| Err(GrantError::BadRange { gref, offset, len });
    let bad_ref = Err(GrantError::BadRef(GrantRef(1)));
    assert_eq!(status, [Ok(()), Ok(()), Ok(()), range(4095, 2), range(u32::MAX, 1), bad_ref, Ok(())]);
    assert_eq!((&into, &whole[4091..], bad), (b"hello", &b"hello"[..], [7; 4]));
    assert_eq!(lab.leaks().mapped, 0, "a copy leaves nothing mapped");
    lender.reclaim(&mut pages).unwrap();
    let mut ops = [copy(dom, gref, 0, CopyEnd::Into(&mut into))];
    mapper.copy(&mut ops).unwrap();
    assert_eq!(ops[0].status, Err(GrantError::BadRef(gref)));
    mapper.copy(&mut []).unwrap();
}

fn what_the_peer_holds_is_kept_out_of_use(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let pages = lent(&mut lender, 256, Access::ReadWrite);
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, &pages.grants()[..2], Access::ReadWrite, &mut mapping).unwrap();
    lender.release(pages);
    assert_eq!(lender.quarantined(), 2);
    let rest = lender.alloc(254).unwrap();
    assert_eq!(lender.alloc(1).unwrap_err(), GrantError::Exhausted);
    mapping.clear();
    assert_eq!(lender.quarantined(), 0);
    let back = lender.alloc(2).unwrap();
    lender.release(rest);
    lender.release(back);
    assert!(lender.alloc(256).is_ok(), "runs join again");
}

fn lenders_do_not_share_pages(lab: &impl Lab) {
    let (pair, mut lender, _) = ends(lab);
    let mut same_process = pair.front.lender(DomId::DOM0).unwrap();
    let mut other_process = lab.world(pair.guest).lender(DomId::DOM0).unwrap();
    let mut refs = Vec::new();
    for _ in 0..6 {
        for lender in [&mut lender, &mut same_process, &mut other_process] {
            refs.extend_from_slice(lent(lender, 10, Access::Read).grants());
        }
    }
    refs.sort();
    refs.dedup();
    assert_eq!(refs.len(), 180);
    assert_eq!(lab.leaks().granted, 180);
}

fn everything_is_given_back(lab: &impl Lab) {
    {
        let (pair, mut lender, mut mapper) = ends(lab);
        let pages = lent(&mut lender, 70, Access::ReadWrite);
        let kept = lent(&mut lender, 3, Access::Read);
        let ring = mapper.map_ring(pair.guest, &pages.grants()[..4]).unwrap();
        let leaks = lab.leaks();
        assert_eq!((leaks.mapped, leaks.granted), (4, 73));
        assert!(leaks.pages >= 73);
        drop(ring);
        lender.release(pages);
        lender.release(kept);
        drop(lender);
        let leaks = lab.leaks();
        assert_eq!((leaks.mapped, leaks.granted, leaks.pages), (0, 0, 0));
    }
}

fn absurd_allocations_are_refused(lab: &impl Lab) {
    let (_, mut lender, _) = ends(lab);
    for count in [0, 257, 1 << 20, usize::MAX] {
        assert_eq!(lender.alloc(count).unwrap_err(), GrantError::Exhausted, "{count}");
    }
    assert!(lender.alloc(256).is_ok());
}

fn lending_again_changes_nothing_or_the_access(lab: &impl Lab) {
    let (pair, mut lender, mut mapper) = ends(lab);
    let mut pages = lent(&mut lender, 1, Access::Read);
    let before = pages.grants().to_vec();
    lender.lend(&mut pages, Access::Read).unwrap();
    assert_eq!(pages.grants(), before);
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    let mut mapping = mapper.mapping();
    mapper.map(pair.guest, pages.grants(), Access::ReadWrite, &mut mapping).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
}

crate::in_both_worlds!(
    bytes_reach_the_other_end,
    pages_come_zeroed,
    only_what_was_granted_can_be_mapped,
    only_the_named_domain_can_map,
    nobody_lends_for_a_domain_that_is_not_there,
    read_only_stays_read_only,
    what_is_mapped_cannot_be_revoked,
    mapped_twice_is_mapped_until_unmapped_twice,
    a_failed_map_leaves_nothing_mapped,
    one_holder_maps_pages_of_several_guests,
    neighbours_lie_beside_each_other,
    rings_are_contiguous_in_the_order_of_their_references,
    copies_go_both_ways_and_stay_in_their_page,
    what_the_peer_holds_is_kept_out_of_use,
    lenders_do_not_share_pages,
    everything_is_given_back,
    absurd_allocations_are_refused,
    lending_again_changes_nothing_or_the_access,
);
