//! The memory of one queue: where buffers come from, when they are lent and when they are taken back.
//!
//! | connection | lent | taken back |
//! |---|---|---|
//! | persistent grants | read-write, at first use | when the queue closes or its backend is replaced |
//! | else | at each use, read-only for writes | when all requests of the use are answered |
//!
//! A page that the backend still maps when it should not is never used again (the rule after XSA-396).
//!
//! Idle buffers wait in a pool for the next of their size. When there is no memory for a new one, they make room: what the backend
//! does not map goes back to the lender and can become buffers of any size; what it keeps mapped stays as it is, and a larger one
//! serves in part.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use xen_platform::{Access, GrantError, Lender, PAGE_SIZE, Pages, SharedMem};

use crate::Buffer;

/// Numbers the homes of this process, so that a buffer can be told from another queue's.
static NEXT_HOME: AtomicU32 = AtomicU32::new(0);

/// A queue's lenders and its pool of idle buffers.
pub(crate) struct Grants<L: Lender> {
    home: Home<L>,
    /// Lenders of earlier connections, kept while the application holds buffers of theirs.
    retired: Vec<Home<L>>,
    pool: Pool,
    persistent: bool,
    /// Pages lost to lenders that are gone.
    lost: usize,
}

/// A lender, and the mark of the buffers that are its.
pub(crate) struct Home<L> {
    lender: L,
    number: u32,
    /// Buffers out of the pool.
    out: usize,
}

impl<L: Lender> Home<L> {
    pub(crate) fn new(lender: L) -> Self {
        Self { lender, number: NEXT_HOME.fetch_add(1, Ordering::Relaxed), out: 0 }
    }

    pub(crate) fn lender(&mut self) -> &mut L {
        &mut self.lender
    }
}

impl<L: Lender> Grants<L> {
    /// Memory that comes from `home`.
    pub(crate) fn new(home: Home<L>, persistent: bool) -> Self {
        Self { home, retired: Vec::new(), pool: Pool::default(), persistent, lost: 0 }
    }

    /// A buffer of `bytes`, rounded up to pages, at least one.
    pub(crate) fn alloc(&mut self, bytes: usize) -> Result<Buffer, GrantError> {
        let count = bytes.div_ceil(PAGE_SIZE).max(1);
        let pages = match self.pool.take(count) {
            Some(pages) => pages,
            None => match self.home.lender.alloc(count) {
                Err(GrantError::Exhausted) => self.alloc_scarce(count)?,
                pages => pages?,
            },
        };
        self.home.out += 1;
        Ok(Buffer { pages, used: count, home: self.home.number })
    }

    /// Takes a buffer into the pool, or back to the lender of the connection that is gone. Another queue's buffer is lost.
    pub(crate) fn free(&mut self, buffer: Buffer) {
        if buffer.home == self.home.number {
            self.home.out = self.home.out.saturating_sub(1);
            self.pool.put(buffer.pages);
        } else {
            self.release_retired(buffer);
        }
    }

    /// True when the buffer came from this queue.
    #[inline]
    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        buffer.home == self.home.number || self.retired.iter().any(|home| home.number == buffer.home)
    }

    /// Lends a buffer as the connection does it. Errors: [`GrantError::Busy`] when it is lent with another access and the backend
    /// maps it; no grant left.
    #[inline]
    pub(crate) fn lend(&mut self, buffer: &mut Buffer, access: Access) -> Result<(), GrantError> {
        let access = if self.persistent { Access::ReadWrite } else { access };
        if buffer.home != self.home.number {
            self.move_home(buffer)?;
        }
        // Where it has moved to may be lent, and mapped, from an earlier use.
        if buffer.pages.lent() == Some(access) {
            return Ok(());
        }
        self.home.lender.reclaim(&mut buffer.pages)?;
        self.home.lender.lend(&mut buffer.pages, access)
    }

    /// Takes a buffer back after use, unless grants are persistent. Errors: [`GrantError::Busy`] when the backend still maps it.
    #[inline]
    pub(crate) fn settle(&mut self, buffer: &mut Buffer) -> Result<(), GrantError> {
        if self.persistent {
            return Ok(());
        }
        self.reclaim(buffer)
    }

    /// Takes a buffer back, whatever the policy.
    pub(crate) fn reclaim(&mut self, buffer: &mut Buffer) -> Result<(), GrantError> {
        match self.lender_of(buffer.home) {
            Some(home) => home.lender.reclaim(&mut buffer.pages),
            None => Ok(()),
        }
    }

    /// Keeps a buffer that the backend still maps out of use.
    pub(crate) fn quarantine(&mut self, buffer: Buffer) {
        if let Some(home) = self.lender_of(buffer.home) {
            home.out = home.out.saturating_sub(1);
            home.lender.release(buffer.pages);
        }
    }

    /// Continues with the lender of a new connection. Buffers move as they are used.
    pub(crate) fn replace(&mut self, home: Home<L>, persistent: bool) {
        let old = core::mem::replace(&mut self.home, home);
        self.persistent = persistent;
        self.retire(old);
    }

    /// Takes the pool back; buffers that are out stay out.
    pub(crate) fn close(&mut self) {
        let Self { home, pool, .. } = self;
        pool.sift(|pages| {
            home.lender.release(pages);
            None
        });
    }

    /// The lender, for pages that are no buffers.
    pub(crate) fn lender(&mut self) -> &mut L {
        &mut self.home.lender
    }

    /// Pages kept out of use because the backend maps them.
    pub(crate) fn quarantined(&self) -> usize {
        let retired: usize = self.retired.iter().map(|home| home.lender.quarantined()).sum();
        self.lost + retired + self.home.lender.quarantined()
    }

    /// At least `count` pages where there is memory for no more.
    #[cold]
    fn alloc_scarce(&mut self, count: usize) -> Result<Pages, GrantError> {
        let larger = if self.persistent { self.pool.take_larger(count) } else { None };
        if let Some(pages) = larger {
            return Ok(pages);
        }
        self.trim();
        self.home.lender.alloc(count)
    }

    /// Gives idle buffers back to the lender, except those that the backend keeps mapped.
    fn trim(&mut self) {
        let Self { home, pool, persistent, .. } = self;
        pool.sift(|mut pages| {
            if *persistent && home.lender.reclaim(&mut pages).is_err() {
                return Some(pages);
            }
            home.lender.release(pages);
            None
        });
    }

    /// Moves a buffer's content from a lender that is gone to pages of the present one.
    fn move_home(&mut self, buffer: &mut Buffer) -> Result<(), GrantError> {
        let moved = self.alloc(buffer.len())?;
        copy(buffer.mem(), moved.mem());
        let old = core::mem::replace(buffer, moved);
        self.release_retired(old);
        Ok(())
    }

    fn retire(&mut self, mut old: Home<L>) {
        self.pool.sift(|pages| {
            old.lender.release(pages);
            None
        });
        self.retired.push(old);
        self.sweep();
    }

    fn release_retired(&mut self, buffer: Buffer) {
        if let Some(home) = self.retired.iter_mut().find(|home| home.number == buffer.home) {
            home.out = home.out.saturating_sub(1);
            home.lender.release(buffer.pages);
            self.sweep();
        }
    }

    /// Lets go of lenders that no buffer needs.
    fn sweep(&mut self) {
        let lost = &mut self.lost;
        self.retired.retain(|home| {
            if home.out == 0 {
                *lost += home.lender.quarantined();
            }
            home.out > 0
        });
    }

    fn lender_of(&mut self, number: u32) -> Option<&mut Home<L>> {
        let Self { home, retired, .. } = self;
        core::iter::once(home).chain(retired).find(|home| home.number == number)
    }
}

impl<L: Lender> Drop for Grants<L> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Idle buffers by their number of pages. An application uses few sizes, so a short list is searched.
#[derive(Default)]
struct Pool {
    sizes: Vec<(usize, Vec<Pages>)>,
}

impl Pool {
    #[inline]
    fn take(&mut self, count: usize) -> Option<Pages> {
        self.sizes.iter_mut().find(|(size, _)| *size == count)?.1.pop()
    }

    #[inline]
    fn put(&mut self, pages: Pages) {
        let count = pages.count();
        match self.sizes.iter_mut().find(|(size, _)| *size == count) {
            Some((_, idle)) => idle.push(pages),
            None => self.sizes.push((count, Vec::from([pages]))),
        }
    }

    /// The smallest of those with more than `count` pages.
    fn take_larger(&mut self, count: usize) -> Option<Pages> {
        let larger = self.sizes.iter_mut().filter(|(size, idle)| *size > count && !idle.is_empty());
        larger.min_by_key(|(size, _)| *size)?.1.pop()
    }

    /// Hands out every buffer, and keeps those that come back.
    fn sift(&mut self, mut sift: impl FnMut(Pages) -> Option<Pages>) {
        for (_, idle) in &mut self.sizes {
            for index in (0..idle.len()).rev() {
                let kept = sift(idle.swap_remove(index));
                idle.extend(kept);
            }
        }
    }
}

fn copy(from: SharedMem<'_>, to: SharedMem<'_>) {
    let mut chunk = [0; 512];
    for offset in (0..from.len()).step_by(chunk.len()) {
        if let (Some(from), Some(to)) = (from.part(offset, chunk.len()), to.part(offset, chunk.len())) {
            let read = from.read(&mut chunk);
            to.write(&chunk[..read]);
        }
    }
}
