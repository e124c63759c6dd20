//! The frontend's pages, in both simulated worlds.

use std::sync::Arc;

use blkif_proto::GrantRef;

use super::{
    guest::Guest,
    hypervisor::Hypervisor,
    pages,
    runs::{Run, Runs},
};
use crate::{Access, DomId, GrantError, PAGE_SIZE, Pages, SharedMem};

/// Pages are asked of the hypervisor in runs of at least this many.
const CHUNK: u32 = 64;
/// Buffers of at least this many pages are worth superpages.
const LARGE: u32 = 64;

/// Lends pages of a guest's memory to one domain. Made by [`FrontWorld::lender`](crate::FrontWorld::lender).
pub struct Lender {
    hypervisor: Arc<dyn Hypervisor>,
    guest: Arc<Guest>,
    to: DomId,
    reserved: Vec<Run>,
    free: Runs,
    quarantine: Vec<u32>,
}

impl core::fmt::Debug for Lender {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Lender(to domain {}, {} pages free)", self.to, self.free.len())
    }
}

impl Lender {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>, to: DomId) -> Result<Self, GrantError> {
        let guest = hypervisor.guest(hypervisor.dom())?;
        Ok(Self {
            hypervisor,
            guest,
            to,
            reserved: Vec::new(),
            free: Runs::default(),
            quarantine: Vec::new(),
        })
    }

    fn alive(&self) -> Result<(), GrantError> {
        let alive = self.guest.table().is_alive() && !self.hypervisor.is_crashed();
        if alive { Ok(()) } else { Err(GrantError::NoDomain(self.guest.info().dom)) }
    }

    /// `count` pages in a row: from what is free, else from what the peer let go meanwhile, else from the hypervisor.
    fn take(&mut self, count: u32) -> Result<Run, GrantError> {
        if let Some(run) = self.free.take(count) {
            return Ok(run);
        }
        self.pardon();
        if let Some(run) = self.free.take(count) {
            return Ok(run);
        }
        let chunk = match self.hypervisor.reserve(count.max(CHUNK)) {
            Err(GrantError::Exhausted) => self.hypervisor.reserve(count)?,
            other => other?,
        };
        self.reserved.push(chunk);
        self.free.put(chunk);
        self.free.take(count).ok_or(GrantError::Exhausted)
    }

    /// Takes pages back into use that the peer unmapped since.
    fn pardon(&mut self) {
        let Self { guest, free, quarantine, .. } = self;
        quarantine.retain(|page| {
            let busy = guest.table().revoke(guest.table().reference(*page)).is_err();
            if !busy {
                free.put(Run { first: *page, count: 1 });
            }
            busy
        });
    }

    /// The pages behind `pages`; `None` when they are not this lender's.
    fn run(&self, pages: &Pages) -> Option<Run> {
        let run =
            Run { first: u32::try_from(pages.token()).ok()?, count: u32::try_from(pages.count()).ok()? };
        let inside = |chunk: &Run| chunk.first <= run.first && run.numbers().end <= chunk.numbers().end;
        let ours = self.guest.memory().mem().part(run.first as usize * PAGE_SIZE, 0)?;
        let spans = self.reserved.iter().any(inside) || run.numbers().all(|page| self.reserves(page));
        (spans && ours.as_ptr() == pages.mem().as_ptr()).then_some(run)
    }

    fn reserves(&self, page: u32) -> bool {
        self.reserved.iter().any(|chunk| chunk.numbers().contains(&page))
    }
}

impl crate::Lender for Lender {
    fn alloc(&mut self, count: usize) -> Result<Pages, GrantError> {
        self.alive()?;
        let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or(GrantError::Exhausted)?;
        let run = self.take(count)?;
        let pages = pages::pages(self.guest.memory().clone(), run.first, run.count as usize);
        let pages = pages.ok_or(GrantError::Exhausted)?;
        SharedMem::zero(pages.mem());
        if run.count >= LARGE {
            let bytes = |pages: u32| pages as usize * PAGE_SIZE;
            self.guest.memory().back_by_superpages(bytes(run.first), bytes(run.count));
        }
        Ok(pages)
    }

    fn lend(&mut self, pages: &mut Pages, access: Access) -> Result<(), GrantError> {
        self.alive()?;
        if pages.lent() == Some(access) {
            return Ok(());
        }
        let run = self.run(pages).ok_or(GrantError::BadRef(GrantRef(0)))?;
        // Changing the access of what is mapped would change it under the peer's hands.
        crate::Lender::reclaim(self, pages)?;
        for (gref, page) in pages.grants_mut().iter_mut().zip(run.numbers()) {
            *gref = self.guest.table().permit(page, self.to, access);
        }
        pages.set_lent(Some(access));
        Ok(())
    }

    fn reclaim(&mut self, pages: &mut Pages) -> Result<(), GrantError> {
        let Some(access) = pages.lent() else { return Ok(()) };
        let run = self.run(pages).ok_or(GrantError::BadRef(GrantRef(0)))?;
        let table = self.guest.table();
        for (index, gref) in pages.grants().iter().enumerate() {
            if let Err(busy) = table.revoke(*gref) {
                for page in run.numbers().take(index) {
                    table.permit(page, self.to, access);
                }
                return Err(busy);
            }
        }
        pages.set_lent(None);
        Ok(())
    }

    fn release(&mut self, pages: Pages) {
        let Some(run) = self.run(&pages) else { return };
        if pages.lent().is_none() {
            return self.free.put(run);
        }
        for (gref, page) in pages.grants().iter().zip(run.numbers()) {
            match self.guest.table().revoke(*gref) {
                Ok(()) => self.free.put(Run { first: page, count: 1 }),
                Err(_) => self.quarantine.push(page),
            }
        }
    }

    fn quarantined(&self) -> usize {
        let table = self.guest.table();
        self.quarantine.iter().filter(|page| table.is_mapped(table.reference(**page))).count()
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if self.hypervisor.is_crashed() {
            return;
        }
        self.pardon();
        // What is not free now stays reserved until the process ends.
        for run in core::mem::take(&mut self.free).iter() {
            self.hypervisor.unreserve(run);
        }
    }
}
