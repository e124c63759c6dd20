//! The model of [`fake`](crate::fake) for several real processes.
//!
//! A world is a directory. The [`Broker`] plays the hypervisor and the XenStore daemon behind two sockets in it;
//! processes join as a domain ([`World::connect`]) or as the toolstack ([`Toolstack::connect`]).
//!
//! ```text
//!   DIR/broker.sock      domains, memory, event channels; descriptors travel with the answers
//!   DIR/xenstored.sock   XenStore, in xenstored's wire protocol
//!
//!   blkfront ─┐  memfd: guest memory   ┌─ blkback
//!   (dom 1)   ├─ memfd: grant table   ─┤  (dom 0)          lend, map, copy, unmap, revoke: no system call
//!             └─ eventfds: channels   ─┘                   notify, take: one
//! ```
//!
//! The library inside each process plays its part of the hypervisor: it looks at the shared grant table before it hands out
//! a pointer. That holds honest processes to Xen's rules; a process that writes to the shared memory itself is not stopped.

mod broker;
mod client;
mod error;
mod events;
mod message;
mod packet;
mod spec;
mod toolstack;
pub mod xenstored;

pub use broker::Broker;
pub use client::World;
pub use error::SimError;
pub use events::Events;
pub use spec::{broker_socket, parse_spec, xenstored_socket};
pub use toolstack::Toolstack;
pub use xenstored::Xenstored;
