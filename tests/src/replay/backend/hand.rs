//! Its hand in the fake world: XenStore, rings and signals, step by step.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
};

use anyhow::Result;
use blkif_observe::recording::End;
use blkif_proto::{
    Entry, Head, Limits, MAX_ENTRY_SIZE, PAGE_SIZE, Parsed, Request, Response, Segment,
    keys::{self, BackendFeatures, DeviceType, FrontendRecord, ToolstackFrontend},
    xenbus::State,
};
use ringbuf::{BackRing, Field, Mapped, RingMem as _};
use xen_platform::{
    BackWorld as _, DomId, EventChannels as _, Mapper as _, Port, Store as _,
    fake::{self, Machine},
    wire::{Permission, Rights},
};

use super::super::{
    Difference,
    script::{Script, Step, describe, limits, state_of},
};
use crate::fuzz::backend_seat::world::Peer;

/// What a request asks for, for comparison: everything but what is another in each run.
fn shape(entries: &[Entry], limits: &Limits) -> String {
    let mut shape = describe(entries, limits);
    if let Ok(Parsed::Whole(request)) = Request::parse(entries, limits) {
        // Whole pages are the rule.
        let parts = request.segments.iter().filter(|segment| segment.bytes() < PAGE_SIZE);
        parts.for_each(|Segment { first_sect, last_sect, .. }| {
            _ = write!(shape, ", {first_sect} to {last_sect}")
        });
    }
    shape
}

/// The backend of the recording, and the toolstack that made the device.
pub(super) struct Backend {
    pub(super) guest: DomId,
    pub(super) frontend_directory: String,
    directory: String,
    steps: VecDeque<Step>,
    nodes: BTreeMap<String, String>,
    pending: Vec<(String, Option<String>)>,
    store: fake::StoreHandle,
    mapper: fake::Mapper,
    world: fake::World,
    pub(super) limits: Option<Limits>,
    rings: Vec<Ring>,
    /// What was recorded of requests that the application has asked for, by their numbers.
    recorded: HashMap<usize, String>,
    pub(super) difference: Option<Difference>,
}

struct Ring {
    ring: BackRing<Mapped<fake::RingPages>>,
    events: fake::Events,
    port: Port,
    /// Requests that were taken, by their recorded numbers.
    taken: HashMap<usize, Head>,
    /// Answers that were written and not published, and whether there are some to nothing.
    written: Vec<(usize, Response)>,
    foreign: bool,
}

impl Backend {
    pub(super) fn new(machine: &Machine, script: &Script) -> Result<Self> {
        let guest = machine.create_domain(1 << 16)?;
        let world = machine.world(DomId::DOM0);
        let mut store = machine.store().connect(DomId::DOM0)?;
        let number = script.device.rsplit('/').next().unwrap_or("51712");
        let frontend_directory = format!("/local/domain/{guest}/device/vbd/{number}");
        let directory = format!("/local/domain/0/backend/vbd/{guest}/{number}");
        let told = script.first_nodes(End::Frontend);
        let nodes = ToolstackFrontend {
            backend: directory.clone(),
            backend_id: 0,
            virtual_device: number.parse()?,
            device_type: DeviceType::Disk,
            trusted: told.get("trusted").is_none_or(|trusted| trusted != "0"),
        };
        let owned = [Permission::new(guest, Rights::None), Permission::new(DomId::DOM0, Rights::Read)];
        let read = [Permission::new(DomId::DOM0, Rights::None), Permission::new(guest, Rights::Read)];
        store.transact(|tree| {
            tree.mkdir(&frontend_directory)?;
            tree.set_permissions(&frontend_directory, &owned)?;
            tree.mkdir(&directory)?;
            tree.set_permissions(&directory, &read)?;
            tree.write(&format!("{frontend_directory}/{}", keys::STATE), State::Initialising.as_str())?;
            tree.write(&format!("{directory}/{}", keys::STATE), State::Initialising.as_str())?;
            let mut list = Vec::new();
            nodes.emit(|key, value| list.push((format!("{frontend_directory}/{key}"), value.to_owned())));
            list.iter().try_for_each(|(key, value)| tree.write(key, value))
        })?;
        Ok(Self {
            guest,
            frontend_directory,
            directory,
            steps: script.steps.clone().into(),
            nodes: BTreeMap::new(),
            pending: Vec::new(),
            store,
            mapper: world.mapper()?,
            world,
            limits: None,
            rings: Vec::new(),
            recorded: HashMap::new(),
            difference: None,
        })
    }

    pub(super) fn next(&self) -> Option<Step> {
        self.steps.front().cloned()
    }

    pub(super) fn pass(&mut self) {
        if let Some(Step::Request { number, entries, .. }) = self.steps.pop_front()
            && let Some(limits) = &self.limits
        {
            self.recorded.insert(number, shape(&entries, limits));
        }
    }

    /// Writes the nodes that have gathered; with `Connected`, the rings are mapped first.
    fn write(&mut self) -> Option<()> {
        let connects = self.nodes.get(keys::STATE).is_some_and(|state| state == State::Connected.as_str());
        if connects && self.rings.is_empty() {
            self.connect()?;
        }
        let pending = std::mem::take(&mut self.pending);
        let directory = &self.directory;
        let written = self.store.transact(|tree| {
            pending.iter().try_for_each(|(key, value)| {
                let path = format!("{directory}/{key}");
                match value {
                    Some(value) => tree.write(&path, value),
                    None => tree.remove(&path),
                }
            })
        });
        written.ok()
    }

    fn connect(&mut self) -> Option<()> {
        let Self { store, frontend_directory, nodes, mapper, guest, world, .. } = self;
        let offered = BackendFeatures::parse(|key| nodes.get(key)).ok()?;
        let mut told = BTreeMap::new();
        let record = FrontendRecord::parse(
            |key| {
                let value =
                    String::from_utf8(store.read(&format!("{frontend_directory}/{key}")).ok()?).ok()?;
                told.insert(key.to_owned(), value.clone());
                Some(value)
            },
            &offered,
        )
        .ok()?;
        self.limits = limits(nodes, &told);
        for queue in &record.queues {
            let pages = mapper.map_ring(*guest, &queue.ring_refs).ok()?;
            let ring = BackRing::attach(Mapped::new(pages, record.abi.entry_size()).ok()?).ok()?;
            let mut events = world.events().ok()?;
            let port = events.bind_interdomain(*guest, Port(queue.event_channel)).ok()?;
            self.rings.push(Ring {
                ring,
                events,
                port,
                taken: HashMap::new(),
                written: Vec::new(),
                foreign: false,
            });
        }
        Some(())
    }

    /// Takes the next request out of a ring: it must be the recorded one.
    pub(super) fn compare(&mut self, queue: u32, number: usize) -> Option<Difference> {
        let recorded = self.recorded.get(&number).cloned().unwrap_or_default();
        let (limits, ring) = (self.limits?, self.rings.get_mut(queue as usize)?);
        if !ring.ring.available().is_ok_and(|ready| ready > 0) {
            return Some(Difference::Request { recorded, found: None });
        }
        let mut entries = [[0; MAX_ENTRY_SIZE]; 64];
        ring.ring.read(0, &mut entries[0]).ok()?;
        let head = Head::parse(&entries[0], &limits);
        for (ahead, block) in (1..head.entries).zip(&mut entries[1..]) {
            _ = ring.ring.read(ahead, block);
        }
        ring.ring.consume(head.entries).ok()?;
        ring.taken.insert(number, head);
        let found = shape(&entries, &limits);
        (found != recorded).then_some(Difference::Request { recorded, found: Some(found) })
    }

    /// The answers that the next publication shows, and whether there are no others.
    pub(super) fn written(&mut self, queue: u32) -> (Vec<(usize, Response)>, bool) {
        let Some(ring) = self.rings.get_mut(queue as usize) else { return (Vec::new(), true) };
        (std::mem::take(&mut ring.written), !std::mem::take(&mut ring.foreign))
    }

    fn answer(&mut self, queue: u32, to: Option<usize>, response: Response) -> Option<()> {
        let ring = self.rings.get_mut(queue as usize)?;
        match to.and_then(|number| Some((number, ring.taken.remove(&number)?))) {
            Some((number, head)) => {
                ring.written.push((number, response));
                let response = Response { id: head.id, ..response };
                ring.ring.respond(&response.emit(), head.entries).ok()
            }
            None => {
                ring.foreign = true;
                // Where no request is open, the answer lies in its slot without being counted.
                if ring.ring.respond(&response.emit(), 1).is_err() {
                    ring.ring.mem().write_slot(ring.ring.responded(), &response.emit());
                }
                Some(())
            }
        }
    }

    fn publish(&mut self, queue: u32, beyond: i32) -> Option<()> {
        let ring = self.rings.get_mut(queue as usize)?;
        let wanted = ring.ring.publish().is_needed();
        if beyond != 0 {
            let index = ring.ring.published().plus(beyond.cast_unsigned());
            ring.ring.mem().store(Field::RspProd, index);
        }
        if wanted || beyond != 0 {
            ring.events.notify(ring.port).ok()?;
        }
        Some(())
    }

    /// The frontend's state is the recorded one. False when it has yet to get there.
    fn expect(&mut self, recorded: State) -> bool {
        let path = format!("{}/{}", self.frontend_directory, keys::STATE);
        let found = State::of_node(self.store.read(&path).ok());
        if found == recorded {
            return true;
        }
        if matches!(recorded, State::Initialised | State::Connected) {
            self.difference.get_or_insert(Difference::State { recorded, found, reason: None });
        }
        false
    }
}

impl Peer for Backend {
    /// Does the next thing that is the backend's, or false: it is the application's turn.
    fn act(&mut self) -> bool {
        let Some(step) = self.steps.front().cloned() else {
            self.rings.clear();
            return false;
        };
        if !self.pending.is_empty() && !matches!(step, Step::Node { of: End::Backend, .. }) {
            // What no state follows: the state is written again, as that is what frontends watch.
            let state = self.nodes.get(keys::STATE).cloned();
            self.pending.push((keys::STATE.to_owned(), state));
            self.write();
        }
        // What XenStore refuses, or a frontend that is gone, is none of the frontend's faults.
        match step {
            Step::Request { .. } | Step::Publish { by: End::Frontend, .. } => return false,
            Step::Signal { by: End::Frontend, .. } => {}
            Step::Signal { by: End::Backend, queue } => {
                if let Some(ring) = self.rings.get_mut(queue as usize) {
                    _ = ring.events.notify(ring.port);
                }
            }
            Step::Publish { by: End::Backend, queue, beyond } => _ = self.publish(queue, beyond),
            Step::Answer { queue, to, response } => _ = self.answer(queue, to, response),
            Step::Node { of: End::Frontend, .. } => {
                if let Some((_, state)) = state_of(&step)
                    && !self.expect(state)
                {
                    return false;
                }
            }
            Step::Node { of: End::Backend, key, value } => {
                match &value {
                    Some(value) => self.nodes.insert(key.clone(), value.clone()),
                    None => self.nodes.remove(&key),
                };
                let is_state = key == keys::STATE;
                self.pending.push((key, value));
                if is_state {
                    self.write();
                }
            }
        }
        self.steps.pop_front();
        true
    }
}
