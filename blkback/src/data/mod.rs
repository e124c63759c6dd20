//! The data plane: worker threads that move requests from rings to storage and back.
//!
//! ```text
//!  ring ─▶ admit ─▶ map ─▶ submit ─▶ Storage ─▶ reap ─▶ respond ─▶ ring
//!            │        │                            │        │
//!         Ticket   + memory                    - memory   paid
//! ```
//!
//! A request is a [`Ticket`](inflight::Ticket) that each stage takes by value. [`worker`] is the loop around the stages;
//! each stage is a file. The control plane reaches a worker through a [`WorkerHandle`](handle::WorkerHandle) and never
//! touches a request.

mod admit;
mod budget;
pub mod buffer;
pub mod cache;
mod complaint;
pub mod handle;
mod hold;
pub mod inflight;
mod map;
mod poll;
pub mod queue;
mod quiet;
mod reap;
mod respond;
pub mod resume;
mod submit;
pub mod timing;
pub mod trace;
pub mod worker;
