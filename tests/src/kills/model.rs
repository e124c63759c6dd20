//! What must be on the disk, and what is on its way there.

/// Bytes of a disk.
pub(super) const BYTES: usize = 8 << 20;
/// Bytes that one request at a time has for itself.
pub(super) const CHUNK: usize = 128 << 10;
/// Chunks of a disk.
pub(super) const CHUNKS: usize = BYTES / CHUNK;

/// A disk's bytes as far as they were acknowledged. Requests under way never share a chunk, so that there is one truth.
#[derive(Debug)]
pub(super) struct Model {
    bytes: Vec<u8>,
    busy: [bool; CHUNKS],
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// A disk of zeros.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BYTES], busy: [false; CHUNKS] }
    }

    /// Takes a chunk that nobody has, at or after this one; none if all are taken.
    pub(super) fn take(&mut self, first: usize) -> Option<usize> {
        let chunk = (first..first + CHUNKS).map(|n| n % CHUNKS).find(|chunk| !self.busy[*chunk])?;
        self.busy[chunk] = true;
        Some(chunk)
    }

    /// Lets a chunk go.
    pub(super) fn release(&mut self, chunk: usize) {
        self.busy[chunk] = false;
    }

    /// A write was acknowledged.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The first byte in which what was read differs.
    pub(super) fn differs(&self, at: usize, bytes: &[u8]) -> Option<usize> {
        let there = &self.bytes[at..at + bytes.len()];
        (there != bytes)
            .then(|| at + there.iter().zip(bytes).position(|(one, other)| one != other).unwrap_or(0))
    }
}
