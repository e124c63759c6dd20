//! Valid requests round-trip; one broken thing gives its own error; arbitrary bytes give something.
#![expect(clippy::cast_possible_truncation, reason = "the numbers of the examples are small")]

use proptest::{collection::vec, prelude::*};

use self::examples::{
    Example, MODES, any_limits, data, discard, indirect as indirect_request, limits, valid,
};
use super::*;
use crate::{Abi, Discard, Operations};

mod examples;

/// What the backend's two steps make of it.
fn gate(entries: &[Entry], pages: &[u8], limits: &Limits) -> Result<Vec<Segment>, RequestError> {
    let whole = match Request::parse(entries, limits)? {
        Parsed::Whole(request) => request,
        Parsed::Indirect(indirect) => indirect.with_descriptors(pages, limits)?,
    };
    Ok(whole.segments.iter().collect())
}

/// The first entry with one byte changed; 1 is `nr_segments`, the flag or the inner operation.
fn with_byte(mut entries: Vec<Entry>, at: usize, byte: u8) -> Vec<Entry> {
    entries[0][at] = byte;
    entries
}

fn break_segment(
    example: &Example,
    index: usize,
    change: impl FnOnce(&mut Segment),
) -> Result<Vec<Segment>, RequestError> {
    let mut broken = example.clone();
    change(&mut broken.segments[index]);
    let (entries, pages) = broken.emit();
    gate(&entries, &pages, &example.limits)
}

proptest! {
    #[test]
    fn what_a_frontend_emits_a_backend_reads(example in valid()) {
        let (entries, pages) = example.emit();
        let head = Head::parse(&entries[0], &example.limits);
        prop_assert_eq!(head.entries as usize, entries.len());
        prop_assert_eq!(head.id, example.id);
        prop_assert_eq!(head.answer_op, example.op.opcode());
        prop_assert_eq!(head.answer(Status::OKAY), example.request().answer(Status::OKAY));
        let parsed = match Request::parse(&entries, &example.limits) {
            Ok(Parsed::Whole(request)) => Ok(request),
            Ok(Parsed::Indirect(indirect)) => {
                prop_assert_eq!(indirect.pages(), example.grefs());
                prop_assert_eq!(indirect.descriptor_bytes(), example.segments.len() * 8);
                indirect.with_descriptors(&pages, &example.limits)
            }
            Err(error) => Err(error),
        };
        prop_assert_eq!(parsed, Ok(example.request()));
    }

    #[test]
    fn no_bytes_are_too_strange(
        limits in any_limits(&MODES), entries in vec(any::<[[u8; 16]; 7]>(), 0..20), pages in vec(any::<u8>(), 0..9000),
        op in prop_oneof![0..8_u8, any::<u8>()],
    ) {
        let mut entries: Vec<Entry> = entries.iter().map(|parts| parts.concat().try_into().unwrap()).collect();
        if let Some(first) = entries.first_mut() {
            first[0] = op;
            prop_assert!((1..=19).contains(&Head::parse(first, &limits).entries));
        }
        if let Ok(segments) = gate(&entries, &pages, &limits) {
            prop_assert!(segments.iter().all(|segment| segment.is_valid()));
            prop_assert!(segments.len() <= usize::from(limits.max_segments));
        }
    }

    #[test]
    fn handle_and_padding_are_never_looked_at(example in valid(), noise: [u8; 4]) {
        let (mut entries, pages) = example.emit();
        let expected = gate(&entries, &pages, &example.limits);
        if !example.is_indirect() {
            entries[0][2..4].copy_from_slice(&noise[..2]);
        }
        if example.limits.abi == Abi::X86_32 {
            entries[0][108..].copy_from_slice(&noise);
        } else {
            entries[0][4..8].copy_from_slice(&noise);
        }
        prop_assert_eq!(gate(&entries, &pages, &example.limits), expected);
    }

    #[test]
    fn unknown_operations_keep_their_number(example in valid(), unknown in prop_oneof![Just(4_u8), 7..=255_u8]) {
        let entries = with_byte(example.emit().0, 0, unknown);
        let error = Request::parse(&entries, &example.limits).unwrap_err();
        prop_assert_eq!(error, RequestError::UnknownOperation(Opcode(unknown)));
        let head = Head::parse(&entries[0], &example.limits);
        prop_assert_eq!(head.answer(error.status()),
            Response { id: example.id, op: Opcode(unknown), status: Status::NOT_SUPPORTED });
        prop_assert_eq!(head.entries, 1);
    }

    #[test]
    fn what_is_not_offered_is_not_done(example in valid()) {
        let (entries, pages) = example.emit();
        let mut limits = example.limits;
        limits.operations = Operations::default();
        let result = gate(&entries, &pages, &limits);
        match example.op {
            Op::Read | Op::Write => prop_assert_eq!(result, Ok(example.segments)),
            op => {
                let error = result.unwrap_err();
                prop_assert_eq!(error, RequestError::NotOffered(op.opcode()));
                prop_assert_eq!(error.status(), Status::NOT_SUPPORTED);
            }
        }
    }

    #[test]
    fn indirect_requests_need_an_offer_in_every_mode(example in indirect_request()) {
        let (entries, pages) = example.emit();
        for mode in MODES {
            let offered = Limits { mode, ..example.limits };
            prop_assert_eq!(gate(&entries, &pages, &offered), Ok(example.segments.clone()));
            let limits = Limits { max_indirect: 0, ..offered };
            prop_assert_eq!(Request::parse(&entries, &limits), Err(RequestError::NotOffered(Opcode::INDIRECT)));
            prop_assert_eq!(Head::parse(&entries[0], &limits).answer_op, example.op.opcode());
        }
    }

    #[test]
    fn a_read_only_disk_is_only_read_and_flushed(example in valid()) {
        let (entries, pages) = example.emit();
        let limits = Limits { read_only: true, ..example.limits };
        let empty = example.segments.is_empty() && matches!(example.op, Op::Flush | Op::WriteBarrier);
        let expected = if example.op == Op::Read || empty {
            Ok(example.segments)
        } else {
            Err(RequestError::ReadOnly(example.op.opcode()))
        };
        prop_assert_eq!(gate(&entries, &pages, &limits), expected);
    }

    #[test]
    fn reads_and_writes_of_nothing_are_refused(example in data()) {
        prop_assume!(matches!(example.op, Op::Read | Op::Write));
        let (mut entries, pages) = example.emit();
        let at = if example.is_indirect() { 2..4 } else { 1..2 };
        entries[0][at].fill(0);
        prop_assert_eq!(gate(&entries, &pages, &example.limits), Err(RequestError::NoSegments(example.op.opcode())));
    }

    #[test]
    fn an_empty_flush_has_no_sector(limits in any_limits(&MODES), id: u64, sector: u64, barrier: bool) {
        let op = if barrier { Op::WriteBarrier } else { Op::Flush };
        let request = Request { id, op, sector, segments: Segments::NONE };
        let mut entries = [[0; 112]];
        prop_assert_eq!(request.emit(&limits, &mut entries), Ok(1));
        let parsed = Request::parse(&entries, &limits);
        prop_assert_eq!(parsed, Ok(Parsed::Whole(Request { sector: 0, ..request })));
    }

    #[test]
    fn too_many_segments_are_counted_before_they_are_read(example in data(), more in 1..200_u16) {
        let (mut entries, pages) = example.emit();
        let limit = if example.is_indirect() { example.limits.max_indirect } else { example.limits.max_in_ring() };
        let segments = limit.saturating_add(more);
        if example.is_indirect() {
            entries[0][2..4].copy_from_slice(&segments.to_le_bytes());
        } else {
            prop_assume!(segments <= 255);
            entries[0][1] = segments as u8;
        }
        let error = RequestError::TooManySegments { segments, limit };
        prop_assert_eq!(gate(&entries, &pages, &example.limits), Err(error));
        // The stride of the answer is what the guest takes it for.
        if example.limits.mode == SegmentMode::Blocks {
            prop_assert_eq!(Head::parse(&entries[0], &example.limits).entries, segment_block::entries_for(segments.into()));
        }
    }

    #[test]
    fn as_many_indirect_segments_as_are_offered(example in indirect_request(), less in 1..64_u16) {
        let (entries, pages) = example.emit();
        let segments = example.segments.len() as u16;
        let offered = Limits { max_indirect: segments, ..example.limits };
        prop_assert!(gate(&entries, &pages, &offered).is_ok());
        let limit = segments.saturating_sub(less);
        prop_assume!(limit > 0);
        let error = RequestError::TooManySegments { segments, limit };
        prop_assert_eq!(gate(&entries, &pages, &Limits { max_indirect: limit, ..offered }), Err(error));
    }

    #[test]
    fn a_reversed_segment_is_named(example in data(), pick: prop::sample::Index, last in 0..7_u8) {
        let index = pick.index(example.segments.len());
        let result = break_segment(&example, index, |segment| (segment.first_sect, segment.last_sect) = (last + 1, last));
        let error = RequestError::SegmentReversed { index: index as u16, first: last + 1, last };
        prop_assert_eq!(result, Err(error));
        prop_assert_eq!(error.status(), Status::ERROR);
    }

    #[test]
    fn a_segment_beyond_its_page_is_named(example in data(), pick: prop::sample::Index, last in 8..=255_u8) {
        let index = pick.index(example.segments.len());
        let result = break_segment(&example, index, |segment| segment.last_sect = last);
        prop_assert_eq!(result, Err(RequestError::SegmentBeyondPage { index: index as u16, last }));
    }

    #[test]
    fn half_a_disk_sector_is_named(example in data(), pick: prop::sample::Index) {
        prop_assume!(example.limits.sector_size > 512);
        let index = pick.index(example.segments.len());
        let result = break_segment(&example, index, |segment| segment.last_sect = segment.first_sect);
        prop_assert_eq!(result, Err(RequestError::SegmentUnaligned { index: index as u16, sectors: 1 }));
    }

    #[test]
    fn a_request_inside_a_disk_sector_is_refused(mut example in data(), off: u64) {
        let unit = u64::from(example.limits.sector_size / 512);
        prop_assume!(unit > 1);
        example.sector += 1 + off % (unit - 1);
        let (entries, pages) = example.emit();
        let error = RequestError::Unaligned { sector: example.sector };
        prop_assert_eq!(gate(&entries, &pages, &example.limits), Err(error));
    }

    #[test]
    fn more_bytes_than_agreed_are_refused(example in data()) {
        let (entries, pages) = example.emit();
        let bytes = example.segments.iter().map(|segment| segment.bytes() as u32).sum();
        let limits = Limits { max_request_bytes: bytes, ..example.limits };
        prop_assert!(gate(&entries, &pages, &limits).is_ok());
        let limits = Limits { max_request_bytes: bytes - 1, ..example.limits };
        prop_assert_eq!(gate(&entries, &pages, &limits), Err(RequestError::TooLarge { bytes, limit: bytes - 1 }));
    }

    #[test]
    fn the_disk_ends_where_it_ends(mut example in valid(), beyond in prop_oneof![1..9_u64, 1 << 40..1_u64 << 50]) {
        let unit = u64::from(example.limits.sector_size / 512);
        let sectors = example.request().sectors();
        prop_assume!(sectors > 0);
        example.sector = example.limits.sectors - sectors;
        let (entries, pages) = example.emit();
        prop_assert!(gate(&entries, &pages, &example.limits).is_ok(), "up to the last sector");
        for sector in [example.sector + beyond * unit, u64::MAX - unit + 1, u64::MAX - u64::MAX % unit] {
            let sector = sector - sector % unit;
            example.sector = sector;
            let (entries, pages) = example.emit();
            let error = RequestError::OutOfRange { sector, sectors, capacity: example.limits.sectors };
            prop_assert_eq!(gate(&entries, &pages, &example.limits), Err(error));
        }
    }

    #[test]
    fn discards_cannot_overflow(limits in any_limits(&MODES), sector: u64, sectors in prop_oneof![Just(u64::MAX), any::<u64>()]) {
        let request = Request { id: 1, op: Op::Discard { sectors, secure: false }, sector, segments: Segments::NONE };
        let mut entries = [[0; 112]];
        prop_assert_eq!(request.emit(&limits, &mut entries), Ok(1));
        let fits = u128::from(sector) + u128::from(sectors) <= u128::from(limits.sectors);
        let parsed = Request::parse(&entries, &limits);
        if fits {
            prop_assert_eq!(parsed, Ok(Parsed::Whole(request)));
        } else {
            prop_assert_eq!(parsed, Err(RequestError::OutOfRange { sector, sectors, capacity: limits.sectors }));
        }
    }

    #[test]
    fn secure_discard_is_not_silently_less(mut example in discard()) {
        let sectors = example.request().sectors();
        example.op = Op::Discard { sectors, secure: true };
        let mut limits = example.limits;
        limits.operations.discard = Some(Discard::default());
        let error = Request::parse(&example.emit().0, &limits).unwrap_err();
        prop_assert_eq!(error, RequestError::SecureNotOffered);
        prop_assert_eq!(error.status(), Status::NOT_SUPPORTED);
    }

    #[test]
    fn an_indirect_request_reads_or_writes(example in indirect_request(), inner in 2..=255_u8) {
        let entries = with_byte(example.emit().0, 1, inner);
        let error = RequestError::InnerOperation(Opcode(inner));
        prop_assert_eq!(Request::parse(&entries, &example.limits), Err(error));
        let answer = Head::parse(&entries[0], &example.limits).answer(error.status());
        prop_assert_eq!(answer, Response { id: example.id, op: Opcode(inner), status: Status::ERROR });
    }

    #[test]
    fn missing_blocks_and_descriptors_are_noticed(example in data(), pick: prop::sample::Index) {
        let (entries, pages) = example.emit();
        if example.is_indirect() {
            let need = example.segments.len() * 8;
            let have = pick.index(need);
            let error = RequestError::MissingDescriptors { have: have as u32, need: need as u32 };
            prop_assert_eq!(gate(&entries, &pages[..have], &example.limits), Err(error));
        } else {
            let have = pick.index(entries.len());
            let need = if have == 0 { 1 } else { entries.len() as u32 };
            let error = RequestError::MissingEntries { have: have as u32, need };
            prop_assert_eq!(gate(&entries[..have], &pages, &example.limits), Err(error));
        }
    }
}

#[test]
fn a_frontend_cannot_emit_what_does_not_fit() {
    let list = [Segment::page(GrantRef(1)); 256];
    let request = |op, n| Request { id: 1, op, sector: 0, segments: Segments::from(&list[..n]) };
    let mut entries = [[0; 112]; 19];
    let direct = limits(Abi::X86_64, SegmentMode::Direct, 512);
    let blocks = limits(Abi::X86_64, SegmentMode::Blocks, 512);
    let blocks32 = limits(Abi::X86_32, SegmentMode::Blocks, 512);

    let too_many = |segments, limit| Err(EmitError::TooManySegments { segments, limit });
    assert_eq!(request(Op::Read, 12).emit(&direct, &mut entries), too_many(12, 11));
    assert_eq!(request(Op::Read, 256).emit(&blocks, &mut entries), too_many(256, 255));
    assert_eq!(request(Op::Read, 25).emit(&blocks32, &mut entries), too_many(25, 24));
    assert_eq!(request(Op::Read, 255).emit(&blocks, &mut entries), Ok(19));

    let too_few = |have, need| Err(EmitError::TooFewEntries { have, need });
    assert_eq!(request(Op::Read, 26).emit(&blocks, &mut entries[..2]), too_few(2, 3));
    assert_eq!(request(Op::Read, 1).emit(&direct, &mut []), too_few(0, 1));

    let discard = Op::Discard { sectors: 8, secure: false };
    assert_eq!(request(discard, 1).emit(&direct, &mut entries), Err(EmitError::NoSuchForm(Opcode::DISCARD)));
    let indirect = limits(Abi::X86_64, SegmentMode::Indirect, 512);
    let page = [GrantRef(9); 2];
    let mut emit = |op, n, pages| request(op, n).emit_indirect(&indirect, pages, &mut entries[0]);
    assert_eq!(emit(Op::Flush, 20, &page[..1]), Err(EmitError::NoSuchForm(Opcode::FLUSH)));
    assert_eq!(emit(Op::Read, 20, &page), Err(EmitError::DescriptorPages { have: 2, need: 1 }));
    assert_eq!(emit(Op::Read, 20, &page[..1]), Ok(()));
}

#[test]
fn wildly_wrong_limits_do_not_let_references_run_out() {
    let limits = Limits { max_indirect: u16::MAX, ..limits(Abi::X86_64, SegmentMode::Indirect, 512) };
    let mut entry = [0xFF; 112];
    entry[..4].copy_from_slice(&[6, 0, 0x01, 0x10]);
    let error = RequestError::TooManySegments { segments: 4097, limit: 4096 };
    assert_eq!(Request::parse(&[entry], &limits), Err(error));
    entry[2..4].copy_from_slice(&4096_u16.to_le_bytes());
    let Ok(Parsed::Indirect(indirect)) = Request::parse(&[entry], &limits) else {
        panic!("4096 segments are fine")
    };
    assert_eq!(indirect.pages().len(), 8);
}
