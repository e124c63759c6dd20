//! A ring in ordinary memory, for tests and models.

use crate::sync::{AtomicU32, Ordering};
use crate::{Field, Index, Layout, RingMem};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A ring on the heap. Clones share it: give one to each end, and keep one to play a peer that breaks the rules.
#[derive(Debug, Clone)]
pub struct Heap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    /// In the order of their offsets in the page.
    indices: [AtomicU32; 4],
    /// All slots, one after the other.
    words: Vec<AtomicU32>,
}

impl Heap {
    /// An all-zero ring.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let words = layout.entries() as usize * layout.entry_size() / 4;
        Self {
            shared: Arc::new(Shared {
                layout,
                indices: core::array::from_fn(|_| AtomicU32::new(0)),
                words: (0..words).map(|_| AtomicU32::new(0)).collect(),
            }),
        }
    }

    /// The words of the slot that `index` falls in.
    #[inline]
    fn slot(&self, index: Index) -> &[AtomicU32] {
        let words = self.shared.layout.entry_size() / 4;
        let first = self.shared.layout.slot(index) as usize * words;
        &self.shared.words[first..first + words]
    }
}

impl RingMem for Heap {
    #[inline]
    fn layout(&self) -> Layout {
        self.shared.layout
    }

    #[inline]
    fn load(&self, field: Field) -> Index {
        Index::new(self.shared.indices[field as usize / 4].load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, field: Field, value: Index) {
        self.shared.indices[field as usize / 4].store(value.get(), Ordering::Relaxed);
    }

    #[inline]
    fn read_slot(&self, index: Index, out: &mut [u8]) {
        for (bytes, word) in out.chunks_mut(4).zip(self.slot(index)) {
            let value = word.load(Ordering::Relaxed).to_ne_bytes();
            bytes.copy_from_slice(&value[..bytes.len()]);
        }
    }

    #[inline]
    fn write_slot(&self, index: Index, bytes: &[u8]) {
        for (bytes, word) in bytes.chunks(4).zip(self.slot(index)) {
            let mut value = [0; 4];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u32::from_ne_bytes(value), Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        for word in self.shared.indices.iter().chain(&self.shared.words) {
            word.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
