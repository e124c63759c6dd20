//! Proof.
pub mod bench;
pub mod world;
