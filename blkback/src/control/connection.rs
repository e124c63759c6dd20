//! A device's rings while they are being started, served or drained.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use blkif_observe::recording::Recorder;
use blkif_proto::{
    Agreement, GrantRef, Limits,
    keys::{FrontendRecord, QueueRecord},
};
use ringbuf::Tap;
use tracing::warn;
use xen_platform::{DomId, Port};

use super::{
    store::DeviceId,
    vbd::{Event, StartFailure},
    workers::{Route, Sink, Workers},
};
use crate::{
    config::Strategy,
    data::{
        handle::{Medium, Order, Report},
        queue::{QueueKey, QueueSpec, StartError},
        resume::LogSpec,
    },
    limit::DiskThrottle,
    metrics::{Entry, Label},
    stats::QueueStats,
    storage::Image,
};

/// What all queues of a connection have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The device.
    pub device: DeviceId,
    /// The guest.
    pub dom: DomId,
    /// What was negotiated.
    pub agreement: Agreement,
    /// What requests may be.
    pub limits: Limits,
    /// How data moves.
    pub strategy: Strategy,
    /// Pages kept mapped for each queue at most.
    pub cache_pages: usize,
    /// An earlier daemon may have served the rings.
    pub used: bool,
    /// Where what is under way is noted.
    pub logs: Option<PathBuf>,
    /// Where what guests do is recorded.
    pub recorder: Option<Arc<Recorder>>,
    /// The disk.
    pub image: Arc<Image>,
    /// What it may do in a second.
    pub throttle: DiskThrottle,
}

impl Terms {
    /// Who is told what passes the ring of a queue.
    fn tap(&self, queue: u32) -> Option<Arc<dyn Tap>> {
        let DeviceId { domain, device, .. } = &self.device;
        let tape = self.recorder.as_ref()?.tape(&format!("{domain}/{device}"), queue);
        Some(Arc::new(tape))
    }

    /// The log of a queue. Its identity holds everything by which one connection differs from another, and all that must be known
    /// to read the ring's entries.
    fn log(&self, queue: u32, record: &QueueRecord) -> Option<LogSpec> {
        let Self { device, agreement, image, .. } = self;
        let path = self.logs.as_ref()?.join(format!("{}{queue}", device.file_prefix()));
        let mut identity = format!("{device} queue {queue} port {} grants", record.event_channel);
        for gref in &record.ring_refs {
            _ = write!(identity, " {}", gref.0);
        }
        let (abi, mode) = (agreement.abi.as_protocol(), agreement.mode.as_str());
        _ = write!(identity, ", {abi}, {mode}, {:?}", image.file_id());
        if let Some(claim) = image.claim() {
            _ = write!(identity, " {}", claim.name);
        }
        Some(LogSpec { path, identity })
    }
}

/// All queues of one device, from their start to their end. A device that connects again gets a new one.
pub struct Connection {
    /// What the frontend had written when it was connected.
    pub frontend: FrontendRecord,
    /// What was agreed on.
    pub terms: Terms,
    route: Route,
    workers: Arc<Workers>,
    queues: Vec<Held>,
    starting: usize,
    /// Queues that are being quiesced.
    unquiet: usize,
    /// They were told to be.
    quiet: bool,
    failure: Option<StartFailure>,
}

/// What a report means to the device.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// It happened, and the connection goes on.
    Event(Event),
    /// It happened, and the connection is over.
    Over(Event),
    /// Nothing is under way on any queue, and nothing is admitted.
    Quiet,
}

struct Held {
    key: QueueKey,
    thread: usize,
    stats: Arc<QueueStats>,
    _entry: Entry,
}

impl Connection {
    /// Orders all queues to be served; the outcome comes through `sink`.
    pub fn start(workers: &Arc<Workers>, terms: Terms, frontend: FrontendRecord, sink: Sink) -> Self {
        let records = frontend.queues.clone();
        let mut connection = Self {
            frontend,
            terms: terms.clone(),
            route: workers.route(terms.device.short(), sink),
            workers: Arc::clone(workers),
            queues: Vec::new(),
            starting: 0,
            unquiet: 0,
            quiet: false,
            failure: None,
        };
        for (queue, record) in (0..).zip(records) {
            let key = QueueKey { connection: connection.route.connection(), queue };
            let stats = Arc::new(QueueStats::default());
            let spec = QueueSpec {
                key,
                dom: terms.dom,
                ring_refs: record.ring_refs.iter().map(|gref| GrantRef(gref.0)).collect(),
                port: Port(record.event_channel),
                limits: terms.limits,
                strategy: terms.strategy,
                persistent: terms.agreement.persistent,
                cache_pages: terms.cache_pages,
                used: terms.used,
                log: terms.log(queue, &record),
                image: Arc::clone(&terms.image),
                throttle: Some(terms.throttle.clone()),
                stats: Arc::clone(&stats),
                tap: terms.tap(queue),
            };
            match workers.serve(spec) {
                Some(thread) => {
                    connection.starting += 1;
                    let DeviceId { domain, device, .. } = terms.device.clone();
                    let entry = workers.roll().enter(Label { domain, device, queue }, key.connection, &stats);
                    connection.queues.push(Held { key, thread, stats, _entry: entry });
                }
                None => connection.fail(key, &StartError::NoWorker),
            }
        }
        connection
    }

    /// Orders all queues to come to an end.
    pub fn drain(&self) {
        self.order_all(|held| Order::Drain(held.key));
    }

    /// Has nothing more admitted, and what was admitted finished. Answered by [`News::Quiet`].
    pub fn quiesce(&mut self) {
        (self.unquiet, self.quiet) = (self.queues.len(), true);
        self.order_all(|held| Order::Quiesce(held.key));
    }

    /// Has requests admitted again, of another image if there is one.
    pub fn resume(&mut self, image: Option<&Arc<Image>>) {
        self.quiet = false;
        if let Some(image) = image {
            self.terms.image = Arc::clone(image);
        }
        let records = &self.frontend.queues;
        self.order_all(|held| {
            let queue = held.key.queue;
            let record = usize::try_from(queue).ok().and_then(|queue| records.get(queue));
            let log = record.and_then(|record| self.terms.log(queue, record));
            let medium = image.map(|image| Medium { image: Arc::clone(image), log });
            Order::Resume { key: held.key, medium }
        });
    }

    /// True when nothing is under way, and nothing is admitted.
    pub fn is_quiet(&self) -> bool {
        self.quiet && self.unquiet == 0
    }

    fn order_all(&self, order: impl Fn(&Held) -> Order) {
        for held in &self.queues {
            if !self.workers.order(held.thread, order(held)) {
                warn!(key = ?held.key, "no worker for the queue");
            }
        }
    }

    /// Takes a report in, and says what comes of it, if that was the last of what was waited for.
    pub fn take(&mut self, report: Report) -> Option<News> {
        match report {
            Report::Started(key, outcome) if self.has(key) => {
                self.starting -= 1;
                if let Err(error) = outcome {
                    self.queues.retain(|held| held.key != key);
                    self.fail(key, &error);
                }
                match (self.starting, &self.failure) {
                    (0, None) => Some(News::Event(Event::Started(Ok(())))),
                    (0, Some(_)) => {
                        self.drain();
                        self.ended()
                    }
                    _ => None,
                }
            }
            Report::Drained(key) if self.has(key) => {
                self.queues.retain(|held| held.key != key);
                self.ended()
            }
            Report::Broken(key, text) if self.has(key) => {
                Some(News::Event(Event::Broken(format!("queue {}: {text}", key.queue))))
            }
            Report::Quiet(key) if self.has(key) && self.unquiet > 0 => {
                self.unquiet -= 1;
                (self.unquiet == 0).then_some(News::Quiet)
            }
            _ => None,
        }
    }

    /// What the queues have carried.
    pub fn stats(&self) -> impl Iterator<Item = &Arc<QueueStats>> {
        self.queues.iter().map(|held| &held.stats)
    }

    fn ended(&mut self) -> Option<News> {
        if !self.queues.is_empty() || self.starting > 0 {
            return None;
        }
        let event = self.failure.take().map_or(Event::Drained, |failure| Event::Started(Err(failure)));
        Some(News::Over(event))
    }

    fn has(&self, key: QueueKey) -> bool {
        self.queues.iter().any(|held| held.key == key)
    }

    /// Remembers why; a reason that lasts counts more than one that may pass.
    fn fail(&mut self, key: QueueKey, error: &StartError) {
        let failure =
            StartFailure { text: format!("queue {}: {error}", key.queue), may_pass: error.may_pass() };
        if self.failure.as_ref().is_none_or(|known| known.may_pass) {
            self.failure = Some(failure);
        }
    }
}
