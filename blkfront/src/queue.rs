//! One queue: a ring, its event channel and the work in flight, owned by one thread at a time.

use alloc::boxed::Box;
use core::{cell::Cell, marker::PhantomData, time::Duration};

use xen_platform::FrontWorld;

use crate::{Buffer, Completion, DeviceError, Io, IoError, Rejected, Ticket};

/// One queue of a connected device.
///
/// It can move to another thread (`Send`) but belongs to one at a time (not `Sync`, not `Clone`, `&mut self` throughout): there
/// are no locks in it. A turn of its owner looks like this:
///
/// ```text
/// submit… ─▶ publish ─▶ finish ─▶ (nothing left?) arm ─▶ wait ─▶ finish …
/// ```
pub struct Queue<W: FrontWorld> {
    link: Link<W>,
    callback: Option<Box<dyn FnMut(Completion) + Send>>,
    _one_owner: PhantomData<Cell<()>>,
}

/// Counters since the queue was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Accepted [`Io`]s.
    pub submitted: u64,
    /// Completed [`Io`]s.
    pub completed: u64,
    /// Ring requests made of them.
    pub requests: u64,
    /// Notifications sent to the backend.
    pub notifications: u64,
    /// Events received from the backend.
    pub events: u64,
    /// Events without a response behind them.
    pub spurious: u64,
    /// [`Io`]s given again to a backend that came back.
    pub requeued: u64,
    /// Pages kept out of use because the backend still maps them.
    pub quarantined: u64,
}

impl<W: FrontWorld> Queue<W> {
    /// Takes memory of at least `bytes` (rounded up to pages, at least one) from the queue's pool or its lender. With persistent
    /// grants memory from the pool costs no grant operation. Errors: no memory or grants left.
    pub fn alloc_buffer(&mut self, bytes: usize) -> Result<Buffer, xen_platform::GrantError> {
        todo!("{bytes}")
    }

    /// Gives memory back to the pool.
    pub fn free_buffer(&mut self, buffer: Buffer) {
        todo!("{buffer:?}")
    }

    /// Accepts an [`Io`]. The backend sees nothing before [`publish`](Self::publish). Never blocks, allocates no memory.
    pub fn submit(&mut self, io: Io) -> Result<Ticket, Rejected> {
        todo!("{io:?}")
    }

    /// Shows everything submitted to the backend, with one notification if it asks for one.
    pub fn publish(&mut self) -> Result<(), DeviceError> {
        todo!()
    }

    /// Takes back what was submitted since the last [`publish`](Self::publish), in order.
    pub fn abort(&mut self, out: &mut impl FnMut(Io)) {
        let _ = out;
        todo!()
    }

    /// Takes every response that is there and gives the completed [`Io`]s to `out`; returns how many. Work that waited for room in
    /// the ring moves up and is published. Never blocks. Errors: the peer broke the protocol; everything unanswered then has gone
    /// to `out` with that error.
    pub fn finish(&mut self, out: &mut impl FnMut(Completion)) -> Result<usize, DeviceError> {
        let _ = out;
        todo!()
    }

    /// Asks for an event at the next response. True when responses are there already: [`finish`](Self::finish) before sleeping.
    pub fn arm(&mut self) -> Result<bool, DeviceError> {
        todo!()
    }

    /// Arms and sleeps until a response is there or `timeout` has passed (`None`: for ever). True when one may be there.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, DeviceError> {
        todo!("{timeout:?}")
    }

    /// Like [`wait`](Self::wait), but looks at the ring for up to `spin` before it arms and sleeps. The time adapts: it grows
    /// towards `spin` while looking pays and shrinks while it does not.
    pub fn wait_polling(&mut self, spin: Duration, timeout: Option<Duration>) -> Result<bool, DeviceError> {
        todo!("{spin:?} {timeout:?}")
    }

    /// Submits one [`Io`], waits for it and gives it back. Other completions on the way go to `others`.
    pub fn execute(&mut self, io: Io, others: &mut impl FnMut(Completion)) -> Result<Completion, Rejected> {
        let _ = (io, others);
        todo!()
    }

    /// Sets what [`dispatch`](Self::dispatch) calls for each completion, and enables it.
    pub fn set_callback(&mut self, callback: impl FnMut(Completion) + Send + 'static) {
        self.callback = Some(Box::new(callback));
    }

    /// Lets [`dispatch`](Self::dispatch) run the callback, and asks for events. True when responses are there already: call
    /// [`dispatch`](Self::dispatch).
    pub fn enable_callback(&mut self) -> Result<bool, DeviceError> {
        todo!()
    }

    /// Keeps [`dispatch`](Self::dispatch) from running the callback; responses wait.
    pub fn disable_callback(&mut self) {
        todo!()
    }

    /// To be called when the event channel has fired: takes the event, runs the callback for every completion and asks for the next
    /// event. Returns how many [`Io`]s completed; 0 while the callback is disabled.
    pub fn dispatch(&mut self) -> Result<usize, DeviceError> {
        todo!()
    }

    /// Moves to the link of a reconnected backend and gives it everything unanswered, in order.
    pub fn reconnect(&mut self, link: Link<W>) -> Result<(), DeviceError> {
        let _ = link;
        todo!()
    }

    /// Ends all unanswered work with `error`, without waiting for the backend.
    pub fn cancel(&mut self, error: IoError, out: &mut impl FnMut(Completion)) {
        let _ = (error, out);
        todo!()
    }

    /// Number of this queue, from 0.
    pub fn index(&self) -> u32 {
        self.link.index()
    }

    /// How many [`Io`]s the queue takes at once, whatever their size: the entries of its ring.
    pub fn depth(&self) -> usize {
        todo!()
    }

    /// How many accepted [`Io`]s have not been given back yet.
    pub fn in_flight(&self) -> usize {
        todo!()
    }

    /// True when the backend of this link is gone and a new one is awaited ([`reconnect`](Self::reconnect)).
    pub fn is_stale(&self) -> bool {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> QueueStats {
        todo!()
    }

    /// The queue's event channels, for a descriptor to poll.
    pub fn events(&self) -> &W::Events {
        todo!()
    }

    /// The world's clock.
    pub fn clock(&self) -> &W::Clock {
        todo!()
    }
}

/// The parts of one queue's connection: ring, event channel and the memory lent for them. Made by the device, owned by a queue.
pub struct Link<W: FrontWorld> {
    events: W::Events,
    index: u32,
}

impl<W: FrontWorld> Link<W> {
    /// Number of the queue it is for, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }
}
