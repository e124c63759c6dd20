//! A deterministic model of Xen inside one process.
//!
//! [`Machine`] is the hypervisor: domains, their memory and grant tables, event channels, XenStore. [`World`] is what one
//! process inside one domain sees of it, and implements both [`FrontWorld`](crate::FrontWorld) and
//! [`BackWorld`](crate::BackWorld).
//!
//! ```text
//!   World (dom 1) ── lends ──▶ ┌──────── Machine ────────┐ ◀── maps ── World (dom 0)
//!     Lender  Events  Store    │ domains, grant tables,  │     Mapper  Events
//!                              │ event channels, store   │
//!                              └── Faults (seeded) ──────┘
//! ```
//!
//! The model is stricter than Xen where that finds bugs: see [`Machine`]. [`sim`](crate::sim) is the same model behind a
//! socket.

mod bell;
mod events;
mod faults;
mod guest;
mod handle;
mod hypervisor;
mod lender;
mod machine;
mod mapper;
mod model;
mod pages;
mod runs;
pub mod store;
mod store_handle;
mod table;

#[cfg(feature = "sim")]
pub(crate) use events::{ChannelId, Opened, Owner};
pub use faults::{Fault, Faults};
#[cfg(feature = "sim")]
pub(crate) use guest::{Guest, GuestInfo};
pub use handle::{Events, FakeClock, World};
#[cfg(feature = "sim")]
pub(crate) use hypervisor::Hypervisor;
pub use lender::Lender;
pub use machine::{Leaks, Machine};
pub use mapper::{Mapper, Mapping};
pub use pages::RingPages;
#[cfg(feature = "sim")]
pub(crate) use pages::adopt;
#[cfg(feature = "sim")]
pub(crate) use runs::Run;
pub use store::SharedStore;
pub use store_handle::{Direct, StoreHandle};
