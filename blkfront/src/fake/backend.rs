//! The backend: states, rings, and a disk in memory.

use std::{
    collections::HashMap,
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};

use blkif_proto::{
    Abi, Agreement, GrantRef, Head, Limits, MAX_ENTRY_SIZE, Op, Parsed, Request, Response, Segment, Status,
    keys::{DeviceType, FrontendRecord, ToolstackFrontend},
    xenbus::State,
};
use ringbuf::{BackRing, Mapped};
use xen_platform::{
    Access, BackWorld, Change, DomId, EventChannels, Mapper, Mapping, Port, Store, fake,
    wire::{Permission, Rights},
};

use super::Setup;

/// A request as the backend took it out of the ring.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The frontend's name for it.
    pub id: u64,
    /// What to do; of an indirect request, the operation inside.
    pub op: Op,
    /// Its segments were in descriptor pages.
    pub indirect: bool,
    /// Ring entries that it took, and that its response takes.
    pub entries: u32,
    /// First 512-byte sector.
    pub sector: u64,
    /// Where its data lies in the guest's pages.
    pub segments: Vec<Segment>,
}

impl Taken {
    /// The answer to it that keeps the rules.
    pub fn response(&self, status: Status) -> Response {
        Response { id: self.id, op: self.op.opcode(), status }
    }
}

/// The backend of one disk, and the toolstack's hand in XenStore. What a test changes takes effect at the next turn.
pub struct Backend {
    /// What it offers to whoever connects next.
    pub setup: Setup,
    /// Domain 0's connection to XenStore.
    pub store: <fake::World as xen_platform::FrontWorld>::Store,
    /// Every request that was taken out of a ring.
    pub seen: Vec<Taken>,
    /// Leaves what it maps mapped, as a bad backend does.
    pub clings: bool,
    /// One for each queue of the connection; empty without one.
    pub rings: Vec<Ring>,
    /// What the frontend told of its queues when it last connected.
    pub record: Option<FrontendRecord>,
    /// The disk's bytes.
    pub image: Vec<u8>,
    /// Follows the frontend's states; a test that wants to write its own switches it off.
    pub follows: bool,
    guest: DomId,
    mapper: fake::Mapper,
    world: fake::World,
    frontend: String,
    /// Its own directory in XenStore.
    pub directory: String,
    limits: Option<Limits>,
    persistent: bool,
    kept: HashMap<GrantRef, fake::Mapping>,
}

/// One queue's ring.
pub struct Ring {
    /// The backend's end of it.
    pub ring: BackRing<Mapped<fake::RingPages>>,
    events: fake::Events,
    port: Port,
}

impl Backend {
    pub(super) fn new(machine: &fake::Machine, guest: DomId, setup: Setup) -> Self {
        let world = machine.world(DomId::DOM0);
        let mut store = machine.store().connect(DomId::DOM0).unwrap();
        let frontend = format!("/local/domain/{guest}/device/vbd/51712");
        let directory = format!("/local/domain/0/backend/vbd/{guest}/51712");
        let toolstack = ToolstackFrontend {
            backend: directory.clone(),
            backend_id: 0,
            virtual_device: 51712,
            device_type: DeviceType::Disk,
            trusted: setup.trusted,
        };
        let owned = [Permission::new(guest, Rights::None), Permission::new(DomId::DOM0, Rights::Read)];
        let read = [Permission::new(DomId::DOM0, Rights::None), Permission::new(guest, Rights::Read)];
        store
            .transact(|tree| {
                tree.mkdir(&frontend)?;
                tree.set_permissions(&frontend, &owned)?;
                tree.mkdir(&directory)?;
                tree.set_permissions(&directory, &read)?;
                tree.write(&format!("{frontend}/state"), "1")?;
                tree.write(&format!("{directory}/state"), "1")?;
                tree.write(&format!("{directory}/online"), "1")?;
                let mut wrote = Ok(());
                toolstack.emit(|key, value| {
                    wrote = wrote.clone().and(tree.write(&format!("{frontend}/{key}"), value));
                });
                wrote
            })
            .unwrap();
        let sectors = usize::try_from(setup.disk.sectors).unwrap();
        Self {
            image: vec![0; sectors * 512],
            setup,
            store,
            seen: Vec::new(),
            clings: false,
            rings: Vec::new(),
            record: None,
            follows: true,
            guest,
            mapper: world.mapper().unwrap(),
            world,
            frontend,
            directory,
            limits: None,
            persistent: false,
            kept: HashMap::new(),
        }
    }

    /// One look at the states, and at the rings if they are to be served.
    pub(super) fn turn(&mut self) {
        if self.follows {
            self.follow();
        }
        if self.setup.serve {
            for queue in 0..self.rings.len() {
                self.serve(queue);
            }
        }
    }

    fn state_of(&mut self, directory: &str) -> State {
        State::of_node(self.store.read(&format!("{directory}/state")).ok())
    }

    fn frontend_state(&mut self) -> State {
        let frontend = self.frontend.clone();
        self.state_of(&frontend)
    }

    fn state(&mut self) -> State {
        let directory = self.directory.clone();
        self.state_of(&directory)
    }

    /// Writes a key of its own directory.
    pub fn write(&mut self, key: &str, value: &str) {
        let path = format!("{}/{key}", self.directory);
        self.store.apply(&[Change::Write(&path, value)]).unwrap();
    }

    /// Writes its state.
    pub fn write_state(&mut self, state: State) {
        self.write("state", state.as_str());
    }

    /// Publishes the disk again, with the state.
    pub fn resize(&mut self, sectors: u64) {
        self.setup.disk.sectors = sectors;
        self.limits.as_mut().unwrap().sectors = sectors;
        self.image.resize(usize::try_from(sectors).unwrap() * 512, 0);
        self.write("sectors", &sectors.to_string());
        self.write_state(State::Connected);
    }

    /// Unmaps the pages that it keeps, as a backend may at any time.
    pub fn let_go(&mut self) {
        self.kept.clear();
    }

    /// Lets go of everything of the guest's.
    pub fn disconnect(&mut self) {
        self.rings.clear();
        self.let_go();
        self.limits = None;
    }

    fn follow(&mut self) {
        let (frontend, own) = (self.frontend_state(), self.state());
        match (frontend, own) {
            (State::Initialising, State::Initialising | State::Closed) => {
                let features = self.setup.features;
                let directory = self.directory.clone();
                let present = self.store.list(&directory).unwrap();
                for key in features.stale(present.iter().map(String::as_str)) {
                    self.store.apply(&[Change::Remove(&format!("{directory}/{key}"))]).unwrap();
                }
                features.emit(|key, value| self.write(key, value));
                self.write_state(State::InitWait);
            }
            (State::Initialised | State::Connected, State::InitWait) => self.connect(),
            (State::Closing, State::InitWait | State::Connected) => self.write_state(State::Closing),
            (State::Closed, State::InitWait | State::Connected | State::Closing) => {
                self.disconnect();
                self.write_state(State::Closed);
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        let Self { store, frontend, setup, .. } = self;
        let record =
            FrontendRecord::parse(|key| store.read(&format!("{frontend}/{key}")).ok(), &setup.features)
                .unwrap();
        let features = setup.late.unwrap_or(setup.features);
        let agreement = Agreement::between(&features.capacity(), &record.capacity(), record.abi);
        self.limits = Some(agreement.limits(&setup.disk, features.operations));
        self.persistent = agreement.persistent;
        for queue in &record.queues {
            let pages = self.mapper.map_ring(self.guest, &queue.ring_refs).unwrap();
            let ring = BackRing::attach(Mapped::new(pages, record.abi.entry_size()).unwrap()).unwrap();
            let mut events = self.world.events().unwrap();
            let port = events.bind_interdomain(self.guest, Port(queue.event_channel)).unwrap();
            self.rings.push(Ring { ring, events, port });
        }
        let Setup { disk, late, .. } = self.setup;
        disk.emit(|key, value| self.write(key, value));
        if let Some(features) = late {
            features.emit(|key, value| self.write(key, value));
        }
        self.record = Some(record);
        self.write_state(State::Connected);
    }

    /// Takes, runs and answers everything in a ring; returns how many requests.
    pub fn serve(&mut self, queue: usize) -> usize {
        let taken = self.take(queue);
        for request in &taken {
            let status = self.run(request);
            self.answer(queue, request.response(status), request.entries);
        }
        self.publish(queue);
        taken.len()
    }

    /// Takes everything out of a ring. Panics at a request that a good backend would refuse.
    pub fn take(&mut self, queue: usize) -> Vec<Taken> {
        let limits = self.limits.unwrap();
        let mut taken = Vec::new();
        loop {
            let ring = &mut self.rings[queue].ring;
            let available = ring.available().unwrap();
            if available == 0 {
                break;
            }
            let mut entries = vec![[0; MAX_ENTRY_SIZE]];
            ring.read(0, &mut entries[0]).unwrap();
            let head = Head::parse(&entries[0], &limits);
            assert!(head.entries <= available, "a request published in part");
            for ahead in 1..head.entries {
                let mut entry = [0; MAX_ENTRY_SIZE];
                ring.read(ahead, &mut entry).unwrap();
                entries.push(entry);
            }
            ring.consume(head.entries).unwrap();
            let (indirect, request) = match Request::parse(&entries, &limits).unwrap() {
                Parsed::Whole(request) => (false, take_in(&request, head.entries)),
                Parsed::Indirect(indirect) => {
                    let mut pages = Vec::new();
                    for gref in indirect.pages() {
                        let mut page = [0; 4096];
                        self.access(*gref, Access::Read, |mapped| {
                            mapped.read(&mut page);
                        });
                        pages.extend(page);
                    }
                    (true, take_in(&indirect.with_descriptors(&pages, &limits).unwrap(), 1))
                }
            };
            taken.push(Taken { indirect, ..request });
        }
        self.seen.extend_from_slice(&taken);
        taken
    }

    /// Moves the data of a request.
    pub fn run(&mut self, request: &Taken) -> Status {
        let mut at = usize::try_from(request.sector).unwrap() * 512;
        match request.op {
            Op::Discard { sectors, .. } => {
                let len = usize::try_from(sectors).unwrap() * 512;
                self.image[at..at + len].fill(0);
            }
            Op::Read | Op::Write | Op::WriteBarrier | Op::Flush => {
                let reads = request.op == Op::Read;
                let access = if reads { Access::ReadWrite } else { Access::Read };
                for segment in request.segments.clone() {
                    let mut image = core::mem::take(&mut self.image);
                    let part = &mut image[at..at + segment.bytes()];
                    self.access(segment.gref, access, |mapped| {
                        let mapped = mapped.part(segment.offset(), segment.bytes()).unwrap();
                        if reads {
                            mapped.write(part)
                        } else {
                            mapped.read(part)
                        };
                    });
                    self.image = image;
                    at += segment.bytes();
                }
            }
        }
        Status::OKAY
    }

    /// Puts a response of so many entries into a ring. The frontend sees it after [`publish`](Self::publish).
    pub fn answer(&mut self, queue: usize, response: Response, entries: u32) {
        let abi = self.record.as_ref().map_or(Abi::NATIVE, |record| record.abi);
        self.rings[queue].ring.respond(&response.emit()[..abi.response_size()], entries).unwrap();
    }

    /// Shows the frontend what was answered, with an event if it asks for one.
    pub fn publish(&mut self, queue: usize) {
        let Ring { ring, events, port } = &mut self.rings[queue];
        if ring.publish().is_needed() {
            events.notify(*port).unwrap();
        }
    }

    /// Sends an event for nothing.
    pub fn ring_the_bell(&mut self, queue: usize) {
        let Ring { events, port, .. } = &mut self.rings[queue];
        events.notify(*port).unwrap();
    }

    /// Maps a page for the time of `work`, or for good with persistent grants and in a bad backend.
    fn access(&mut self, gref: GrantRef, access: Access, work: impl FnOnce(xen_platform::SharedMem<'_>)) {
        let persistent = self.persistent;
        let access = if persistent { Access::ReadWrite } else { access };
        let mut mapping = self.kept.remove(&gref).unwrap_or_else(|| self.mapper.mapping());
        if mapping.is_empty() {
            self.mapper.map(self.guest, &[gref], access, &mut mapping).unwrap();
        }
        work(mapping.page(0).unwrap());
        if persistent || self.clings {
            self.kept.insert(gref, mapping);
        }
    }
}

fn take_in(request: &Request<'_>, entries: u32) -> Taken {
    let (id, op, sector) = (request.id, request.op, request.sector);
    Taken { id, op, indirect: false, entries, sector, segments: request.segments.iter().collect() }
}
