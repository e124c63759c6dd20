//! How fast a disk is, through the ring: the measuring part of `bench`, for every tool that has one.
//!
//! ```text
//! Job ─▶ blocks: does it fit? ─▶ Load a queue ─▶ measure: Pattern ─▶ submit, wait, finish ─▶ Stats ─▶ Report
//! ```
//!
//! A turn submits what is due, publishes once, and takes every completion that is there; the clock is read once a turn, nothing
//! is allocated, and buffers go round with the I/Os. Times are those of the world's clock.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod connection;
pub mod job;
pub mod load;
pub mod pattern;
pub mod random;
pub mod report;
pub mod stats;

pub use connection::Connection;
pub use job::{Job, Mode, Unfit};
pub use load::{Failure, Limits, Load, measure};
pub use random::Random;
pub use report::{CpuTime, Report};
pub use stats::Stats;
