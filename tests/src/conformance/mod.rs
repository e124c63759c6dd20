//! The protocol as clauses: each has a stable name, the rule it checks, and a check that can fail.
//!
//! ```text
//!   Clause<Guest>    plays a frontend by hand  ──▶  a backend under test   (ours: in a thread, or the real daemon)
//!   Clause<Backend>  plays a backend by hand   ──▶  a frontend under test  (ours: in a thread, or the real tool)
//! ```
//!
//! The scripted peer of [`rig`] uses the protocol's bytes and XenStore's nodes directly, not the other end's code, so that it can
//! do what no honest peer would. A clause that depends on the layout of the ring runs once for each [`Abi`].
//!
//! `cargo test -p tests --test in_process` and `--test two_process` run them; a clause's name selects it.

pub mod backend;
pub mod frontend;
pub mod rig;
pub mod run;

use anyhow::Result;
use blkif_proto::Abi;

/// One rule of the protocol and how to see whether a peer keeps it. `P` is the scripted peer that the check plays.
pub struct Clause<P> {
    /// Stable name: area and rule, such as `ring.request-overflow-closes`.
    pub name: &'static str,
    /// The rule in one sentence, with its place in docs/PROTOCOL.md.
    pub rule: &'static str,
    /// The ABIs it runs in.
    pub abis: &'static [Abi],
    /// Plays the peer; an error is a breach of the rule.
    pub check: fn(&mut P) -> Result<()>,
}

/// For clauses that read or write ring entries.
pub const EVERY_ABI: &[Abi] = &Abi::ALL;
/// For clauses that do not depend on the layout.
pub const ONE_ABI: &[Abi] = &[Abi::X86_64];

/// Fails the clause with a message unless the condition holds.
#[macro_export]
macro_rules! must {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            ::anyhow::bail!($($message)+);
        }
    };
}

#[cfg(test)]
mod tests;
