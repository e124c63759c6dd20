//! What a guest may rely on: what it reads back, and what a power loss leaves.

use std::{hash::Hasher as _, ops::Range};

use crate::disk::Platter;

/// The disk as far as the guest knows it.
pub(crate) struct Truth {
    /// What reads bring.
    pub(crate) bytes: Vec<u8>,
    /// Of each sector, what may be there after a power loss, oldest first.
    versions: Vec<Vec<Version>>,
    /// Goes on with everything that is sent or answered.
    now: u64,
    /// When each request was sent, by id.
    sent: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Version {
    hash: u64,
    /// The request that wrote it.
    id: u64,
    /// When that was answered.
    answered: Option<u64>,
}

impl Truth {
    pub(crate) fn new(bytes: usize) -> Self {
        let zeros = Version { hash: hash(&[0; 512]), id: 0, answered: Some(0) };
        Self { bytes: vec![0; bytes], versions: vec![vec![zeros]; bytes / 512], now: 1, sent: vec![0] }
    }

    /// Request number `id`, the next, is sent.
    pub(crate) fn tick(&mut self, id: u64) {
        self.now += 1;
        self.sent.push(self.now);
        assert_eq!(self.sent.len() as u64, id + 1, "one after the other");
    }

    /// A write is sent; from now on it may be on the disk. Returns its length.
    pub(crate) fn sent(&mut self, id: u64, at: usize, data: &[u8]) -> usize {
        for (versions, sector) in self.versions[at / 512..].iter_mut().zip(data.as_chunks::<512>().0) {
            versions.push(Version { hash: hash(sector), id, answered: None });
        }
        data.len()
    }

    /// A write is answered, and well.
    pub(crate) fn acknowledged(&mut self, id: u64, at: usize, data: &[u8]) {
        self.now += 1;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for versions in &mut self.versions[at / 512..(at + data.len()) / 512] {
            versions
                .iter_mut()
                .filter(|version| version.id == id)
                .for_each(|version| version.answered = Some(self.now));
        }
    }

    /// A write has failed: parts of it may be there.
    pub(crate) fn failed(&mut self, range: Range<usize>, disk: &Platter) {
        self.bytes[range.clone()].copy_from_slice(&disk.bytes[range]);
    }

    /// A flush is answered: what was answered before it was sent lasts.
    pub(crate) fn flushed(&mut self, id: u64) {
        let sent = self.sent[id as usize];
        self.lasts(|version| version.answered.is_some_and(|answered| answered < sent));
    }

    /// A barrier is answered: what was sent before it lasts, and it itself.
    pub(crate) fn barrier(&mut self, id: u64) {
        self.lasts(|version| version.answered.is_some() && version.id <= id);
    }

    /// Of each sector, nothing older than the last of these can come back.
    fn lasts(&mut self, these: impl Fn(&Version) -> bool) {
        for versions in &mut self.versions {
            if let Some(last) = versions.iter().rposition(&these) {
                versions.drain(..last);
            }
        }
    }

    /// What a power loss has left must be what may be left.
    pub(crate) fn check(&self, left: &[u8]) {
        for (number, (versions, sector)) in self.versions.iter().zip(left.as_chunks::<512>().0).enumerate() {
            let hash = hash(sector);
            assert!(
                versions.iter().any(|version| version.hash == hash),
                "sector {number} lost what was flushed"
            );
        }
    }
}

fn hash(sector: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(sector);
    hasher.finish()
}
