//! A simulated Xen with real processes in it.
pub mod process;
