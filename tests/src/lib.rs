//! Proof.
pub mod bench;
pub mod conformance;
pub mod world;
