//! The scripted peers and the processes under test.
//!
//! ```text
//!   Rig ── World, daemon ──▶ Guest ── connect(Wish) ──▶ Connection ── ask(Raw) ──▶ status
//!    └── Image                 └── states, keys              └── RawQueue: ring, indices, events
//! ```

pub mod backend;
mod connection;
mod dirty;
mod guest;
mod image;
mod pace;
mod queue;
mod raw;
mod states;
mod subject;
mod wish;

pub use connection::{Connection, TRACES, bytes, spread, whole};
pub use dirty::dirty_pages;
pub use guest::Guest;
pub use image::{Image, noise};
pub use pace::{Pace, patience, silence, slowed};
pub use queue::RawQueue;
pub use raw::{Raw, descriptors};
pub use states::States;
pub use subject::{Bystander, CONFIG, IMAGE_BYTES, Processes, Rig};
pub use wish::Wish;
