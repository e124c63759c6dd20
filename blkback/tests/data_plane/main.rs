//! The data plane against a scripted guest, step by step in one thread over the fake world.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and cut patterns to size"
)]

mod batches;
mod guest;
mod hostile;
mod limits;
mod order;
mod strategies;
mod timing;
mod traces;
