//! A recording as steps that can be played, left out and written down again.

mod reader;

use std::collections::{BTreeMap, HashMap, HashSet};

use blkif_observe::recording::{End, Entry as Line, Event, Header, Recording};
use blkif_proto::{
    Agreement, Entry, Head, Limits, Opcode, Response,
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
        let steps = reader::steps(recording.header.end, lines.map(|line| line.event.clone()).collect());
        Self { header: recording.header.clone(), device: device.to_owned(), steps }
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
