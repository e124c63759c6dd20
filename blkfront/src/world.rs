//! A world of your own: what a kernel writes to have this crate drive its disks.
//!
//! Everything here is generic over one type, the kernel's [`FrontWorld`](xen_platform::FrontWorld). It hands out handles of four
//! kinds, each a trait whose documentation says what it has to keep:
//!
//! | trait | the kernel has | functions |
//! |---|---|---|
//! | [`Lender`](xen_platform::Lender) | pages and a grant table | 5 |
//! | [`EventChannels`](xen_platform::EventChannels) | event channels; whether events interrupt is its own affair | 7 |
//! | [`Store`](xen_platform::Store) | XenStore; over a ring, a [`Session`](xen_platform::session::Session) of 5 functions is one | 7 |
//! | [`Clock`](xen_platform::Clock) | a monotonic clock | 1 |
//!
//! Handles do not share: each queue owns a lender and a handle on event channels, and may take both to another processor. A
//! queue never takes a lock, and calls the kernel from no other place than its owner's.
//!
//! For a kernel that has none of this yet there is `xen_platform::bare` (feature `bare`): hypercalls, grant table, event
//! channels, XenStore's ring and the clock for a guest that boots on Xen, with nothing below. What it makes its pages of is
//! worth a look in any case: [`Pages::from_raw`](xen_platform::Pages::from_raw).
//!
//! Below, `xen` plays the part of the kernel's own functions. Nothing else is needed.
//!
//! ```
//! use std::time::Duration;
//!
//! use blkfront::{Config, Frontend, Io, fake};
//! use xen_platform::{
//!     Access, Change, Clock, DomId, EventChannels, EventError, FrontWorld, GrantError, Lender, Pages, Port, Store,
//!     StoreError, WatchEvent,
//! };
//! # type Xen = xen_platform::fake::World;
//!
//! #[derive(Clone)]
//! struct Kernel {
//!     xen: Xen,
//! }
//!
//! impl FrontWorld for Kernel {
//!     type Lender = Grants;
//!     type Events = Events;
//!     type Store = XenBus;
//!     type Clock = Ticks;
//!
//!     fn lender(&self, to: DomId) -> Result<Grants, GrantError> {
//!         Ok(Grants(self.xen.lender(to)?))
//!     }
//!     fn events(&self) -> Result<Events, EventError> {
//!         Ok(Events(self.xen.events()?))
//!     }
//!     fn store(&self) -> Result<XenBus, StoreError> {
//!         Ok(XenBus(self.xen.store()?))
//!     }
//!     fn clock(&self) -> Ticks {
//!         Ticks(self.xen.clock())
//!     }
//! }
//!
//! struct Grants(<Xen as FrontWorld>::Lender);
//!
//! impl Lender for Grants {
//!     // Zeroed pages from the kernel's allocator, neighbours in its virtual memory.
//!     fn alloc(&mut self, count: usize) -> Result<Pages, GrantError> {
//!         self.0.alloc(count)
//!     }
//!     // An entry of the grant table for each: domain and frame first, then the flags.
//!     fn lend(&mut self, pages: &mut Pages, access: Access) -> Result<(), GrantError> {
//!         self.0.lend(pages, access)
//!     }
//!     // Flags back to 0 by compare and exchange, or `Busy` while the peer maps one; then none is taken back.
//!     fn reclaim(&mut self, pages: &mut Pages) -> Result<(), GrantError> {
//!         self.0.reclaim(pages)
//!     }
//!     // The same, and back to the allocator. What the peer still maps must not go there: keep it aside, and count it.
//!     fn release(&mut self, pages: Pages) {
//!         self.0.release(pages)
//!     }
//!     fn quarantined(&self) -> usize {
//!         self.0.quarantined()
//!     }
//! }
//!
//! struct Events(<Xen as FrontWorld>::Events);
//!
//! impl EventChannels for Events {
//!     fn alloc_unbound(&mut self, remote: DomId) -> Result<Port, EventError> {
//!         self.0.alloc_unbound(remote)
//!     }
//!     // Frontends never bind to a peer's port.
//!     fn bind_interdomain(&mut self, _: DomId, _: Port) -> Result<Port, EventError> {
//!         Err(EventError::NotUnbound)
//!     }
//!     fn unbind(&mut self, port: Port) -> Result<(), EventError> {
//!         self.0.unbind(port)
//!     }
//!     fn notify(&mut self, port: Port) -> Result<(), EventError> {
//!         self.0.notify(port)
//!     }
//!     // What the upcall has noted for this handle's ports. Each stays masked until it is unmasked.
//!     fn take_pending(&mut self) -> Option<Port> {
//!         self.0.take_pending()
//!     }
//!     fn unmask(&mut self, port: Port) -> Result<(), EventError> {
//!         self.0.unmask(port)
//!     }
//!     // Where the kernel's scheduler puts the thread to sleep until the upcall wakes it; or a poll, in a kernel without one.
//!     fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, EventError> {
//!         self.0.wait(timeout)
//!     }
//! }
//!
//! struct XenBus(<Xen as FrontWorld>::Store);
//!
//! impl Store for XenBus {
//!     fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError> {
//!         self.0.read(path)
//!     }
//!     fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
//!         self.0.list(path)
//!     }
//!     // All or nothing: a transaction, tried again while it conflicts.
//!     fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
//!         self.0.apply(changes)
//!     }
//!     fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
//!         self.0.watch(path, token)
//!     }
//!     fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
//!         self.0.unwatch(path, token)
//!     }
//!     fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
//!         self.0.next_event()
//!     }
//!     fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
//!         self.0.wait(timeout)
//!     }
//! }
//!
//! #[derive(Clone)]
//! struct Ticks(<Xen as FrontWorld>::Clock);
//!
//! impl Clock for Ticks {
//!     fn now(&self) -> Duration {
//!         self.0.now()
//!     }
//! }
//!
//! // A disk for it, and the first sector.
//! let bed = fake::Bed::new(fake::Setup::plain(2048));
//! bed.backend().image[..5].copy_from_slice(b"hello");
//! let kernel = Kernel { xen: bed.world() };
//!
//! let frontend = Frontend::probe(kernel, &bed.path())?;
//! let (device, mut queues) = frontend.configure(Config::default())?.set_up_queues()?.start()?;
//! let buffer = queues[0].alloc_buffer(4096)?;
//! let read = queues[0].execute(Io::read(0, buffer), &mut |_| ())?;
//! read.result?;
//! let (buffer, mut word) = (read.io.buffer.ok_or("the buffer comes back")?, [0; 5]);
//! buffer.read(0, &mut word);
//! assert_eq!(&word, b"hello");
//! queues[0].free_buffer(buffer);
//! device.stop(queues, &mut |_| ()).map_err(|kept| kept.error)?.unconfigure()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Interrupts
//!
//! A queue can be driven in three ways, and change over at any time:
//!
//! - **polling**: [`finish`](crate::Queue::finish) whenever it suits; a queue that is never [armed](crate::Queue::arm) gets no
//!   events;
//! - **sleeping**: [`wait`](crate::Queue::wait), or [`wait_polling`](crate::Queue::wait_polling), which looks for a while first;
//! - **dispatching**: the kernel's upcall does no more than note the port and wake whoever owns the queue, who then calls
//!   [`dispatch`](crate::Queue::dispatch). The callback runs there, with the kernel's interrupts as the owner has them, and never
//!   inside the upcall. [`enable_callback`](crate::Queue::enable_callback) and
//!   [`disable_callback`](crate::Queue::disable_callback) are the queue's interrupt switch.
