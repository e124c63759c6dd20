//! Requests: what a guest asks of a disk. Parsing is the only gate through which a peer's bytes become values.
//!
//! ```text
//!   entry copied once ──► Head::parse ──► how many entries it is ──► copy the others
//!                                                                        │
//!            ┌───────────────────────── Request::parse ◄─────────────────┘
//!            ▼                               ▼
//!   Parsed::Whole(Request)      Parsed::Indirect(Indirect) ──► copy the pages it names
//!            ▲                                                        │
//!            └──────────────── Indirect::with_descriptors ◄───────────┘
//! ```
//!
//! A head can always be answered, whatever follows. Nothing here allocates; a parsed request looks into the caller's copies.

use zerocopy::{FromBytes, IntoBytes, transmute, transmute_ref};

use crate::{
    EmitError, GrantRef, Limits, Opcode, RequestError, Response, Segment, SegmentMode, Segments, Status,
    indirect,
    segment::span_fits,
    segment_block,
    wire::{Body, DiscardBody, Entry, Fields, IndirectBody, SegmentBody, WireSegment},
};

/// Bit 0 of a discard's flags (`BLKIF_DISCARD_SECURE`).
const DISCARD_SECURE: u8 = 1;

/// What the first entry of any request tells: enough to answer it and to find the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The guest's own mark, opaque, maybe in use more than once.
    pub id: u64,
    /// The operation in the entry.
    pub opcode: Opcode,
    /// The operation in the answer: the one inside, for an indirect request.
    pub answer_op: Opcode,
    /// Ring entries that the request occupies, and its answer too. When the guest has published fewer, it has broken the
    /// ring's rules, and nothing behind this entry can be trusted.
    pub entries: u32,
}

impl Head {
    /// Reads a private copy of an entry. Any bytes are some head.
    #[inline]
    pub fn parse(entry: &Entry, limits: &Limits) -> Head {
        Head::of(&Fields::read(entry, limits.abi), limits.mode)
    }

    /// The answer to this request.
    pub const fn answer(&self, status: Status) -> Response {
        Response { id: self.id, op: self.answer_op, status }
    }

    #[inline]
    fn of(fields: &Fields<'_>, mode: SegmentMode) -> Head {
        let opcode = Opcode(fields.operation);
        let answer_op = if opcode == Opcode::INDIRECT { Opcode(fields.arg) } else { opcode };
        let entries = match mode {
            SegmentMode::Blocks if opcode.has_segments() => segment_block::entries_for(fields.arg.into()),
            _ => 1,
        };
        Head { id: fields.id, opcode, answer_op, entries }
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Disk to segments.
    Read,
    /// Segments to disk.
    Write,
    /// Segments to disk, after every earlier write is durable and before any later one begins; durable when answered.
    /// Without segments a flush.
    WriteBarrier,
    /// Makes durable what was answered before, then writes the segments if there are any.
    Flush,
    /// Forgets a range.
    Discard {
        /// Length in 512-byte units; may be 0.
        sectors: u64,
        /// So that the old contents cannot be read back.
        secure: bool,
    },
}

impl Op {
    /// The operation's number, in an entry that is not indirect and in the answer.
    pub const fn opcode(self) -> Opcode {
        match self {
            Op::Read => Opcode::READ,
            Op::Write => Opcode::WRITE,
            Op::WriteBarrier => Opcode::WRITE_BARRIER,
            Op::Flush => Opcode::FLUSH,
            Op::Discard { .. } => Opcode::DISCARD,
        }
    }

    /// True when the backend only reads from the guest's pages, so that a read-only grant does.
    pub const fn reads_guest(self) -> bool {
        !matches!(self, Op::Read)
    }
}

/// One request. A parsed one keeps to its connection's [`Limits`]; one to be emitted is the caller's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The guest's own mark, to be echoed.
    pub id: u64,
    /// What to do.
    pub op: Op,
    /// First sector on the disk in 512-byte units; 0 for a flush or barrier without segments, whatever the guest wrote.
    pub sector: u64,
    /// Where in the guest's memory, in the order of the disk's sectors; none for a discard.
    pub segments: Segments<'a>,
}

/// A request out of its ring entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// All there is.
    Whole(Request<'a>),
    /// The segments are still in the guest's descriptor pages.
    Indirect(Indirect),
}

/// A request whose segments lie in descriptor pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indirect {
    /// The guest's own mark, to be echoed.
    pub id: u64,
    /// [`Op::Read`] or [`Op::Write`].
    pub op: Op,
    /// First sector on the disk in 512-byte units.
    pub sector: u64,
    /// Number of segments, 1 to [`Limits::max_indirect`].
    pub segments: u16,
    grefs: [GrantRef; indirect::MAX_PAGES],
}

impl Indirect {
    /// The descriptor pages, in order. Guests may have granted them read-only.
    pub fn pages(&self) -> &[GrantRef] {
        self.grefs.get(..indirect::pages_for(self.segments.into())).unwrap_or(&self.grefs)
    }

    /// Bytes of descriptors to copy out of the pages, which are laid one after the other.
    pub fn descriptor_bytes(&self) -> usize {
        indirect::bytes_for(self.segments.into())
    }

    /// The request itself, from private copies of its descriptor pages one after the other; what lies beyond
    /// [`descriptor_bytes`](Self::descriptor_bytes) is ignored.
    pub fn with_descriptors<'a>(
        &self,
        pages: &'a [u8],
        limits: &Limits,
    ) -> Result<Request<'a>, RequestError> {
        let segments =
            indirect::decode(pages, self.segments.into()).ok_or(RequestError::MissingDescriptors {
                have: u32::try_from(pages.len()).unwrap_or(u32::MAX),
                need: u32::try_from(self.descriptor_bytes()).unwrap_or(u32::MAX),
            })?;
        check_data(self.sector, segments, limits)?;
        Ok(Request { id: self.id, op: self.op, sector: self.sector, segments })
    }
}

impl<'a> Request<'a> {
    /// Checks and reads a request out of private copies of its ring entries, in ring order; entries beyond those that
    /// [`Head::entries`] tells are ignored.
    ///
    /// What it checks, in this order: the operation is known, was offered, may be done to a read-only disk; number of
    /// segments; each segment within its page and in whole sectors of the disk; first sector aligned; bytes within
    /// `max-request-size`; range within the disk, without overflow (PROTOCOL.md 2.4, 3.4).
    #[inline]
    pub fn parse(entries: &'a [Entry], limits: &Limits) -> Result<Parsed<'a>, RequestError> {
        let Some((first, blocks)) = entries.split_first() else {
            return Err(RequestError::MissingEntries { have: 0, need: 1 });
        };
        let fields = Fields::read(first, limits.abi);
        let operations = &limits.operations;
        match Opcode(fields.operation) {
            Opcode::READ => Self::data(&fields, blocks, Op::Read, limits),
            Opcode::WRITE => Self::data(&fields, blocks, Op::Write, limits),
            op @ Opcode::WRITE_BARRIER if !operations.barrier => Err(RequestError::NotOffered(op)),
            Opcode::WRITE_BARRIER => Self::data(&fields, blocks, Op::WriteBarrier, limits),
            op @ Opcode::FLUSH if !operations.flush => Err(RequestError::NotOffered(op)),
            Opcode::FLUSH => Self::data(&fields, blocks, Op::Flush, limits),
            Opcode::DISCARD => Self::discard(&fields, limits),
            Opcode::INDIRECT => Indirect::parse(&fields, limits).map(Parsed::Indirect),
            unknown => Err(RequestError::UnknownOperation(unknown)),
        }
    }

    /// Sectors it covers on the disk, in 512-byte units.
    pub fn sectors(&self) -> u64 {
        match self.op {
            Op::Discard { sectors, .. } => sectors,
            _ => self.segments.sectors(),
        }
    }

    /// The answer to this request.
    pub const fn answer(&self, status: Status) -> Response {
        Response { id: self.id, op: self.op.opcode(), status }
    }

    /// Ring entries that [`emit`](Self::emit) fills.
    pub const fn entries(&self) -> u32 {
        segment_block::entries_for(self.segments.len())
    }

    /// Writes the request into the first of `entries`, and further segments into those after it where `limits` has
    /// [`SegmentMode::Blocks`]. Returns how many entries it filled, each of which then goes into a ring slot of its own.
    pub fn emit(&self, limits: &Limits, entries: &mut [Entry]) -> Result<usize, EmitError> {
        let limit = match limits.mode {
            SegmentMode::Blocks => segment_block::max_segments(limits.abi),
            SegmentMode::Direct | SegmentMode::Indirect => segment_block::HEADER_SEGMENTS,
        };
        let segments = self.segments.len();
        if segments > limit {
            return Err(EmitError::TooManySegments { segments, limit });
        }
        let need = self.entries() as usize;
        let have = entries.len();
        let Some((first, blocks)) = entries.get_mut(..need).and_then(|entries| entries.split_first_mut())
        else {
            return Err(EmitError::TooFewEntries { have, need });
        };
        let (arg, body) = match self.op {
            Op::Discard { .. } if segments != 0 => return Err(EmitError::NoSuchForm(Opcode::DISCARD)),
            Op::Discard { sectors, secure } => {
                let body = DiscardBody { nr_sectors: sectors.into(), rest: [0; 80] };
                (if secure { DISCARD_SECURE } else { 0 }, transmute!(body))
            }
            _ => {
                let mut list = self.segments.iter();
                let mut body = SegmentBody::default();
                fill(&mut body, &mut list);
                for block in blocks {
                    *block = [0; _];
                    if let Ok(slots) = <[WireSegment]>::mut_from_bytes(block.as_mut_bytes()) {
                        fill(slots, &mut list);
                    }
                }
                (u8::try_from(segments).unwrap_or(u8::MAX), transmute!(body))
            }
        };
        let operation = self.op.opcode().0;
        Fields { operation, arg, arg16: 0, id: self.id, sector: self.sector, body: &body }
            .write(first, limits.abi);
        Ok(need)
    }

    /// Writes the request as an indirect one whose segments the caller puts into descriptor pages with
    /// [`indirect::encode`]; `pages` are the grant references of exactly as many pages as that takes.
    pub fn emit_indirect(
        &self,
        limits: &Limits,
        pages: &[GrantRef],
        entry: &mut Entry,
    ) -> Result<(), EmitError> {
        if !matches!(self.op, Op::Read | Op::Write) {
            return Err(EmitError::NoSuchForm(self.op.opcode()));
        }
        let segments = self.segments.len();
        let (Ok(arg16), true) = (u16::try_from(segments), segments <= indirect::MAX_SEGMENTS) else {
            return Err(EmitError::TooManySegments { segments, limit: indirect::MAX_SEGMENTS });
        };
        let need = indirect::pages_for(segments);
        if pages.len() != need {
            return Err(EmitError::DescriptorPages { have: pages.len(), need });
        }
        let mut body = IndirectBody { handle: 0.into(), pad: 0.into(), grefs: [0.into(); _], rest: [0; 52] };
        for (slot, page) in body.grefs.iter_mut().zip(pages) {
            *slot = page.0.into();
        }
        let body: Body = transmute!(body);
        let (operation, arg) = (Opcode::INDIRECT.0, self.op.opcode().0);
        Fields { operation, arg, arg16, id: self.id, sector: self.sector, body: &body }
            .write(entry, limits.abi);
        Ok(())
    }

    #[inline]
    fn data(
        fields: &Fields<'a>,
        blocks: &'a [Entry],
        op: Op,
        limits: &Limits,
    ) -> Result<Parsed<'a>, RequestError> {
        let (id, opcode) = (fields.id, op.opcode());
        let segments = u16::from(fields.arg);
        if segments == 0 {
            return match op {
                // The sector of an empty flush is noise: Linux sends all ones, Windows a real one.
                Op::Flush | Op::WriteBarrier => {
                    Ok(Parsed::Whole(Request { id, op, sector: 0, segments: Segments::NONE }))
                }
                _ if limits.read_only && op != Op::Read => Err(RequestError::ReadOnly(opcode)),
                _ => Err(RequestError::NoSegments(opcode)),
            };
        }
        if limits.read_only && op != Op::Read {
            return Err(RequestError::ReadOnly(opcode));
        }
        let limit = limits.max_in_ring();
        if segments > limit {
            return Err(RequestError::TooManySegments { segments, limit });
        }
        let need = segment_block::entries_for(segments.into());
        let have = u32::try_from(blocks.len()).unwrap_or(u32::MAX).saturating_add(1);
        if have < need {
            return Err(RequestError::MissingEntries { have, need });
        }
        let body: &SegmentBody = transmute_ref!(fields.body);
        let segments = Segments::in_entries(body, blocks, segments.into());
        check_data(fields.sector, segments, limits)?;
        Ok(Parsed::Whole(Request { id, op, sector: fields.sector, segments }))
    }

    fn discard(fields: &Fields<'a>, limits: &Limits) -> Result<Parsed<'a>, RequestError> {
        let Some(offered) = limits.operations.discard else {
            return Err(RequestError::NotOffered(Opcode::DISCARD));
        };
        let secure = fields.arg & DISCARD_SECURE != 0;
        if secure && !offered.secure {
            return Err(RequestError::SecureNotOffered);
        }
        if limits.read_only {
            return Err(RequestError::ReadOnly(Opcode::DISCARD));
        }
        let body: &DiscardBody = transmute_ref!(fields.body);
        let (sector, sectors) = (fields.sector, body.nr_sectors.get());
        check_range(sector, sectors, limits)?;
        let op = Op::Discard { sectors, secure };
        Ok(Parsed::Whole(Request { id: fields.id, op, sector, segments: Segments::NONE }))
    }
}

impl Indirect {
    fn parse(fields: &Fields<'_>, limits: &Limits) -> Result<Indirect, RequestError> {
        if limits.max_indirect == 0 {
            return Err(RequestError::NotOffered(Opcode::INDIRECT));
        }
        let op = match Opcode(fields.arg) {
            Opcode::READ => Op::Read,
            Opcode::WRITE if limits.read_only => return Err(RequestError::ReadOnly(Opcode::WRITE)),
            Opcode::WRITE => Op::Write,
            inner => return Err(RequestError::InnerOperation(inner)),
        };
        // The bound of `grefs` holds whatever a caller has put into its limits.
        let limit = limits.max_indirect.min(512 * 8);
        match fields.arg16 {
            0 => return Err(RequestError::NoSegments(op.opcode())),
            segments if segments > limit => return Err(RequestError::TooManySegments { segments, limit }),
            _ => {}
        }
        let body: &IndirectBody = transmute_ref!(fields.body);
        let grefs = body.grefs.map(|gref| GrantRef(gref.get()));
        Ok(Indirect { id: fields.id, op, sector: fields.sector, segments: fields.arg16, grefs })
    }
}

/// Copies segments into wire form until either side is used up.
fn fill(slots: &mut [WireSegment], list: &mut impl Iterator<Item = Segment>) {
    for (slot, segment) in slots.iter_mut().zip(list) {
        *slot = segment.into();
    }
}

/// The checks of everything that moves data.
#[inline]
fn check_data(sector: u64, segments: Segments<'_>, limits: &Limits) -> Result<(), RequestError> {
    // A disk sector in 512-byte units, less one: the bits that must be clear.
    let within = u64::from(limits.sector_size / 512).saturating_sub(1);
    let mut total = 0;
    for (index, segment) in (0..).zip(segments) {
        segment.check(index, within)?;
        total += segment.sectors();
    }
    if sector & within != 0 {
        return Err(RequestError::Unaligned { sector });
    }
    let bytes = total.saturating_mul(512);
    if bytes > limits.max_request_bytes {
        return Err(RequestError::TooLarge { bytes, limit: limits.max_request_bytes });
    }
    check_range(sector, total.into(), limits)
}

fn check_range(sector: u64, sectors: u64, limits: &Limits) -> Result<(), RequestError> {
    if span_fits(sector, sectors, limits.sectors) {
        return Ok(());
    }
    Err(RequestError::OutOfRange { sector, sectors, capacity: limits.sectors })
}

#[cfg(test)]
mod tests;
