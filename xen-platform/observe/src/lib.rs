//! What can be seen of a running pair, in files.
//!
//! A [`recording`] is what one end saw of the other: XenStore nodes, ring entries, indices, signals. It can be played to the
//! other end again. A [`trace`] is when requests were in which stage, at both ends, for the eye.
#![forbid(unsafe_code)]

pub mod recording;
pub mod trace;
