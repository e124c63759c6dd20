//! A file as words of memory.
//!
//! Unsafe, because what is mapped is only memory as long as nobody shortens the file.
#![expect(unsafe_code, reason = "a file is mapped into memory")]

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::{MmapMut, MmapOptions};
use nix::fcntl::{FallocateFlags, fallocate};
use zerocopy::FromBytes as _;

/// Bytes of a word.
pub(super) const WORD: usize = 8;
/// Words of a record.
pub(super) const RECORD: usize = 16;
/// Bytes before the first record.
pub(super) const HEADER: usize = 4096;

/// The words of a mapped file. Each is stored and loaded as one, and stores keep their order.
#[derive(Debug)]
pub(super) struct Memory(MmapMut);

impl Memory {
    /// A new file's. All of its memory is there from now on, so that no store can fail. Errors: the file system's.
    pub(super) fn of_new(file: &File, bytes: usize) -> io::Result<Self> {
        let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        fallocate(file, FallocateFlags::empty(), 0, length)?;
        Self::map(file, bytes)
    }

    /// An existing file's. Errors: it is too short for a header, or too long.
    pub(super) fn of(file: &File, longest: usize) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if bytes < HEADER || bytes > longest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{bytes} bytes are no log")));
        }
        Self::map(file, bytes)
    }

    fn map(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: the mapping covers the file's `bytes` bytes and lives as long as the value, which owns it. The file lies in a
        // directory that only the daemon writes to, and the daemon neither shortens it nor maps it a second time: the lock of
        // that directory keeps a second daemon out. What others could read of it does not matter. That words are changed through
        // atomics only is seen to below.
        let map = unsafe { MmapOptions::new().len(bytes).map_mut(file)? };
        Ok(Self(map))
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn words(&mut self) -> &mut [AtomicU64] {
        let whole = self.0.len() / WORD * WORD;
        // A page's address is a word's.
        <[AtomicU64]>::mut_from_bytes(&mut self.0[..whole]).unwrap_or_default()
    }

    /// The header's words.
    pub(super) fn header(&mut self) -> &mut [AtomicU64] {
        &mut self.words()[..HEADER / WORD]
    }

    /// The words of a record; none of one that the file does not reach.
    pub(super) fn record(&mut self, place: u32) -> &mut [AtomicU64] {
        let begin = HEADER / WORD + place as usize * RECORD;
        self.words().get_mut(begin..begin + RECORD).unwrap_or_default()
    }
}

/// Stores a word after everything that was stored before.
pub(super) fn store(word: &AtomicU64, value: u64) {
    #[cfg(test)]
    if !super::tests::lives() {
        return;
    }
    word.store(value, Ordering::Release);
}

/// Loads a word.
pub(super) fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}
