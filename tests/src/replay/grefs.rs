//! The grant references in raw entries, which are other ones in every run.

use blkif_proto::{Abi, Entry, Opcode, indirect};

/// Bytes of a segment, in entries and in descriptor pages.
const SEGMENT: usize = 8;

/// Puts another reference in the place of each in a request's entries.
pub(super) fn replace(entries: &mut [Entry], abi: Abi, mut other: impl FnMut(u32) -> u32) {
    let Some((first, blocks)) = entries.split_first_mut() else { return };
    let body = if abi == Abi::X86_32 { 20 } else { 24 };
    let size = abi.entry_size();
    match Opcode(first[0]) {
        Opcode::DISCARD => {}
        Opcode::INDIRECT => {
            let segments = usize::from(u16::from_le_bytes([first[2], first[3]]));
            let pages = indirect::pages_for(segments).min(indirect::MAX_PAGES);
            each(&mut first[body + 4..size], 4, pages, &mut other);
        }
        _ => {
            let segments = usize::from(first[1]);
            each(&mut first[body..size], SEGMENT, segments.min(11), &mut other);
            let mut left = segments.saturating_sub(11);
            for block in blocks {
                each(&mut block[..size], SEGMENT, left, &mut other);
                left = left.saturating_sub(size / SEGMENT);
            }
        }
    }
}

/// The same in descriptor pages.
pub(super) fn replace_in_descriptors(bytes: &mut [u8], mut other: impl FnMut(u32) -> u32) {
    each(bytes, SEGMENT, usize::MAX, &mut other);
}

fn each(bytes: &mut [u8], stride: usize, count: usize, other: &mut impl FnMut(u32) -> u32) {
    for part in bytes.chunks_exact_mut(stride).take(count) {
        let Some(gref) = part.first_chunk_mut() else { return };
        *gref = other(u32::from_le_bytes(*gref)).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use blkif_proto::{GrantRef, Head, Parsed, Request, Segment, SegmentMode};

    use super::*;
    use crate::{conformance::rig::Raw, fuzz::guest_seat::innocent::limits};

    #[test]
    fn every_reference_that_the_gate_sees_is_replaced() {
        let segments: Vec<Segment> = (0..24).map(|n| Segment::page(GrantRef(n))).collect();
        for abi in [Abi::X86_64, Abi::X86_32] {
            let limits = limits(abi, SegmentMode::Blocks, 1 << 20);
            for count in [1, 11, 12, 24] {
                let mut entries = Raw::read(1, 0, &segments[..count]).entries(abi);
                entries.resize(Head::parse(&entries[0], &limits).entries as usize, [0; _]);
                replace(&mut entries, abi, |gref| gref + 1000);
                let Ok(Parsed::Whole(request)) = Request::parse(&entries, &limits) else { unreachable!() };
                let found: Vec<u32> = request.segments.iter().map(|segment| segment.gref.0).collect();
                assert_eq!(found, (1000..1000 + count as u32).collect::<Vec<_>>(), "{abi:?}");
            }
            let limits = super::tests::limits(abi, SegmentMode::Indirect, 1 << 20);
            let pages = [GrantRef(7), GrantRef(8)];
            let mut entries = Raw::indirect(Opcode::READ, 1, 0, 600, &pages).entries(abi);
            replace(&mut entries, abi, |gref| gref + 1000);
            let Ok(Parsed::Indirect(request)) = Request::parse(&entries, &limits) else { unreachable!() };
            assert_eq!(request.pages(), [GrantRef(1007), GrantRef(1008)], "{abi:?}");
        }
    }
}
