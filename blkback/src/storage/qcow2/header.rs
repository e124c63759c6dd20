//! The header of a qcow2 file, as far as it decides whether the image is served: read before the library sees the file, so that what
//! is refused is refused with a reason, and before anything is written.
//!
//! The fields are those of QEMU's `docs/interop/qcow2.txt`.

use std::{fmt, fs::File, io, ops::Range};

use super::layer::fill;
use crate::data::buffer::Buffer;

/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Where the size of the disk is; bytes of a header of version 2, where that of version 3 has its feature bits.
pub(super) const SIZE_AT: u64 = 24;
const V2_BYTES: usize = 72;
/// Bytes of the shortest header of version 3.
const V3_BYTES: usize = 104;
/// The header extension that names the backing file's format.
const BACKING_FORMAT: u32 = 0xe279_2aca;
const CLUSTER_BITS_MAX: u32 = 21;
/// Bytes of the longest table of level 1, and of reference counts: QEMU's limits.
pub(super) const L1_MAX: u64 = 32 << 20;
const REFTABLE_MAX: u64 = 8 << 20;

/// Incompatible features that are known by a name.
const DIRTY: u64 = 1;
const FEATURES: [(u64, &str); 5] = [
    (DIRTY, "its reference counts are marked dirty"),
    (2, "it is marked corrupt; `qemu-img check -r all` may mend it"),
    (4, "its data is in a file of its own"),
    (8, "its clusters are compressed in another way than by deflate"),
    (16, "its entries of level 2 are extended (subclusters)"),
];

/// What an image is made of. Offsets and lengths are bytes in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    /// Binary logarithm of a cluster's bytes: 9 to 21.
    pub(super) cluster_bits: u32,
    /// Size of the disk, in bytes.
    pub(super) size: u64,
    /// The table of level 1.
    pub(super) l1: Range<u64>,
    /// The table of blocks of reference counts.
    pub(super) reftable: Range<u64>,
    /// Binary logarithm of a reference count's bits: 0 to 6.
    pub(super) refcount_order: u32,
    /// Internal snapshots, and where their table is.
    pub(super) snapshots: u32,
    pub(super) snapshots_at: u64,
    /// The backing file's name, as it stands there, and its format.
    pub(super) backing: Option<(String, Option<String>)>,
}

/// Why an image is not served.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self(format!("its header cannot be read: {error}"))
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// The big-endian number at byte `at`; what is not there reads as 0.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// As [`be32`].
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Header {
    /// Reads and judges the header of a file of `len` bytes.
    pub(super) fn read(file: &File, len: u64) -> Result<Self, Refused> {
        let mut buffer = Buffer::default();
        if !buffer.reserve(1 << CLUSTER_BITS_MAX) {
            return refuse("there is no memory for its header");
        }
        let first = buffer.bytes_mut(4096);
        fill(file, first, 0)?;
        if be32(first, 0) != MAGIC {
            return refuse("it is no qcow2 image");
        }
        let cluster_bits = be32(first, 20);
        if !(9..=CLUSTER_BITS_MAX).contains(&cluster_bits) {
            return refuse(format!(
                "clusters of 2^{cluster_bits} bytes; 2^9 to 2^{CLUSTER_BITS_MAX} are possible"
            ));
        }
        let bytes = buffer.bytes_mut(1 << cluster_bits);
        fill(file, bytes, 0)?;
        Self::parse(bytes, cluster_bits, len)
    }

    /// Judges the first cluster.
    fn parse(bytes: &[u8], cluster_bits: u32, len: u64) -> Result<Self, Refused> {
        let version = be32(bytes, 4);
        let (features, refcount_order, header_bytes) = match version {
            2 => (0, 4, V2_BYTES),
            3 => (be64(bytes, 72), be32(bytes, 96), be32(bytes, 100) as usize),
            _ => return refuse(format!("version {version}; 2 and 3 are served")),
        };
        if version == 3 && !(V3_BYTES..=bytes.len()).contains(&header_bytes) {
            return refuse(format!("a header of {header_bytes} bytes"));
        }
        match be32(bytes, 32) {
            0 => {}
            method => return refuse(format!("it is encrypted (method {method})")),
        }
        if features != 0 {
            let first = features & features.wrapping_neg();
            let known = FEATURES.iter().find(|(bit, _)| *bit == first);
            return refuse(known.map_or_else(
                || format!("it has incompatible features that are not known ({features:#x})"),
                |(_, what)| (*what).to_owned(),
            ));
        }
        if refcount_order > 6 {
            return refuse(format!("reference counts of 2^{refcount_order} bits"));
        }
        let cluster = 1u64 << cluster_bits;
        let size = be64(bytes, 24);
        let table = |what: &str, at: u64, table_len: u64, max: u64| match at.checked_add(table_len) {
            _ if at == 0 || !at.is_multiple_of(cluster) => refuse(format!("its {what} is at byte {at}")),
            _ if table_len > max => refuse(format!("its {what} has {table_len} bytes; {max} are possible")),
            Some(end) if end <= len.next_multiple_of(cluster) => Ok(at..end),
            _ => refuse(format!("its {what} lies beyond the end of the file (truncated?)")),
        };
        let l1_entries = u64::from(be32(bytes, 36));
        let needed = size.div_ceil(cluster).div_ceil(cluster / 8);
        if i64::try_from(size).is_err() || needed > l1_entries {
            return refuse(format!("a disk of {size} bytes, and a table of level 1 of {l1_entries} entries"));
        }
        let l1 = if l1_entries == 0 {
            0..0
        } else {
            table("table of level 1", be64(bytes, 40), l1_entries * 8, L1_MAX)?
        };
        let clusters = u64::from(be32(bytes, 56));
        let reftable = table("table of reference counts", be64(bytes, 48), clusters * cluster, REFTABLE_MAX)?;
        Ok(Self {
            version,
            cluster_bits,
            size,
            l1,
            reftable,
            refcount_order,
            snapshots: be32(bytes, 60),
            snapshots_at: be64(bytes, 64),
            backing: backing(bytes, header_bytes)?,
        })
    }

    /// Bytes of a cluster.
    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// The backing file's name and format.
fn backing(bytes: &[u8], header_bytes: usize) -> Result<Option<(String, Option<String>)>, Refused> {
    let (at, len) = (be64(bytes, 8), be32(bytes, 16) as usize);
    if at == 0 {
        return Ok(None);
    }
    let name = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(len)?));
    let Some(name) = name.filter(|name| !name.is_empty() && name.len() <= 1023) else {
        return refuse(format!("its backing file's name has {len} bytes at byte {at}"));
    };
    let Ok(name) = std::str::from_utf8(name) else { return refuse("its backing file's name is no text") };
    let mut rest = bytes.get(header_bytes..usize::try_from(at).unwrap_or(0)).unwrap_or_default();
    loop {
        let (kind, len) = (be32(rest, 0), be32(rest, 4) as usize);
        let Some(content) = rest.get(8..).and_then(|rest| rest.get(..len)) else { break };
        match kind {
            0 => break,
            BACKING_FORMAT => {
                let format = String::from_utf8_lossy(content).into_owned();
                return Ok(Some((name.to_owned(), Some(format))));
            }
            _ => rest = rest.get(8 + len.next_multiple_of(8)..).unwrap_or_default(),
        }
    }
    Ok(Some((name.to_owned(), None)))
}

#[cfg(test)]
mod tests;
