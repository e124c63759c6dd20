//! The grant table, version 1, and lenders of the pool's pages.
//!
//! Each page of the pool has a reference of its own, so there is nothing to allocate when it is lent. An entry is only ever
//! emptied when Xen says that the peer has let go of the page (the rule after XSA-396); a page whose entry cannot be emptied
//! stays out of use.

use alloc::{sync::Arc, vec::Vec};
use core::{ops::Range, sync::atomic::Ordering};

use blkif_proto::GrantRef;

use super::{Machine, abi::entry};
use crate::{Access, DomId, GrantError, Pages, SharedMem};

/// The table's pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantTable(SharedMem<'static>);

impl GrantTable {
    pub(super) fn new(pages: SharedMem<'static>) -> Self {
        Self(pages)
    }

    /// Where it is mapped.
    pub(super) fn pages(self) -> SharedMem<'static> {
        self.0
    }

    /// References there are, those of the tool stack included.
    pub(super) fn len(self) -> usize {
        self.0.len() / entry::BYTES
    }

    /// Lets `to` map a machine frame. The entry must be empty. Errors: the frame has no place in an entry of version 1, or the
    /// reference none in the table.
    fn permit(self, gref: GrantRef, to: DomId, frame: u64, access: Access) -> Result<(), GrantError> {
        let frame = u32::try_from(frame).map_err(|_| GrantError::Exhausted)?;
        let entry = self.entry(gref)?;
        let (Some(flags), Some(domain), Some(place)) =
            (entry.word16(entry::FLAGS), entry.word16(entry::DOMAIN), entry.word32(entry::FRAME))
        else {
            return Err(GrantError::BadRef(gref));
        };
        domain.store(to.0, Ordering::Relaxed);
        place.store(frame, Ordering::Relaxed);
        let read_only = if access == Access::Read { entry::READ_ONLY } else { 0 };
        // Xen looks at the rest once it sees the permission.
        flags.store(entry::PERMIT | read_only, Ordering::Release);
        Ok(())
    }

    /// Empties an entry. Errors: [`GrantError::Busy`] while the peer maps the page or copies.
    fn revoke(self, gref: GrantRef) -> Result<(), GrantError> {
        let entry = self.entry(gref)?;
        let flags = entry.word16(entry::FLAGS).ok_or(GrantError::BadRef(gref))?;
        let unused = |flags| (flags & entry::IN_USE == 0).then_some(0);
        // Xen sets its bits by the same kind of exchange, so there is no moment at which both succeed.
        flags
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, unused)
            .map(drop)
            .map_err(|_| GrantError::Busy(gref))
    }

    fn is_in_use(self, gref: GrantRef) -> bool {
        let flags = self.entry(gref).ok().and_then(|entry| entry.word16(entry::FLAGS));
        flags.is_some_and(|flags| flags.load(Ordering::SeqCst) & entry::IN_USE != 0)
    }

    fn entry(self, gref: GrantRef) -> Result<SharedMem<'static>, GrantError> {
        let at = (gref.0 as usize).checked_mul(entry::BYTES);
        at.and_then(|at| self.0.part(at, entry::BYTES)).ok_or(GrantError::BadRef(gref))
    }
}

/// The reference of a page of the pool.
fn reference(number: usize) -> GrantRef {
    GrantRef(u32::try_from(number).map_or(u32::MAX, |number| number.saturating_add(entry::RESERVED)))
}

/// References that a pool of `pages` takes, those of the tool stack included.
pub(super) fn references(pages: usize) -> usize {
    pages.saturating_add(entry::RESERVED as usize)
}

/// Lends pages of the pool to one domain.
#[derive(Debug)]
pub struct Lender {
    machine: Arc<Machine>,
    to: DomId,
    /// Pages that the peer would not let go of, by their numbers in the pool.
    quarantine: Vec<usize>,
}

impl Lender {
    pub(super) fn new(machine: Arc<Machine>, to: DomId) -> Self {
        Self { machine, to, quarantine: Vec::new() }
    }

    fn numbers(&self, pages: &Pages) -> Result<Range<usize>, GrantError> {
        self.machine.pool.numbers(pages).ok_or(GrantError::BadRef(GrantRef(0)))
    }

    fn permit(&self, number: usize, access: Access) -> Result<GrantRef, GrantError> {
        let Machine { pool, memory, grants, .. } = &*self.machine;
        let gref = reference(number);
        let frame = pool.address(number).and_then(|address| memory.frame(address));
        grants.permit(gref, self.to, frame.ok_or(GrantError::BadRef(gref))?, access)?;
        Ok(gref)
    }

    fn revoke(&self, number: usize) -> Result<(), GrantError> {
        self.machine.grants.revoke(reference(number))
    }

    /// Revokes all or nothing.
    fn revoke_all(&self, numbers: Range<usize>, access: Access) -> Result<(), GrantError> {
        for number in numbers.clone() {
            if let Err(busy) = self.revoke(number) {
                for number in numbers.start..number {
                    self.permit(number, access)?;
                }
                return Err(busy);
            }
        }
        Ok(())
    }

    /// Takes pages back into use that the peer let go of since.
    fn pardon(&mut self) {
        let machine = &self.machine;
        self.quarantine.retain(|number| {
            let busy = machine.grants.revoke(reference(*number)).is_err();
            if !busy {
                machine.pool.give(*number..number + 1);
            }
            busy
        });
    }
}

impl crate::Lender for Lender {
    fn alloc(&mut self, count: usize) -> Result<Pages, GrantError> {
        if let Some(pages) = self.machine.pool.take(count) {
            return Ok(pages);
        }
        self.pardon();
        self.machine.pool.take(count).ok_or(GrantError::Exhausted)
    }

    fn lend(&mut self, pages: &mut Pages, access: Access) -> Result<(), GrantError> {
        if pages.lent() == Some(access) {
            return Ok(());
        }
        let numbers = self.numbers(pages)?;
        // Changing the access of what is mapped would change it under the peer's hands.
        self.reclaim(pages)?;
        for (gref, number) in pages.grants_mut().iter_mut().zip(numbers.clone()) {
            match self.permit(number, access) {
                Ok(permitted) => *gref = permitted,
                Err(error) => {
                    // Nobody was told of these yet; a peer that guessed one and maps it keeps the page out of use.
                    for number in numbers.start..number {
                        let _ = self.revoke(number);
                    }
                    return Err(error);
                }
            }
        }
        pages.set_lent(Some(access));
        Ok(())
    }

    fn reclaim(&mut self, pages: &mut Pages) -> Result<(), GrantError> {
        let Some(access) = pages.lent() else { return Ok(()) };
        self.revoke_all(self.numbers(pages)?, access)?;
        pages.set_lent(None);
        Ok(())
    }

    fn release(&mut self, pages: Pages) {
        let Ok(numbers) = self.numbers(&pages) else { return };
        for number in numbers {
            // An entry that is empty already is emptied again, which does nothing.
            match self.revoke(number) {
                Ok(()) => self.machine.pool.give(number..number + 1),
                Err(_) => self.quarantine.push(number),
            }
        }
    }

    fn quarantined(&self) -> usize {
        let grants = self.machine.grants;
        self.quarantine.iter().filter(|number| grants.is_in_use(reference(**number))).count()
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        // What the peer keeps stays out of use until the guest ends.
        self.pardon();
    }
}

#[cfg(test)]
mod tests;
