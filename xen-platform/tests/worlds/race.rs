//! Lending and revoking against mapping and unmapping, at the same time.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use blkif_proto::GrantRef;
use xen_platform::{Access, BackWorld, DomId, FrontWorld, Lender, Mapper, Mapping, Pages};

use crate::lab::{Lab, Pair};

/// What a page says while it is lent, and while it is its owner's alone.
const LENT: u64 = 0x1E57_1E57_1E57_1E57;
const PRIVATE: u64 = 0x0DD0_0DD0_0DD0_0DD0;

fn say(pages: &Pages, word: u64) {
    pages.mem().write(&word.to_ne_bytes());
}

/// While anybody has the page mapped, its owner must not get it back: so nobody ever sees what it says in private.
fn whoever_maps_a_page_keeps_it(lab: &(impl Lab<World: Sync> + Sync)) {
    let Pair { guest, front, .. } = Pair::new(lab);
    let mappers = [lab.world(DomId::DOM0), lab.world(DomId::DOM0)];
    let (known, done) = (Mutex::new(Vec::<GrantRef>::new()), AtomicBool::new(false));
    let (mapped, revoked) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for world in &mappers {
            scope.spawn(|| {
                let mut mapper = world.mapper().unwrap();
                let mut mapping = mapper.mapping();
                while !done.load(SeqCst) {
                    let refs = known.lock().unwrap().clone();
                    for gref in refs {
                        if mapper.map(guest, &[gref], Access::ReadWrite, &mut mapping).is_ok() {
                            mapped.fetch_add(1, SeqCst);
                            for _ in 0..3 {
                                let mut word = [0; 8];
                                mapping.page(0).unwrap().read(&mut word);
                                assert_eq!(u64::from_ne_bytes(word), LENT, "revoked while mapped");
                            }
                            mapping.clear();
                        }
                    }
                }
            });
        }
        let mut lender = front.lender(DomId::DOM0).unwrap();
        let mut all: Vec<Pages> = (0..4).map(|_| lender.alloc(1).unwrap()).collect();
        let mut refs = Vec::new();
        for pages in &mut all {
            say(pages, LENT);
            lender.lend(pages, Access::ReadWrite).unwrap();
            refs.push(pages.grants()[0]);
        }
        *known.lock().unwrap() = refs;
        for _ in 0..20_000 {
            for pages in &mut all {
                if lender.reclaim(pages).is_ok() {
                    revoked.fetch_add(1, SeqCst);
                    (0..50).for_each(|_| say(pages, PRIVATE));
                    say(pages, LENT);
                    lender.lend(pages, Access::ReadWrite).unwrap();
                }
            }
        }
        // On one processor the mappers may not have had a turn yet.
        while mapped.load(SeqCst) < 100 {
            std::thread::yield_now();
        }
        done.store(true, SeqCst);
    });
    assert!(revoked.load(SeqCst) > 100, "{revoked:?} revoked, {mapped:?} mapped");
    assert_eq!(lab.leaks().mapped, 0);
}

crate::in_both_worlds!(whoever_maps_a_page_keeps_it);
