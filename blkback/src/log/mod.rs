//! The in-flight log of one queue: what was taken out of the ring and not answered, in a file that outlives the process.
//!
//! A daemon that is killed at any instant leaves ring and log to the next, which learns from the two what it must do: see
//! [`recover`]. The file is memory of this process (`mmap`) on a file system without a disk behind it: the kernel keeps what a
//! dead process stored, in the order in which it stored it, and nothing is ever waited for.
//!
//! ```text
//!          take              commit                 answer                   published
//!   FREE ───────▶ TAKEN, not counted ───▶ TAKEN ───────────▶ ANSWERED(r) ───────────────▶ FREE
//!                 (still the ring's)      (is done again)    (is told again, unless
//!                                                             rsp_prod is past r)
//! ```
//!
//! Every arrow is one store of one word, so there is no instant between two of these states. Two numbers decide the rest:
//! `consumed`, up to which the ring's requests are the log's, and the ring's own `rsp_prod`, up to which the guest has answers.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use blkif_proto::{Entry, Status};
use ringbuf::Index;

mod format;
mod memory;
pub mod recover;

pub use format::{Identity, VERSION};
use format::{Record, State};
use memory::Memory;

/// The log of a queue that is being served.
///
/// Places are numbers of records; a request has one for each of its ring entries, and is known by the first.
#[derive(Debug)]
pub struct Log {
    memory: Memory,
    path: PathBuf,
    free: Vec<u32>,
    /// Answered since the last [`Log::published`].
    answered: Vec<u32>,
}

impl Log {
    /// Begins the log of a queue, none of whose requests are under way, at the ring index `consumed`. It replaces a log of that name
    /// in one step. Errors: the file cannot be made; what was there stays.
    pub fn create(path: &Path, identity: &Identity, consumed: Index) -> io::Result<Self> {
        let new = path.with_extension("new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&new)?;
        let mut memory = Memory::of_new(&file, format::length(identity.entries))?;
        format::write_header(&mut memory, identity)?;
        format::set_consumed(&mut memory, consumed);
        // Whole from its first instant on.
        fs::rename(&new, path)?;
        let free = (0..identity.entries).rev().collect();
        Ok(Self::with(memory, path, free))
    }

    fn with(memory: Memory, path: &Path, free: Vec<u32>) -> Self {
        Self { answered: Vec::with_capacity(free.capacity()), memory, path: path.to_owned(), free }
    }

    /// Notes the request at `index` of the ring, which has these entries, and says where. It does not count before
    /// [`Log::commit`]. None if the log is full, which a ring that holds its guest to its size does not let happen.
    pub fn take(&mut self, index: Index, entries: &[Entry]) -> Option<u32> {
        let begin = self.free.len().checked_sub(entries.len())?;
        let mut next = format::NONE;
        // Its other entries first: what has no head is nothing.
        for (entry, place) in entries.iter().zip(&self.free[begin..]).rev() {
            Record(self.memory.record(*place)).fill(index, next, entry);
            next = *place;
        }
        self.free.truncate(begin);
        Record(self.memory.record(next)).set(State::Taken);
        Some(next)
    }

    /// All that was noted, up to the request before `consumed`, is the log's from now on, and its slots in the ring may be written
    /// over.
    pub fn commit(&mut self, consumed: Index) {
        format::set_consumed(&mut self.memory, consumed);
    }

    /// The request at `place` is done: `status` is told in the ring's slot `at`, as soon as that is published.
    pub fn answer(&mut self, place: u32, status: Status, at: Index) {
        Record(self.memory.record(place)).set(State::Answered { status, at });
        self.answered.push(place);
    }

    /// The guest can see everything that was answered.
    pub fn published(&mut self) {
        while let Some(head) = self.answered.pop() {
            self.forget(head);
        }
    }

    /// Copies the entries of the request at `place`, as many as there is room for.
    pub fn read(&mut self, place: u32, entries: &mut [Entry]) {
        let mut next = place;
        for entry in entries {
            if next == format::NONE {
                return;
            }
            next = Record(self.memory.record(next)).read(entry);
        }
    }

    fn forget(&mut self, head: u32) {
        Record(self.memory.record(head)).set(State::Free);
        let mut next = head;
        while next != format::NONE && self.free.len() < self.free.capacity() {
            self.free.push(next);
            next = Record(self.memory.record(next)).link();
        }
    }

    /// The ring is no more, or nobody is left to answer: there is nothing to be recovered.
    pub fn remove(self) {
        // One that stays is of a ring that is no more, and is not taken for another's.
        _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
