//! Requests as a guest's hand writes them: every field is the clause's choice, and nothing is checked.

use std::fmt;

use blkif_proto::{Abi, Entry, GrantRef, Opcode, Segment, segment_block};

/// Bytes of an entry's body on every ABI.
const BODY: usize = 88;

/// One request, field by field (docs/PROTOCOL.md section 2.2).
#[derive(Clone, Debug)]
pub struct Raw {
    /// Byte 0.
    pub op: Opcode,
    /// Byte 1: `nr_segments`, a discard's `flag`, or `indirect_op`.
    pub arg: u8,
    /// Bytes 2 and 3: `handle`, or an indirect request's `nr_segments`.
    pub arg16: u16,
    /// `id`.
    pub id: u64,
    /// `sector_number`.
    pub sector: u64,
    /// What follows the header; beyond 88 bytes it goes on in further entries.
    pub body: Vec<u8>,
}

impl Raw {
    /// A request whose segments lie in the ring: read, write, barrier or flush. Any number of segments; only the last eight bits
    /// of the number fit.
    pub fn data(op: Opcode, id: u64, sector: u64, segments: &[Segment]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the field has eight bits")]
        let arg = segments.len() as u8;
        Self { op, arg, arg16: 0, id, sector, body: descriptors(segments) }
    }

    /// A read.
    pub fn read(id: u64, sector: u64, segments: &[Segment]) -> Self {
        Self::data(Opcode::READ, id, sector, segments)
    }

    /// A write.
    pub fn write(id: u64, sector: u64, segments: &[Segment]) -> Self {
        Self::data(Opcode::WRITE, id, sector, segments)
    }

    /// A discard of `sectors` sectors.
    pub fn discard(id: u64, sector: u64, sectors: u64) -> Self {
        Self { op: Opcode::DISCARD, arg: 0, arg16: 0, id, sector, body: sectors.to_le_bytes().to_vec() }
    }

    /// An indirect request for `inner` whose `segments` segments lie in `pages`.
    pub fn indirect(inner: Opcode, id: u64, sector: u64, segments: u16, pages: &[GrantRef]) -> Self {
        // The body begins with another handle and padding.
        let mut body = vec![0; 4];
        body.extend(pages.iter().flat_map(|gref| gref.0.to_le_bytes()));
        Self { op: Opcode::INDIRECT, arg: inner.0, arg16: segments, id, sector, body }
    }

    /// The operation that the answer must show: the one inside, for an indirect request.
    pub fn answer_op(&self) -> Opcode {
        if self.op == Opcode::INDIRECT { Opcode(self.arg) } else { self.op }
    }

    /// Ring entries that the request itself fills.
    pub fn filled(&self) -> u32 {
        let blocks = self.body.len().saturating_sub(BODY).div_ceil(segment_block::BLOCK_SEGMENTS * 8);
        u32::try_from(1 + blocks).unwrap_or(u32::MAX)
    }

    /// Ring entries that a backend takes it for where segment blocks were agreed: the number in byte 1 counts, for operations with
    /// segments.
    pub fn stride(&self) -> u32 {
        if self.op.has_segments() { segment_block::entries_for(self.arg.into()) } else { 1 }
    }

    /// The bytes of its entries; on a shorter entry the last bytes of a block are cut off.
    pub fn entries(&self, abi: Abi) -> Vec<Entry> {
        let mut first: Entry = [0; _];
        let mut put = |at: usize, bytes: &[u8]| first[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[self.op.0, self.arg]);
        put(2, &self.arg16.to_le_bytes());
        let (id, sector, body) = if abi == Abi::X86_32 { (4, 12, 20) } else { (8, 16, 24) };
        put(id, &self.id.to_le_bytes());
        put(sector, &self.sector.to_le_bytes());
        let (own, rest) = self.body.split_at(self.body.len().min(BODY));
        put(body, own);
        let mut entries = vec![first];
        for block in rest.chunks(segment_block::BLOCK_SEGMENTS * 8) {
            let mut entry: Entry = [0; _];
            entry[..block.len()].copy_from_slice(block);
            entries.push(entry);
        }
        entries
    }
}

/// What it asks for, without what differs from run to run.
impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, arg, arg16, sector, .. } = self;
        match *op {
            Opcode::DISCARD => write!(f, "{op} at sector {sector}, flag {arg}"),
            Opcode::INDIRECT => write!(f, "{op} {} of {arg16} segments at sector {sector}", Opcode(*arg)),
            _ => write!(f, "{op} of {arg} segments at sector {sector}"),
        }
    }
}

/// Segments as they lie in entries, blocks and descriptor pages.
pub fn descriptors(segments: &[Segment]) -> Vec<u8> {
    let bytes = |segment: &Segment| {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&segment.gref.0.to_le_bytes());
        (bytes[4], bytes[5]) = (segment.first_sect, segment.last_sect);
        bytes
    };
    segments.iter().flat_map(bytes).collect()
}
