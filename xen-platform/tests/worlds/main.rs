//! The rules of the simulated Xen, checked by the same functions in both worlds: in one process, and behind a socket with
//! real processes to kill.
//!
//! [`lab`] starts a world; each other module holds rules about one noun.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod broker;
mod death;
mod events;
mod faults;
mod grants;
mod lab;
mod race;

/// Makes a test of each rule (a function over a [`lab::Lab`]) in both worlds.
macro_rules! in_both_worlds {
    ($($rule:ident),* $(,)?) => {
        mod fake {
            $(#[test] fn $rule() { super::$rule(&<crate::lab::FakeLab as crate::lab::Lab>::new()); })*
        }
        mod sim {
            $(#[test] fn $rule() { super::$rule(&<crate::lab::SimLab as crate::lab::Lab>::new()); })*
        }
    };
}
use in_both_worlds;
