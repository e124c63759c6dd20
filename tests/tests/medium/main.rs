//! What reaches the medium, and what of its errors reaches the guest: the real daemon on a [medium](tests::medium) of our own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod power;
