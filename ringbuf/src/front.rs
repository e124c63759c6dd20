//! The frontend's end.

use crate::consumer::Consumer;
use crate::mem::Lane;
use crate::producer::Producer;
use crate::{Corrupt, Field, Full, Index, Layout, Notify, RingMem};

/// The end that owns the pages: initialises them, pushes requests, consumes responses.
///
/// ```
/// # use ringbuf::{BackRing, Corrupt, FrontRing, Heap, Layout};
/// # let memory = Heap::new(Layout::new(1, 112).unwrap());
/// # let shared = memory.clone();
/// # let mut backend = None;
/// # let mut notify_backend = || {
/// #     let back = backend.get_or_insert_with(|| BackRing::attach(shared.clone()).unwrap());
/// #     while back.available().unwrap() > 0 {
/// #         back.consume(1).unwrap();
/// #         back.respond(b"done", 1).unwrap();
/// #     }
/// #     let _ = back.publish();
/// # };
/// # let mut wait_for_event = || ();
/// let mut ring = FrontRing::init(memory);
/// for request in [b"request 1", b"request 2"] {
///     ring.push(request).expect("an empty ring has room");
/// }
/// if ring.publish().is_needed() {
///     notify_backend(); // once for the whole batch
/// }
/// let mut response = [0; 4];
/// while ring.in_flight() > 0 {
///     while ring.peek(&mut response)? {
///         assert_eq!(&response, b"done");
///         ring.consume(1)?; // as many entries as the request took
///     }
///     // Sleep only if nothing came in between the last look and the moment the backend could know that we sleep.
///     if ring.in_flight() > 0 && !ring.arm()? {
///         wait_for_event();
///     }
/// }
/// # Ok::<(), Corrupt>(())
/// ```
#[derive(Debug)]
pub struct FrontRing<M> {
    mem: M,
    requests: Producer,
    responses: Consumer,
}

impl<M: RingMem> FrontRing<M> {
    /// Zeroes the pages and starts an empty ring. Do this before the backend is told of the pages, on every connect.
    pub fn init(mem: M) -> Self {
        Self::init_at(mem, Index::START)
    }

    /// [`FrontRing::init`] with all indices at `start`.
    ///
    /// For tests that want to reach the wrap of the indices soon: backends other than [`BackRing`](crate::BackRing)
    /// begin at 0 without looking.
    pub fn init_at(mem: M, start: Index) -> Self {
        mem.clear();
        mem.store(Field::ReqProd, start);
        mem.store(Field::RspProd, start);
        mem.store(Field::ReqEvent, start.plus(1));
        mem.store(Field::RspEvent, start.plus(1));
        Self { mem, requests: Producer::new(start), responses: Consumer::new(start) }
    }

    /// Writes `entry` into the next free slot, unseen by the backend until [`FrontRing::publish`].
    ///
    /// A request of several entries is pushed entry by entry, after [`FrontRing::free`] promised room for all of them,
    /// and published once. An `entry` shorter than a slot leaves the rest of the slot as it was; a longer one is cut.
    ///
    /// # Errors
    /// [`Full`] if every slot holds a request without a consumed response.
    #[inline]
    pub fn push(&mut self, entry: &[u8]) -> Result<(), Full> {
        if self.free() == 0 {
            return Err(Full);
        }
        self.requests.write(&self.mem, entry, 1);
        Ok(())
    }

    /// Shows the backend all requests pushed so far, and says whether it must be notified.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        self.requests.publish(&self.mem, Lane::Requests)
    }

    /// Takes back all requests pushed since the last [`FrontRing::publish`].
    pub fn abort(&mut self) {
        self.requests.abort();
    }

    /// Copies the first bytes of the next response into `response`, as far as that reaches. False if there is none.
    ///
    /// The response stays until [`FrontRing::consume`]; use the copy, a second look may find other bytes.
    ///
    /// # Errors
    /// [`Corrupt`] if the backend claims more responses than there are entries in flight; from then on always.
    #[inline]
    pub fn peek(&mut self, response: &mut [u8]) -> Result<bool, Corrupt> {
        let room = self.in_flight();
        if self.responses.ready(&self.mem, Lane::Responses, room, 1)? == 0 {
            return Ok(false);
        }
        self.mem.read_slot(self.responses.next(), response);
        Ok(true)
    }

    /// Frees the `entries` slots of the response that [`FrontRing::peek`] copied: as many as its request took, by the
    /// frontend's own record, never by anything in the ring.
    ///
    /// # Errors
    /// [`Corrupt`] if the backend did not publish that many; from then on always.
    #[inline]
    pub fn consume(&mut self, entries: u32) -> Result<(), Corrupt> {
        let room = self.in_flight();
        self.responses.require(&self.mem, Lane::Responses, room, entries)?;
        self.responses.advance(entries);
        Ok(())
    }

    /// Asks for a notification at the next response, and looks again: true if there is one already, so do not sleep.
    ///
    /// An end that keeps polling does not call this; the backend then stays silent.
    ///
    /// # Errors
    /// As [`FrontRing::peek`].
    #[inline]
    pub fn arm(&mut self) -> Result<bool, Corrupt> {
        self.arm_after(1)
    }

    /// [`FrontRing::arm`], but for `entries` answered entries (at least 1, at most all in flight): fewer wake-ups,
    /// later. True if they are there already. False with fewer of them there means to wait for the rest, or to consume
    /// those first.
    ///
    /// # Errors
    /// As [`FrontRing::peek`].
    #[inline]
    pub fn arm_after(&mut self, entries: u32) -> Result<bool, Corrupt> {
        let room = self.in_flight();
        self.responses.arm(&self.mem, Lane::Responses, room, entries.min(room).max(1))
    }

    /// Slots that can take a request now.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.layout().entries() - self.requests.next().since(self.responses.next())
    }

    /// Entries pushed since the last [`FrontRing::publish`].
    #[inline]
    #[must_use]
    pub fn pushed(&self) -> u32 {
        self.requests.next().since(self.requests.published())
    }

    /// Entries published whose response is not consumed yet.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.requests.published().since(self.responses.next())
    }

    /// Number and size of the slots.
    #[inline]
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.mem.layout()
    }

    /// The memory of the ring.
    pub fn mem(&self) -> &M {
        &self.mem
    }

    /// Ends the ring and gives its memory back.
    pub fn into_mem(self) -> M {
        self.mem
    }
}

#[cfg(test)]
mod tests;
