//! What the bytes of Xen block I/O mean: ring entries and XenStore records, for both ends.
//!
//! ```text
//!            XenStore                                  shared ring
//!
//!  frontend ──FrontendRecord──►  backend     frontend ──Request::emit──►  entries ──Request::parse──► backend
//!  frontend ◄─BackendFeatures──  backend     frontend ◄─Response::parse─  slots   ◄─Response::emit─── backend
//!           ◄─BackendDisk──────
//!                    │
//!             Agreement ──► Limits, which every request is checked against
//! ```
//!
//! Way in: [`keys`] has the records, [`Agreement::between`] the negotiation, [`Request`] the requests and their gate
//! [`Request::parse`], [`Response`] the answers; [`Abi`] and [`wire`] know how the three ABIs differ, [`segment_block`] and
//! [`indirect`] how requests of more than 11 segments travel, [`xenbus`] the states of a device.
//!
//! The peer is hostile: bytes are parsed from private copies, once; arithmetic cannot overflow; an unknown operation is a
//! value like any other. Nothing allocates but the XenStore records. There is no I/O, no clock and no unsafe code here, and no
//! ring: that is `ringbuf`.
//!
//! Limits: 255 segments in segment blocks (24 on `x86_32-abi`), 4096 in descriptor pages, 256 queues, rings of 32 pages.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod abi;
mod error;
mod grant;
pub mod indirect;
pub mod keys;
mod limits;
mod opcode;
mod request;
mod response;
mod segment;
pub mod segment_block;
pub mod wire;
pub mod xenbus;

pub use self::{
    abi::Abi,
    error::{EmitError, RecordError, RequestError},
    grant::GrantRef,
    limits::{Agreement, Capacity, Discard, Limits, Operations, Reduction, SegmentMode, UnknownMode},
    opcode::{Opcode, Status},
    request::{Head, Indirect, Op, Parsed, Request},
    response::Response,
    segment::{
        PAGE_SECTORS, PAGE_SIZE, SECTOR_SIZE, Segment, SegmentIter, Segments, sector_bytes, span_end,
        span_fits,
    },
    wire::{Entry, MAX_ENTRY_SIZE},
};
