//! What stands where in the file.
//!
//! | words | what |
//! |---|---|
//! | 0 | `blkiflog` |
//! | 1 | low half: version; high half: CRC-32 of version, sizes and identity |
//! | 2 | low half: ring entries, which is also the number of records; high half: bytes of the identity |
//! | 8… | whose log it is, in words for people: [`Identity`] |
//! | 504 | `consumed`: the ring index up to which requests are the log's |
//! | 512… | records of 16 words: state; ring index and number of the request's next record; the ring entry |
//!
//! Numbers are the machine's own: a log does not leave it.

use std::{io, sync::atomic::AtomicU64};

use blkif_proto::{Entry, Status};
use ringbuf::Index;

use super::memory::{HEADER, Memory, RECORD, WORD, load, store};

/// The first word.
const MAGIC: u64 = u64::from_ne_bytes(*b"blkiflog");
/// The version of logs that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;
const CHECK: usize = 1;
const SIZES: usize = 2;
const TEXT: usize = 8;
const CONSUMED: usize = 504;
/// Bytes of the longest identity.
const LONGEST_TEXT: usize = (CONSUMED - TEXT) * WORD;
/// Words of a record.
pub(super) const STATE: usize = 0;
pub(super) const LINK: usize = 1;
const ENTRY: usize = 2;
/// No record.
pub(super) const NONE: u32 = u32::MAX;

const _: () = assert!(size_of::<Entry>() == (RECORD - ENTRY) * WORD);

/// Whose log it is: one queue of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device, queue, ring and what was agreed, in words. Two connections never have the same ones at the same time.
    pub text: String,
    /// Entries of the ring.
    pub entries: u32,
}

impl Identity {
    fn checksum(&self, version: u32) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&version.to_le_bytes());
        sum.update(&self.entries.to_le_bytes());
        sum.update(self.text.as_bytes());
        sum.finalize()
    }
}

/// Bytes of a log with so many records.
pub(super) fn length(records: u32) -> usize {
    HEADER + records as usize * RECORD * WORD
}

/// Writes the header of a new log, in which nothing was consumed yet. Errors: the identity is too long.
pub(super) fn write_header(memory: &mut Memory, identity: &Identity) -> io::Result<()> {
    let (Ok(bytes), true) = (u32::try_from(identity.text.len()), identity.text.len() <= LONGEST_TEXT) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long a name for a log"));
    };
    let header = memory.header();
    store(&header[0], MAGIC);
    store(&header[CHECK], pair(VERSION, identity.checksum(VERSION)));
    store(&header[SIZES], pair(identity.entries, bytes));
    for (word, part) in header[TEXT..].iter().zip(identity.text.as_bytes().chunks(WORD)) {
        let mut bytes = [0; WORD];
        bytes[..part.len()].copy_from_slice(part);
        store(word, u64::from_ne_bytes(bytes));
    }
    Ok(())
}

/// What a header says.
pub(super) enum Header {
    /// It is no header, or was changed.
    Torn,
    /// Of a version that is not known here.
    Version(u32),
    /// It is whole.
    Of(Identity),
}

/// Reads a header that anybody may have written.
pub(super) fn read_header(memory: &mut Memory) -> Header {
    let header = memory.header();
    let (version, checksum) = unpair(load(&header[CHECK]));
    if load(&header[0]) != MAGIC {
        return Header::Torn;
    }
    if version != VERSION {
        return Header::Version(version);
    }
    let (entries, bytes) = unpair(load(&header[SIZES]));
    let words = header[TEXT..CONSUMED].iter().flat_map(|word| load(word).to_ne_bytes());
    let text = String::from_utf8(words.take(bytes as usize).collect());
    let identity = text.ok().map(|text| Identity { text, entries });
    match identity.filter(|identity| identity.checksum(version) == checksum) {
        Some(identity) => Header::Of(identity),
        None => Header::Torn,
    }
}

/// The ring index up to which requests are the log's.
pub(super) fn consumed(memory: &mut Memory) -> Index {
    Index::new(unpair(load(&memory.header()[CONSUMED])).0)
}

pub(super) fn set_consumed(memory: &mut Memory, consumed: Index) {
    store(&memory.header()[CONSUMED], consumed.get().into());
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Free,
    /// It is being worked on.
    Taken,
    /// It is done, and told so in a slot of the ring.
    Answered {
        /// How it went.
        status: Status,
        /// The slot's index.
        at: Index,
    },
}

impl State {
    fn encode(self) -> u64 {
        match self {
            State::Free => 0,
            State::Taken => 1,
            State::Answered { status, at } => pair(2 | u32::from(status.0.cast_unsigned()) << 16, at.get()),
        }
    }

    fn decode(word: u64) -> Option<Self> {
        let (low, at) = unpair(word);
        match (low & 0xFFFF, word) {
            (_, 0) => Some(State::Free),
            (_, 1) => Some(State::Taken),
            (2, _) => {
                let status = Status(((low >> 16) as u16).cast_signed());
                Some(State::Answered { status, at: Index::new(at) })
            }
            _ => None,
        }
    }
}

/// A record's words; one that the file does not reach is free for ever.
pub(super) struct Record<'a>(pub(super) &'a mut [AtomicU64]);

impl Record<'_> {
    /// Fills a record that is free.
    pub(super) fn fill(&mut self, index: Index, next: u32, entry: &Entry) {
        let Some((first, words)) = self.0.split_at_checked(ENTRY) else { return };
        store(&first[LINK], pair(index.get(), next));
        for (word, bytes) in words.iter().zip(entry.as_chunks().0) {
            store(word, u64::from_ne_bytes(*bytes));
        }
    }

    /// Copies the entry out, and says where the next one is.
    pub(super) fn read(&mut self, entry: &mut Entry) -> u32 {
        let words = self.0.get(ENTRY..).unwrap_or_default();
        for (bytes, word) in entry.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = load(word).to_ne_bytes();
        }
        self.link()
    }

    /// Where the request's next entry is.
    pub(super) fn link(&mut self) -> u32 {
        self.0.get(LINK).map_or(NONE, |word| unpair(load(word)).1)
    }

    /// The ring index of the request.
    pub(super) fn index(&mut self) -> Index {
        Index::new(self.0.get(LINK).map_or(0, |word| unpair(load(word)).0))
    }

    /// How far the request is; none for what is no state.
    pub(super) fn state(&mut self) -> Option<State> {
        self.0.get(STATE).map_or(Some(State::Free), |word| State::decode(load(word)))
    }

    /// From now on.
    pub(super) fn set(&mut self, state: State) {
        if let Some(word) = self.0.get(STATE) {
            store(word, state.encode());
        }
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[expect(clippy::cast_possible_truncation, reason = "halves")]
fn unpair(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}
