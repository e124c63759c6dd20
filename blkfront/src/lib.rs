//! The frontend of Xen block I/O (blkif): a driver core for guests that reads and writes the virtual disks their backends serve.
//!
//! ```text
//!  application ── Io ──▶ Queue ── admit ─▶ split ─▶ lend ─▶ in-flight slot ─▶ ring ══▶ backend
//!       ▲                  │ one thread owns it                                 ║
//!       └── Completion ────┴──── settle ◀─ id, generation, operation ◀── responses
//!
//!  application ── probe, configure, set up, start ─▶ Device ── handshake ── XenStore ══▶ backend
//! ```
//!
//! The life of a device is in [`device`]: [`Frontend`] → [`Configured`] → [`Prepared`] → [`Device`] and its [`Queue`]s →
//! [`Stopped`]. What travels through a queue is in [`io`]. Everything is generic over one parameter, the
//! [world](xen_platform::FrontWorld): who plays Xen. Someone else's kernel can be one: [`world`] shows how.
//!
//! What it takes care of: every layout of ring entries, one to 32 ring pages in all three dialects, many queues, large requests
//! in segment blocks or behind indirect descriptors, persistent grants, flush, barrier, discard, disks that grow, backends that
//! go away and come back. A backend is not trusted: a response that answers nothing, names the wrong operation or arrives
//! twice, an index that cannot be, a page still mapped: each ends the connection with a [`DeviceError`] and harms nothing else.
//!
//! ```
//! use blkfront::{Config, Frontend, Io, fake};
//!
//! // The world is whoever plays Xen, here a model with a disk of 1 MiB (feature `fake`). The path is the device's directory in
//! // XenStore, /local/domain/<id>/device/vbd/<number>.
//! let xen = fake::Bed::new(fake::Setup::plain(2048));
//! let (world, path) = (xen.world(), xen.path());
//!
//! let frontend = Frontend::probe(world, &path)?;
//! println!("served by domain {}", frontend.info().domain);
//!
//! let configured = frontend.configure(Config { queues: 2, ring_pages: 4, ..Config::default() })?;
//! for cut in &configured.negotiated().reductions {
//!     println!("{cut}");
//! }
//! let (device, mut queues) = configured.set_up_queues()?.start()?;
//! println!("{} bytes, {}", device.capabilities().bytes(), device.negotiated());
//!
//! // Each queue may go to a thread of its own. This one writes 8 KiB to sector 16, then reads them back.
//! let queue = &mut queues[0];
//! let buffer = queue.alloc_buffer(8192)?;
//! buffer.write(0, b"hello, disk");
//! queue.submit(Io::write(16, buffer))?;
//! queue.publish()?; // one notification for all that was submitted
//! let mut written = Vec::new();
//! while queue.in_flight() > 0 {
//!     queue.wait(None)?;
//!     queue.finish(&mut |completion| written.push(completion))?;
//! }
//! for completion in written {
//!     completion.result?;
//!     // Or in one go, for whoever has nothing else to do:
//!     let read = Io { op: blkfront::Operation::Read, ..completion.io };
//!     let read = queue.execute(read, &mut |_| ())?;
//!     read.result?;
//!     let buffer = read.io.buffer.ok_or("the buffer comes back")?;
//!     let mut text = [0; 11];
//!     buffer.read(0, &mut text);
//!     assert_eq!(&text, b"hello, disk");
//!     queue.free_buffer(buffer);
//! }
//!
//! let stopped = device.stop(queues, &mut |_| ()).map_err(|kept| kept.error)?;
//! let _world = stopped.unconfigure()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Limits: sectors are 512 bytes, whatever the disk's own are (public header `blkif.h` since 2024; backends that count
//! otherwise on disks with larger sectors are not recognised). A [`Buffer`] belongs to one queue. Buffers are lent as whole
//! pages. Suspend and migration are reconnections like any other. No `unsafe`, no `std`; no allocation, lock or log line per
//! request.
#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod admit;
pub mod capabilities;
pub mod config;
mod connect;
pub mod device;
mod driver;
pub mod error;
#[cfg(feature = "fake")]
#[expect(clippy::unwrap_used, reason = "a test bed fails by panicking")]
pub mod fake;
mod grants;
mod inflight;
pub mod info;
pub mod io;
pub mod link;
pub mod negotiated;
pub mod queue;
mod recover;
mod spin;
mod split;
pub mod world;

pub use blkif_proto::{Abi, Discard, SegmentMode};

pub use capabilities::Capabilities;
pub use config::{Config, SegmentChoice};
pub use device::{Configured, Device, DeviceEvent, Frontend, NotStopped, Prepared, Stopped};
pub use error::{DeviceError, Error, IoError, RejectReason, Rejected};
pub use info::BackendInfo;
pub use io::{Buffer, Completion, Io, Operation, SECTOR_SIZE, Ticket};
pub use link::Link;
pub use negotiated::{Negotiated, Reduction};
pub use queue::{Queue, QueueStats};
