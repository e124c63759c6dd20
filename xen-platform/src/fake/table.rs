//! The grant table: what a grant is, in both simulated worlds.
//!
//! One table per lending domain, in memory that every process of the world maps, so that lending, mapping, unmapping and
//! revoking cost no system call. It has one entry per page of the domain, and beside the entries one array of counts per
//! mapping process (its *slot*): how often that process has each entry mapped.
//!
//! ```text
//!   word 0           alive or dying            written by the hypervisor
//!   word 1           slots ever used           written by the hypervisor
//!   page 1..         entries, 8 bytes each     written by the lender:  PERMIT | READ_ONLY | to << 32 | page
//!   ..               counts of slot 0, 4 bytes each                   written by the mapper
//!   ..               counts of slot 1 ..
//! ```
//!
//! The race between map and revoke is settled as in Dekker's algorithm: the mapper raises its count and then looks at the
//! entry; the lender marks the entry as in doubt and then looks at the counts. All four are sequentially consistent, so at
//! least one of them sees the other. A lender that sees a count gives way and lifts the mark; a mapper that sees the mark
//! lets go and looks again, so that a revocation which fails costs nobody a mapping, as on Xen.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use blkif_proto::GrantRef;
use nix::errno::Errno;

use super::pages::{Protection, View, discard, memfd};
use crate::{Access, DomId, GrantError, PAGE_SIZE};

/// Mapping processes at one time in one world.
pub(crate) const SLOTS: u32 = 64;
/// The largest domain: 2^22 pages, 16 GiB.
pub(crate) const MAX_PAGES: u32 = 1 << 22;
/// Xen keeps the first entries of a table for itself (`GNTTAB_NR_RESERVED_ENTRIES`).
const RESERVED: u32 = 8;

const DYING: u32 = 1;

const PERMIT: u64 = 1 << 48;
const READ_ONLY: u64 = 1 << 49;
/// The lender is looking whether it may end the permission: neither permitted nor refused for the moment.
const IN_DOUBT: u64 = 1 << 50;
/// How often a mapper looks again at an entry in doubt. A lender that was killed just then leaves it so for ever.
const PATIENCE: u32 = 1 << 16;

/// Where things are in the table of a domain of some size.
#[derive(Clone, Copy, Debug)]
struct Layout {
    pages: u32,
    /// Turns a page's number into its entry's, so that nobody can rely on neighbours having neighbouring references.
    scramble: u32,
}

impl Layout {
    /// `salt` decides the order of the references.
    fn new(pages: u32, salt: u32) -> Result<Self, GrantError> {
        if pages == 0 || pages > MAX_PAGES {
            return Err(GrantError::Exhausted);
        }
        Ok(Self { pages, scramble: salt & (pages.next_power_of_two() - 1) })
    }

    fn entries(self) -> usize {
        (self.pages.next_power_of_two() + RESERVED) as usize
    }

    fn counts_bytes(self) -> usize {
        (self.entries() * size_of::<AtomicU32>()).next_multiple_of(PAGE_SIZE)
    }

    fn counts_at(self, slot: u32) -> usize {
        let entries = (self.entries() * size_of::<AtomicU64>()).next_multiple_of(PAGE_SIZE);
        PAGE_SIZE + entries + slot as usize * self.counts_bytes()
    }

    fn bytes(self) -> usize {
        self.counts_at(SLOTS)
    }
}

/// One domain's grant table, as one process has it mapped.
#[derive(Debug)]
pub(crate) struct GrantTable {
    dom: DomId,
    layout: Layout,
    fd: OwnedFd,
    view: View,
}

impl GrantTable {
    /// A new, empty table for a domain of `pages` pages; `salt` decides the order of its references.
    pub(crate) fn create(dom: DomId, pages: u32, salt: u32) -> Result<Self, GrantError> {
        let bytes = Layout::new(pages, salt)?.bytes() as u64;
        Self::attach(dom, pages, salt, memfd("xen-grants", bytes).map_err(system)?)
    }

    /// The table behind a descriptor that [`fd`](Self::fd) gave to somebody.
    pub(crate) fn attach(dom: DomId, pages: u32, salt: u32, fd: OwnedFd) -> Result<Self, GrantError> {
        let layout = Layout::new(pages, salt)?;
        let view = View::new(&fd, layout.bytes(), Protection::ReadWrite).map_err(system)?;
        Ok(Self { dom, layout, fd, view })
    }

    /// The file that holds the table.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// False once the domain is being destroyed.
    pub(crate) fn is_alive(&self) -> bool {
        self.word(0).is_some_and(|state| state.load(SeqCst) != DYING)
    }

    /// Hypervisor: from now on nothing of the domain can be mapped.
    pub(crate) fn set_dying(&self) {
        if let Some(state) = self.word(0) {
            state.store(DYING, SeqCst);
        }
    }

    /// Hypervisor: makes lenders look at the counts of `slot`, before its process maps anything.
    pub(crate) fn open_slot(&self, slot: u32) {
        if let Some(used) = self.word(1) {
            used.fetch_max(slot + 1, SeqCst);
        }
    }

    /// Hypervisor: the process behind `slot` is gone, and its mappings with it.
    pub(crate) fn clear_slot(&self, slot: u32) {
        let range = (self.layout.counts_at(slot) as u64, self.layout.counts_bytes() as u64);
        if discard(self.fd(), range.0, range.1).is_err() {
            self.counts(slot).iter().for_each(|count| count.store(0, SeqCst));
        }
    }

    /// The reference of a page.
    pub(crate) fn reference(&self, page: u32) -> GrantRef {
        GrantRef((page ^ self.layout.scramble) + RESERVED)
    }

    /// Lender: permits `to` to reach `page`.
    pub(crate) fn permit(&self, page: u32, to: DomId, access: Access) -> GrantRef {
        let gref = self.reference(page);
        let read_only = if access == Access::Read { READ_ONLY } else { 0 };
        if let Some(entry) = self.entry(gref) {
            entry.store(PERMIT | read_only | u64::from(to.0) << 32 | u64::from(page), SeqCst);
        }
        gref
    }

    /// Lender: ends the permission, unless some process has the page mapped.
    pub(crate) fn revoke(&self, gref: GrantRef) -> Result<(), GrantError> {
        let Some(entry) = self.entry(gref) else { return Ok(()) };
        let before = entry.fetch_or(IN_DOUBT, SeqCst);
        if self.is_mapped(gref) {
            entry.store(before & !IN_DOUBT, SeqCst);
            return Err(GrantError::Busy(gref));
        }
        entry.store(0, SeqCst);
        Ok(())
    }

    /// True while some process has the page mapped, or looks whether it may.
    pub(crate) fn is_mapped(&self, gref: GrantRef) -> bool {
        (0..self.slots()).any(|slot| self.count(slot, gref).is_some_and(|count| count.load(SeqCst) != 0))
    }

    /// Mapper: counts one more mapping of `gref` by `slot`'s process in domain `by`, and gives the page's number.
    pub(crate) fn hold(
        &self,
        slot: u32,
        gref: GrantRef,
        by: DomId,
        access: Access,
    ) -> Result<u32, GrantError> {
        if !self.is_alive() {
            return Err(GrantError::NoDomain(self.dom));
        }
        let (Some(entry), Some(count)) = (self.entry(gref), self.count(slot, gref)) else {
            return Err(GrantError::BadRef(gref));
        };
        for _ in 0..PATIENCE {
            count.fetch_add(1, SeqCst);
            let seen = entry.load(SeqCst);
            if seen & IN_DOUBT == 0 {
                let checked = self.check(seen, gref, by, access);
                if checked.is_err() {
                    count.fetch_sub(1, SeqCst);
                }
                return checked;
            }
            // The lender may have been stopped by our own count, so let go before looking again.
            count.fetch_sub(1, SeqCst);
            core::hint::spin_loop();
        }
        Err(GrantError::BadRef(gref))
    }

    /// Mapper: ends what [`hold`](Self::hold) began.
    pub(crate) fn let_go(&self, slot: u32, gref: GrantRef) {
        if let Some(count) = self.count(slot, gref) {
            let before = count.fetch_sub(1, SeqCst);
            debug_assert!(before > 0, "grant {gref} was not mapped");
        }
    }

    /// How many mappings there are, and how many entries are in force.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let mapped = (0..self.slots())
            .flat_map(|slot| self.counts(slot))
            .map(|count| u64::from(count.load(SeqCst)))
            .sum();
        let entries = self.view.words64(PAGE_SIZE, self.layout.entries());
        (mapped, entries.iter().filter(|entry| entry.load(SeqCst) & PERMIT != 0).count() as u64)
    }

    fn check(&self, entry: u64, gref: GrantRef, by: DomId, access: Access) -> Result<u32, GrantError> {
        let [a, b, c, d, to_low, to_high, ..] = entry.to_le_bytes();
        let (page, to) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([to_low, to_high]));
        // The entry is the guest's to write: nothing in it is true before it was looked at.
        if entry & PERMIT == 0 || to != by.0 || page >= self.layout.pages {
            return Err(GrantError::BadRef(gref));
        }
        if entry & READ_ONLY != 0 && access == Access::ReadWrite {
            return Err(GrantError::ReadOnly(gref));
        }
        Ok(page)
    }

    fn word(&self, index: usize) -> Option<&AtomicU32> {
        self.view.words32(index * size_of::<AtomicU32>(), 1).first()
    }

    fn slots(&self) -> u32 {
        self.word(1).map_or(0, |used| used.load(SeqCst)).min(SLOTS)
    }

    fn entry(&self, gref: GrantRef) -> Option<&AtomicU64> {
        let used = gref.0 >= RESERVED;
        self.view.words64(PAGE_SIZE, self.layout.entries()).get(gref.0 as usize).filter(|_| used)
    }

    fn counts(&self, slot: u32) -> &[AtomicU32] {
        self.view.words32(self.layout.counts_at(slot), self.layout.entries())
    }

    fn count(&self, slot: u32, gref: GrantRef) -> Option<&AtomicU32> {
        self.counts(slot).get(gref.0 as usize)
    }
}

/// A failed system call, as grants report it.
pub(crate) fn system(errno: Errno) -> GrantError {
    GrantError::System(errno as i32)
}

#[cfg(test)]
mod tests;
