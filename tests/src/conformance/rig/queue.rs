//! One queue of the scripted frontend: raw entries in, raw responses out.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blkif_proto::{Entry, Response};
use ringbuf::{Field, FrontRing, Index, Mapped, RingMem as _};
use xen_platform::{EventChannels, Pages, Port};

use super::{patience, silence};
use crate::world::wait_until;

/// How long a sleep may last before the ring is looked at in any case.
const LOOK: Duration = Duration::from_millis(20);

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
    /// A fresh ring over lent pages, whose indices begin at `start`.
    pub fn new(pages: Pages, entry_size: usize, events: E, port: Port, start: u32) -> Result<Self> {
        let ring = FrontRing::init_at(Mapped::new(pages, entry_size)?, Index::new(start));
        Ok(Self { ring, events, port, entry_size })
    }

    /// Puts entries on the ring, unseen by the backend.
    pub fn push(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.ring.push(&entry[..self.entry_size])?;
        }
        Ok(())
    }

    /// Signals the backend.
    pub fn ring_bell(&mut self) -> Result<()> {
        Ok(self.events.notify(self.port)?)
    }

    /// Publishes and signals, whether it is wanted or not.
    pub fn kick(&mut self) -> Result<()> {
        let _ = self.ring.publish();
        self.ring_bell()
    }

    /// [`push`](Self::push) and [`kick`](Self::kick).
    pub fn send(&mut self, entries: &[Entry]) -> Result<()> {
        self.push(entries)?;
        self.kick()
    }

    /// The next response, as it lies in the ring; `entries` are the slots that its request took.
    pub fn raw_answer(&mut self, entries: u32) -> Result<Entry> {
        match self.answer_within(entries, patience())? {
            Some(entry) => Ok(entry),
            None => bail!("no answer within {:?}", patience()),
        }
    }

    /// The next response to a request of one slot.
    pub fn answer(&mut self) -> Result<Response> {
        Ok(Response::parse(&self.raw_answer(1)?))
    }

    /// The next response; `strides` says how many slots the request of an id took, and forgets it.
    pub fn answer_to(&mut self, strides: &mut HashMap<u64, u32>) -> Result<Response> {
        let deadline = Instant::now() + patience();
        let mut entry = [0; _];
        while !self.ring.peek(&mut entry)? {
            ensure!(Instant::now() < deadline, "{} requests without an answer", strides.len());
            if !self.ring.arm()? {
                self.wait_event(LOOK)?;
            }
        }
        let answer = Response::parse(&entry);
        let stride = strides.remove(&answer.id);
        self.ring.consume(stride.with_context(|| format!("an answer to nothing: {answer:?}"))?)?;
        Ok(answer)
    }

    /// The next response to a request of one slot, without asking to be notified.
    pub fn polled_answer(&mut self) -> Result<Response> {
        let mut entry = [0; _];
        wait_until("an answer", patience(), || Ok(self.ring.peek(&mut entry)?.then_some(())))?;
        self.ring.consume(1)?;
        Ok(Response::parse(&entry))
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
                self.wait_event(left.min(LOOK))?;
            }
        }
    }

    /// Forgets the signals that have come so far.
    pub fn quiet(&mut self) -> Result<()> {
        while self.wait_event(silence() / 10)? {}
        Ok(())
    }

    /// Sleeps until the backend signals; true if it did.
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

    /// Waits until a shared index is `wanted`.
    pub fn wait_index(&self, field: Field, wanted: u32) -> Result<()> {
        let mut seen = 0;
        let outcome = wait_until(&format!("{field:?} to be {wanted}"), patience(), || {
            seen = self.index(field);
            Ok((seen == wanted).then_some(()))
        });
        outcome.with_context(|| format!("it is {seen}"))
    }

    /// Overwrites a shared index: what an honest frontend never does.
    pub fn set_index(&mut self, field: Field, value: u32) {
        self.ring.mem().store(field, Index::new(value));
    }
}
