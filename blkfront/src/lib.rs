//! The frontend of Xen block I/O.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod capabilities;
pub mod config;
pub mod device;
pub mod error;
pub mod info;
pub mod io;
pub mod negotiated;
pub mod proto;
pub mod queue;

pub use capabilities::{Capabilities, Discard};
pub use config::{Config, RingKeys, SegmentChoice};
pub use device::{Configured, Device, DeviceEvent, Frontend, NotStopped, Prepared, Stopped};
pub use error::{DeviceError, Error, IoError, RejectReason, Rejected};
pub use info::BackendInfo;
pub use io::{Buffer, Completion, Io, Operation, SECTOR_SIZE, Ticket};
pub use negotiated::{Negotiated, Reduction, SegmentMode};
pub use queue::{Link, Queue, QueueStats};
