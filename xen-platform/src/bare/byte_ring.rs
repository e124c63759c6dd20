//! A ring of bytes in a page shared with a daemon of the control domain: the console's and XenStore's have the same shape.
//!
//! Each index counts bytes modulo 2^32 and belongs to one end. The page is the daemon's too, so an index may be anything:
//! what cannot be true is reported, and nothing outside the ring's own bytes is ever touched.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::SharedMem;

/// Where a ring lies in its page, in bytes. `size` is a power of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) data: usize,
    pub(super) size: usize,
    pub(super) consumer: usize,
    pub(super) producer: usize,
}

/// One end of a ring: use it to write or to read, not both.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteRing {
    data: SharedMem<'static>,
    consumer: &'static AtomicU32,
    producer: &'static AtomicU32,
}

/// More bytes are said to wait than the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

impl ByteRing {
    /// The ring at `place`; `None` when that leaves the page.
    pub(super) fn new(page: SharedMem<'static>, place: Place) -> Option<Self> {
        let data = page.part(place.data, place.size)?;
        Some(Self { data, consumer: page.word32(place.consumer)?, producer: page.word32(place.producer)? })
    }

    /// How many bytes wait to be read.
    pub(super) fn waiting(&self) -> Result<usize, Corrupt> {
        // The end that asks owns one of the two; the other is to be seen before what it tells of is touched.
        let produced = self.producer.load(Ordering::Acquire);
        let consumed = self.consumer.load(Ordering::Acquire);
        let waiting = produced.wrapping_sub(consumed) as usize;
        if waiting <= self.data.len() { Ok(waiting) } else { Err(Corrupt) }
    }

    /// Writes as much of `bytes` as there is room for, and answers how much.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize, Corrupt> {
        let count = bytes.len().min(self.data.len() - self.waiting()?);
        let at = self.producer.load(Ordering::Relaxed);
        let [head, tail] = self.parts(at, count);
        let (first, second) = bytes[..count].split_at(head.len());
        head.write(first);
        tail.write(second);
        self.producer.store(advance(at, count), Ordering::Release);
        Ok(count)
    }

    /// Reads as many bytes as wait and `out` holds, and answers how many.
    pub(super) fn read(&self, out: &mut [u8]) -> Result<usize, Corrupt> {
        let count = out.len().min(self.waiting()?);
        let at = self.consumer.load(Ordering::Relaxed);
        let [head, tail] = self.parts(at, count);
        let (first, second) = out[..count].split_at_mut(head.len());
        head.read(first);
        tail.read(second);
        self.consumer.store(advance(at, count), Ordering::Release);
        Ok(count)
    }

    /// The `count` bytes from index `at` on: up to the ring's end, and from its begin.
    fn parts(&self, at: u32, count: usize) -> [SharedMem<'static>; 2] {
        let at = at as usize & (self.data.len() - 1);
        let head = count.min(self.data.len() - at);
        let part = |from, len| self.data.part(from, len).unwrap_or(self.data);
        [part(at, head), part(0, count - head)]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a ring has at most 2048 bytes")]
fn advance(index: u32, count: usize) -> u32 {
    index.wrapping_add(count as u32)
}

#[cfg(test)]
mod tests;
