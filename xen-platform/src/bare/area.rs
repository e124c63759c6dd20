//! Pages that an image sets aside: for the world's own mappings, and to lend.
//!
//! Unsafe stands here because a static that others write has to be declared. What makes it sound: an area gives its pages
//! out once, as [`SharedMem`], and has no other access to them.
#![expect(unsafe_code, reason = "statics that are shared; see the module documentation")]

use core::{
    cell::UnsafeCell,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{PAGE_SIZE, SharedMem};

/// `N` zeroed pages in the image's uninitialised data. Goes into a `static`.
#[repr(C, align(4096))]
pub struct Area<const N: usize> {
    pages: UnsafeCell<[[u8; PAGE_SIZE]; N]>,
    taken: AtomicBool,
}

// SAFETY: the pages are reached through what `take` gives out only, which it does once; all accesses are atomic from there.
unsafe impl<const N: usize> Sync for Area<N> {}

impl<const N: usize> Area<N> {
    /// Pages that nobody has taken.
    #[expect(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Self {
        Self { pages: UnsafeCell::new([[0; PAGE_SIZE]; N]), taken: AtomicBool::new(false) }
    }

    /// The pages; `None` to all but the first who asks.
    pub fn take(&'static self) -> Option<SharedMem<'static>> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        let base = NonNull::new(self.pages.get())?.cast();
        // SAFETY: `N` pages, page aligned and for ever; there is no reference to them, and only one who asked.
        Some(unsafe { SharedMem::new(base, N * PAGE_SIZE) })
    }
}

impl<const N: usize> core::fmt::Debug for Area<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Area({N} pages)")
    }
}
