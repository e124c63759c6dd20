//! A program in the guest that reads and writes through `blkfront`.

use std::{os::fd::AsFd as _, sync::mpsc};

use blkfront::{Completion, Config, Device, DeviceEvent, Frontend, Io, IoError, Operation, Prepared, Queue};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xen_platform::fake;

use super::ledger::{CHUNK, CHUNKS, Ledger, Sent};
use crate::{
    chance::Chance,
    disk::{Shared, lock},
};

/// One that has offered its rings and waits for the backend.
pub(crate) struct Waiting {
    world: fake::World,
    prepared: Prepared<fake::World>,
}

impl Waiting {
    /// Begins with a backend that waits for somebody.
    pub(crate) fn begin(world: fake::World, path: &str, config: Config) -> Self {
        let frontend = Frontend::probe(world.clone(), path).unwrap();
        let prepared = frontend.configure(config).unwrap().set_up_queues().unwrap();
        Self { world, prepared }
    }

    /// Goes on: the backend has connected.
    pub(crate) fn start(self) -> Application {
        let (device, queues) = self.prepared.start().unwrap();
        Application { world: self.world, device, queues: queues.into_iter().map(Line::new).collect() }
    }
}

/// One that does I/O.
pub(crate) struct Application {
    world: fake::World,
    device: Device<fake::World>,
    queues: Vec<Line>,
}

/// A queue, and what is under way on it in the order in which it was submitted.
struct Line {
    queue: Queue<fake::World>,
    under_way: Vec<Sent>,
    /// What the queue's callback was given.
    ended: mpsc::Receiver<Completion>,
}

impl Application {
    /// Requests without an answer.
    pub(crate) fn under_way(&self) -> usize {
        self.queues.iter().map(|line| line.under_way.len()).sum()
    }

    /// Submits one request, if there is room for it.
    pub(crate) fn submit(&mut self, ledger: &mut Ledger, chance: &mut Chance) -> bool {
        let index = chance.pick(self.queues.len());
        let line = &mut self.queues[index];
        let can = self.device.capabilities();
        let op = match chance.pick(12) {
            0 if can.flush => Operation::Flush,
            1 if can.barrier => Operation::WriteBarrier,
            2..=5 => Operation::Read,
            _ => Operation::Write,
        };
        if line.under_way.len() == line.queue.depth() {
            return false;
        }
        if op == Operation::Flush {
            let sent = ledger.send(op, None, 0, 0);
            line.queue.submit(Io::flush().cookie(sent.id)).unwrap();
            line.under_way.push(sent);
            return true;
        }
        let Some(chunk) = ledger.free_chunk(chance.pick(CHUNKS)) else { return false };
        let most = chance.one_of(&[8, 8, 32, CHUNK / 512]);
        let bytes = 512 * (1 + chance.pick(most));
        let at = chunk * CHUNK + 512 * chance.pick((CHUNK - bytes) / 512 + 1);
        let offset = 512 * chance.pick(8);
        let buffer = line.queue.alloc_buffer(offset + bytes).unwrap();
        let sent = ledger.send(op, Some(chunk), at, bytes);
        let sector = (at / 512) as u64;
        let io = match op {
            Operation::Read => Io::read(sector, buffer),
            Operation::Write => Io::write(sector, buffer),
            _ => Io::write_barrier(sector, buffer),
        };
        if op != Operation::Read {
            io.buffer.as_ref().unwrap().write(offset, &sent.data);
        }
        let io = io.part(offset as u32, bytes as u32).cookie(sent.id);
        line.queue.submit(io).unwrap();
        line.under_way.push(sent);
        true
    }

    /// Shows the backend what was submitted.
    pub(crate) fn publish(&mut self) {
        self.queues.iter_mut().for_each(|line| line.queue.publish().unwrap());
    }

    /// Looks at every ring that had an event, or at all. Returns how many requests ended.
    pub(crate) fn look(&mut self, at_all: bool, ledger: &mut Ledger, disk: &Shared) -> usize {
        self.queues.iter_mut().map(|line| line.look(at_all, ledger, disk)).sum()
    }

    /// Follows the backend's states. Returns what happened.
    pub(crate) fn control(&mut self) -> Option<String> {
        let event = self.device.poll_control().unwrap()?;
        let told = format!("{event:?}: {}", self.device.negotiated());
        if let DeviceEvent::Reconnected(links) = event {
            for link in links {
                let line = &mut self.queues[link.index() as usize];
                line.queue.reconnect(link).unwrap();
                line.queue.publish().unwrap();
                if line.queue.enable_callback().unwrap() {
                    line.queue.dispatch().unwrap();
                }
            }
        }
        Some(told)
    }

    /// The guest's kernel dies with it. Returns what was lost.
    pub(crate) fn crash(self) -> Vec<Sent> {
        self.world.crash();
        self.queues.into_iter().flat_map(|line| line.under_way).collect()
    }
}

impl Line {
    fn new(mut queue: Queue<fake::World>) -> Self {
        let (end, ended) = mpsc::channel();
        queue.set_callback(move |completion| _ = end.send(completion));
        assert!(!queue.enable_callback().unwrap(), "nothing was submitted");
        Self { queue, under_way: Vec::new(), ended }
    }

    fn look(&mut self, at_all: bool, ledger: &mut Ledger, disk: &Shared) -> usize {
        let mut ended = Vec::new();
        if at_all {
            self.queue.finish(&mut |completion| ended.push(completion)).unwrap();
        }
        if self.is_woken() {
            self.queue.dispatch().unwrap();
        }
        ended.extend(self.ended.try_iter());
        let count = ended.len();
        ended.into_iter().for_each(|completion| self.settle(completion, ledger, disk));
        // What had no room before may have some now.
        self.queue.publish().unwrap();
        count
    }

    /// True when an event has come.
    fn is_woken(&self) -> bool {
        let mut bell = [PollFd::new(self.queue.events().as_fd(), PollFlags::POLLIN)];
        poll(&mut bell, PollTimeout::ZERO).unwrap() == 1
    }

    fn settle(&mut self, completion: Completion, ledger: &mut Ledger, disk: &Shared) {
        let Completion { io, result, .. } = completion;
        let place = self.under_way.iter().position(|sent| sent.id == io.cookie);
        let place = place.unwrap_or_else(|| panic!("request {} ended twice", io.cookie));
        let barrier = |sent: &Sent| sent.op == Operation::WriteBarrier;
        if barrier(&self.under_way[place]) {
            assert_eq!(place, 0, "a barrier ended before what it is behind");
        } else {
            assert!(!self.under_way[..place].iter().any(barrier), "{} overtook a barrier", io.cookie);
        }
        let sent = self.under_way.remove(place);
        assert_eq!(io.op, sent.op);
        assert!(matches!(result, Ok(()) | Err(IoError::Failed)), "{result:?}");
        let mut read = Vec::new();
        if let Some(buffer) = &io.buffer
            && sent.op == Operation::Read
        {
            read.resize(sent.data.len(), 0);
            buffer.read(io.offset as usize, &mut read);
        }
        ledger.settle(&sent, result.is_ok(), &read, &lock(disk));
        if let Some(buffer) = io.buffer {
            self.queue.free_buffer(buffer);
        }
    }
}
