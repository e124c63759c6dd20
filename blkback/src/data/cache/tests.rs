use xen_platform::{
    BackWorld, FrontWorld, Lender, Pages,
    fake::{self, Machine},
};

use super::*;

struct Bed {
    machine: Machine,
    dom: DomId,
    mapper: fake::Mapper,
    lender: fake::Lender,
    pages: Pages,
}

fn bed() -> Bed {
    let machine = Machine::new(1);
    let dom = machine.create_domain(64).unwrap();
    let mapper = machine.world(DomId::DOM0).mapper().unwrap();
    let mut lender = machine.world(dom).lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(8).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    Bed { machine, dom, mapper, lender, pages }
}

impl Bed {
    fn lease(&mut self, cache: &mut GrantCache<fake::Mapping>, page: usize) -> Lease<fake::Mapping> {
        cache.lease(&mut self.mapper, self.dom, self.pages.grants()[page]).unwrap()
    }

    /// Leases a page and gives it back, and makes sure that it is that page.
    fn touch(&mut self, cache: &mut GrantCache<fake::Mapping>, page: usize) {
        let lease = self.lease(cache, page);
        let mark = u8::try_from(page).unwrap() + 1;
        lease.page().unwrap().write(&[mark]);
        cache.give_back(lease);
        let mut byte = [0];
        let seen = self.pages.mem().part(page * 4096, 4096).unwrap();
        seen.read(&mut byte);
        assert_eq!(byte, [mark], "page {page}");
        seen.write(&[0]);
    }

    fn refused(&mut self, cache: &mut GrantCache<fake::Mapping>, page: usize) {
        let refused = cache.lease(&mut self.mapper, self.dom, self.pages.grants()[page]);
        assert_eq!(refused.err(), Some(GrantError::Exhausted));
    }

    fn mapped(&self) -> u64 {
        self.machine.leaks().mapped
    }
}

#[test]
fn the_page_unused_for_longest_makes_room() {
    let mut bed = bed();
    let mut cache = GrantCache::new(3);
    for page in [0, 1, 2, 0, 3] {
        bed.touch(&mut cache, page);
    }
    assert_eq!((cache.len(), bed.mapped()), (3, 3));
    let cached: Vec<bool> = bed.pages.grants().iter().map(|gref| cache.by_gref.contains_key(gref)).collect();
    assert_eq!(cached[..5], [true, false, true, true, false], "1 had been unused for longest");
    drop(cache);
    assert_eq!(bed.mapped(), 0, "all go at the end");
}

#[test]
fn a_page_on_loan_is_neither_mapped_again_nor_evicted() {
    let mut bed = bed();
    let mut cache = GrantCache::new(1);
    let first = bed.lease(&mut cache, 0);
    bed.refused(&mut cache, 0);
    bed.refused(&mut cache, 1);
    assert_eq!(bed.mapped(), 1);
    assert!(first.page().is_some());
    cache.give_back(first);
    bed.touch(&mut cache, 0);
    assert_eq!((cache.len(), bed.mapped()), (1, 1));
}

#[test]
fn a_cache_without_room_maps_nothing() {
    let mut bed = bed();
    let mut cache = GrantCache::new(0);
    bed.refused(&mut cache, 0);
    assert_eq!((cache.len(), cache.is_empty(), bed.mapped()), (0, true, 0));
}

#[test]
fn all_caches_share_what_the_process_may_keep() {
    let mut bed = bed();
    let budget = Box::leak(Box::new(Budget::new(3)));
    let (mut one, mut two) = (GrantCache::within(8, budget), GrantCache::within(8, budget));
    bed.touch(&mut one, 0);
    bed.touch(&mut one, 1);
    bed.touch(&mut two, 2);
    assert_eq!((bed.mapped(), budget.is_left()), (3, false));
    // A queue with pages makes room by its own.
    bed.touch(&mut one, 3);
    assert_eq!((one.len(), two.len(), bed.mapped()), (2, 1, 3));
    let lease = bed.lease(&mut two, 2);
    bed.refused(&mut two, 4);
    two.give_back(lease);
    drop(one);
    bed.touch(&mut two, 4);
    assert_eq!((two.len(), bed.mapped()), (2, 2), "what a queue leaves is there for others");
}

#[test]
fn a_bad_reference_leaves_no_trace() {
    let mut bed = bed();
    let mut cache = GrantCache::new(2);
    bed.touch(&mut cache, 0);
    assert!(cache.lease(&mut bed.mapper, bed.dom, GrantRef(0x7FFF_FFFF)).is_err());
    assert_eq!((cache.len(), bed.mapped()), (1, 1));
    let lease = bed.lease(&mut cache, 0);
    let segment = Segment { first_sect: 2, last_sect: 3, ..Segment::page(bed.pages.grants()[0]) };
    lease.part(&segment).unwrap().write(&[7; 1024]);
    let mut byte = [0];
    bed.pages.mem().part(1024, 1).unwrap().read(&mut byte);
    assert_eq!(byte, [7], "mapped writable, at the right place");
    cache.give_back(lease);
    drop(cache);
    bed.lender.release(bed.pages);
    assert_eq!(bed.lender.quarantined(), 0);
}

/// Against the simplest model: a list of references in order of use.
#[test]
fn any_order_of_loans_keeps_the_list_right() {
    let mut bed = bed();
    let mut cache = GrantCache::new(3);
    let mut model: Vec<usize> = Vec::new();
    let mut seed = 7u32;
    for _ in 0..2000 {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let page = (seed >> 16) as usize % 8;
        bed.touch(&mut cache, page);
        model.retain(|known| *known != page);
        model.push(page);
        if model.len() > 3 {
            model.remove(0);
        }
        let mut expected: Vec<GrantRef> = model.iter().map(|page| bed.pages.grants()[*page]).collect();
        let mut cached: Vec<GrantRef> = cache.by_gref.keys().copied().collect();
        expected.sort();
        cached.sort();
        assert_eq!(cached, expected);
    }
}
