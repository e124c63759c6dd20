//! Pieces of work for a frontend under test, and the bytes that they move.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result, bail};
use sha2::{Digest as _, Sha256};

/// One piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Disk to memory.
    Read(Range),
    /// Memory to disk, with the bytes of [`written`].
    Write(Range),
    /// The same as a write barrier; without data it only orders.
    Barrier(Option<Range>),
    /// A flush.
    Flush,
    /// A discard: first sector, sectors, securely.
    Discard(u64, u64, bool),
}

/// Where on the disk and in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// In 512-byte units.
    pub sector: u64,
    /// Length in bytes.
    pub bytes: u32,
    /// First byte within the buffer.
    pub offset: u32,
}

impl Work {
    /// A read into the start of a buffer.
    pub fn read(sector: u64, bytes: u32) -> Self {
        Work::Read(Range { sector, bytes, offset: 0 })
    }

    /// A write from the start of a buffer.
    pub fn write(sector: u64, bytes: u32) -> Self {
        Work::Write(Range { sector, bytes, offset: 0 })
    }

    /// `count` reads of `bytes` each, one after the other on the disk.
    pub fn reads(count: u64, bytes: u32) -> Vec<Self> {
        (0..count).map(|n| Work::read(n * u64::from(bytes / 512), bytes)).collect()
    }

    /// `count` writes of `bytes` each, one after the other on the disk.
    pub fn writes(count: u64, bytes: u32) -> Vec<Self> {
        (0..count).map(|n| Work::write(n * u64::from(bytes / 512), bytes)).collect()
    }
}

/// As a word of a command line: `read:8:4096:0`, `flush`, `discard:64:8`.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Read(Range { sector, bytes, offset }) => write!(f, "read:{sector}:{bytes}:{offset}"),
            Work::Write(Range { sector, bytes, offset }) => write!(f, "write:{sector}:{bytes}:{offset}"),
            Work::Barrier(Some(Range { sector, bytes, offset })) => {
                write!(f, "barrier:{sector}:{bytes}:{offset}")
            }
            Work::Barrier(None) => write!(f, "barrier"),
            Work::Flush => write!(f, "flush"),
            Work::Discard(sector, sectors, false) => write!(f, "discard:{sector}:{sectors}"),
            Work::Discard(sector, sectors, true) => write!(f, "secure-discard:{sector}:{sectors}"),
        }
    }
}

impl FromStr for Work {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let (verb, numbers) = word.split_once(':').unwrap_or((word, ""));
        let numbers = numbers.split(':').filter(|number| !number.is_empty()).map(str::parse);
        let numbers = numbers.collect::<Result<Vec<u64>, _>>().with_context(|| word.to_owned())?;
        let range = || match numbers[..] {
            [sector, bytes, offset] => {
                Ok(Range { sector, bytes: bytes.try_into()?, offset: offset.try_into()? })
            }
            _ => bail!("{word} lacks numbers"),
        };
        Ok(match (verb, &numbers[..]) {
            ("read", _) => Work::Read(range()?),
            ("write", _) => Work::Write(range()?),
            ("barrier", []) => Work::Barrier(None),
            ("barrier", _) => Work::Barrier(Some(range()?)),
            ("flush", []) => Work::Flush,
            ("discard", &[sector, sectors]) => Work::Discard(sector, sectors, false),
            ("secure-discard", &[sector, sectors]) => Work::Discard(sector, sectors, true),
            _ => bail!("no such work: {word}"),
        })
    }
}

/// What a disk of the rig holds at first.
pub fn on_disk(sector: u64, bytes: usize) -> Vec<u8> {
    let at = sector * 512;
    (at..at + bytes as u64).map(|at| ((at % 251) ^ (at / 4096)).to_le_bytes()[0]).collect()
}

/// What a frontend of the rig writes.
pub fn written(sector: u64, bytes: usize) -> Vec<u8> {
    on_disk(sector, bytes).into_iter().map(|byte| !byte).collect()
}

/// What identifies bytes, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
