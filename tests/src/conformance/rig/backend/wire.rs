//! Ring entries by the offsets of docs/PROTOCOL.md 2.2: written out once more, so that a mistake in the product's tables shows.

use anyhow::{Result, bail};
use blkif_proto::{Abi, Entry, GrantRef, Response, Segment, Status};

/// Where the fields of an entry are, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// u64.
    pub id: usize,
    /// u64, in 512-byte units.
    pub sector: usize,
    /// Of an indirect request: u16. Of others it is at 2.
    pub indirect_handle: usize,
    /// Eleven segments of 8 bytes.
    pub segments: usize,
    /// Discard: u64, in 512-byte units.
    pub nr_sectors: usize,
    /// Indirect: eight references of 4 bytes.
    pub grefs: usize,
}

impl Offsets {
    /// The layout of `abi`.
    pub fn of(abi: Abi) -> Self {
        match abi {
            Abi::X86_32 => {
                Self { id: 4, sector: 12, indirect_handle: 20, segments: 20, nr_sectors: 20, grefs: 24 }
            }
            Abi::X86_64 | Abi::Arm => {
                Self { id: 8, sector: 16, indirect_handle: 24, segments: 24, nr_sectors: 24, grefs: 28 }
            }
        }
    }
}

/// `BLKIF_OP_*`.
pub mod op {
    #![expect(missing_docs, reason = "the header's names")]
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const WRITE_BARRIER: u8 = 2;
    pub const FLUSH: u8 = 3;
    pub const DISCARD: u8 = 5;
    pub const INDIRECT: u8 = 6;
}

/// A request as it was taken out of the ring.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Which ring.
    pub queue: usize,
    /// Its entry, and the segment blocks after it.
    pub entries: Vec<Entry>,
    /// The frontend's mark.
    pub id: u64,
    /// The operation, the inner one if it is indirect.
    pub op: u8,
    /// It was operation 6.
    pub indirect: bool,
    /// First sector, in 512-byte units.
    pub sector: u64,
    /// Its segments, wherever they stood.
    pub segments: Vec<Segment>,
    /// Descriptor pages.
    pub descriptors: Vec<GrantRef>,
    /// Length of a discard, in 512-byte units.
    pub discards: u64,
}

impl Taken {
    /// Reads what stands in the entries; the descriptor pages of an indirect request are yet to be read.
    pub fn parse(queue: usize, entries: Vec<Entry>, abi: Abi) -> Self {
        let at = Offsets::of(abi);
        let head = &entries[0];
        let indirect = head[0] == op::INDIRECT;
        let count = if indirect { usize::from(u16_at(head, 2)) } else { usize::from(head[1]) };
        let in_place = (0..11).map(|n| segment_at(&head[at.segments + 8 * n..]));
        let in_blocks = entries[1..].iter().flat_map(|block| (0..14).map(|n| segment_at(&block[8 * n..])));
        let has_segments = head[0] <= op::FLUSH;
        let segments = in_place.chain(in_blocks).take(if has_segments { count } else { 0 }).collect();
        let pages = if indirect { count.div_ceil(512).min(8) } else { 0 };
        Self {
            queue,
            id: u64_at(head, at.id),
            op: if indirect { head[1] } else { head[0] },
            indirect,
            sector: u64_at(head, at.sector),
            segments,
            descriptors: (0..pages).map(|n| GrantRef(u32_at(head, at.grefs + 4 * n))).collect(),
            discards: if head[0] == op::DISCARD { u64_at(head, at.nr_sectors) } else { 0 },
            entries,
        }
    }

    /// Ring entries that it takes, and its response too.
    pub fn stride(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Sectors of data.
    pub fn sectors(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.sectors())).sum()
    }

    /// The proper answer.
    pub fn answer(&self, status: Status) -> Response {
        Response { id: self.id, op: blkif_proto::Opcode(self.op), status }
    }
}

/// An entry put together byte by byte, to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    at: Offsets,
    entry: Entry,
}

impl Expected {
    /// Operation, the byte after it, id and sector; all else is zero.
    pub fn new(abi: Abi, op: u8, arg: u8, id: u64, sector: u64) -> Self {
        let mut this = Self { at: Offsets::of(abi), entry: [0; _] };
        this.entry[0] = op;
        this.entry[1] = arg;
        this.put(this.at.id, &id.to_le_bytes());
        this.put(this.at.sector, &sector.to_le_bytes());
        this
    }

    /// The field that means nothing; of reads, writes and what is indirect.
    #[must_use]
    pub fn handle(mut self, handle: u16) -> Self {
        let at = if self.entry[0] == op::INDIRECT { self.at.indirect_handle } else { 2 };
        self.put(at, &handle.to_le_bytes());
        self
    }

    /// Segments from the first on.
    #[must_use]
    pub fn segments(mut self, segments: &[Segment]) -> Self {
        for (n, segment) in segments.iter().take(11).enumerate() {
            self.put(self.at.segments + 8 * n, &segment_bytes(segment));
        }
        self
    }

    /// The length of a discard.
    #[must_use]
    pub fn nr_sectors(mut self, sectors: u64) -> Self {
        self.put(self.at.nr_sectors, &sectors.to_le_bytes());
        self
    }

    /// The number of indirect segments, and where they are.
    #[must_use]
    pub fn indirect(mut self, segments: u16, grefs: &[GrantRef]) -> Self {
        self.put(2, &segments.to_le_bytes());
        for (n, gref) in grefs.iter().enumerate() {
            self.put(self.at.grefs + 4 * n, &gref.0.to_le_bytes());
        }
        self
    }

    /// Errors unless these are the bytes of `entry`.
    pub fn must_be(self, entry: &Entry) -> Result<()> {
        let differs = |n: &usize| entry[*n] != self.entry[*n];
        let wrong: Vec<usize> = (0..entry.len()).filter(differs).collect();
        let (Some(&first), Some(&last)) = (wrong.first(), wrong.last()) else { return Ok(()) };
        let (are, should) = (&entry[first..=last], &self.entry[first..=last]);
        bail!("bytes {first} to {last} of the entry are {are:02x?}, not {should:02x?}")
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.entry[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// A whole segment block.
pub fn block(segments: &[Segment]) -> Entry {
    let mut entry = [0; _];
    for (n, segment) in segments.iter().enumerate() {
        let room: &mut [u8] = &mut entry[8 * n..8 * n + 8];
        room.copy_from_slice(&segment_bytes(segment));
    }
    entry
}

/// The 8 bytes of a segment, in ring and descriptor pages alike.
pub fn segment_bytes(segment: &Segment) -> [u8; 8] {
    let [a, b, c, d] = segment.gref.0.to_le_bytes();
    [a, b, c, d, segment.first_sect, segment.last_sect, 0, 0]
}

/// The segment in the first 8 bytes.
pub fn segment_at(bytes: &[u8]) -> Segment {
    Segment { gref: GrantRef(u32_at(bytes, 0)), first_sect: bytes[4], last_sect: bytes[5] }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
