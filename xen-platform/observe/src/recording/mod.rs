//! Recordings: what passed between two ends, as one of them saw it.
//!
//! ```text
//! {"format":"blkif recording","version":1,"end":"backend","program":"blkback 0.1.0"}
//! {"at":11520344,"device":"1/51712","node":{"of":"frontend","key":"state","value":"3"}}
//! {"at":11981001,"device":"1/51712","request":{"queue":0,"index":0,"bytes":"0x0001000000000000010000..."}}
//! {"at":11981090,"device":"1/51712","published":{"by":"frontend","queue":0,"index":1}}
//! {"at":12090733,"device":"1/51712","answer":{"queue":0,"index":0,"bytes":"0x0100"}}
//! ```
//!
//! One line of JSON for the [`Header`], one for each [`Entry`], in the order in which the end saw or did it. What no peer can
//! see is not in it: the bytes of the disk, and private memory. A [`Recorder`] writes it, [`Recording`] reads it.
//!
//! Limits: a file ends at [`MAX_BYTES`], with a line that says so. It tells which sectors were used, and when, to whoever may read
//! it: it is made readable for its owner only.

mod event;
mod read;
mod recorder;

pub use event::{End, Entry, Event, Header};
pub use read::{ReadError, Recording};
pub use recorder::{Recorder, Tape};

/// The header's `format`.
pub const FORMAT: &str = "blkif recording";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Longest recording in bytes: 1 GiB.
pub const MAX_BYTES: u64 = 1 << 30;
