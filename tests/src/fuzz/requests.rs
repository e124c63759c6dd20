//! Ring entries as a guest may write them.

use arbitrary::Arbitrary;
use blkif_proto::{
    Abi, Discard, Entry, Head, Limits, MAX_ENTRY_SIZE, Opcode, Operations, Parsed, Request, Response,
    SegmentMode, Status, indirect, segment_block::MAX_ENTRIES,
};

/// What was agreed, and what came.
#[derive(Debug, Arbitrary)]
struct Script<'a> {
    abi: u8,
    mode: u8,
    max_segments: u16,
    indirect: bool,
    max_request_bytes: u32,
    sectors: u64,
    sector_shift: u8,
    read_only: bool,
    flush: bool,
    barrier: bool,
    discard: Option<bool>,
    first: [u8; 40],
    rest: &'a [u8],
}

/// A request passes the gate only if all of it may be done, and then says the same when it is written again.
pub fn requests(data: &[u8]) {
    let Some(script) = super::script::<Script<'_>>(data) else { return };
    let limits = script.limits();
    let mut entries = [[0; MAX_ENTRY_SIZE]; MAX_ENTRIES];
    entries[0][..40].copy_from_slice(&script.first);
    let blocks = script.rest.chunks(MAX_ENTRY_SIZE);
    for (entry, bytes) in entries.iter_mut().skip(1).zip(blocks) {
        entry[..bytes.len()].copy_from_slice(bytes);
    }
    entries[0][40..].fill(script.rest.first().copied().unwrap_or(0));
    let head = Head::parse(&entries[0], &limits);
    assert!((1..=limits.max_entries().max(64)).contains(&head.entries), "{head:?}");
    let answer = head.answer(Status::ERROR);
    assert_eq!(Response::parse(&widened(answer.emit().as_slice())), answer);
    match Request::parse(&entries[..], &limits) {
        Ok(Parsed::Whole(request)) => {
            check(&request, &head, &limits);
            again(&request, &limits);
        }
        Ok(Parsed::Indirect(named)) => {
            assert!(named.pages().len() <= indirect::MAX_PAGES && named.segments <= limits.max_indirect);
            let mut pages = vec![0; named.descriptor_bytes()];
            pages.iter_mut().zip(script.rest.iter().cycle()).for_each(|(to, from)| *to = *from);
            if let Ok(request) = named.with_descriptors(&pages, &limits) {
                check(&request, &head, &limits);
            }
            // Too few of them are noticed.
            let fewer = pages.len().saturating_sub(4096);
            assert!(
                named.segments == 0 || named.with_descriptors(&pages[..fewer], &limits).is_err() || fewer > 0
            );
        }
        Err(error) => assert_ne!(error.status(), Status::OKAY),
    }
}

impl Script<'_> {
    fn limits(&self) -> Limits {
        let abi = Abi::ALL[usize::from(self.abi) % Abi::ALL.len()];
        let mode =
            [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect][usize::from(self.mode) % 3];
        let most = match mode {
            SegmentMode::Direct => 11,
            SegmentMode::Blocks => blkif_proto::segment_block::max_segments(abi) as u16,
            SegmentMode::Indirect => 4096,
        };
        let max_segments = self.max_segments.clamp(11, most);
        let discard = self.discard.map(|secure| Discard { secure, ..Discard::default() });
        let sector_size = 512 << (self.sector_shift % 4);
        Limits {
            abi,
            mode,
            max_segments,
            max_indirect: if self.indirect { max_segments } else { 0 },
            max_request_bytes: self.max_request_bytes,
            max_requests: 32,
            sectors: self.sectors % (1 << 54),
            sector_size,
            read_only: self.read_only,
            operations: Operations { flush: self.flush, barrier: self.barrier, discard },
        }
    }
}

/// All that a backend relies on once a request is through the gate.
fn check(request: &Request<'_>, head: &Head, limits: &Limits) {
    assert_eq!((request.id, request.op.opcode()), (head.id, head.answer_op));
    let end = request.sector.checked_add(request.sectors()).unwrap();
    assert!(request.segments.is_empty() || end <= limits.sectors, "{request:?} ends at {end}");
    if let blkif_proto::Op::Discard { sectors, .. } = request.op {
        assert!(sectors == 0 || end <= limits.sectors);
    }
    for segment in request.segments.iter() {
        assert!(segment.offset() + segment.bytes() <= 4096 && segment.bytes() > 0, "{segment:?}");
    }
    if limits.read_only {
        assert!(request.segments.is_empty() || request.op == blkif_proto::Op::Read, "{request:?}");
    }
}

fn again(request: &Request<'_>, limits: &Limits) {
    let mut entries = [[0xA5; MAX_ENTRY_SIZE]; MAX_ENTRIES];
    // What a frontend would not write may still be read: a discard has no segments.
    let Ok(filled) = request.emit(limits, &mut entries) else { return };
    assert_eq!(Head::parse(&entries[0], limits).answer_op, request.op.opcode());
    match Request::parse(&entries[..filled], limits) {
        Ok(Parsed::Whole(back)) => {
            assert_eq!((back.id, back.op, back.sector), (request.id, request.op, request.sector));
            assert!(back.segments.iter().eq(request.segments.iter()));
        }
        other => panic!("{request:?} became {other:?}"),
    }
    assert_ne!(request.op.opcode(), Opcode::INDIRECT);
}

fn widened(bytes: &[u8]) -> Entry {
    let mut entry = [0; MAX_ENTRY_SIZE];
    entry[..bytes.len()].copy_from_slice(bytes);
    entry
}
