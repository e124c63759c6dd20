//! What should be in a range of the disk: for each sector, which pass wrote it last.

use alloc::{vec, vec::Vec};
use core::ops::Range;

use crate::extent::Extent;

/// The last sectors of a disk.
#[derive(Default)]
pub(super) struct Model {
    first: u64,
    /// `None`: not known.
    passes: Vec<Option<u64>>,
}

impl Model {
    /// Of the last `span` of `sectors` sectors nothing is known.
    pub(super) fn of_the_end(sectors: u64, span: u64) -> Self {
        let count = usize::try_from(span.min(sectors)).unwrap_or(0);
        // Whole pages, which are multiples of every sector size.
        let count = if count > 8 { count / 8 * 8 } else { count };
        Self { first: sectors - count as u64, passes: vec![None; count] }
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.first + self.passes.len() as u64
    }

    /// Which pass wrote a sector last.
    pub(super) fn pass(&self, sector: u64) -> Option<u64> {
        let at = usize::try_from(sector.checked_sub(self.first)?).ok()?;
        self.passes.get(at).copied().flatten()
    }

    /// A pass wrote an extent; or nobody knows what is there now.
    pub(super) fn set(&mut self, extent: &Extent, pass: Option<u64>) {
        let Some(at) = extent.sector.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        let end = at.saturating_add(extent.sectors).min(self.passes.len());
        if let Some(passes) = self.passes.get_mut(at..end) {
            passes.fill(pass);
        }
    }
}

#[cfg(test)]
mod tests;
