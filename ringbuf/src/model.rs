//! Both ends, step by step against a model that anyone can check by eye: queues of messages, and counters of 64 bits
//! that never wrap.

use crate::{BackRing, FrontRing, Index, Notify, RingMem};
use proptest::prelude::*;
use std::collections::VecDeque;

/// One call on one end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The frontend pushes a request of this many entries, if there is room.
    Push(u32),
    PublishRequests,
    Abort,
    /// The backend reads and consumes this many requests, or as many as there are.
    Take(usize),
    /// The backend answers the request that has this place (modulo their number) among those it holds.
    Answer(usize),
    PublishResponses,
    /// The frontend reads and consumes this many responses, or as many as there are.
    Collect(usize),
    ArmBack,
    ArmFront(u32),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop_oneof![4 => Just(1), 1 => 2..=19u32].prop_map(Step::Push),
        3 => Just(Step::PublishRequests),
        1 => Just(Step::Abort),
        3 => (1..40usize).prop_map(Step::Take),
        5 => any::<usize>().prop_map(Step::Answer),
        3 => Just(Step::PublishResponses),
        3 => (1..40usize).prop_map(Step::Collect),
        1 => Just(Step::ArmBack),
        1 => prop_oneof![Just(1), 1..64u32, Just(u32::MAX)].prop_map(Step::ArmFront),
    ];
    prop::collection::vec(step, 1..400)
}

/// Plays `steps` with two correct ends over memory they share, from index `start`.
pub(crate) fn check<M: RingMem>(front: M, back: M, start: u32, steps: &[Step]) {
    let mut world = World::new(front, back, start);
    for step in steps {
        world.play(step);
        world.check_counters();
    }
}

/// A request in the model: its number, and its length in entries.
type Message = (u64, u32);

/// One direction in the model.
#[derive(Default)]
struct Queue {
    /// Written, not published.
    staged: VecDeque<Message>,
    /// Published, not consumed.
    visible: VecDeque<Message>,
    /// Entries published since the dawn of time.
    published: u64,
    /// The consumer wants to hear when `published` reaches this.
    event: u64,
    /// The consumer relies on being notified.
    asleep: bool,
}

impl Queue {
    fn new(start: u64) -> Self {
        Self { published: start, event: start + 1, asleep: true, ..Self::default() }
    }

    /// Publishes what is staged; `notify` is what the ring said to that.
    fn publish(&mut self, notify: Notify) {
        let old = self.published;
        self.published += u64::from(entries(&self.staged));
        self.visible.append(&mut self.staged);
        let due = old < self.event && self.event <= self.published;
        if self.asleep {
            assert_eq!(notify.is_needed(), due);
        } else {
            assert!(due || !notify.is_needed(), "a notification that nobody asked for");
        }
    }

    /// Arms; true if `after` entries are there already, in which case the consumer stays awake and asks for nothing.
    fn arm(&mut self, after: u32) -> bool {
        let ready = entries(&self.visible);
        self.asleep = ready < after;
        if self.asleep {
            self.event = self.published - u64::from(ready) + u64::from(after);
        }
        ready >= after
    }
}

fn entries<'a>(messages: impl IntoIterator<Item = &'a Message>) -> u32 {
    messages.into_iter().map(|(_, entries)| entries).sum()
}

struct World<M> {
    front: FrontRing<M>,
    back: BackRing<M>,
    requests: Queue,
    responses: Queue,
    /// Consumed by the backend, not answered.
    held: Vec<Message>,
    pushed: u64,
}

impl<M: RingMem> World<M> {
    fn new(front: M, back: M, start: u32) -> Self {
        let front = FrontRing::init_at(front, Index::new(start));
        let back = BackRing::attach(back).unwrap();
        let (requests, responses) = (Queue::new(start.into()), Queue::new(start.into()));
        Self { front, back, requests, responses, held: Vec::new(), pushed: 0 }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Push(entries) => self.push(entries),
            Step::PublishRequests => {
                self.requests.publish(self.front.publish());
            }
            Step::Abort => {
                self.front.abort();
                self.requests.staged.clear();
            }
            Step::Take(count) => (0..count).for_each(|_| self.take()),
            Step::Answer(which) => self.answer(which),
            Step::PublishResponses => {
                self.responses.publish(self.back.publish());
            }
            Step::Collect(count) => (0..count).for_each(|_| self.collect()),
            Step::ArmBack => {
                let expected = self.requests.arm(1);
                assert_eq!(self.back.arm(), Ok(expected));
            }
            Step::ArmFront(after) => {
                let after = after.min(self.front.in_flight()).max(1);
                let expected = self.responses.arm(after);
                assert_eq!(self.front.arm_after(after), Ok(expected));
            }
        }
    }

    fn push(&mut self, entries: u32) {
        let entry = |part| pattern(self.pushed, part, self.front.layout().entry_size());
        if self.front.free() < entries {
            if self.front.free() == 0 {
                assert!(self.front.push(&entry(0)).is_err());
            }
            return;
        }
        let parts: Vec<_> = (0..entries).map(entry).collect();
        for part in parts {
            self.front.push(&part).unwrap();
        }
        self.requests.staged.push_back((self.pushed, entries));
        self.pushed += 1;
    }

    fn take(&mut self) {
        let available = self.back.available().unwrap();
        assert!(available <= entries(&self.requests.visible));
        let Some((number, entries)) = self.requests.visible.pop_front() else {
            assert_eq!(available, 0);
            return;
        };
        assert!(available > 0);
        let size = self.back.layout().entry_size();
        let mut read = vec![0; size];
        for part in 0..entries {
            self.back.read(part, &mut read).unwrap();
            assert_eq!(read, pattern(number, part, size), "entry {part} of request {number}");
        }
        self.back.consume(entries).unwrap();
        self.held.push((number, entries));
    }

    fn answer(&mut self, which: usize) {
        if self.held.is_empty() {
            assert!(self.back.respond(&[0; 16], 1).is_err());
            return;
        }
        let (number, entries) = self.held.swap_remove(which % self.held.len());
        self.back.respond(&pattern(number, 99, 16), entries).unwrap();
        self.responses.staged.push_back((number, entries));
    }

    fn collect(&mut self) {
        let mut read = [0; 16];
        let found = self.front.peek(&mut read).unwrap();
        let Some((number, entries)) = self.responses.visible.pop_front() else {
            assert!(!found);
            return;
        };
        assert!(found);
        assert_eq!(read[..], pattern(number, 99, 16), "response to request {number}");
        self.front.consume(entries).unwrap();
    }

    fn check_counters(&self) {
        let staged = entries(&self.requests.staged);
        let unpublished = entries(&self.responses.staged);
        let held = entries(&self.held);
        let in_flight =
            entries(&self.requests.visible) + held + unpublished + entries(&self.responses.visible);
        assert_eq!(self.front.pushed(), staged);
        assert_eq!(self.front.in_flight(), in_flight);
        assert_eq!(self.front.free(), self.front.layout().entries() - staged - in_flight);
        assert_eq!(self.back.unanswered(), held);
        assert_eq!(self.back.responded().since(self.back.published()), unpublished);
        assert_eq!(self.back.consumed().since(self.back.published()), held + unpublished);
    }
}

/// Bytes that differ between any two requests, their parts, and their places in the entry.
fn pattern(number: u64, part: u32, size: usize) -> Vec<u8> {
    let seed = (number.wrapping_mul(37) + u64::from(part) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..size).map(|place| seed.to_le_bytes()[place % 8] ^ place.to_le_bytes()[0]).collect()
}

#[cfg(test)]
mod tests;
