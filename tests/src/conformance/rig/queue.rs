//! One queue of the scripted frontend: raw entries in, raw responses out.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use blkif_proto::{Entry, Response};
use ringbuf::{Field, FrontRing, Index, Mapped, RingMem as _};
use xen_platform::{EventChannels, Pages, Port};

/// How long a peer may take before silence counts as no answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A ring and its event channel, without any of a driver's manners.
pub struct RawQueue<E> {
    /// The ring.
    pub ring: FrontRing<Mapped<Pages>>,
    /// Its event channel.
    pub events: E,
    /// The local port.
    pub port: Port,
    entry_size: usize,
}

impl<E: EventChannels> RawQueue<E> {
    /// A fresh ring over lent pages.
    pub fn new(pages: Pages, entry_size: usize, events: E, port: Port) -> Result<Self> {
        Ok(Self { ring: FrontRing::init(Mapped::new(pages, entry_size)?), events, port, entry_size })
    }

    /// Puts entries on the ring, unseen by the backend.
    pub fn push(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.ring.push(&entry[..self.entry_size])?;
        }
        Ok(())
    }

    /// Publishes and rings the bell, whether it is wanted or not.
    pub fn kick(&mut self) -> Result<()> {
        let _ = self.ring.publish();
        Ok(self.events.notify(self.port)?)
    }

    /// [`push`](Self::push) and [`kick`](Self::kick).
    pub fn send(&mut self, entries: &[Entry]) -> Result<()> {
        self.push(entries)?;
        self.kick()
    }

    /// The next response, as it lies in the ring; `entries` are the slots that its request took.
    pub fn raw_answer(&mut self, entries: u32) -> Result<Entry> {
        match self.answer_within(entries, PATIENCE)? {
            Some(entry) => Ok(entry),
            None => bail!("no answer within {PATIENCE:?}"),
        }
    }

    /// The next response to a request of one slot.
    pub fn answer(&mut self) -> Result<Response> {
        Ok(Response::parse(&self.raw_answer(1)?))
    }

    /// Errors when a response comes within `time`.
    pub fn silence(&mut self, time: Duration) -> Result<()> {
        match self.answer_within(1, time)? {
            None => Ok(()),
            Some(entry) => bail!("an answer that should not have come: {:?}", Response::parse(&entry)),
        }
    }

    /// The next response, or `None` when `time` has passed.
    pub fn answer_within(&mut self, entries: u32, time: Duration) -> Result<Option<Entry>> {
        let deadline = Instant::now() + time;
        loop {
            let mut entry = [0; _];
            if self.ring.peek(&mut entry)? {
                self.ring.consume(entries)?;
                return Ok(Some(entry));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            if !self.ring.arm()? {
                let left = deadline.saturating_duration_since(Instant::now());
                self.wait_event(left.min(Duration::from_millis(20)))?;
            }
        }
    }

    /// Sleeps until the backend rings; true if it did.
    pub fn wait_event(&mut self, time: Duration) -> Result<bool> {
        let mut rang = self.events.wait(Some(time))?;
        while let Some(port) = self.events.take_pending() {
            self.events.unmask(port)?;
            rang = true;
        }
        Ok(rang)
    }

    /// One of the four shared indices, as both ends see it.
    pub fn index(&self, field: Field) -> u32 {
        self.ring.mem().load(field).get()
    }

    /// Overwrites a shared index: what an honest frontend never does.
    pub fn set_index(&mut self, field: Field, value: u32) {
        self.ring.mem().store(field, Index::new(value));
    }
}
