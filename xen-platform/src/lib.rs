//! What a split driver needs of Xen: grants, event channels, XenStore and a clock.
//!
//! The files at the top are the *seams*: traits without behaviour, each with the duties of its implementer and of its
//! caller. The folders below are the *worlds* that implement them:
//!
//! | world | feature | what it is |
//! |---|---|---|
//! | [`fake`] | `fake` | a deterministic model of Xen inside one process, with seeded faults |
//! | [`sim`] | `sim` | the same model behind a Unix socket, for several real processes |
//! | [`linux`] | `linux` | real Xen, by way of `/dev/xen/*` |
//! | [`bare`] | `bare` | real Xen, by hypercalls, with no operating system under us |
//!
//! ```text
//!   blkfront ──▶ Lender   EventChannels   Store   Clock
//!   blkback  ──▶ Mapper   EventChannels   (xenstore-rs)
//!                  │            │           │
//!             fake, sim     fake, sim     linux             frontends: bare too
//! ```
//!
//! The seams and `bare` are `no_std` (with `alloc`); with default features off nothing but the seams is built.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

use alloc::sync::Arc;

use ringbuf::Tap;

#[cfg(all(feature = "bare", target_arch = "x86_64"))]
pub mod bare;
pub mod clock;
pub mod event;
pub mod event_queue;
#[cfg(feature = "fake")]
pub mod fake;
pub mod grant;
pub mod ids;
#[cfg(feature = "linux")]
pub mod linux;
pub mod page;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
#[cfg(any(feature = "sim", feature = "linux"))]
pub mod store_client;
pub mod wire;

pub use clock::Clock;
pub use event::{EventChannels, EventError};
pub use grant::{Access, CopyOp, GrantError, Lender, Mapper, Mapping};
pub use ids::{DomId, Port};
pub use page::{PAGE_SIZE, Pages, SharedMem};
pub use store::{Change, Store, StoreError, WatchEvent};
#[cfg(any(feature = "sim", feature = "linux"))]
pub use store_client::StoreClient;

/// Everything a frontend needs of one world: the three seams bundled, so that a driver has one type parameter.
///
/// Implementer: every handle is independent of the others, so that a queue's thread can own its own. Caller: make one
/// [`Lender`] and one [`EventChannels`] per queue, on the thread that sets the device up, and move them to the queue's owner.
pub trait FrontWorld {
    /// Lends this guest's pages to the backend's domain.
    type Lender: Lender + Send;
    /// This guest's end of its event channels.
    type Events: EventChannels + Send;
    /// This guest's connection to XenStore.
    type Store: Store;
    /// A monotonic clock.
    type Clock: Clock;

    /// A new lender of pages to domain `to`. Errors: the world has no more room for one.
    fn lender(&self, to: DomId) -> Result<Self::Lender, GrantError>;
    /// A new, empty set of event channels with a wake-up of its own.
    fn events(&self) -> Result<Self::Events, EventError>;
    /// A new connection to XenStore.
    fn store(&self) -> Result<Self::Store, StoreError>;
    /// The clock of this world.
    fn clock(&self) -> Self::Clock;
    /// Who is to be told what passes the ring of queue `queue`; most worlds want nobody to be.
    fn tap(&self, queue: u32) -> Option<Arc<dyn Tap>> {
        let _ = queue;
        None
    }
}

/// Everything a backend's data plane needs of one world. XenStore is not part of it: the control plane uses `xenstore-rs`.
pub trait BackWorld: Clone + Send + Sync + 'static {
    /// Maps and copies pages that guests have granted to this domain.
    type Mapper: Mapper + Send + 'static;
    /// This domain's end of its event channels; its descriptor becomes readable when an event is pending.
    type Events: EventChannels + Send + BackEvents + 'static;
    /// A monotonic clock, the same for all threads.
    type Time: Clock + Send + Sync + 'static;

    /// A new mapper, for one worker thread.
    fn mapper(&self) -> Result<Self::Mapper, GrantError>;
    /// A new, empty set of event channels, for one worker thread.
    fn events(&self) -> Result<Self::Events, EventError>;
    /// The clock of this world; those of its clones have the same start.
    fn time(&self) -> Self::Time;
}

/// With `std`, a backend's event channels are also a descriptor to wait on; without it, nothing more.
#[cfg(feature = "std")]
pub trait BackEvents: std::os::fd::AsFd {}
#[cfg(feature = "std")]
impl<T: std::os::fd::AsFd> BackEvents for T {}
/// With `std`, a backend's event channels are also a descriptor to wait on; without it, nothing more.
#[cfg(not(feature = "std"))]
pub trait BackEvents {}
#[cfg(not(feature = "std"))]
impl<T> BackEvents for T {}
