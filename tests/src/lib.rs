//! Proof: everything that holds the pair to its word.
//!
//! ```text
//!   world          a simulated Xen with the real programs in it, for all that follows
//!   conformance    the clauses of the protocol, each with a name
//!   attack         scripted attackers that look into the product
//!   fuzz           hostile peers and hostile bytes, for fuzzers and for the replay of their corpus
//!   bench          the pair against its ceiling and its peer
//!   ceph           a Ceph cluster of one machine
//!   nbd            NBD servers, one of which lies
//!   kills          the backend is killed again and again under guests that check everything
//!   replay         recordings played again to either end, and made smaller
//!   bin/xensim     the launcher: demo, up, run, bench, kills, replay
//!   bin/xenclauses the clauses on real Xen, and the table of what came of them
//!   ../tests/      golden layouts, two processes, programs by others
//! ```
//!
//! [`world::World`] is where to start: it owns the processes and cleans up after them. Nothing here is linked into the product;
//! the package may use what the product must not (GPL crates, `blkio`, a few files of unsafe code, ADR-0005).
#![allow(
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    reason = "a test's numbers and tables are small and its own"
)]

pub mod attack;
pub mod bench;
pub mod ceph;
pub mod conformance;
pub mod fuzz;
pub mod kills;
pub mod medium;
pub mod nbd;
pub mod replay;
pub mod world;
