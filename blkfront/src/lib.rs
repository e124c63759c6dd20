//! The frontend of Xen block I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod admit;
pub mod capabilities;
pub mod config;
mod connect;
pub mod device;
mod driver;
pub mod error;
mod grants;
mod inflight;
pub mod info;
pub mod io;
pub mod link;
pub mod negotiated;
pub mod queue;
mod recover;
mod spin;
mod split;
#[cfg(test)]
mod testing;

pub use blkif_proto::{Abi, Discard, SegmentMode};

pub use capabilities::Capabilities;
pub use config::{Config, SegmentChoice};
pub use device::{Configured, Device, DeviceEvent, Frontend, NotStopped, Prepared, Stopped};
pub use error::{DeviceError, Error, IoError, RejectReason, Rejected};
pub use info::BackendInfo;
pub use io::{Buffer, Completion, Io, Operation, SECTOR_SIZE, Ticket};
pub use link::Link;
pub use negotiated::{Negotiated, Reduction};
pub use queue::{Queue, QueueStats};
