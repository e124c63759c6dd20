//! Hostile peers and hostile bytes, as functions of some bytes: what a fuzzer calls, and what the replay of its corpus calls.
//!
//! | target | seat | what it drives |
//! |---|---|---|
//! | [`requests()`] | guest | ring entries and descriptor pages through the gate |
//! | [`records()`] | both | every XenStore record, and what is written of it again |
//! | [`log()`] | a bad disk | the in-flight log of a killed daemon |
//! | [`wire()`] | both | XenStore's protocol: a stream, a server that lies, a client that lies |
//! | [`vbd()`] | guest and toolstack | the life of a device: states in, actions out |
//! | [`guest_seat()`] | guest | a worker with rings, grants, a disk and a log, beside an innocent guest |
//! | [`backend_seat()`] | backend | a device and its queues from the handshake to the end |
//!
//! A breach is a panic. Every target is a function of its bytes alone, ends by itself, and leaves nothing behind. How to run the
//! fuzzers: `tests/fuzz/README.md`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a breach is a panic")]

pub(crate) mod backend_seat;
pub(crate) mod guest_seat;
mod log;
mod records;
mod requests;
mod vbd;
mod wire;

use arbitrary::{Arbitrary, Unstructured};

pub use backend_seat::backend_seat;
pub use guest_seat::guest_seat;
pub use log::log;
pub use records::records;
pub use requests::requests;
pub use vbd::vbd;
pub use wire::wire;

/// One thing to be fuzzed: bytes in, a panic at a breach.
pub type Target = fn(&[u8]);

/// All of them, by name; `tests/fuzz/corpus` has a folder for each.
pub const TARGETS: [(&str, Target); 7] = [
    ("backend_seat", backend_seat),
    ("guest_seat", guest_seat),
    ("log", log),
    ("records", records),
    ("requests", requests),
    ("vbd", vbd),
    ("wire", wire),
];

/// What the bytes mean; none where there are too few.
fn script<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}
