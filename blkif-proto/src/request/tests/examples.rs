//! Valid requests of every kind, for breaking.
#![expect(clippy::cast_possible_truncation, reason = "the numbers of the examples are small")]

use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    Abi, Discard, Entry, GrantRef, Limits, Op, Operations, Request, Segment, SegmentMode, Segments, indirect,
    segment_block,
};

pub(super) const MODES: [SegmentMode; 3] = [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect];

/// Everything is offered, so that every operation can be valid.
pub(super) fn limits(abi: Abi, mode: SegmentMode, sector_size: u32) -> Limits {
    let max_segments = match mode {
        SegmentMode::Direct => 11,
        SegmentMode::Blocks => segment_block::max_segments(abi) as u16,
        SegmentMode::Indirect => 4096,
    };
    Limits {
        abi,
        mode,
        max_segments,
        max_indirect: if mode == SegmentMode::Indirect { 4096 } else { 0 },
        max_request_bytes: u32::from(max_segments) * 4096,
        max_requests: 32,
        sectors: 1 << 32,
        sector_size,
        read_only: false,
        operations: Operations {
            flush: true,
            barrier: true,
            discard: Some(Discard { granularity: 4096, alignment: 0, secure: true }),
        },
    }
}

/// Connections of these modes, in every ABI, on disks of every sector size.
pub(super) fn any_limits(modes: &'static [SegmentMode]) -> impl Strategy<Value = Limits> {
    (select(&Abi::ALL), select(modes), select(&[512, 1024, 2048, 4096]))
        .prop_map(|(abi, mode, size)| limits(abi, mode, size))
}

/// An owned request, since `Request` borrows, and its connection.
#[derive(Clone, Debug)]
pub(super) struct Example {
    pub(super) limits: Limits,
    pub(super) id: u64,
    pub(super) op: Op,
    pub(super) sector: u64,
    pub(super) segments: Vec<Segment>,
}

impl Example {
    pub(super) fn request(&self) -> Request<'_> {
        Request {
            id: self.id,
            op: self.op,
            sector: self.sector,
            segments: Segments::from(&self.segments[..]),
        }
    }

    pub(super) fn is_indirect(&self) -> bool {
        self.limits.mode == SegmentMode::Indirect && self.segments.len() > 11
    }

    /// Ring entries and descriptor pages, as a frontend of this connection makes them.
    pub(super) fn emit(&self) -> (Vec<Entry>, Vec<u8>) {
        let request = self.request();
        if !self.is_indirect() {
            let mut entries = vec![[0xAA; 112]; request.entries() as usize];
            assert_eq!(request.emit(&self.limits, &mut entries), Ok(entries.len()));
            return (entries, Vec::new());
        }
        let mut pages = vec![0xAA; indirect::pages_for(self.segments.len()) * 4096];
        indirect::encode(request.segments, &mut pages).unwrap();
        let mut entry = [0xAA; 112];
        request.emit_indirect(&self.limits, &self.grefs(), &mut entry).unwrap();
        (vec![entry], pages)
    }

    /// References of the descriptor pages.
    pub(super) fn grefs(&self) -> Vec<GrantRef> {
        (100..).take(indirect::pages_for(self.segments.len())).map(GrantRef).collect()
    }
}

/// Requests of every kind.
pub(super) fn valid() -> impl Strategy<Value = Example> {
    prop_oneof![6 => data(), 1 => discard(), 1 => empty_flush()]
}

/// Requests that move data, in every mode.
pub(super) fn data() -> impl Strategy<Value = Example> {
    prop_oneof![2 => in_ring(), 1 => indirect()]
}

/// Reads, writes, barriers and flushes with data, in their ring entries.
pub(super) fn in_ring() -> impl Strategy<Value = Example> {
    any_limits(&MODES).prop_flat_map(|limits| {
        let segments = vec(any_segment(limits.sector_size), 1..=usize::from(limits.max_in_ring()));
        let ops = select(&[Op::Read, Op::Write, Op::WriteBarrier, Op::Flush]);
        (any::<u64>(), ops, any_sector(limits), segments)
            .prop_map(move |(id, op, sector, segments)| Example { limits, id, op, sector, segments })
    })
}

/// Indirect reads and writes.
pub(super) fn indirect() -> impl Strategy<Value = Example> {
    any_limits(&[SegmentMode::Indirect]).prop_flat_map(|limits| {
        let segments = vec(any_segment(limits.sector_size), 12..700);
        (any::<u64>(), select(&[Op::Read, Op::Write]), any_sector(limits), segments)
            .prop_map(move |(id, op, sector, segments)| Example { limits, id, op, sector, segments })
    })
}

pub(super) fn discard() -> impl Strategy<Value = Example> {
    (any_limits(&MODES), any::<u64>(), 0..1_u64 << 31, 0..1_u64 << 31, any::<bool>()).prop_map(
        |(limits, id, sector, sectors, secure)| Example {
            limits,
            id,
            op: Op::Discard { sectors, secure },
            sector,
            segments: Vec::new(),
        },
    )
}

pub(super) fn empty_flush() -> impl Strategy<Value = Example> {
    (any_limits(&MODES), any::<u64>(), select(&[Op::Flush, Op::WriteBarrier]))
        .prop_map(|(limits, id, op)| Example { limits, id, op, sector: 0, segments: Vec::new() })
}

fn any_sector(limits: Limits) -> impl Strategy<Value = u64> {
    let unit = u64::from(limits.sector_size / 512);
    (0..1_u64 << 20).prop_map(move |sector| sector * unit)
}

/// A segment in whole sectors of the disk.
fn any_segment(sector_size: u32) -> impl Strategy<Value = Segment> {
    let unit = (sector_size / 512) as u8;
    (any::<u32>(), 1..=8 / unit, any::<u8>()).prop_map(move |(gref, units, first)| {
        let sectors = units * unit;
        Segment::part(GrantRef(gref), first % (9 - sectors), sectors).unwrap()
    })
}
