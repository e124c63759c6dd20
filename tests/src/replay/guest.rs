//! The recorded guest, played to the real daemon in a simulated world.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use blkback::config::Strategy;
use blkif_observe::recording::End;
use blkif_proto::{
    Abi, Entry, Head, Limits, MAX_ENTRY_SIZE, Response,
    keys::{self, BackendDisk, BackendFeatures, FrontendRecord, QueueRecord},
    xenbus::State,
};
use ringbuf::Field;
use xen_platform::{
    Access, Change, DomId, EventChannels as _, FrontWorld as _, Lender as _, PAGE_SIZE, Pages, Store as _,
    sim,
};

use super::{
    Difference,
    grefs::{replace, replace_in_descriptors},
    script::{Script, Step, describe, is_connecting, limits, state_of},
};
use crate::{
    conformance::rig::{Guest, Image, Processes, RawQueue, Rig},
    world::Disk,
};

/// Between two looks at rings and states.
const LOOK: Duration = Duration::from_micros(200);

/// Ends a play: the real end does otherwise, or there can be no play.
enum Stop {
    Differs(Difference),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Failed(error.into())
    }
}

/// The first difference between the real daemon and the recorded one.
pub(super) fn play(script: &Script, patience: Duration) -> Result<Option<Difference>> {
    let mut player = Player::new(script, patience)?;
    let played = script.steps.iter().try_for_each(|step| player.step(step)).and_then(|()| player.end());
    match played {
        Ok(()) => match player.rig.finish() {
            Ok(()) => Ok(None),
            Err(error) => Ok(Some(Difference::Broken { reason: format!("{error:#}") })),
        },
        Err(Stop::Differs(difference)) => Ok(Some(difference)),
        Err(Stop::Failed(error)) => match player.rig.world.check_backend() {
            Ok(()) => Err(error),
            Err(end) => Ok(Some(Difference::Broken { reason: format!("{end:#}") })),
        },
    }
}

struct Player {
    rig: Rig,
    guest: Guest<sim::World>,
    lender: <sim::World as xen_platform::FrontWorld>::Lender,
    patience: Duration,
    abi: Abi,
    queues: Vec<Queue>,
    limits: Option<Limits>,
    /// Our pages, by the references they had.
    pages: HashMap<u32, Pages>,
    /// What the nodes are, and what is about to be written.
    backend: BTreeMap<String, String>,
    frontend: BTreeMap<String, String>,
    pending: Vec<(String, Option<String>)>,
    /// The backend's state that was recorded and not seen yet.
    wanted: Option<State>,
    /// What requests are, by their numbers.
    requests: HashMap<usize, Sent>,
    recorded: HashMap<usize, Response>,
    found: HashMap<usize, Response>,
    judged: HashSet<usize>,
}

struct Queue {
    raw: RawQueue<sim::Events>,
    /// Unanswered requests of each id.
    sent: HashMap<u64, VecDeque<usize>>,
}

struct Sent {
    text: String,
    entries: u32,
    vague: bool,
}

impl Player {
    /// A daemon that offers what was offered, with a disk as large as it was, and a guest that has done nothing yet.
    fn new(script: &Script, patience: Duration) -> Result<Self> {
        let (backend, frontend) = (script.first_nodes(End::Backend), script.first_nodes(End::Frontend));
        let abi =
            frontend.get(keys::PROTOCOL).and_then(|name| Abi::from_protocol(name)).unwrap_or(Abi::NATIVE);
        let mut rig = Rig::new(Processes::One, Strategy::Direct, abi)?;
        rig.configure(&config(&backend)?)?;
        let sectors = BackendDisk::parse(|key| backend.get(key)).map_or(1 << 15, |disk| disk.sectors);
        let image = Image::create(rig.world.dir().join("disk.img"), sectors * 512)?;
        let writable = backend.get("mode").is_none_or(|mode| mode != "r");
        let discard = backend.get("discard-enable").is_none_or(|enabled| enabled != "0");
        let guest = rig.guest_with(&Disk { writable, discard, ..image.disk() })?;
        let lender = guest.world.lender(DomId::DOM0)?;
        Ok(Self {
            rig,
            guest,
            lender,
            patience,
            abi,
            queues: Vec::new(),
            limits: None,
            pages: HashMap::new(),
            backend: BTreeMap::new(),
            frontend: BTreeMap::from([(keys::STATE.to_owned(), State::Initialising.as_str().to_owned())]),
            pending: Vec::new(),
            wanted: None,
            requests: HashMap::new(),
            recorded: HashMap::new(),
            found: HashMap::new(),
            judged: HashSet::new(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Node { of: End::Backend, key, value } => self.backend_node(step, key, value.as_deref()),
            Step::Node { of: End::Frontend, key, value } => self.frontend_node(step, key, value.as_deref()),
            Step::Answer { to: Some(number), response, .. } => {
                self.recorded.insert(*number, *response);
                self.judge(*number)
            }
            // What no request asked for is nothing that the real end is held to.
            Step::Answer { to: None, .. } | Step::Signal { by: End::Backend, .. } => Ok(()),
            Step::Publish { by: End::Backend, .. } => self.await_answers(),
            Step::Request { queue, number, entries, descriptors, vague } => {
                self.await_state()?;
                self.request(*queue, *number, entries, descriptors.as_deref(), vague.is_some())
            }
            Step::Publish { by: End::Frontend, queue, beyond } => {
                self.await_state()?;
                let Some(queue) = self.queues.get_mut(*queue as usize) else { return Ok(()) };
                if *beyond == 0 {
                    if queue.raw.ring.publish().is_needed() {
                        queue.raw.ring_bell()?;
                    }
                    return Ok(());
                }
                let index = queue.raw.index(Field::ReqProd).wrapping_add(queue.raw.ring.pushed());
                queue.raw.set_index(Field::ReqProd, index.wrapping_add_signed(*beyond));
                Ok(queue.raw.ring_bell()?)
            }
            Step::Signal { by: End::Frontend, queue } => match self.queues.get_mut(*queue as usize) {
                Some(queue) => Ok(queue.raw.ring_bell()?),
                None => Ok(()),
            },
        }
    }

    fn backend_node(&mut self, step: &Step, key: &str, value: Option<&str>) -> Result<(), Stop> {
        let before = match value {
            Some(value) => self.backend.insert(key.to_owned(), value.to_owned()),
            None => self.backend.remove(key),
        };
        if let Some((_, state)) = state_of(step) {
            // Once the toolstack has removed the device there is nothing to be held to.
            self.wanted = Some(state).filter(|state| *state != State::Unknown);
        } else if key == keys::ONLINE && value == Some("0") && before.as_deref() == Some("1") {
            let vbd = self.guest.vbd.clone();
            self.rig.world.toolstack().ask_to_close(&vbd)?;
        }
        Ok(())
    }

    fn frontend_node(&mut self, step: &Step, key: &str, value: Option<&str>) -> Result<(), Stop> {
        if key.is_empty() && value.is_none() {
            self.await_state()?;
            let path = self.guest.vbd.frontend.clone();
            return Ok(self.rig.world.toolstack().store().apply(&[Change::Remove(&path)])?);
        }
        let first = key.split('/').next().unwrap_or_default();
        let known = self.frontend.get(key).map(String::as_str) == value;
        if known || first != keys::STATE && !keys::is_connection_key(first) {
            return Ok(());
        }
        match value {
            Some(value) => self.frontend.insert(key.to_owned(), value.to_owned()),
            None => self.frontend.remove(key),
        };
        self.pending.push((key.to_owned(), value.map(str::to_owned)));
        if state_of(step).is_some() { self.write() } else { Ok(()) }
    }

    /// Writes what has gathered, with rings of our own if there are to be new ones.
    fn write(&mut self) -> Result<(), Stop> {
        self.await_state()?;
        let mut pending = std::mem::take(&mut self.pending);
        let node = |(key, value): &(String, Option<String>)| Step::Node {
            of: End::Frontend,
            key: key.clone(),
            value: value.clone(),
        };
        if pending.iter().any(|change| is_connecting(&node(change))) {
            let own = self.connect()?;
            for (key, value) in &mut pending {
                if let (Some(value), Some(own)) = (value, own.get(key)) {
                    value.clone_from(own);
                }
            }
        }
        let changes: Vec<_> = pending.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        Ok(self.guest.change(&changes)?)
    }

    /// Makes rings for the recorded ones. The nodes that tell of them.
    fn connect(&mut self) -> Result<BTreeMap<String, String>, Stop> {
        self.queues.clear();
        let Self { backend, frontend, lender, guest, .. } = self;
        let offered = BackendFeatures::parse(|key| backend.get(key)).unwrap_or(BackendFeatures::ORIGINAL);
        self.limits = limits(backend, frontend);
        // What is no record is written as it was.
        let Ok(mut record) = FrontendRecord::parse(|key| frontend.get(key), &offered) else {
            return Ok(BTreeMap::new());
        };
        self.abi = record.abi;
        let count = record.ring_pages();
        for queue in &mut record.queues {
            let mut events = guest.world.events()?;
            let port = events.alloc_unbound(DomId::DOM0)?;
            let mut pages = lender.alloc(count)?;
            lender.lend(&mut pages, Access::ReadWrite)?;
            *queue = QueueRecord { ring_refs: pages.grants().to_vec(), event_channel: port.0 };
            let raw = RawQueue::new(pages, record.abi.entry_size(), events, port, 0)?;
            self.queues.push(Queue { raw, sent: HashMap::new() });
        }
        let mut nodes = BTreeMap::new();
        record.emit(|key, value| _ = nodes.insert(key.to_owned(), value.to_owned()));
        Ok(nodes)
    }

    fn request(
        &mut self,
        queue: u32,
        number: usize,
        entries: &[Entry],
        descriptors: Option<&[u8]>,
        vague: bool,
    ) -> Result<(), Stop> {
        let Some(limits) = self.limits else { return Ok(()) };
        let text = format!("request {number} ({}, queue {queue})", describe(entries, &limits));
        self.requests.insert(number, Sent { text, entries: entries.len() as u32, vague });
        let deadline = Instant::now() + self.patience;
        let place = queue as usize;
        while self.queues.get(place).is_some_and(|queue| (queue.raw.ring.free() as usize) < entries.len()) {
            self.take()?;
            self.check(deadline, || Difference::Silence { request: "the oldest request".into() })?;
        }
        let mut entries = entries.to_vec();
        let mut pages = Vec::new();
        replace(&mut entries, self.abi, |gref| {
            pages.push(gref);
            self.page(gref).unwrap_or(gref)
        });
        if let Some(bytes) = descriptors {
            let mut bytes = bytes.to_vec();
            replace_in_descriptors(&mut bytes, |gref| self.page(gref).unwrap_or(gref));
            for (gref, part) in pages.iter().zip(bytes.chunks(PAGE_SIZE)) {
                self.pages.get(gref).map(|page| page.mem().write(part));
            }
        }
        let Some(queue) = self.queues.get_mut(place) else { return Ok(()) };
        queue.raw.push(&entries)?;
        let head = Head::parse(&entries[0], &limits);
        queue.sent.entry(head.id).or_default().push_back(number);
        Ok(())
    }

    /// Our reference for a recorded one.
    fn page(&mut self, gref: u32) -> Result<u32> {
        if !self.pages.contains_key(&gref) {
            let mut page = self.lender.alloc(1)?;
            self.lender.lend(&mut page, Access::ReadWrite)?;
            self.pages.insert(gref, page);
        }
        let grants = self.pages.get(&gref).map(Pages::grants).unwrap_or_default();
        Ok(grants.first().context("a page that is lent to nobody")?.0)
    }

    /// Takes the answers that are there.
    fn take(&mut self) -> Result<(), Stop> {
        let mut news = Vec::new();
        for queue in &mut self.queues {
            let mut entry = [0; MAX_ENTRY_SIZE];
            while queue.raw.ring.peek(&mut entry).unwrap_or(false) {
                let found = Response::parse(&entry);
                let number = queue.sent.get_mut(&found.id).and_then(VecDeque::pop_front);
                let Some(number) = number else { return Err(Stop::Differs(Difference::Extra { found })) };
                queue.raw.ring.consume(self.requests.get(&number).map_or(1, |sent| sent.entries))?;
                self.found.insert(number, found);
                news.push(number);
            }
        }
        news.into_iter().try_for_each(|number| self.judge(number))
    }

    /// Compares an answer with the recorded one, when both are there.
    fn judge(&mut self, number: usize) -> Result<(), Stop> {
        let (Some(recorded), Some(found), Some(sent)) =
            (self.recorded.get(&number), self.found.get(&number), self.requests.get(&number))
        else {
            return Ok(());
        };
        self.judged.insert(number);
        if recorded == found || sent.vague && recorded.op == found.op {
            return Ok(());
        }
        let (request, recorded, found) = (sent.text.clone(), *recorded, *found);
        Err(Stop::Differs(Difference::Answer { request, recorded, found }))
    }

    /// Waits until all is answered that was answered by now.
    fn await_answers(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.patience;
        loop {
            self.take()?;
            let missing = self.recorded.keys().find(|number| !self.judged.contains(number)).copied();
            let Some(missing) = missing else { return Ok(()) };
            let Some(sent) = self.requests.get(&missing) else { return Ok(()) };
            let request = sent.text.clone();
            self.check(deadline, || Difference::Silence { request })?;
        }
    }

    /// Waits for the recorded state, before the guest does anything more.
    fn await_state(&mut self) -> Result<(), Stop> {
        let Some(recorded) = self.wanted.take() else { return Ok(()) };
        let deadline = Instant::now() + self.patience;
        loop {
            let found = self.guest.backend_state()?;
            if found == recorded {
                return Ok(());
            }
            let closes = matches!(found, State::Closing | State::Closed);
            if closes && !matches!(recorded, State::Closed) || Instant::now() > deadline {
                let reason = self.guest.backend_key(keys::ERROR)?;
                return Err(Stop::Differs(Difference::State { recorded, found, reason }));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// A moment's pause, unless there is nothing more to wait for.
    fn check(&mut self, deadline: Instant, silence: impl FnOnce() -> Difference) -> Result<(), Stop> {
        if Instant::now() > deadline {
            self.rig.world.check_backend()?;
            return Err(Stop::Differs(silence()));
        }
        let found = self.guest.backend_state()?;
        let recorded = self.wanted.unwrap_or(State::Connected);
        if matches!(found, State::Closing | State::Closed)
            && recorded != found
            && self.rig.world.check_backend().is_ok()
        {
            let reason = self.guest.backend_key(keys::ERROR)?;
            return Err(Stop::Differs(Difference::State { recorded, found, reason }));
        }
        std::thread::sleep(LOOK);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        self.await_answers()?;
        // A daemon that is stopped closes its disks, and one that was offended; only that has something to say.
        if matches!(self.wanted, Some(State::Closing | State::Closed)) {
            self.wanted = self.backend.contains_key(keys::ERROR).then_some(State::Closing);
        }
        self.await_state()
    }
}

/// What a daemon is told so that it offers what was offered.
fn config(backend: &BTreeMap<String, String>) -> Result<String> {
    let Ok(offered) = BackendFeatures::parse(|key| backend.get(key)) else {
        bail!("what the backend offered makes no sense")
    };
    let BackendFeatures {
        max_ring_pages, max_queues, max_indirect_segments, request_maxima, persistent, ..
    } = offered;
    let blocks = request_maxima.map_or(0, |maxima| maxima.segments);
    let operations = offered.operations;
    let mut text = "[daemon]\nworkers = 1\nshutdown-s = 0\n[offer]\n".to_owned();
    _ = write!(
        text,
        "ring-pages = {max_ring_pages}\nqueues = {max_queues}\nblock-segments = {blocks}\n\
         indirect-segments = {max_indirect_segments}\npersistent = {persistent}\nflush = {}\nbarrier = {}\ndiscard = {}\n",
        operations.flush,
        operations.barrier,
        operations.discard.is_some()
    );
    Ok(text)
}
