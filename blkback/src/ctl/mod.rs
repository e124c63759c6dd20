//! Watching and steering the daemon while it serves: one Unix socket, JSON, one line a request and one line an answer.
//!
//! | file | what |
//! |---|---|
//! | [`protocol`] | the lines; version [`protocol::VERSION`] |
//! | [`desk`] | the daemon's end: who may ask what, and how much of it at a time |
//! | [`client`] | `blkctl`'s end |
//!
//! A connection may carry any number of requests, one after the other. What the lines hold is in `docs/OPERATING.md`, with
//! examples that the tests run.

pub mod client;
pub mod desk;
pub mod protocol;
