//! Where a sparse file has data and where it has holes.

use std::{fs::File, io};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

/// Holes end at multiples of this many bytes; the rest of them counts as data, which reads as zeroes all the same.
const BLOCK: u64 = 4096;

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first byte after it.
    pub(crate) end: u64,
    /// There is nothing: it reads as zeroes.
    pub(crate) hole: bool,
}

/// The stretch of `file`, which has `length` bytes, that begins at byte `at`, a multiple of [`BLOCK`]. A file whose kind knows
/// no holes is all data. Errors: those of `lseek`.
pub(crate) fn extent(file: &File, at: u64, length: u64) -> io::Result<Extent> {
    let data = match seek(file, at, Whence::SeekData) {
        Ok(data) => data.min(length),
        Err(Errno::ENXIO) => length,
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Extent { end: length, hole: false }),
        Err(error) => return Err(error.into()),
    };
    let hole_end = if data == length { length } else { data - data % BLOCK };
    if hole_end > at {
        return Ok(Extent { end: hole_end, hole: true });
    }
    let hole = match seek(file, data, Whence::SeekHole) {
        Ok(hole) => hole,
        Err(Errno::ENXIO) => length,
        Err(error) => return Err(error.into()),
    };
    let end = hole.max(at + 1).checked_next_multiple_of(BLOCK).unwrap_or(length);
    Ok(Extent { end: end.min(length), hole: false })
}

fn seek(file: &File, at: u64, whence: Whence) -> Result<u64, Errno> {
    let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    let found = lseek(file, at, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;
