//! A recording as steps that can be played, left out and written down again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use blkif_observe::recording::{End, Entry as Line, Event, Header, Recording};
use blkif_proto::{
    Agreement, Entry, Head, Limits, MAX_ENTRY_SIZE, Opcode, Response,
    keys::{self, BackendDisk, BackendFeatures, DiskInfo, FrontendRecord},
    xenbus::State,
};

/// One device's part of a recording. Positions in rings are not in it, but for impossible ones: what is left out leaves no gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Who has recorded it.
    pub header: Header,
    /// The device, as the recording names it.
    pub device: String,
    /// What happens, in an order in which it can have been done: a request before it is published, nodes before the state that
    /// stands for them.
    pub steps: Vec<Step>,
}

/// One thing that one end does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node of its directory changes.
    Node {
        /// Whose.
        of: End,
        /// The path below the directory.
        key: String,
        /// None: it is removed.
        value: Option<String>,
    },
    /// The frontend writes a request.
    Request {
        /// From 0.
        queue: u32,
        /// Its name, unlike its id nobody else's.
        number: usize,
        /// What it consists of, or as much as was published.
        entries: Vec<Entry>,
        /// Of an indirect request.
        descriptors: Option<Vec<u8>>,
        /// Why it failed, where that cannot be seen in it: cause and text.
        vague: Option<(String, String)>,
    },
    /// The backend writes an answer.
    Answer {
        /// From 0.
        queue: u32,
        /// The request; none: to nothing that was asked.
        to: Option<usize>,
        /// What it says.
        response: Response,
    },
    /// An end shows what it has written.
    Publish {
        /// Which.
        by: End,
        /// From 0.
        queue: u32,
        /// Entries that it claims beyond that; negative: that it takes back.
        beyond: i32,
    },
    /// An end signals the other.
    Signal {
        /// Which.
        by: End,
        /// From 0.
        queue: u32,
    },
}

impl Script {
    /// What a recording tells of one device.
    pub fn of(recording: &Recording, device: &str) -> Self {
        let lines = recording.entries.iter().filter(|line| line.device == device);
        let events = states_last(lines.map(|line| line.event.clone()).collect(), recording.header.end.peer());
        let mut reader = Reader::new(recording.header.end, &events);
        events.iter().for_each(|event| reader.read(event));
        Self { header: recording.header.clone(), device: device.to_owned(), steps: reader.steps }
    }

    /// The same as a recording.
    pub fn record(&self) -> Recording {
        let mut written: HashMap<(End, u32), u32> = HashMap::new();
        let mut events = Vec::new();
        for step in &self.steps {
            let mut write = |end, queue, entries: u32| {
                let next: &mut u32 = written.entry((end, queue)).or_default();
                let at = *next;
                *next = at.wrapping_add(entries);
                at
            };
            match step.clone() {
                Step::Node { of, key, value } => {
                    if is_connecting(&step.clone()) {
                        written.clear();
                    }
                    events.push(Event::Node { of, key, value });
                }
                Step::Request { queue, entries, descriptors, .. } => {
                    let id = entries.first().map_or(0, |first| self.id(first));
                    for entry in &entries {
                        let index = write(End::Frontend, queue, 1);
                        events.push(Event::Request { queue, index, bytes: trimmed(entry) });
                    }
                    events.extend(descriptors.map(|bytes| Event::Descriptors { queue, id, bytes }));
                }
                Step::Answer { queue, to, response } => {
                    let (entries, vague) = to.and_then(|to| self.request(to)).unwrap_or((1, None));
                    let index = write(End::Backend, queue, entries);
                    events.push(Event::Answer { queue, index, bytes: trimmed(&response.emit()) });
                    let id = response.id;
                    events.extend(vague.map(|(cause, text)| Event::Failed { queue, id, cause, text }));
                }
                Step::Publish { by, queue, beyond } => {
                    let index = write(by, queue, 0).wrapping_add_signed(beyond);
                    events.push(Event::Published { by, queue, index });
                }
                Step::Signal { queue, .. } => events.push(Event::Signalled { queue }),
            }
        }
        let events = states_first(events, self.header.end.peer());
        let line = |(at, event)| Line { at, device: self.device.clone(), event };
        Recording { header: self.header.clone(), entries: (0..).zip(events).map(line).collect() }
    }

    /// The first `count` steps, with what they have written published.
    #[must_use]
    pub fn until(&self, count: usize) -> Self {
        let mut script = Self { steps: self.steps.iter().take(count).cloned().collect(), ..self.clone() };
        for queue in 0..keys::MAX_QUEUES {
            for by in [End::Frontend, End::Backend] {
                script.steps.push(Step::Publish { by, queue, beyond: 0 });
            }
        }
        script.without_empty_publications()
    }

    /// The same, where nothing is published that was published already.
    #[must_use]
    pub fn without_empty_publications(mut self) -> Self {
        let mut written = HashSet::new();
        self.steps.retain(|step| match *step {
            Step::Request { queue, .. } => {
                written.insert((End::Frontend, queue));
                true
            }
            Step::Answer { queue, .. } => {
                written.insert((End::Backend, queue));
                true
            }
            Step::Publish { by, queue, beyond } => written.remove(&(by, queue)) || beyond != 0,
            _ => true,
        });
        self
    }

    /// The values that nodes of `end` had first.
    pub fn first_nodes(&self, end: End) -> BTreeMap<String, String> {
        let mut nodes = BTreeMap::new();
        for step in &self.steps {
            if let Step::Node { of, key, value: Some(value) } = step
                && *of == end
            {
                nodes.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        nodes
    }

    /// How many requests there are.
    pub fn requests(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Request { .. })).count()
    }

    fn id(&self, first: &Entry) -> u64 {
        let nodes = |end| self.first_nodes(end);
        limits(&nodes(End::Backend), &nodes(End::Frontend)).map_or(0, |limits| Head::parse(first, &limits).id)
    }

    /// Entries of a request, and why it failed.
    fn request(&self, wanted: usize) -> Option<(u32, Option<(String, String)>)> {
        self.steps.iter().find_map(|step| match step {
            Step::Request { number, entries, vague, .. } if *number == wanted => {
                Some((entries.len() as u32, vague.clone()))
            }
            _ => None,
        })
    }
}

/// What a request asks for, for people.
pub(super) fn describe(entries: &[Entry], limits: &Limits) -> String {
    let Some(first) = entries.first() else { return "nothing".into() };
    let head = Head::parse(first, limits);
    let at = if limits.abi == blkif_proto::Abi::X86_32 { 12 } else { 16 };
    let mut sector = [0; 8];
    sector.copy_from_slice(&first[at..at + 8]);
    let sector = u64::from_le_bytes(sector);
    match head.opcode {
        Opcode::INDIRECT => {
            let segments = u16::from_le_bytes([first[2], first[3]]);
            format!("{} {} of {segments} segments at sector {sector}", head.opcode, head.answer_op)
        }
        Opcode::DISCARD => format!("{} at sector {sector}", head.opcode),
        _ => format!("{} of {} segments at sector {sector}", head.opcode, first[1]),
    }
}

/// What both ends' nodes allow a request to be; none where they make no connection.
pub(super) fn limits(
    backend: &BTreeMap<String, String>,
    frontend: &BTreeMap<String, String>,
) -> Option<Limits> {
    let offered = BackendFeatures::parse(|key| backend.get(key)).ok()?;
    let record = FrontendRecord::parse(|key| frontend.get(key), &offered).ok()?;
    let agreement = Agreement::between(&offered.capacity(), &record.capacity(), record.abi);
    let unknown = BackendDisk {
        sectors: 1 << 40,
        sector_size: 512,
        physical_sector_size: 512,
        info: DiskInfo::empty(),
    };
    let disk = BackendDisk::parse(|key| backend.get(key)).unwrap_or(unknown);
    Some(agreement.limits(&disk, offered.operations))
}

/// True where the frontend tells of fresh rings.
pub(super) fn is_connecting(step: &Step) -> bool {
    matches!(step, Step::Node { of: End::Frontend, key, value: Some(_) } if key.ends_with(keys::EVENT_CHANNEL))
}

/// The nodes that `peer` wrote before a state are read after it: brings them back into their order. A node that changes once more is
/// none of those.
fn states_last(events: Vec<Event>, peer: End) -> Vec<Event> {
    let mut ordered: Vec<Event> = Vec::new();
    // Where the last state of the peer stands, until something passes a ring, and what was read since.
    let (mut state, mut since) = (None, HashSet::new());
    for event in events {
        match (&event, &mut state) {
            (Event::Node { of, key, .. }, _) if *of == peer && key == keys::STATE => {
                state = Some(ordered.len());
                since.clear();
                ordered.push(event);
            }
            (Event::Node { of, key, .. }, Some(at)) if *of == peer && since.insert(key.clone()) => {
                ordered.insert(*at, event);
                *at += 1;
            }
            (Event::Node { .. }, _) => ordered.push(event),
            _ => {
                state = None;
                ordered.push(event);
            }
        }
    }
    ordered
}

/// The reverse: as they are read.
fn states_first(events: Vec<Event>, peer: End) -> Vec<Event> {
    let (mut ordered, mut before) = (Vec::new(), Vec::new());
    for event in events {
        match &event {
            Event::Node { of, key, .. } if *of == peer && key == keys::STATE => {
                ordered.push(event);
                ordered.append(&mut before);
            }
            Event::Node { of, .. } if *of == peer => before.push(event),
            Event::Node { .. } => ordered.push(event),
            _ => {
                ordered.append(&mut before);
                ordered.push(event);
            }
        }
    }
    ordered.append(&mut before);
    ordered
}

/// One queue between two connections.
#[derive(Default)]
struct Ring {
    /// Entries of requests that are read or written later, with their indices, and answers.
    slots: VecDeque<(u32, Entry)>,
    answers: VecDeque<Response>,
    /// Entries since the ring was new, and what their index is ahead of that.
    pushed: u32,
    base: Option<u32>,
    answered: u32,
    outstanding: HashMap<u64, VecDeque<usize>>,
    last: HashMap<u64, usize>,
}

/// Turns events into steps.
struct Reader {
    end: End,
    /// Rings of all connections, in order; those of the present one are first.
    rings: VecDeque<HashMap<u32, Ring>>,
    /// Descriptors by queue and id, in order.
    descriptors: HashMap<(u32, u64), VecDeque<Vec<u8>>>,
    backend: BTreeMap<String, String>,
    frontend: BTreeMap<String, String>,
    connected: bool,
    requests: usize,
    steps: Vec<Step>,
}

impl Reader {
    fn new(end: End, events: &[Event]) -> Self {
        let mut rings = VecDeque::from([HashMap::<u32, Ring>::new()]);
        let mut descriptors: HashMap<_, VecDeque<_>> = HashMap::new();
        let mut fresh = true;
        for event in events {
            match event {
                Event::Node { of: End::Frontend, key, value: Some(_) }
                    if key.ends_with(keys::EVENT_CHANNEL) && !fresh =>
                {
                    rings.push_back(HashMap::new());
                    fresh = true;
                }
                Event::Request { queue, index, bytes } => {
                    fresh = false;
                    if let Some(rings) = rings.back_mut() {
                        let slots = &mut rings.entry(*queue).or_default().slots;
                        slots.push_back((*index, padded(bytes)));
                    }
                }
                Event::Descriptors { queue, id, bytes } => {
                    descriptors.entry((*queue, *id)).or_default().push_back(bytes.clone());
                }
                Event::Answer { queue, bytes, .. } => {
                    fresh = false;
                    if let Some(rings) = rings.back_mut() {
                        let answers = &mut rings.entry(*queue).or_default().answers;
                        answers.push_back(Response::parse(&padded(bytes)));
                    }
                }
                Event::Published { .. } => fresh = false,
                _ => {}
            }
        }
        let (backend, frontend) = (BTreeMap::new(), BTreeMap::new());
        Self { end, rings, descriptors, backend, frontend, connected: false, requests: 0, steps: Vec::new() }
    }

    fn read(&mut self, event: &Event) {
        match event.clone() {
            Event::Node { of, key, value } => self.node(of, key, value),
            Event::Published { by: End::Frontend, queue, index } => self.frontend_published(queue, index),
            Event::Published { by: End::Backend, queue, index } => self.backend_published(queue, index),
            Event::Failed { queue, id, cause, text } if cause != "refused" => {
                let failed = self.ring(queue).and_then(|ring| ring.last.get(&id).copied());
                for step in &mut self.steps {
                    if let Step::Request { number, vague, .. } = step
                        && Some(*number) == failed
                    {
                        *vague = Some((cause.clone(), text.clone()));
                    }
                }
            }
            Event::Signalled { queue } => self.steps.push(Step::Signal { by: self.end.peer(), queue }),
            Event::Request { .. }
            | Event::Answer { .. }
            | Event::Descriptors { .. }
            | Event::Failed { .. } => {}
            Event::Full {} => {}
        }
    }

    fn node(&mut self, of: End, key: String, value: Option<String>) {
        let nodes = match of {
            End::Frontend => &mut self.frontend,
            End::Backend => &mut self.backend,
        };
        match &value {
            Some(value) => nodes.insert(key.clone(), value.clone()),
            None => nodes.remove(&key),
        };
        let step = Step::Node { of, key, value };
        if is_connecting(&step) && self.connected {
            self.connected = false;
            self.rings.pop_front();
        }
        self.steps.push(step);
    }

    /// All that is published up to `index` is written now, whenever it was read.
    fn frontend_published(&mut self, queue: u32, index: u32) {
        self.connected = true;
        let Some(limits) = limits(&self.backend, &self.frontend) else { return };
        let pages = FrontendRecord::parse(
            |key| self.frontend.get(key),
            &BackendFeatures::parse(|key| self.backend.get(key)).unwrap_or(BackendFeatures::ORIGINAL),
        );
        let size = limits.abi.ring_entries(pages.map_or(1, |record| record.ring_pages() as u32));
        let Self { rings, steps, descriptors, requests, .. } = self;
        let Some(ring) = rings.front_mut().map(|rings| rings.entry(queue).or_default()) else { return };
        let base = *ring.base.get_or_insert_with(|| ring.slots.front().map_or(index, |(first, _)| *first));
        let wanted = index.wrapping_sub(base);
        // Where the ring has no room for so many, none of it was believed.
        let believed = wanted.wrapping_sub(ring.answered) <= size;
        let before = steps.len();
        while believed && ring.pushed < wanted {
            let Some((_, first)) = ring.slots.pop_front() else { break };
            let head = Head::parse(&first, &limits);
            let mut entries = vec![first];
            while entries.len() < head.entries as usize && ring.pushed + (entries.len() as u32) < wanted {
                let Some((_, entry)) = ring.slots.pop_front() else { break };
                entries.push(entry);
            }
            ring.pushed += entries.len() as u32;
            let indirect = head.opcode == Opcode::INDIRECT;
            let descriptors = descriptors.get_mut(&(queue, head.id)).filter(|_| indirect);
            let descriptors = descriptors.and_then(VecDeque::pop_front);
            ring.outstanding.entry(head.id).or_default().push_back(*requests);
            ring.last.insert(head.id, *requests);
            steps.push(Step::Request { queue, number: *requests, entries, descriptors, vague: None });
            *requests += 1;
        }
        // What was never read may be anything; it is left out.
        let beyond = if believed && ring.pushed <= wanted {
            0
        } else {
            wanted.wrapping_sub(ring.pushed).cast_signed()
        };
        if beyond != 0 || steps.len() > before {
            steps.push(Step::Publish { by: End::Frontend, queue, beyond });
        }
    }

    /// The same of answers.
    fn backend_published(&mut self, queue: u32, index: u32) {
        self.connected = true;
        let Self { rings, steps, .. } = self;
        let Some(ring) = rings.front_mut().map(|rings| rings.entry(queue).or_default()) else { return };
        let base = *ring.base.get_or_insert(index);
        let wanted = index.wrapping_sub(base);
        let before = steps.len();
        while wanted.wrapping_sub(ring.answered).cast_signed() > 0 {
            let Some(response) = ring.answers.pop_front() else { break };
            let to = ring.outstanding.get_mut(&response.id).and_then(VecDeque::pop_front);
            let entries = steps.iter().rev().find_map(|step| match step {
                Step::Request { number, entries, .. } if Some(*number) == to => Some(entries.len() as u32),
                _ => None,
            });
            ring.answered += entries.unwrap_or(1);
            if let Some(to) = to {
                ring.last.insert(response.id, to);
            }
            steps.push(Step::Answer { queue, to, response });
        }
        let beyond = wanted.wrapping_sub(ring.answered).cast_signed();
        if beyond != 0 || steps.len() > before {
            steps.push(Step::Publish { by: End::Backend, queue, beyond });
        }
    }

    fn ring(&mut self, queue: u32) -> Option<&mut Ring> {
        self.rings.front_mut().map(|rings| rings.entry(queue).or_default())
    }
}

fn padded(bytes: &[u8]) -> Entry {
    let mut entry = [0; MAX_ENTRY_SIZE];
    entry.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    entry
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}

/// A state out of a node's value.
pub(super) fn state_of(step: &Step) -> Option<(End, State)> {
    match step {
        Step::Node { of, key, value } if key == keys::STATE => Some((*of, State::of_node(value.as_deref()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
