//! Scripted attackers, for what the clauses' attackers cannot see from outside: docs/ADVISORIES.md names those of each advisory.
//!
//! They play a peer against the product's own code in this process, where everything it does can be looked at.
#![expect(clippy::unwrap_used, reason = "attackers of tests: what fails is the test")]

pub mod double_fetch;
