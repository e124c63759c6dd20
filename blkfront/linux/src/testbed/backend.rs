//! The simplest backend there can be: one thread that looks at everything all the time.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use blkif_proto::{
    Agreement, Head, Limits, MAX_ENTRY_SIZE, Op, Parsed, Request, Status,
    keys::{FrontendRecord, QueueRecord},
    xenbus::State,
};
use ringbuf::{BackRing, Mapped};
use xen_platform::{
    Access, BackWorld as _, DomId, EventChannels as _, Mapper as _, Mapping as _, Port, Store as _,
    StoreClient, sim::World,
};

use super::{Medium, backend_path, frontend_path};

type SimMapper = <World as xen_platform::BackWorld>::Mapper;
type SimEvents = <World as xen_platform::BackWorld>::Events;
type SimRing = BackRing<Mapped<<SimMapper as xen_platform::Mapper>::RingPages>>;

/// Serves the guest's disk until `ending`.
pub(super) fn serve(
    world: &World,
    store: StoreClient,
    guest: DomId,
    medium: &Mutex<Medium>,
    ending: &AtomicBool,
) {
    let mut end = End { store, front: frontend_path(guest), back: backend_path(guest) };
    end.offer(medium);
    let mut connection: Option<Connection> = None;
    let mut turns = 0u32;
    while !ending.load(Ordering::Relaxed) {
        let busy = connection.as_mut().is_some_and(|connection| connection.turn(&mut medium.lock().unwrap()));
        turns += 1;
        if busy && !turns.is_multiple_of(256) {
            continue;
        }
        match (end.frontend_state(), &connection) {
            (State::Initialised | State::Connected, None) => {
                connection = Some(Connection::new(&mut end, world, guest, medium));
            }
            (State::Closing, Some(_)) => end.set_state(State::Closing),
            (State::Closed, Some(_)) => {
                connection = None;
                medium.lock().unwrap().closed += 1;
                end.set_state(State::Closed);
            }
            (State::Initialising, None) => end.offer(medium),
            _ => {}
        }
        if !busy {
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// The XenStore side.
struct End {
    store: StoreClient,
    front: String,
    back: String,
}

impl End {
    fn offer(&mut self, medium: &Mutex<Medium>) {
        if self.own_state() != State::InitWait {
            let features = medium.lock().unwrap().features;
            features.emit(|key, value| self.put(key, value));
            self.set_state(State::InitWait);
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        let path = format!("{}/{key}", self.back);
        self.store.transact(|t| t.write(&path, value)).unwrap();
    }

    fn set_state(&mut self, state: State) {
        if self.own_state() != state {
            self.put("state", state.as_str());
        }
    }

    fn own_state(&mut self) -> State {
        let path = format!("{}/state", self.back);
        State::of_node(self.store.read(&path).ok())
    }

    fn frontend_state(&mut self) -> State {
        let path = format!("{}/state", self.front);
        State::of_node(self.store.read(&path).ok())
    }
}

struct Connection {
    guest: DomId,
    mapper: SimMapper,
    events: SimEvents,
    limits: Limits,
    queues: Vec<(SimRing, Port)>,
}

impl Connection {
    fn new(end: &mut End, world: &World, guest: DomId, medium: &Mutex<Medium>) -> Self {
        let mut medium = medium.lock().unwrap();
        let (store, front) = (&mut end.store, &end.front);
        let lookup = |key: &str| store.read(&format!("{front}/{key}")).ok();
        let record = FrontendRecord::parse(lookup, &medium.features).unwrap();
        let agreement = Agreement::between(&medium.features.capacity(), &record.capacity(), record.abi);
        let limits = agreement.limits(&medium.disk, medium.features.operations);
        let (mut mapper, mut events) = (world.mapper().unwrap(), world.events().unwrap());
        let mut queue = |record: &QueueRecord| {
            let pages = mapper.map_ring(guest, &record.ring_refs).unwrap();
            let ring = BackRing::attach(Mapped::new(pages, limits.abi.entry_size()).unwrap()).unwrap();
            (ring, events.bind_interdomain(guest, Port(record.event_channel)).unwrap())
        };
        let queues = record.queues.iter().map(&mut queue).collect();
        medium.connected += 1;
        let disk = medium.disk;
        drop(medium);
        disk.emit(|key, value| end.put(key, value));
        end.set_state(State::Connected);
        Self { guest, mapper, events, limits, queues }
    }

    /// Serves what is there. True if there was anything.
    fn turn(&mut self, medium: &mut Medium) -> bool {
        let Self { guest, mapper, events, limits, queues } = self;
        let mut busy = false;
        while let Some(port) = events.take_pending() {
            events.unmask(port).unwrap();
        }
        for (ring, port) in queues {
            while !medium.hang && ring.available().unwrap() > 0 {
                serve_one(ring, medium, limits, mapper, *guest);
                busy = true;
            }
            if ring.publish().is_needed() {
                events.notify(*port).unwrap();
            }
            busy |= ring.arm().unwrap() && !medium.hang;
        }
        busy
    }
}

fn serve_one(ring: &mut SimRing, medium: &mut Medium, limits: &Limits, mapper: &mut SimMapper, guest: DomId) {
    let mut entries = vec![[0; MAX_ENTRY_SIZE]];
    ring.read(0, &mut entries[0]).unwrap();
    let head = Head::parse(&entries[0], limits);
    for ahead in 1..head.entries {
        let mut block = [0; MAX_ENTRY_SIZE];
        ring.read(ahead, &mut block).unwrap();
        entries.push(block);
    }
    ring.consume(head.entries).unwrap();
    let status = match Request::parse(&entries, limits) {
        Ok(Parsed::Whole(request)) => medium.execute(&request, mapper, guest),
        Ok(Parsed::Indirect(indirect)) => {
            let mut descriptors = Vec::new();
            let mut mapping = mapper.mapping();
            mapper.map(guest, indirect.pages(), Access::Read, &mut mapping).unwrap();
            for index in 0..mapping.len() {
                let mut page = [0; 4096];
                mapping.page(index).unwrap().read(&mut page);
                descriptors.extend(page);
            }
            mapping.clear();
            let request = indirect.with_descriptors(&descriptors, limits).unwrap();
            medium.execute(&request, mapper, guest)
        }
        Err(error) => error.status(),
    };
    ring.respond(&head.answer(status).emit(), head.entries).unwrap();
}

impl Medium {
    fn execute(&mut self, request: &Request<'_>, mapper: &mut SimMapper, guest: DomId) -> Status {
        let mut at = usize::try_from(request.sector * 512).unwrap();
        match request.op {
            Op::Discard { sectors, .. } => {
                self.discards += 1;
                let end = at + usize::try_from(sectors * 512).unwrap();
                self.bytes[at..end].fill(self.discarded);
            }
            Op::Flush | Op::WriteBarrier => self.flushes += 1,
            Op::Read => self.reads += 1,
            Op::Write => {}
        }
        for segment in request.segments.iter() {
            let (mut mapping, access) = match request.op {
                Op::Read => (mapper.mapping(), Access::ReadWrite),
                _ => (mapper.mapping(), Access::Read),
            };
            mapper.map(guest, &[segment.gref], access, &mut mapping).unwrap();
            let page = mapping.page(0).unwrap();
            let memory = page.part(segment.offset(), segment.bytes()).unwrap();
            let place = at..at + segment.bytes();
            at = place.end;
            if request.op == Op::Read {
                memory.write(&self.bytes[place]);
                continue;
            }
            if self.full_from.is_some_and(|full| place.end > full) {
                return Status::ERROR;
            }
            self.written_bytes += segment.bytes() as u64;
            memory.read(&mut self.bytes[place.clone()]);
            if let Some(rotten) = self.rotten.filter(|rotten| place.contains(rotten)) {
                self.bytes[rotten] ^= 1;
            }
        }
        Status::OKAY
    }
}
