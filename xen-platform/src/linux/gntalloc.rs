//! Pages for another domain through `/dev/xen/gntalloc`.
//!
//! The node grants pages as it makes them and cannot take a grant back while it keeps the page, nor tell whether the peer
//! still maps one. So pages are shared from [`alloc`](crate::Lender::alloc) on, writable, and stay so until they are released;
//! the kernel keeps each until the peer has let go of it.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use blkif_proto::GrantRef;
use nix::errno::Errno;

use super::{
    Node,
    span::{Span, into_pages},
    uapi,
};
use crate::{Access, DomId, GrantError, Pages};

pub(super) const NODE: Node = Node { path: "/dev/xen/gntalloc", module: "xen-gntalloc" };

/// Lends pages of this guest to one domain.
#[derive(Debug)]
pub struct Lender {
    node: Arc<OwnedFd>,
    to: DomId,
}

impl Lender {
    pub(super) fn open(to: DomId) -> Result<Self, GrantError> {
        let node = super::open(NODE.path).map_err(|error| system(super::errno(&error)))?;
        Ok(Self { node: Arc::new(node), to })
    }
}

impl crate::Lender for Lender {
    fn alloc(&mut self, count: usize) -> Result<Pages, GrantError> {
        let (index, refs) = uapi::alloc_grefs(self.node.as_fd(), self.to, count).map_err(system)?;
        let span =
            Span::map(&self.node, index, count, Access::ReadWrite, uapi::dealloc_grefs).map_err(system)?;
        into_pages(span, refs.into_iter().map(GrantRef).collect()).ok_or(GrantError::Exhausted)
    }

    fn lend(&mut self, pages: &mut Pages, access: Access) -> Result<(), GrantError> {
        pages.set_lent(Some(access));
        Ok(())
    }

    fn reclaim(&mut self, pages: &mut Pages) -> Result<(), GrantError> {
        pages.set_lent(None);
        Ok(())
    }

    fn release(&mut self, pages: Pages) {
        drop(pages);
    }

    fn quarantined(&self) -> usize {
        0
    }
}

fn system(errno: Errno) -> GrantError {
    match errno {
        // The module's parameter `limit`, or memory.
        Errno::ENOSPC | Errno::ENOMEM => GrantError::Exhausted,
        errno => GrantError::System(errno as i32),
    }
}
