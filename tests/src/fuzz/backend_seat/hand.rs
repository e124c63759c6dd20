//! The backend, and the toolstack's hand: does the next thing whenever it is let.

use std::collections::VecDeque;

use blkif_proto::{
    Agreement, Head, Limits, MAX_ENTRY_SIZE, Opcode, Operations, Parsed, Request, Response, Segment, Status,
    keys::{
        self, BackendDisk, BackendFeatures, DeviceType, DiskInfo, FrontendRecord, RequestMaxima,
        ToolstackFrontend,
    },
    xenbus::State,
};
use ringbuf::{BackRing, Field, Mapped, RingMem as _};
use xen_platform::{
    Access, BackWorld as _, DomId, EventChannels as _, Mapper as _, Mapping as _, Port, Store as _,
    StoreError,
    fake::{self, Machine},
    wire::{Permission, Rights},
};

use super::{
    act::{Act, Name, Value, Wishes},
    world::Peer,
};

/// The frontend's directory.
pub(super) fn frontend(guest: DomId) -> String {
    format!("/local/domain/{guest}/device/vbd/51712")
}

/// Domain 0, in the fuzzer's hand.
pub(super) struct Hand {
    pub(super) guest: DomId,
    acts: VecDeque<Act>,
    store: fake::StoreHandle,
    mapper: fake::Mapper,
    world: fake::World,
    machine: Machine,
    directory: String,
    offered: BackendFeatures,
    limits: Option<Limits>,
    queues: Vec<Queue>,
    kept: Vec<fake::Mapping>,
    seen: Vec<Segment>,
}

struct Queue {
    ring: BackRing<Mapped<fake::RingPages>>,
    events: fake::Events,
    port: Port,
    taken: Vec<Head>,
    answered: Vec<Head>,
}

/// Keys that a backend has.
const KEYS: [&str; 16] = [
    keys::MAX_RING_PAGE_ORDER,
    keys::MAX_RING_PAGES,
    keys::MULTI_QUEUE_MAX_QUEUES,
    keys::FEATURE_MAX_INDIRECT_SEGMENTS,
    keys::MAX_REQUESTS,
    keys::MAX_REQUEST_SEGMENTS,
    keys::MAX_REQUEST_SIZE,
    keys::FEATURE_PERSISTENT,
    keys::FEATURE_FLUSH_CACHE,
    keys::FEATURE_BARRIER,
    keys::FEATURE_DISCARD,
    keys::SECTORS,
    keys::SECTOR_SIZE,
    keys::PHYSICAL_SECTOR_SIZE,
    keys::INFO,
    keys::STATE,
];

impl Hand {
    /// The toolstack has made the device; the backend has not seen it yet.
    pub(super) fn new(machine: &Machine, wishes: &Wishes, acts: Vec<Act>) -> Self {
        let guest = machine.create_domain(4096).unwrap();
        let world = machine.world(DomId::DOM0);
        let mut store = machine.store().connect(DomId::DOM0).unwrap();
        let directory = format!("/local/domain/0/backend/vbd/{guest}/51712");
        let nodes = ToolstackFrontend {
            backend: directory.clone(),
            backend_id: 0,
            virtual_device: 51712,
            device_type: DeviceType::Disk,
            trusted: wishes.trusted,
        };
        let path = frontend(guest);
        let owned = [Permission::new(guest, Rights::None), Permission::new(DomId::DOM0, Rights::Read)];
        let read = [Permission::new(DomId::DOM0, Rights::None), Permission::new(guest, Rights::Read)];
        let made = store.transact(|tree| {
            tree.mkdir(&path)?;
            tree.set_permissions(&path, &owned)?;
            tree.mkdir(&directory)?;
            tree.set_permissions(&directory, &read)?;
            tree.write(&format!("{path}/state"), "1")?;
            tree.write(&format!("{directory}/state"), "1")?;
            let mut list = Vec::new();
            nodes.emit(|key, value| list.push((format!("{path}/{key}"), value.to_owned())));
            list.iter().try_for_each(|(key, value)| tree.write(key, value))
        });
        made.unwrap();
        Self {
            guest,
            acts: acts.into(),
            store,
            mapper: world.mapper().unwrap(),
            world,
            machine: machine.clone(),
            directory,
            offered: BackendFeatures::ORIGINAL,
            limits: None,
            queues: Vec::new(),
            kept: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn try_act(&mut self, act: Act) -> Result<(), StoreError> {
        match act {
            Act::Offer { features, ring_pages, queues, segments } => {
                self.offered = offer(features, ring_pages, queues, segments);
                let mut list = Vec::new();
                self.offered.emit(|key, value| list.push((key.to_owned(), value.to_owned())));
                list.iter().try_for_each(|(key, value)| self.write(key, value.as_bytes()))?;
                self.write(keys::STATE, State::InitWait.as_str().as_bytes())
            }
            Act::Connect { sectors, sector_shift, info } => {
                self.connect();
                let disk = BackendDisk {
                    sectors: u64::from(sectors).max(1) * 8,
                    sector_size: 512 << (sector_shift % 4),
                    physical_sector_size: 4096,
                    info: DiskInfo::from_bits_truncate(u32::from(info)),
                };
                if let Some(limits) = &mut self.limits {
                    limits.sectors = disk.sectors;
                }
                let mut list = Vec::new();
                disk.emit(|key, value| list.push((key.to_owned(), value.to_owned())));
                list.iter().try_for_each(|(key, value)| self.write(key, value.as_bytes()))?;
                self.write(keys::STATE, State::Connected.as_str().as_bytes())
            }
            Act::Disconnect => {
                self.disconnect();
                Ok(())
            }
            Act::State(state) => self.write(keys::STATE, (state % 12).to_string().as_bytes()),
            Act::Key { key, value } => self.write_key(KEYS[usize::from(key) % KEYS.len()], &value),
            Act::Delete { frontend: true } => self.remove(&frontend(self.guest)),
            Act::Delete { frontend: false } => self.remove(&self.directory.clone()),
            Act::Cling { request, segment } => {
                self.cling(usize::from(request) * 16 + usize::from(segment));
                Ok(())
            }
            Act::Poke { page, at, bytes } => {
                let count = self.kept.len().max(1);
                if let Some(page) = self.kept.get(usize::from(page) % count).and_then(|kept| kept.page(0)) {
                    page.part(usize::from(at) % 4088, 8).map(|part| part.write(&bytes.to_le_bytes()));
                }
                Ok(())
            }
            Act::LetGo => {
                self.kept.clear();
                Ok(())
            }
            Act::Pause(ms) => {
                self.machine.advance(core::time::Duration::from_millis(u64::from(ms)));
                Ok(())
            }
            on_a_ring => {
                self.act_on_ring(&on_a_ring);
                Ok(())
            }
        }
    }

    fn act_on_ring(&mut self, act: &Act) {
        let (Some(limits), count) = (self.limits, self.queues.len()) else { return };
        let of = |number: u8| usize::from(number) % count.max(1);
        let Self { queues, seen, .. } = self;
        match *act {
            Act::Take(queue) => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    queue.take(&limits, seen);
                }
            }
            Act::Serve(queue) => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    queue.take(&limits, seen);
                    while let Some(head) = queue.taken.pop() {
                        queue.answer(&limits, head.answer(Status::OKAY), head.entries);
                    }
                    queue.publish();
                }
            }
            Act::Answer { queue, name, op, status, entries, publish } => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    queue.answer_by_name(&limits, name, op, Status(status.into()), entries);
                    if publish {
                        queue.publish();
                    }
                }
            }
            Act::Index { queue, field, to, far } => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    let fields = [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent];
                    let field = fields[usize::from(field) % 4];
                    let by = i32::from(to) << if far { 23 } else { 0 };
                    queue.ring.mem().store(field, queue.ring.mem().load(field).plus(by.cast_unsigned()));
                    _ = queue.events.notify(queue.port);
                }
            }
            Act::Scribble { queue, at, bytes } => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    let bytes = bytes.to_le_bytes();
                    queue.ring.mem().write_slot(ringbuf::Index::new(at.into()), &bytes);
                }
            }
            Act::Bell { queue, times } => {
                if let Some(queue) = queues.get_mut(of(queue)) {
                    (0..times).for_each(|_| _ = queue.events.notify(queue.port));
                }
            }
            _ => {}
        }
    }

    fn write(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let path = format!("{}/{key}", self.directory);
        self.store.transact(|tree| tree.write(&path, value))
    }

    fn write_key(&mut self, key: &str, value: &Value) -> Result<(), StoreError> {
        let path = format!("{}/{key}", self.directory);
        match value {
            Value::Small(number) => self.write(key, number.to_string().as_bytes()),
            Value::Number(number) => self.write(key, number.to_string().as_bytes()),
            Value::Bytes(bytes) => self.write(key, bytes),
            Value::Empty => self.write(key, b""),
            Value::Gone => self.remove(&path),
        }
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        self.store.transact(|tree| tree.remove(path))
    }

    /// Maps what the frontend has published, if that is whole.
    fn connect(&mut self) {
        self.disconnect();
        let Self { store, offered, guest, mapper, world, .. } = self;
        let path = frontend(*guest);
        let Ok(record) = FrontendRecord::parse(|key| store.read(&format!("{path}/{key}")).ok(), offered)
        else {
            return;
        };
        let agreement = Agreement::between(&offered.capacity(), &record.capacity(), record.abi);
        let disk =
            BackendDisk { sectors: 8, sector_size: 512, physical_sector_size: 512, info: DiskInfo::empty() };
        self.limits = Some(agreement.limits(&disk, offered.operations));
        for queue in &record.queues {
            let Ok(pages) = mapper.map_ring(*guest, &queue.ring_refs) else { return };
            let Ok(ring) = Mapped::new(pages, record.abi.entry_size()) else { return };
            let (Ok(ring), Ok(mut events)) = (BackRing::attach(ring), world.events()) else { return };
            let Ok(port) = events.bind_interdomain(*guest, Port(queue.event_channel)) else { return };
            self.queues.push(Queue { ring, events, port, taken: Vec::new(), answered: Vec::new() });
        }
    }

    fn disconnect(&mut self) {
        self.queues.clear();
        self.kept.clear();
        self.seen.clear();
        self.limits = None;
    }

    fn cling(&mut self, which: usize) {
        let count = self.seen.len().max(1);
        let Some(segment) = self.seen.get(which % count) else { return };
        let mut mapping = self.mapper.mapping();
        let writable = self.mapper.map(self.guest, &[segment.gref], Access::ReadWrite, &mut mapping).is_ok();
        // Only what can be written to is of use to it.
        if writable && self.kept.len() < 32 {
            self.kept.push(mapping);
        }
    }
}

impl Peer for Hand {
    /// False when all is done: from then on it lets go of everything, and is silent.
    fn act(&mut self) -> bool {
        let Some(act) = self.acts.pop_front() else {
            self.disconnect();
            return false;
        };
        // What XenStore refuses, or a guest that is gone, is none of the frontend's faults.
        _ = self.try_act(act);
        true
    }
}

impl Queue {
    /// Takes what is there as far as it can be understood.
    fn take(&mut self, limits: &Limits, seen: &mut Vec<Segment>) {
        while self.ring.available().is_ok_and(|ready| ready > 0) {
            let mut entries = [[0; MAX_ENTRY_SIZE]; 64];
            let [first, blocks @ ..] = &mut entries;
            if self.ring.read(0, first).is_err() {
                return;
            }
            let head = Head::parse(first, limits);
            for (ahead, block) in (1..head.entries).zip(blocks) {
                _ = self.ring.read(ahead, block);
            }
            if self.ring.consume(head.entries).is_err() {
                return;
            }
            if let Ok(Parsed::Whole(request)) = Request::parse(&entries, limits) {
                seen.extend(request.segments.iter());
                seen.truncate(256);
            }
            self.taken.push(head);
        }
    }

    fn answer(&mut self, limits: &Limits, response: Response, entries: u32) {
        _ = self.ring.respond(&response.emit()[..limits.abi.response_size()], entries);
    }

    fn answer_by_name(&mut self, limits: &Limits, name: Name, op: Option<u8>, status: Status, entries: u8) {
        let head = match name {
            Name::Taken(n) if !self.taken.is_empty() => {
                let head = self.taken.swap_remove(usize::from(n) % self.taken.len());
                self.answered.push(head);
                head
            }
            Name::Answered(n) if !self.answered.is_empty() => {
                self.answered[usize::from(n) % self.answered.len()]
            }
            Name::Raw(id) => Head { id, opcode: Opcode(0), answer_op: Opcode(0), entries: 1 },
            Name::Taken(_) | Name::Answered(_) => return,
        };
        let op = op.map_or(head.answer_op, Opcode);
        let entries = if entries < 250 { head.entries } else { u32::from(entries) - 249 };
        self.answer(limits, Response { id: head.id, op, status }, entries);
    }

    fn publish(&mut self) {
        if self.ring.publish().is_needed() {
            _ = self.events.notify(self.port);
        }
    }
}

fn offer(features: u8, ring_pages: u8, queues: u8, segments: u8) -> BackendFeatures {
    let has = |bit: u8| features & 1 << bit != 0;
    let maxima = RequestMaxima { requests: 64, segments: u16::from(segments.max(11)), bytes: 1 << 20 };
    BackendFeatures {
        max_ring_pages: 1 << (ring_pages % 4),
        max_queues: u32::from(queues % 4).max(1),
        max_indirect_segments: if has(0) { u16::from(segments) } else { 0 },
        request_maxima: has(1).then_some(maxima),
        persistent: has(2),
        operations: Operations {
            flush: has(3),
            barrier: has(4),
            discard: has(5).then(blkif_proto::Discard::default),
        },
        ..BackendFeatures::ORIGINAL
    }
}
