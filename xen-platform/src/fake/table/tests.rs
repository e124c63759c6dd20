use super::*;
use std::collections::BTreeSet;

const GUEST: DomId = DomId(3);
const BACK: DomId = DomId(0);

fn table(pages: u32, salt: u32) -> GrantTable {
    let table = GrantTable::create(GUEST, pages, salt).unwrap();
    table.open_slot(0);
    table.open_slot(5);
    table
}

#[test]
fn every_page_has_a_reference_of_its_own() {
    for (pages, salt) in [(1, 0), (1, u32::MAX), (100, 0x55), (512, 0xFFFF), (513, 7)] {
        let table = table(pages, salt);
        let all: BTreeSet<GrantRef> = (0..pages).map(|page| table.permit(page, BACK, Access::Read)).collect();
        assert_eq!(all.len(), pages as usize);
        assert!(all.iter().all(|gref| gref.0 >= RESERVED));
        let held: BTreeSet<u32> =
            all.iter().map(|gref| table.hold(0, *gref, BACK, Access::Read).unwrap()).collect();
        assert_eq!(held, (0..pages).collect());
        assert_eq!(table.usage(), (u64::from(pages), u64::from(pages)));
    }
}

#[test]
fn impossible_sizes_are_refused() {
    assert_eq!(GrantTable::create(GUEST, 0, 0).unwrap_err(), GrantError::Exhausted);
    assert_eq!(GrantTable::create(GUEST, MAX_PAGES + 1, 0).unwrap_err(), GrantError::Exhausted);
    assert!(GrantTable::create(GUEST, MAX_PAGES, 0).is_ok());
}

#[test]
fn a_forged_entry_reaches_nothing_outside_the_guest() {
    let table = table(4, 0);
    let gref = GrantRef(9);
    let entry = table.entry(gref).unwrap();
    for page in [4, 5, 1 << 20, u32::MAX] {
        entry.store(PERMIT | u64::from(page), SeqCst);
        assert_eq!(table.hold(0, gref, BACK, Access::Read), Err(GrantError::BadRef(gref)), "page {page}");
    }
    assert_eq!(table.usage().0, 0);
}

#[test]
fn references_outside_the_table_are_bad() {
    let table = table(4, 0);
    for gref in [0, 7, 12, 13, 1 << 20, u32::MAX].map(GrantRef) {
        assert_eq!(table.hold(0, gref, BACK, Access::Read), Err(GrantError::BadRef(gref)));
        assert_eq!(table.revoke(gref), Ok(()));
        assert!(!table.is_mapped(gref));
    }
    // A slot that no process can have.
    let gref = table.permit(0, BACK, Access::Read);
    assert_eq!(table.hold(SLOTS, gref, BACK, Access::Read), Err(GrantError::BadRef(gref)));
}

#[test]
fn a_cleared_slot_lets_go_and_others_do_not() {
    let table = table(4, 1);
    let gref = table.permit(2, BACK, Access::ReadWrite);
    table.hold(0, gref, BACK, Access::Read).unwrap();
    table.hold(5, gref, BACK, Access::ReadWrite).unwrap();
    table.clear_slot(5);
    assert_eq!(table.revoke(gref), Err(GrantError::Busy(gref)));
    assert_eq!(table.hold(5, gref, BACK, Access::Read), Ok(2), "a failed revoke changes nothing");
    table.let_go(5, gref);
    table.clear_slot(0);
    assert_eq!(table.revoke(gref), Ok(()));
    assert_eq!(table.usage(), (0, 0));
}

#[test]
fn a_dying_guest_lends_nothing_more() {
    let table = table(4, 1);
    let gref = table.permit(2, BACK, Access::ReadWrite);
    table.hold(0, gref, BACK, Access::Read).unwrap();
    table.set_dying();
    assert_eq!(table.hold(0, gref, BACK, Access::Read), Err(GrantError::NoDomain(GUEST)));
    table.let_go(0, gref);
    assert_eq!(table.usage().0, 0);
}
