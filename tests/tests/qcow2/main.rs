//! Images of QEMU's format qcow2: what is made and judged by QEMU's own tools, and served over the whole path.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod attach;
mod corrupt;
mod kills;
mod order;
mod pair;
mod qemu;
