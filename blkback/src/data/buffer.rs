//! Private memory for data on its way: whole, page-aligned pages, so that it does for `O_DIRECT` too.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// One page of private memory.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub struct Page([u8; 4096]);

impl Default for Page {
    fn default() -> Self {
        Self([0; 4096])
    }
}

/// Pages that grow to the largest request they have carried. What a guest left in them is overwritten before any of it is
/// shown to another: reads fill exactly what is copied out.
#[derive(Default)]
pub struct Buffer(Box<[Page]>);

impl Buffer {
    /// Makes room for `bytes`; false when there is no memory for it.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let pages = bytes.div_ceil(4096);
        if pages <= self.0.len() {
            return true;
        }
        match <[Page]>::new_box_zeroed_with_elems(pages.next_power_of_two()) {
            Ok(pages) => {
                self.0 = pages;
                true
            }
            Err(_) => false,
        }
    }

    /// The first `len` bytes, or what there is of them.
    pub fn bytes(&self, len: usize) -> &[u8] {
        let all = self.0.as_bytes();
        all.get(..len).unwrap_or(all)
    }

    /// The first `len` bytes, or what there is of them.
    pub fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        let all = self.0.as_mut_bytes();
        let len = len.min(all.len());
        &mut all[..len]
    }

    /// Pages held.
    pub fn pages(&self) -> usize {
        self.0.len()
    }

    /// Gives all memory back.
    pub fn free(&mut self) {
        self.0 = Box::default();
    }
}
