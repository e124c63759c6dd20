//! Where the clusters of an image are, for workers, who read and write by themselves what stays where it is.
//!
//! Only clusters that are the image's own, and to which its file leads already: a write there is no less written than one through the
//! disk's thread. They stay where they are but for discard and a smaller disk, which wait for all who are there ([`Places::alone`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::OwnedRwLockWriteGuard;

use crate::storage::{Image, driver::Place};

/// Ranges that are remembered at most; then it is begun anew.
const RANGES_MAX: usize = 1 << 16;

/// Of one image; shared by its thread and the workers.
#[derive(Debug)]
pub(super) struct Places {
    /// The image's file.
    pub(super) file: Arc<Image>,
    gate: Arc<tokio::sync::RwLock<()>>,
    /// By the first byte on the disk: length, and place in the file.
    known: RwLock<BTreeMap<u64, (u64, u64)>>,
}

impl Places {
    pub(super) fn new(file: Arc<Image>) -> Self {
        Self { file, gate: Arc::default(), known: RwLock::default() }
    }

    /// Where a range of the disk is, if that is known and it is in one piece.
    pub(super) fn find(&self, offset: u64, len: u64) -> Option<Place> {
        let held = Arc::clone(&self.gate).try_read_owned().ok()?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (start, (length, place)) = known.range(..=offset).next_back()?;
        let within = offset - start;
        (within.checked_add(len)? <= *length).then(|| Place { offset: place + within, held })
    }

    /// Remembers where a range of the disk is.
    pub(super) fn learn(&self, offset: u64, len: u64, place: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= RANGES_MAX {
            known.clear();
        }
        known.insert(offset, (len, place));
    }

    /// Waits until nobody is anywhere, keeps others out for as long as the value is kept, and forgets all.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        let alone = Arc::clone(&self.gate).write_owned().await;
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
        alone
    }
}
