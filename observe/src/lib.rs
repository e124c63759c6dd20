//! What can be seen of a running pair, in files.
//!
//! A [`recording`] is what one end saw of the other: XenStore nodes, ring entries, indices, signals. It can be played to the
//! other end again.
#![forbid(unsafe_code)]

pub mod recording;
