//! Counters for monitoring: the text of OpenMetrics over HTTP, on a Unix socket or an address.
//!
//! ```text
//!   workers ──count──▶ QueueStats, WorkerStats ◀──read── Roll ──▶ text ──▶ Endpoint ──▶ whoever asks
//! ```
//!
//! Nothing is counted twice, and nobody who counts waits for anybody who reads: [`Roll`] knows where the counters are, `text` reads
//! them when it is asked to, and [`Endpoint`] is a bounded number of connections on the control plane's thread.

mod endpoint;
mod roll;
mod text;

pub use endpoint::Endpoint;
pub use roll::{Entry, Label, Roll};
pub use text::text;
