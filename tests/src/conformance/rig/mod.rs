//! The scripted peers and the processes under test.

pub mod backend;
mod guest;
mod queue;
mod subject;

pub use guest::{Connection, Guest, Wish};
pub use queue::RawQueue;
pub use subject::{IMAGE_BYTES, Processes, Rig};
