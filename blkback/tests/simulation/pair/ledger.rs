//! What the guest's owner knows of the disk, whichever program of his runs there.

use blkfront::Operation;

use crate::{disk::Platter, truth::Truth};

/// Bytes that one request at a time has for itself: more than eleven segments.
pub(crate) const CHUNK: usize = 56 << 10;
/// Chunks of the disk.
pub(crate) const CHUNKS: usize = 12;

/// Every request that was ever made.
pub(crate) struct Ledger {
    truth: Truth,
    busy: [bool; CHUNKS],
    next: u64,
    /// Failing operations are to be expected.
    pub(crate) failures: bool,
}

/// A request on its way.
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) op: Operation,
    pub(crate) chunk: Option<usize>,
    /// First byte on the disk.
    pub(crate) at: usize,
    /// What is written.
    pub(crate) data: Vec<u8>,
}

impl Ledger {
    pub(crate) fn new(failures: bool) -> Self {
        Self { truth: Truth::new(CHUNK * CHUNKS), busy: [false; CHUNKS], next: 1, failures }
    }

    /// A chunk that nothing is under way in.
    pub(crate) fn free_chunk(&self, first: usize) -> Option<usize> {
        (first..first + CHUNKS).map(|n| n % CHUNKS).find(|chunk| !self.busy[*chunk])
    }

    /// Takes note of a request, which is `data` long if it has any.
    pub(crate) fn send(&mut self, op: Operation, chunk: Option<usize>, at: usize, bytes: usize) -> Sent {
        let id = self.next;
        self.next += 1;
        let data: Vec<u8> = (0..bytes).map(|n| (id as usize * 31 + n + n / 512) as u8).collect();
        if let Some(chunk) = chunk {
            self.busy[chunk] = true;
        }
        if matches!(op, Operation::Write | Operation::WriteBarrier) {
            self.truth.sent(id, at, &data);
        }
        self.truth.tick(id);
        Sent { id, op, chunk, at, data }
    }

    /// A request has ended; `read` is what it brought, if it is a read.
    pub(crate) fn settle(&mut self, sent: &Sent, okay: bool, read: &[u8], disk: &Platter) {
        assert!(okay || self.failures, "{:?} {} failed", sent.op, sent.id);
        let range = sent.at..sent.at + sent.data.len();
        match sent.op {
            Operation::Read if okay => {
                assert!(read == &self.truth.bytes[range], "a read brought other bytes")
            }
            Operation::Write | Operation::WriteBarrier if okay => {
                assert!(sent.data == disk.bytes[range], "a write was acknowledged, and is not on the disk");
                self.truth.acknowledged(sent.id, sent.at, &sent.data);
            }
            Operation::Write | Operation::WriteBarrier => self.truth.failed(range, disk),
            _ => {}
        }
        self.close(sent, disk);
        if okay && matches!(sent.op, Operation::Flush | Operation::WriteBarrier) {
            self.truth.flushed(sent.id);
        }
    }

    /// A request was lost with the program that made it: parts of it may be there, and nothing beside it.
    pub(crate) fn lose(&mut self, sent: &Sent, disk: &Platter) {
        if matches!(sent.op, Operation::Write | Operation::WriteBarrier) {
            self.truth.failed(sent.at..sent.at + sent.data.len(), disk);
        }
        self.close(sent, disk);
    }

    fn close(&mut self, sent: &Sent, disk: &Platter) {
        let Some(chunk) = sent.chunk else { return };
        self.busy[chunk] = false;
        let whole = chunk * CHUNK..(chunk + 1) * CHUNK;
        assert!(self.truth.bytes[whole.clone()] == disk.bytes[whole], "bytes changed that nobody wrote");
    }

    /// The power fails, in thought: what was flushed is there.
    pub(crate) fn check_power_loss(&self, disk: &Platter, kept: impl FnMut() -> bool) {
        self.truth.check(&disk.after_power_loss(kept));
    }
}
