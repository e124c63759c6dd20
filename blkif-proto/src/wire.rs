//! Bytes as they lie in a ring entry, in all ABIs.
//!
//! The ABIs differ in one thing only: a C compiler for i386 aligns 64-bit members to 4 bytes, the others to 8. That moves the
//! end of the header from byte 20 to byte 24; the 88 bytes of body after it have the same layout everywhere, and so have
//! responses and indirect descriptor pages.
//!
//! ```text
//! byte      0    1     2       4          8      12     16     20        24                                108     112
//! x86_32  | op | arg | arg16 | id (64 bits)    | sector       | body: 88 bytes ...                        |
//! 64-bit  | op | arg | arg16 | zero     | id            | sector        | body: 88 bytes ...                       |
//! ```
//!
//! Sizes and offsets below are asserted when this file is compiled, and compared in the golden tests with what a C compiler
//! makes of Xen's public header `io/blkif.h`. Everything is little endian, as on every platform that Xen runs on.

use core::mem::{offset_of, size_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I16, U16, U32, U64},
    transmute_mut, transmute_ref,
};

use crate::Abi;

/// Bytes of the largest ring entry of any ABI.
pub const MAX_ENTRY_SIZE: usize = 112;

/// A private copy of one ring entry; only the first [`Abi::entry_size`] bytes count.
pub type Entry = [u8; MAX_ENTRY_SIZE];

/// Bytes of a request after its header.
pub const BODY_SIZE: usize = 88;

/// What follows the header: segments, a discard's length, or an indirect request's descriptor references.
pub type Body = [u8; BODY_SIZE];

/// Header of a request on `x86_32-abi`, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header32 {
    /// `operation`.
    pub operation: u8,
    /// `nr_segments`, a discard's `flag`, or an indirect request's `indirect_op`.
    pub arg: u8,
    /// `handle` (never to be trusted), or an indirect request's `nr_segments`.
    pub arg16: U16,
    /// `id`.
    pub id: U64,
    /// `sector_number`, in 512-byte units.
    pub sector: U64,
}

/// Header of a request on `x86_64-abi` and `arm-abi`, 24 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header64 {
    /// `operation`.
    pub operation: u8,
    /// `nr_segments`, a discard's `flag`, or an indirect request's `indirect_op`.
    pub arg: u8,
    /// `handle` (never to be trusted), or an indirect request's `nr_segments`.
    pub arg16: U16,
    /// Padding, written as zero.
    pub pad: [u8; 4],
    /// `id`.
    pub id: U64,
    /// `sector_number`, in 512-byte units.
    pub sector: U64,
}

/// A whole request entry on `x86_32-abi`: 108 bytes, and the four that an [`Entry`] has too many.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Request32 {
    /// The header.
    pub header: Header32,
    /// The rest.
    pub body: Body,
    /// Not part of the ring entry.
    pub beyond: [u8; 4],
}

/// A whole request entry on `x86_64-abi` and `arm-abi`: 112 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Request64 {
    /// The header.
    pub header: Header64,
    /// The rest.
    pub body: Body,
}

/// One segment, in a request, a segment block or a descriptor page: 8 bytes (`struct blkif_request_segment`).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireSegment {
    /// `gref`.
    pub gref: U32,
    /// `first_sect`.
    pub first_sect: u8,
    /// `last_sect`, inclusive.
    pub last_sect: u8,
    /// Padding, written as zero.
    pub pad: U16,
}

/// Body of read, write, write barrier and flush.
pub type SegmentBody = [WireSegment; 11];

/// A ring entry of the segment-block extension: nothing but 14 segments, 112 bytes. On `x86_32-abi` entries have 108, so the
/// last segment would reach into the next entry; see [`segment_block`](crate::segment_block).
pub type BlockEntry = [WireSegment; 14];

/// Body of a discard (`struct blkif_request_discard`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscardBody {
    /// `nr_sectors`, in 512-byte units.
    pub nr_sectors: U64,
    /// Unused.
    pub rest: [u8; 80],
}

/// Body of an indirect request (`struct blkif_request_indirect`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IndirectBody {
    /// `handle`.
    pub handle: U16,
    /// Padding, written as zero.
    pub pad: U16,
    /// `indirect_grefs`: the descriptor pages.
    pub grefs: [U32; 8],
    /// Unused.
    pub rest: [u8; 52],
}

/// A response, 12 bytes on every ABI; where 64-bit members are aligned to 8, C adds four bytes of padding.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireResponse {
    /// `id`.
    pub id: U64,
    /// `operation`.
    pub operation: u8,
    /// Padding, written as zero.
    pub pad: u8,
    /// `status`.
    pub status: I16,
    /// The rest of the slot, written as zero (XSA-216: it leaked the backend's stack).
    pub rest: [u8; 100],
}

const _: () = {
    assert!(size_of::<WireSegment>() == 8);
    assert!(offset_of!(WireSegment, gref) == 0);
    assert!(offset_of!(WireSegment, first_sect) == 4);
    assert!(offset_of!(WireSegment, last_sect) == 5);

    assert!(size_of::<SegmentBody>() == BODY_SIZE);
    assert!(size_of::<DiscardBody>() == BODY_SIZE);
    assert!(size_of::<IndirectBody>() == BODY_SIZE);
    assert!(size_of::<BlockEntry>() == MAX_ENTRY_SIZE);

    assert!(offset_of!(DiscardBody, nr_sectors) == 0);
    assert!(offset_of!(DiscardBody, rest) == 8);
    assert!(offset_of!(IndirectBody, handle) == 0);
    assert!(offset_of!(IndirectBody, grefs) == 4);
    assert!(offset_of!(IndirectBody, rest) == 36);

    assert!(size_of::<Request32>() == MAX_ENTRY_SIZE);
    assert!(offset_of!(Request32, header.operation) == 0);
    assert!(offset_of!(Request32, header.arg) == 1);
    assert!(offset_of!(Request32, header.arg16) == 2);
    assert!(offset_of!(Request32, header.id) == 4);
    assert!(offset_of!(Request32, header.sector) == 12);
    assert!(offset_of!(Request32, body) == 20);
    assert!(offset_of!(Request32, beyond) == Abi::X86_32.entry_size());

    assert!(size_of::<Request64>() == MAX_ENTRY_SIZE);
    assert!(size_of::<Request64>() == Abi::X86_64.entry_size());
    assert!(size_of::<Request64>() == Abi::Arm.entry_size());
    assert!(offset_of!(Request64, header.operation) == 0);
    assert!(offset_of!(Request64, header.arg) == 1);
    assert!(offset_of!(Request64, header.arg16) == 2);
    assert!(offset_of!(Request64, header.id) == 8);
    assert!(offset_of!(Request64, header.sector) == 16);
    assert!(offset_of!(Request64, body) == 24);

    assert!(size_of::<WireResponse>() == MAX_ENTRY_SIZE);
    assert!(offset_of!(WireResponse, id) == 0);
    assert!(offset_of!(WireResponse, operation) == 8);
    assert!(offset_of!(WireResponse, status) == 10);
    assert!(offset_of!(WireResponse, rest) == Abi::X86_32.response_size());
};

/// The fields of a request entry, wherever its ABI puts them.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) operation: u8,
    pub(crate) arg: u8,
    pub(crate) arg16: u16,
    pub(crate) id: u64,
    pub(crate) sector: u64,
    pub(crate) body: &'a Body,
}

impl<'a> Fields<'a> {
    #[inline]
    pub(crate) fn read(entry: &'a Entry, abi: Abi) -> Self {
        match abi {
            Abi::X86_32 => {
                let Request32 { header, body, .. } = transmute_ref!(entry);
                let (arg16, id, sector) = (header.arg16.get(), header.id.get(), header.sector.get());
                Self { operation: header.operation, arg: header.arg, arg16, id, sector, body }
            }
            Abi::X86_64 | Abi::Arm => {
                let Request64 { header, body } = transmute_ref!(entry);
                let (arg16, id, sector) = (header.arg16.get(), header.id.get(), header.sector.get());
                Self { operation: header.operation, arg: header.arg, arg16, id, sector, body }
            }
        }
    }

    /// Writes header and body; the bytes beyond a shorter entry become zero.
    pub(crate) fn write(&self, entry: &mut Entry, abi: Abi) {
        let (arg16, id, sector) = (self.arg16.into(), self.id.into(), self.sector.into());
        match abi {
            Abi::X86_32 => {
                let header = Header32 { operation: self.operation, arg: self.arg, arg16, id, sector };
                *transmute_mut!(entry) = Request32 { header, body: *self.body, beyond: [0; 4] };
            }
            Abi::X86_64 | Abi::Arm => {
                let header =
                    Header64 { operation: self.operation, arg: self.arg, arg16, pad: [0; 4], id, sector };
                *transmute_mut!(entry) = Request64 { header, body: *self.body };
            }
        }
    }
}
