//! Grants: how a guest lends pages to one other domain, and how that domain reaches them.

use blkif_proto::GrantRef;

use crate::{DomId, Pages, SharedMem};

/// What the borrower of a page may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read only (`GTF_readonly`): what a frontend lends for a write request.
    Read,
    /// Read and write: what a frontend lends for a read request, for rings and for persistent grants.
    ReadWrite,
}

/// Why a grant operation failed. Names follow `GNTST_*` of the public header `grant_table.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The reference is not granted to this domain (`GNTST_bad_gntref`).
    #[error("grant {0} is not granted to us")]
    BadRef(GrantRef),
    /// Granted read-only, wanted writable (`GNTST_permission_denied`).
    #[error("grant {0} is read-only")]
    ReadOnly(GrantRef),
    /// No such domain, or it is dying (`GNTST_bad_domain`).
    #[error("no domain {0} to share pages with")]
    NoDomain(DomId),
    /// The peer still maps the page, so it cannot be revoked.
    #[error("grant {0} is still mapped by the peer")]
    Busy(GrantRef),
    /// No grant entry, no page or no map slot is left (`GNTST_no_space`, `ENOSPC`).
    #[error("no grant or page left")]
    Exhausted,
    /// Offset and length leave the 4096-byte page (`GNTST_bad_copy_arg`).
    #[error("copy of {len} bytes at offset {offset} leaves the page of grant {gref}")]
    BadRange {
        /// The granted page.
        gref: GrantRef,
        /// Start in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
    },
    /// The world itself failed (its errno).
    #[error("grants: system error {0}")]
    System(i32),
}

/// The frontend's side: this guest's pages, lent to one domain (chosen when the lender was made).
///
/// Implementer: pages are zeroed when handed out; a page is never handed out again while the peer can reach it; what the
/// peer still maps at [`reclaim`](Self::reclaim) or [`release`](Self::release) is kept out of use and counted, and taken
/// back into use once the peer let go. Caller: gives back what it took.
pub trait Lender {
    /// Takes `count` (at least 1) zeroed pages, one after the other in this guest's virtual memory. Nothing is lent yet.
    /// Errors: [`GrantError::Exhausted`].
    fn alloc(&mut self, count: usize) -> Result<Pages, GrantError>;
    /// Lends every page of `pages`; afterwards [`Pages::grants`] names them. Lending what is lent already with the same access
    /// changes nothing. All or nothing. Allocates no heap memory.
    fn lend(&mut self, pages: &mut Pages, access: Access) -> Result<(), GrantError>;
    /// Revokes every grant of `pages`. Errors: [`GrantError::Busy`] when the peer still maps one; then all stay lent. Where a
    /// world cannot revoke (Linux's gntalloc) this does nothing and answers `Ok`.
    fn reclaim(&mut self, pages: &mut Pages) -> Result<(), GrantError>;
    /// Gives the pages back, revoking first. Pages that the peer still maps are kept out of use and counted in
    /// [`quarantined`](Self::quarantined).
    fn release(&mut self, pages: Pages);
    /// Pages that could not be taken back because the peer still maps them.
    fn quarantined(&self) -> usize;
}

/// One grant copy: bytes between a granted page and private memory of the caller.
#[derive(Debug)]
pub struct CopyOp<'a> {
    /// The granting domain.
    pub from: DomId,
    /// The granted page.
    pub gref: GrantRef,
    /// First byte in the granted page; `offset` + length of `local` stay within 4096.
    pub offset: u32,
    /// Which way the bytes go, and the private end.
    pub local: CopyEnd<'a>,
    /// Set by [`Mapper::copy`]: how this one operation ended.
    pub status: Result<(), GrantError>,
}

/// The private end of a grant copy.
#[derive(Debug)]
pub enum CopyEnd<'a> {
    /// From the granted page into these bytes.
    Into(&'a mut [u8]),
    /// From these bytes into the granted page (needs a writable grant).
    From(&'a [u8]),
}

/// The backend's side: reaches pages that other domains granted to this one. Owned by one worker thread.
///
/// Implementer: a map that fails for one reference undoes the others and names that reference. Nothing here panics, whatever
/// the references are. Caller: drops or clears mappings before it tells the frontend that a request is done.
pub trait Mapper {
    /// A reusable holder of mapped pages; unmaps when cleared or dropped.
    type Mapping: Mapping + Send + 'static;
    /// Several pages mapped one after the other, for rings; unmaps when dropped.
    type RingPages: ringbuf::RingPages + Send + 'static;

    /// An empty holder.
    fn mapping(&self) -> Self::Mapping;
    /// Maps `refs` in order and adds them to `into`. All or nothing. Allocates no heap memory once `into` has held as many
    /// pages before. The same reference may be mapped several times at once.
    fn map(
        &mut self,
        from: DomId,
        refs: &[GrantRef],
        access: Access,
        into: &mut Self::Mapping,
    ) -> Result<(), GrantError>;
    /// Maps `refs` writable and contiguously, in order.
    fn map_ring(&mut self, from: DomId, refs: &[GrantRef]) -> Result<Self::RingPages, GrantError>;
    /// Runs a batch of copies in one go and sets each operation's `status`. Errors: the whole batch could not be run.
    fn copy(&mut self, ops: &mut [CopyOp<'_>]) -> Result<(), GrantError>;
}

/// Pages mapped for one request or one persistent grant. Unmaps on [`clear`](Self::clear) and on drop.
pub trait Mapping {
    /// Number of pages held.
    fn len(&self) -> usize;
    /// True when no page is held.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The page at `index`, 4096 bytes; `None` past the end. The borrow keeps it mapped.
    fn page(&self, index: usize) -> Option<SharedMem<'_>>;
    /// Unmaps everything; keeps room for the next use.
    fn clear(&mut self);
}
