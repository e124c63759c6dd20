//! One domain's memory and grant table, as one process of the world has them mapped.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use super::{
    pages::{Protection, View, discard, memfd},
    runs::Run,
    table::{GrantTable, system},
};
use crate::{Access, DomId, GrantError, PAGE_SIZE, SharedMem};

/// What the hypervisor tells a process about a domain, besides the two descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestInfo {
    pub(crate) dom: DomId,
    /// Size in pages.
    pub(crate) pages: u32,
    /// Decides the order of the grant references.
    pub(crate) salt: u32,
}

/// A domain's memory: twice mapped, so that what was granted read-only is read-only for the processor too.
#[derive(Debug)]
pub(crate) struct Guest {
    info: GuestInfo,
    table: GrantTable,
    fd: OwnedFd,
    writable: Arc<View>,
    readable: View,
}

impl Guest {
    /// New memory and a new table.
    pub(crate) fn create(info: GuestInfo) -> Result<Self, GrantError> {
        let table = GrantTable::create(info.dom, info.pages, info.salt)?;
        Self::with(info, table, memfd("xen-guest", Self::bytes(info) as u64).map_err(system)?)
    }

    /// Memory and table behind descriptors that came from [`fds`](Self::fds).
    #[cfg(feature = "sim")]
    pub(crate) fn attach(info: GuestInfo, table: OwnedFd, memory: OwnedFd) -> Result<Self, GrantError> {
        Self::with(info, GrantTable::attach(info.dom, info.pages, info.salt, table)?, memory)
    }

    fn with(info: GuestInfo, table: GrantTable, fd: OwnedFd) -> Result<Self, GrantError> {
        let view = |protection| View::new(&fd, Self::bytes(info), protection).map_err(system);
        let writable = Arc::new(view(Protection::ReadWrite)?);
        let readable = view(Protection::Read)?;
        Ok(Self { info, table, fd, writable, readable })
    }

    fn bytes(info: GuestInfo) -> usize {
        info.pages as usize * PAGE_SIZE
    }

    pub(crate) fn info(&self) -> GuestInfo {
        self.info
    }

    pub(crate) fn table(&self) -> &GrantTable {
        &self.table
    }

    /// The files of the table and of the memory.
    #[cfg(feature = "sim")]
    pub(crate) fn fds(&self) -> [std::os::fd::BorrowedFd<'_>; 2] {
        [self.table.fd(), self.fd.as_fd()]
    }

    /// The memory as the domain itself sees it.
    pub(crate) fn memory(&self) -> &Arc<View> {
        &self.writable
    }

    /// A page as somebody sees it who holds a grant with this access.
    pub(crate) fn page(&self, page: u32, access: Access) -> Option<SharedMem<'_>> {
        match access {
            Access::Read => self.readable.page(page),
            Access::ReadWrite => self.writable.page(page),
        }
    }

    /// Pages one after the other, writable.
    pub(crate) fn gather(&self, pages: &[u32]) -> Result<View, GrantError> {
        View::gather(&self.fd, pages).map_err(system)
    }

    /// Takes back what a dead lender of these pages had lent. True when nobody maps any of them any more; then they are zero
    /// again.
    pub(crate) fn reclaim(&self, pages: Run) -> bool {
        let held = |page: &u32| self.table.revoke(self.table.reference(*page)).is_err();
        // Every page is tried, also after one that is held.
        let free = pages.numbers().filter(held).count() == 0;
        let bytes = |pages: u32| u64::from(pages) * PAGE_SIZE as u64;
        free && discard(self.fd.as_fd(), bytes(pages.first), bytes(pages.count)).is_ok()
    }
}
