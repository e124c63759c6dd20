//! Benchmarks.
pub mod job;
pub mod meter;
pub mod plot;
pub mod qemu;
pub mod raw;
pub mod table;
pub mod targets;
