//! The loop around the stages: one thread, any number of queues, one storage, one handle on event channels.
//!
//! ```text
//!        ┌────────────────────────────── work found ─────────────────────────────┐
//!        ▼                                                                       │
//!   reap ─▶ respond ─▶ admit ─▶ map ─▶ submit ─▶ kick ── nothing ──▶ poll on? ───┤
//!                                                                      │ no      │
//!                                              arm every ring, recheck ┴─ found ─┤
//!                                                                      │         │
//!                                                         Storage::wait (sleep) ─┘
//! ```
//!
//! Reaping comes first, so that completions make room before new work comes in. `Storage::wait` is the only call that
//! blocks: event channels and orders wake it through its descriptors.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use blkif_proto::{Entry, MAX_ENTRY_SIZE, segment_block::MAX_ENTRIES};
use ringbuf::Corrupt;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};
use xen_platform::{BackWorld, Clock as _, EventChannels, Port};

use super::{
    handle::{Mailbox, Order, Report, Reporter},
    inflight::{InFlight, Pool, Ticket},
    map::Scratch,
    poll::Poll,
    queue::{Barrier, MappingOf, Phase, Queue, QueueKey, QueueSpec, StartError},
    trace::Tracing,
};
use crate::{
    stats::{Watch, WorkerStats},
    steps::{Step, reached},
    storage::Storage,
};

/// Turns after which a polling worker also looks for orders, and for events of the queues that it does not poll.
const OUTLOOK: u32 = 32;
/// Idle time after which spare memory is given back.
const TRIM_AFTER: Duration = Duration::from_secs(2);

/// One data-plane thread.
pub struct Worker<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> {
    pub(super) mapper: W::Mapper,
    pub(super) events: W::Events,
    pub(super) clock: W::Time,
    /// What is measured, and when the data of the last requests that were reaped was in its place.
    pub(super) watch: Watch,
    pub(super) copied: Duration,
    pub(super) tracing: Option<Box<Tracing>>,
    /// When requests were first given to the storage in this turn.
    pub(super) given: Option<Duration>,
    /// When it has woken, until it has seen to what woke it.
    woken: Option<Duration>,
    pub(super) storage: S,
    pub(super) queues: Vec<Option<Queue<W>>>,
    /// Queues whose rings are being looked at.
    pub(super) active: Vec<usize>,
    /// Queues that hold a request until its time has come.
    pub(super) holding: Vec<usize>,
    /// Queues with answers to publish.
    pub(super) dirty: Vec<usize>,
    /// Requests on their way from one stage to the next.
    pub(super) admitted: Vec<Ticket<MappingOf<W>>>,
    pub(super) ready: Vec<Ticket<MappingOf<W>>>,
    pub(super) finished: Vec<Ticket<MappingOf<W>>>,
    pub(super) pool: Pool<MappingOf<W>>,
    pub(super) entries: Box<[Entry; MAX_ENTRIES]>,
    pub(super) scratch: Scratch,
    /// Whether the storage reads and writes the event channels.
    followed: bool,
    ports: HashMap<Port, usize>,
    poll: Poll,
    mailbox: Mailbox,
    pub(super) report: Reporter,
    stats: Arc<WorkerStats>,
    stopped: bool,
    trimmed: bool,
    /// Nothing is admitted.
    pub(super) paused: bool,
    /// Who is to be told when nothing is under way any more.
    pauses: Option<UnboundedSender<()>>,
}

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// A worker without queues. Errors: the world gives no grants or event channels.
    pub fn new(
        world: &W,
        mut storage: S,
        poll: Duration,
        mailbox: Mailbox,
        report: Reporter,
        stats: Arc<WorkerStats>,
    ) -> Result<Self, String> {
        let mapper = world.mapper().map_err(|error| error.to_string())?;
        let events = world.events().map_err(|error| error.to_string())?;
        let wake = |error: std::io::Error| format!("cannot wait for events: {error}");
        let descriptor = events.as_fd().try_clone_to_owned().map_err(wake)?;
        let followed = match events.is_stream() {
            true => storage.follow(descriptor),
            false => Err(descriptor),
        };
        let followed = followed.map_err(|descriptor| storage.wake_on(descriptor)).is_ok();
        storage.wake_on(mailbox.fd().map_err(wake)?);
        Ok(Self {
            mapper,
            events,
            clock: world.time(),
            watch: stats.watch,
            copied: Duration::ZERO,
            tracing: None,
            given: None,
            woken: None,
            storage,
            queues: Vec::new(),
            active: Vec::new(),
            holding: Vec::new(),
            dirty: Vec::new(),
            admitted: Vec::new(),
            ready: Vec::new(),
            finished: Vec::new(),
            pool: Pool::default(),
            entries: Box::new([[0; MAX_ENTRY_SIZE]; MAX_ENTRIES]),
            scratch: Scratch::default(),
            followed,
            ports: HashMap::new(),
            poll: Poll::new(poll),
            mailbox,
            report,
            stats,
            stopped: false,
            trimmed: true,
            paused: false,
            pauses: None,
        })
    }

    /// Works until it is told to stop. Errors: the storage as a whole failed.
    pub fn run(&mut self) -> Result<(), String> {
        let mut turns = 0u32;
        while !self.stopped {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(OUTLOOK) {
                self.look_outside();
            }
            let worked = self.turn()?;
            if self.pauses.is_some() {
                self.tell_paused();
            }
            if worked {
                self.poll.found_work();
            } else if self.is_idle() && self.poll.look_again(Instant::now) {
                std::hint::spin_loop();
            } else if !self.arm() {
                self.sleep()?;
            }
        }
        Ok(())
    }

    /// One batch through all stages. True when there was work.
    pub fn turn(&mut self) -> Result<bool, String> {
        let mut worked = self.reap();
        self.respond();
        worked |= self.admit();
        self.map();
        self.submit();
        self.storage.kick().map_err(|error| format!("storage: {error}"))?;
        if self.tracing.is_some() {
            self.trace_batch();
        }
        if worked {
            reached(Step::Submitted);
            self.stats.batches.add(1);
            self.stats.storage_calls.set(self.storage.system_calls());
            self.trimmed = false;
        }
        Ok(worked || !self.finished.is_empty())
    }

    /// Asks every polled queue's guest for a notification, and looks again. True when there is work after all.
    pub fn arm(&mut self) -> bool {
        let mut active = std::mem::take(&mut self.active);
        active.retain(|&index| self.arm_one(index));
        self.active = active;
        !self.active.is_empty()
    }

    fn arm_one(&mut self, index: usize) -> bool {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return false };
        match queue.ring.arm() {
            Ok(true) => true,
            Ok(false) => {
                queue.active = false;
                // Only now: until the ring was looked through to its end, its events are of no use.
                if std::mem::take(&mut queue.masked)
                    && !(self.followed && self.storage.send(&queue.port.0.to_ne_bytes()))
                    && let Err(error) = self.events.unmask(queue.port)
                {
                    error!(%error, key = ?queue.key, "event channel");
                }
                false
            }
            Err(corrupt) => {
                self.broken(index, &corrupt);
                false
            }
        }
    }

    /// The storage, to look at.
    pub fn storage(&self) -> &S {
        &self.storage
    }

    /// The same, to be told what becomes of its operations: for storages of tests.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// True when the next thing to come is a guest's request. What is under way at the storage ends when it ends, and tells: looking for it
    /// only takes the processor from the threads that are at work on it.
    fn is_idle(&self) -> bool {
        self.storage.in_flight() == 0
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) -> Result<(), String> {
        // Where Xen has no stable clock to offer, asking for the time is a system call.
        let from = (self.poll.is_on() && self.is_idle()).then(Instant::now);
        let trim = (!self.trimmed).then_some(TRIM_AFTER);
        let held = self.wakes_at().map(|at| at.saturating_sub(self.clock.now()));
        let timeout = held.into_iter().chain(trim).min();
        self.stats.sleeps.add(1);
        let woken = self.storage.wait(timeout).map_err(|error| format!("storage: {error}"))?;
        self.stats.storage_calls.set(self.storage.system_calls());
        self.woken = self.watch.timed.then(|| self.clock.now());
        if let Some(from) = from {
            self.poll.slept(from.elapsed());
        }
        // The bell is silenced only where nothing else can have been the reason: each look costs a system call. An order
        // may have come between.
        if woken && !self.look_outside() {
            self.mailbox.quiet();
            self.look_outside();
        }
        self.woken = None;
        if !woken && trim.is_some() && timeout == trim && !self.turn()? {
            self.pool.trim();
            self.trimmed = true;
        }
        Ok(())
    }

    /// Takes orders and events. True when there were any.
    pub fn look_outside(&mut self) -> bool {
        let mut found = false;
        while let Ok(order) = self.mailbox.orders.try_recv() {
            found = true;
            self.obey(order);
        }
        if self.followed {
            match self.storage.received() {
                None => return found,
                Some(Ok(ports)) => self.events.feed(ports),
                Some(Err(error)) => {
                    error!(%error, "event channels; every queue is looked at");
                    (0..self.queues.len()).for_each(|index| self.notified(index));
                }
            }
        }
        while let Some(port) = self.events.take_pending() {
            found = true;
            // A port that was just closed may still have had an event.
            if let Some(&index) = self.ports.get(&port) {
                self.notified(index);
            }
        }
        found
    }

    /// A queue's event channel has had an event, and is masked.
    fn notified(&mut self, index: usize) {
        if let Some(Some(queue)) = self.queues.get_mut(index) {
            queue.masked = true;
            queue.stats.events.add(1);
            queue.timing.left = queue.timing.left.or(self.woken);
            if let Some(tap) = queue.ring.mem().tap() {
                tap.signalled();
            }
            self.activate(index);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Start(spec) => {
                let key = spec.key;
                let started = self.start(*spec);
                (self.report)(Report::Started(key, started));
            }
            Order::Drain(key) => match self.find(key) {
                None => (self.report)(Report::Drained(key)),
                Some((index, queue)) => {
                    queue.phase = Phase::Draining;
                    queue.active = false;
                    if queue.is_drained() {
                        self.remove(index);
                    }
                }
            },
            Order::Quiesce(key) => match self.find(key) {
                None => (self.report)(Report::Quiet(key)),
                Some((index, _)) => self.quiesce(index),
            },
            Order::Resume { key, medium } => {
                if let Some((index, _)) = self.find(key) {
                    self.resume_queue(index, medium);
                }
            }
            Order::Pause(listener) => {
                self.paused = true;
                self.pauses = Some(listener);
                self.active.clear();
                self.queues.iter_mut().flatten().for_each(|queue| queue.active = false);
            }
            Order::Trace(spec) => self.begin_trace(*spec),
            Order::EndTrace => self.end_trace(),
            Order::Stop => {
                self.end_trace();
                self.stopped = true;
            }
        }
    }

    fn start(&mut self, spec: QueueSpec) -> Result<(), StartError> {
        let disk = self.storage.attach(&spec.image)?;
        let used = spec.used;
        let queue = match Queue::start(spec, disk, &mut self.mapper, &mut self.events) {
            Ok(queue) => queue,
            Err(error) => {
                self.storage.detach(disk);
                return Err(error);
            }
        };
        let index = self.queues.iter().position(Option::is_none).unwrap_or(self.queues.len());
        self.ports.insert(queue.port, index);
        match self.queues.get_mut(index) {
            Some(slot) => *slot = Some(queue),
            None => self.queues.push(Some(queue)),
        }
        self.stats.queues.fetch_add(1, Relaxed);
        if used {
            self.resume(index);
        }
        // The guest may have been quick.
        self.activate(index);
        Ok(())
    }

    /// Shows the guest what an earlier daemon has done. It is notified in any case: that one may have been killed before it could.
    fn resume(&mut self, index: usize) {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return };
        let (key, port) = (queue.key, queue.port);
        self.publish(index);
        if let Err(error) = self.events.notify(port) {
            error!(%error, ?key, "cannot notify the guest");
        }
    }

    /// Ends a queue that has nothing in flight.
    pub(super) fn remove(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index).and_then(Option::take) else { return };
        let Queue { key, port, disk, cache, ring, image, log, .. } = queue;
        // Unmap before unbinding, and both before the control plane says `Closed`: the guest uses the pages again then.
        drop(cache);
        drop(ring);
        self.ports.remove(&port);
        if let Err(error) = self.events.unbind(port) {
            warn!(%error, ?key, "event channel");
        }
        self.storage.detach(disk);
        drop(image);
        if let Some(log) = log {
            log.remove();
        }
        self.active.retain(|&other| other != index);
        self.stats.queues.fetch_sub(1, Relaxed);
        (self.report)(Report::Drained(key));
    }

    /// Looks at a queue's ring from now on.
    pub(super) fn activate(&mut self, index: usize) {
        if let Some(Some(queue)) = self.queues.get_mut(index)
            && !queue.active
            && !self.paused
            && queue.is_open()
        {
            queue.active = true;
            self.active.push(index);
        }
    }

    /// Says that it is paused, as soon as nothing is under way.
    fn tell_paused(&mut self) {
        if self.queues.iter().flatten().all(|queue| queue.in_flight == 0)
            && let Some(listener) = self.pauses.take()
        {
            // One who does not wait any more does not mind.
            _ = listener.send(());
        }
    }

    /// Admits nothing more from a queue whose guest broke the rules.
    pub(super) fn broken(&mut self, index: usize, corrupt: &Corrupt) {
        if let Some(Some(queue)) = self.queues.get_mut(index) {
            queue.active = false;
            if queue.phase == Phase::Open {
                queue.phase = Phase::Broken;
                (self.report)(Report::Broken(queue.key, corrupt.to_string()));
            }
        }
    }

    fn find(&mut self, key: QueueKey) -> Option<(usize, &mut Queue<W>)> {
        let mut queues = self.queues.iter_mut().enumerate();
        queues.find_map(|(index, queue)| {
            queue.as_mut().filter(|queue| queue.key == key).map(|queue| (index, queue))
        })
    }
}

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Drop for Worker<W, S> {
    fn drop(&mut self) {
        // Requests are only under way here when the daemon gives up: then nobody is answered any more.
        let lists = [&mut self.admitted, &mut self.ready, &mut self.finished];
        lists.into_iter().flatten().for_each(|ticket| ticket.data.forgive());
        for queue in self.queues.iter_mut().flatten() {
            if let Barrier::Waiting(ticket) = &mut queue.barrier {
                ticket.data.forgive();
            }
            if let Some(held) = &mut queue.held {
                held.ticket.data.forgive();
            }
        }
        while self.storage.in_flight() > 0 {
            while let Some(mut ticket) = self.storage.reap() {
                ticket.data.forgive();
            }
            if let Err(error) = self.storage.wait(Some(Duration::from_millis(100))) {
                error!(%error, "the storage does not come to an end");
                return;
            }
        }
    }
}
