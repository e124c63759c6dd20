//! The backend's end.

use crate::consumer::Consumer;
use crate::mem::Lane;
use crate::producer::Producer;
use crate::{Corrupt, Field, Full, Index, Layout, Notify, RingMem};

/// The end that attaches to a frontend's pages: consumes requests, answers them in any order.
///
/// The loop of a backend: drain, publish, arm, look again, and only then wait.
///
/// ```
/// # use ringbuf::{BackRing, Corrupt, FrontRing, Heap, Layout};
/// # let memory = Heap::new(Layout::new(1, 112).unwrap());
/// # let mut front = FrontRing::init(memory.clone());
/// # for _ in 0..3 { front.push(&[7; 112]).unwrap(); }
/// # let _ = front.publish();
/// # let serve = |request: &[u8; 112]| { assert_eq!(request, &[7; 112]); [0; 16] };
/// # let mut notified = 0;
/// # let mut notify_frontend = || notified += 1;
/// let mut ring = BackRing::attach(memory)?;
/// let mut request = [0; 112];
/// loop {
///     while ring.available()? > 0 {
///         ring.read(0, &mut request)?; // the only copy: parse this, never look at the ring again
///         ring.consume(1)?; // before the answer, which may lie on top of the request
///         let response = serve(&request);
///         ring.respond(&response, 1).expect("answers one consumed entry");
///     }
///     if ring.publish().is_needed() {
///         notify_frontend(); // once for the whole batch
///     }
///     // The frontend may have published after our last look and before it could know that we sleep: look again.
///     if ring.arm()? {
///         continue;
///     }
/// #   break;
///     // wait for the event channel
/// }
/// # assert_eq!(notified, 1);
/// # Ok::<(), Corrupt>(())
/// ```
#[derive(Debug)]
pub struct BackRing<M> {
    mem: M,
    requests: Consumer,
    responses: Producer,
}

impl<M: RingMem> BackRing<M> {
    /// Joins a ring that a frontend initialised, at its shared `rsp_prod`: everything not answered yet is (again) to be
    /// consumed.
    ///
    /// For a fresh ring that is index 0. A backend that takes over from one that ended knows which of these requests it
    /// had consumed, and skips them with [`BackRing::consume`].
    ///
    /// # Errors
    /// [`Corrupt`] if more requests are unanswered than the ring has slots.
    pub fn attach(mem: M) -> Result<Self, Corrupt> {
        let start = mem.load(Field::RspProd);
        let mut ring = Self { mem, requests: Consumer::new(start), responses: Producer::new(start) };
        ring.available()?;
        Ok(ring)
    }

    /// Entries that can be read and consumed now; looks at the shared index only if none are known. 0: nothing to do.
    ///
    /// # Errors
    /// [`Corrupt`] if the frontend's index is more than a ring ahead of what was answered, or went back; from then on
    /// always.
    #[inline]
    pub fn available(&mut self) -> Result<u32, Corrupt> {
        let room = self.room();
        self.requests.ready(&self.mem, Lane::Requests, room, 1)
    }

    /// Copies the entry `ahead` entries after the next one (0: the next) into `entry`, as far as that reaches.
    ///
    /// Read each entry once: a second look may find other bytes.
    ///
    /// # Errors
    /// [`Corrupt`] if that entry was not published; from then on always. So read entry 0 only if
    /// [`BackRing::available`] counted it, and the others only if entry 0 says that its request has them: then their
    /// absence is the frontend's offence.
    #[inline]
    pub fn read(&mut self, ahead: u32, entry: &mut [u8]) -> Result<(), Corrupt> {
        let room = self.room();
        self.requests.require(&self.mem, Lane::Requests, room, ahead.saturating_add(1))?;
        self.mem.read_slot(self.requests.next().plus(ahead), entry);
        Ok(())
    }

    /// Moves past `entries` entries, a whole request. Their slots may from now on be overwritten by responses.
    ///
    /// # Errors
    /// [`Corrupt`] if the frontend did not publish that many; from then on always.
    #[inline]
    pub fn consume(&mut self, entries: u32) -> Result<(), Corrupt> {
        let room = self.room();
        self.requests.require(&self.mem, Lane::Requests, room, entries)?;
        self.requests.advance(entries);
        Ok(())
    }

    /// Writes the response to a request of `entries` entries into the first of the next `entries` slots, unseen by the
    /// frontend until [`BackRing::publish`]. The slots are those that are next in the ring, not those of the request.
    ///
    /// `response` comes with its padding zeroed (XSA-216); what the slot holds beyond it is the frontend's own.
    ///
    /// # Errors
    /// [`Full`] if fewer than `entries` consumed entries are unanswered: the caller answered something twice.
    #[inline]
    pub fn respond(&mut self, response: &[u8], entries: u32) -> Result<(), Full> {
        if entries > self.unanswered() {
            return Err(Full);
        }
        self.responses.write(&self.mem, response, entries);
        Ok(())
    }

    /// Shows the frontend all responses written so far, and says whether it must be notified.
    #[inline]
    pub fn publish(&mut self) -> Notify {
        self.responses.publish(&self.mem, Lane::Responses)
    }

    /// Asks for a notification at the next request, and looks again: true if there is one already, so do not sleep.
    ///
    /// An end that keeps polling, or has work in flight that will wake it, does not call this; the frontend then stays
    /// silent.
    ///
    /// # Errors
    /// As [`BackRing::available`].
    #[inline]
    pub fn arm(&mut self) -> Result<bool, Corrupt> {
        let room = self.room();
        self.requests.arm(&self.mem, Lane::Requests, room, 1)
    }

    /// Entries consumed and not yet answered.
    #[inline]
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.consumed().since(self.responded())
    }

    /// Index of the next entry to consume (`req_cons`).
    #[inline]
    #[must_use]
    pub fn consumed(&self) -> Index {
        self.requests.next()
    }

    /// Index at which the next response goes (`rsp_prod_pvt`).
    #[inline]
    #[must_use]
    pub fn responded(&self) -> Index {
        self.responses.next()
    }

    /// Index up to which the frontend can see responses (`rsp_prod`).
    #[inline]
    #[must_use]
    pub fn published(&self) -> Index {
        self.responses.published()
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

    /// Entries past the consumer index that a correct frontend can have published: it reuses a slot only after it saw a
    /// response in it, so what counts is what was published, not what was written.
    #[inline]
    fn room(&self) -> u32 {
        self.layout().entries() - self.consumed().since(self.published())
    }
}

#[cfg(test)]
mod tests;
