//! The shared ring of Xen's split drivers: one or more pages, two ends that do not trust each other.
//!
//! ```text
//!                        shared pages, granted by the frontend
//!             +-----------+-----------+-----------+-----------+------------------+
//!   bytes 0.. | req_prod  | req_event | rsp_prod  | rsp_event | zero, up to 64   |
//!             +-----------+-----------+-----------+-----------+------------------+
//!   64..      | slot 0    | slot 1    | ...  entries (a power of two) x entry size |
//!             +-----------+-----------+------------------------------------------+
//!   FrontRing: push -> publish -> Notify          BackRing: available -> read -> consume
//!              peek -> consume, arm                         respond -> publish -> Notify, arm
//! ```
//!
//! A [`FrontRing`] initialises the pages, pushes requests and consumes responses; a [`BackRing`] attaches to
//! what a frontend initialised, consumes requests and pushes responses. Requests and responses share the
//! slots: a response overwrites a request that was consumed. Each end moves a private cursor and makes a whole
//! batch visible with one `publish`, whose [`Notify`] says whether the peer asked to be woken. An end that goes
//! to sleep calls `arm` first and sleeps only if that finds nothing. A message may span several slots, which
//! may wrap round the end of the ring.
//!
//! Both ends are safe code over [`RingMem`]: [`Mapped`] is the real thing, over any [`RingPages`]; [`Heap`] is for
//! tests, and for loom, which explores publish, arm and recheck of both directions (`tests/loom.rs`); [`Tapped`] tells
//! a [`Tap`] of all that one end reads and writes. [`Layout`]
//! is how many slots of which size, [`Index`] the arithmetic modulo 2^32.
//!
//! Limits: 1 to 32 pages; the bytes of a message have no meaning here (`blkif-proto` gives them one); one owner
//! per end, no locks; a peer that writes impossible indices is reported as [`Corrupt`], once and for good.
//!
//! Source of the rules: Xen's public header `io/ring.h`; `docs/PROTOCOL.md`, sections 1 and 3.2.
#![cfg_attr(not(any(test, loom)), no_std)]

extern crate alloc;

mod back;
mod consumer;
mod error;
mod front;
mod heap;
mod index;
mod layout;
mod mapped;
mod mem;
#[cfg(test)]
mod model;
mod notify;
mod producer;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
pub mod sync;
mod tap;

pub use back::BackRing;
pub use error::{Corrupt, Full, LayoutError};
pub use front::FrontRing;
pub use heap::Heap;
pub use index::Index;
pub use layout::Layout;
pub use mapped::{Mapped, RingPages};
pub use mem::{Field, RingMem};
pub use notify::Notify;
pub use tap::{Tap, Tapped};
