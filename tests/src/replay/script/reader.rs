//! From what one end saw, one event after the other, to what both did.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use blkif_observe::recording::{End, Event};
use blkif_proto::{
    Entry, Head, MAX_ENTRY_SIZE, Opcode, Response,
    keys::{self, BackendFeatures, FrontendRecord},
};

use super::{Step, is_connecting, limits};

/// The steps of a device whose recording is by `end`.
pub(super) fn steps(end: End, events: Vec<Event>) -> Vec<Step> {
    let events = states_last(events, end.peer());
    let mut reader = Reader::new(end, &events);
    events.iter().for_each(|event| reader.read(event));
    reader.steps
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
