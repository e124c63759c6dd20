//! Granted pages of other domains through `/dev/xen/gntdev`.
//!
//! Unsafe stands here because grant copy is handed addresses. What makes it sound: they are those of the slices that the
//! operations borrow, for the time of the call.
#![expect(unsafe_code, reason = "grant copy takes addresses; see the module documentation")]

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use blkif_proto::GrantRef;
use nix::errno::Errno;
use smallvec::SmallVec;

pub use super::span::RingPages;
use super::{
    Node,
    span::Span,
    uapi::{self, CopySegment, DEST_GREF, OnUnmap, SOURCE_GREF, foreign},
};
use crate::{Access, CopyOp, DomId, GrantError, PAGE_SIZE, SharedMem, grant::CopyEnd};

pub(super) const NODE: Node = Node { path: "/dev/xen/gntdev", module: "xen-gntdev" };

/// How often a copy is tried whose page the hypervisor must fetch first.
const TRIES: usize = 100;

/// Maps and copies pages that were granted to this domain.
#[derive(Debug)]
pub struct Mapper {
    node: Arc<OwnedFd>,
    // Room that is used again.
    words: Vec<u64>,
    segments: Vec<CopySegment>,
}

/// Granted pages that are mapped, one span for each [`map`](crate::Mapper::map) that filled it.
#[derive(Debug, Default)]
pub struct Mapping {
    spans: SmallVec<[Span; 1]>,
}

impl Mapper {
    pub(super) fn open() -> Result<Self, GrantError> {
        let node = super::open(NODE.path).map_err(|error| system(super::errno(&error)))?;
        Ok(Self::over(node))
    }

    pub(super) fn over(node: OwnedFd) -> Self {
        Self { node: Arc::new(node), words: Vec::new(), segments: Vec::new() }
    }

    fn span(&mut self, from: DomId, refs: &[GrantRef], access: Access) -> Result<Span, GrantError> {
        self.try_span(from, refs, access).map_err(|errno| match errno {
            Errno::EINVAL => self.culprit(from, refs, access),
            errno => system(errno),
        })
    }

    /// The kernel records the grants first, and maps them when their memory is asked for.
    fn try_span(&mut self, from: DomId, refs: &[GrantRef], access: Access) -> Result<Span, Errno> {
        let grefs = refs.iter().map(|gref| gref.0);
        let index = uapi::map_grant_refs(self.node.as_fd(), from, grefs, &mut self.words)?;
        Span::map(&self.node, index, refs.len(), access, uapi::unmap_grant_refs)
    }

    /// Which of several grants cannot be mapped: the kernel does not say.
    fn culprit(&mut self, from: DomId, refs: &[GrantRef], access: Access) -> GrantError {
        for &gref in refs {
            if self.try_span(from, &[gref], access).is_err() {
                let readable =
                    access == Access::ReadWrite && self.try_span(from, &[gref], Access::Read).is_ok();
                return if readable { GrantError::ReadOnly(gref) } else { GrantError::BadRef(gref) };
            }
        }
        GrantError::System(Errno::EINVAL as i32)
    }
}

impl crate::Mapper for Mapper {
    type Mapping = Mapping;
    type RingPages = RingPages;

    fn mapping(&self) -> Mapping {
        Mapping::default()
    }

    fn map(
        &mut self,
        from: DomId,
        refs: &[GrantRef],
        access: Access,
        into: &mut Mapping,
    ) -> Result<(), GrantError> {
        if !refs.is_empty() {
            let span = self.span(from, refs, access)?;
            into.spans.push(span);
        }
        Ok(())
    }

    fn map_ring(&mut self, from: DomId, refs: &[GrantRef]) -> Result<RingPages, GrantError> {
        self.span(from, refs, Access::ReadWrite).map(RingPages)
    }

    fn copy(&mut self, ops: &mut [CopyOp<'_>]) -> Result<(), GrantError> {
        self.segments.clear();
        self.segments.extend(ops.iter_mut().map(segment));
        for op in &mut *ops {
            op.status = in_page(op);
        }
        for _ in 0..TRIES {
            // SAFETY: each segment with a length names a slice that its operation borrows until this function returns, writable
            // where it is the destination; the length is the slice's.
            unsafe { uapi::grant_copy(self.node.as_fd(), &mut self.segments) }.map_err(system)?;
            let mut again = false;
            for (op, segment) in ops.iter_mut().zip(&mut self.segments).filter(|(_, s)| s.len > 0) {
                op.status = outcome(segment.status, op);
                if segment.status == GNTST_EAGAIN {
                    again = true;
                } else {
                    // Done: copies of no length are left alone.
                    segment.len = 0;
                }
            }
            if !again {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl RingPages {
    /// Sets what happens when the ring's page `page` is unmapped, by us or by our end. Errors: the kernel's.
    pub fn on_unmap(&self, page: u32, what: OnUnmap) -> Result<(), GrantError> {
        self.0.on_unmap(page, what).map_err(system)
    }
}

impl crate::Mapping for Mapping {
    fn len(&self) -> usize {
        self.spans.iter().map(Span::count).sum()
    }

    fn page(&self, mut index: usize) -> Option<SharedMem<'_>> {
        for span in &self.spans {
            if index < span.count() {
                return span.mem().part(index * PAGE_SIZE, PAGE_SIZE);
            }
            index -= span.count();
        }
        None
    }

    fn clear(&mut self) {
        self.spans.clear();
    }
}

/// `GNTST_eagain`: the page has to be fetched first.
const GNTST_EAGAIN: i16 = -12;

/// How a copy went (`GNTST_*` of the public header `grant_table.h`).
fn outcome(status: i16, op: &CopyOp<'_>) -> Result<(), GrantError> {
    match status {
        0 => Ok(()),
        -2 => Err(GrantError::NoDomain(op.from)),
        -8 => Err(GrantError::ReadOnly(op.gref)),
        -13 => Err(GrantError::Exhausted),
        _ => Err(GrantError::BadRef(op.gref)),
    }
}

/// The kernel's form of a copy; one of no length when it must not be done.
fn segment(op: &mut CopyOp<'_>) -> CopySegment {
    let len = if in_page(op).is_ok() { bytes(op) } else { 0 };
    let there = foreign(op.from, op.gref.0, u16::try_from(op.offset).unwrap_or(0));
    let (source, dest, flags) = match &mut op.local {
        CopyEnd::Into(bytes) => (there, bytes.as_mut_ptr() as u64, SOURCE_GREF),
        CopyEnd::From(bytes) => (bytes.as_ptr() as u64, there, DEST_GREF),
    };
    CopySegment { source, dest, len: u16::try_from(len).unwrap_or(0), flags, status: 0 }
}

fn bytes(op: &CopyOp<'_>) -> usize {
    match &op.local {
        CopyEnd::Into(bytes) => bytes.len(),
        CopyEnd::From(bytes) => bytes.len(),
    }
}

fn in_page(op: &CopyOp<'_>) -> Result<(), GrantError> {
    let len = bytes(op);
    let end = (op.offset as usize).saturating_add(len);
    if end <= PAGE_SIZE {
        return Ok(());
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    Err(GrantError::BadRange { gref: op.gref, offset: op.offset, len })
}

fn system(errno: Errno) -> GrantError {
    match errno {
        Errno::ENOSPC | Errno::ENOMEM => GrantError::Exhausted,
        errno => GrantError::System(errno as i32),
    }
}

#[cfg(test)]
mod tests;
