//! How many guests' pages this process may keep mapped in all.
//!
//! On Xen each kept page is a mapping of its own, and Linux limits those of a process (`vm.max_map_count`). Rings and memory
//! must always find one: kept pages take half of them and no more.

use std::{
    fs,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// What Linux allows if it does not say.
const USUAL: usize = 65530;

/// Pages that may be kept, for all queues of all threads.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(super) fn new(pages: usize) -> Self {
        Self { left: AtomicUsize::new(pages) }
    }

    /// The process's own.
    pub(super) fn of_process() -> &'static Self {
        static OWN: LazyLock<Budget> = LazyLock::new(|| {
            let text = fs::read_to_string("/proc/sys/vm/max_map_count");
            let most = text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL);
            Budget::new(most / 2)
        });
        &OWN
    }

    /// True while there is some left.
    pub(super) fn is_left(&self) -> bool {
        self.left.load(Relaxed) > 0
    }

    /// Takes a page's share. False when nothing is left.
    pub(super) fn take(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Gives the share of so many pages back.
    pub(super) fn give(&self, pages: usize) {
        self.left.fetch_add(pages, Relaxed);
    }
}
