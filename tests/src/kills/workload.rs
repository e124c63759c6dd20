//! One guest: keeps its rings full of random requests, and checks all answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blkif_proto::{Opcode, Response, Segment, Status, segment_block};
use xen_platform::{Access, Pages, sim};

use super::{
    Shape, Shared,
    model::{BYTES, CHUNK, CHUNKS, Model},
};
use crate::conformance::rig::{Connection, Guest, Raw, bytes, noise, whole};

/// A guest at work.
pub(super) struct Workload {
    shape: Shape,
    connection: Connection<sim::World>,
    // Its nodes and its domain last as long as it.
    _guest: Guest<sim::World>,
    model: Model,
    random: u64,
    shared: Arc<Shared>,
    /// Of each queue, by number: later ones are greater.
    under_way: Vec<BTreeMap<u64, Request>>,
    next: u64,
    idle_since: Instant,
    /// The daemon whose first answer has been seen, by when it was started; of each queue.
    met: Vec<u64>,
    done: Done,
}

/// What a guest tells at the end.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) requests: u64,
    pub(super) pauses: Vec<Duration>,
    /// What is on its disk.
    pub(super) model: Model,
}

struct Request {
    op: Opcode,
    chunk: Option<usize>,
    /// Bytes from the disk's start.
    at: usize,
    data: Pages,
    length: usize,
    descriptors: Option<Pages>,
    entries: u32,
}

/// A guest that is not answered for so long notices.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests under way in a queue at most.
const DEPTH: usize = 24;

impl Workload {
    /// Connects the guest.
    pub(super) fn new(
        shape: Shape,
        mut guest: Guest<sim::World>,
        seed: u64,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let connection = guest.connect(&shape.wish()).context(shape.name)?;
        let queues = connection.queues.len();
        Ok(Self {
            shape,
            connection,
            _guest: guest,
            model: Model::new(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            shared,
            under_way: (0..queues).map(|_| BTreeMap::new()).collect(),
            next: 1,
            idle_since: Instant::now(),
            met: vec![0; queues],
            done: Done::default(),
        })
    }

    /// Works until it is over. Errors: what it noticed.
    pub(super) fn run(mut self) -> Result<Done> {
        let outcome = self.work();
        if outcome.is_err() {
            self.shared.failed.store(true, SeqCst);
        }
        outcome.map(|()| Done { model: self.model, ..self.done })
    }

    fn work(&mut self) -> Result<()> {
        loop {
            let over = self.shared.over.load(SeqCst);
            if over && self.under_way.iter().all(BTreeMap::is_empty) {
                break;
            }
            let mut answered = false;
            for queue in 0..self.under_way.len() {
                if !over {
                    self.fill(queue)?;
                }
                answered |= self.take(queue)?;
            }
            if answered {
                self.idle_since = Instant::now();
            } else {
                ensure!(self.idle_since.elapsed() < PATIENCE, "no answer within {PATIENCE:?}");
                // So that it is notified, too.
                for queue in &mut self.connection.queues {
                    queue.ring.arm()?;
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    fn random(&mut self, below: usize) -> usize {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }

    /// Sends some requests.
    fn fill(&mut self, queue: usize) -> Result<()> {
        for _ in 0..self.random(8) {
            let entries =
                if self.shape.blocks { segment_block::entries_for(self.shape.most as usize) } else { 1 };
            if self.under_way[queue].len() >= DEPTH || self.connection.queues[queue].ring.free() < entries {
                break;
            }
            self.send(queue)?;
        }
        let queue = &mut self.connection.queues[queue];
        if queue.ring.publish().is_needed() {
            queue.ring_bell()?;
        }
        Ok(())
    }

    fn send(&mut self, queue: usize) -> Result<()> {
        let first = self.random(CHUNKS);
        let op = match self.random(16) {
            0 => Opcode::FLUSH,
            1 if self.shape.barriers => Opcode::WRITE_BARRIER,
            2..=6 => Opcode::READ,
            _ => Opcode::WRITE,
        };
        let chunk = if op == Opcode::FLUSH { None } else { self.model.take(first) };
        if chunk.is_none() && op != Opcode::FLUSH {
            return Ok(());
        }
        let id = self.next;
        self.next += 1;
        let pages = if chunk.is_some() { 1 + self.random(self.shape.most as usize) } else { 0 };
        let at = chunk.unwrap_or(0) * CHUNK + 512 * self.random((CHUNK - pages * 4096) / 512 + 1);
        debug_assert!(at + pages * 4096 <= BYTES);
        let (content, access) = match op {
            Opcode::READ => (vec![0xEE; pages * 4096], Access::ReadWrite),
            _ => (noise(id, pages * 4096), self.connection.access_to_write()),
        };
        let data = self.connection.lend(&content, access)?;
        let segments: Vec<Segment> = if pages > 0 { whole(&data) } else { Vec::new() };
        let sector = (at / 512) as u64;
        let mut descriptors = None;
        let direct = self.shape.blocks || pages <= 11 || op == Opcode::WRITE_BARRIER;
        let segments = if op == Opcode::WRITE_BARRIER && !self.shape.blocks {
            &segments[..pages.min(11)]
        } else {
            &segments[..]
        };
        let raw = if direct {
            Raw::data(op, id, sector, segments)
        } else {
            let described = self.connection.describe(segments)?;
            let raw = Raw::indirect(op, id, sector, u16::try_from(pages)?, described.grants());
            descriptors = Some(described);
            raw
        };
        let entries = raw.entries(self.shape.abi);
        self.connection.queues[queue].push(&entries)?;
        let request = Request {
            op,
            chunk,
            at,
            data,
            length: segments.len() * 4096,
            descriptors,
            entries: u32::try_from(entries.len())?,
        };
        self.under_way[queue].insert(id, request);
        Ok(())
    }

    /// Takes what was answered. True if anything was.
    fn take(&mut self, queue: usize) -> Result<bool> {
        let mut entry = [0; _];
        let mut answered = false;
        while self.connection.queues[queue].ring.peek(&mut entry)? {
            let answer = Response::parse(&entry);
            let request = self.under_way[queue].remove(&answer.id);
            let request = request
                .with_context(|| format!("queue {queue}: an answer to nothing, or the second: {answer:?}"))?;
            self.connection.queues[queue].ring.consume(request.entries)?;
            self.check(queue, &answer, request)
                .with_context(|| format!("queue {queue}, request {}", answer.id))?;
            answered = true;
        }
        if answered {
            let started = self.shared.started.load(SeqCst);
            if std::mem::replace(&mut self.met[queue], started) != started {
                self.done
                    .pauses
                    .push(self.shared.begin.elapsed().saturating_sub(Duration::from_nanos(started)));
            }
        }
        Ok(answered)
    }

    fn check(&mut self, queue: usize, answer: &Response, request: Request) -> Result<()> {
        let Request { op, chunk, at, data, length, descriptors, .. } = request;
        ensure!(answer.status == Status::OKAY, "{op}: {answer:?}");
        ensure!(answer.op == op, "{op}: {answer:?}");
        let mut earlier = self.under_way[queue].range(..answer.id);
        if op == Opcode::WRITE_BARRIER {
            ensure!(earlier.next().is_none(), "a barrier was answered before what it is behind");
        } else {
            ensure!(
                !earlier.any(|(_, other)| other.op == Opcode::WRITE_BARRIER),
                "answered before the barrier ahead of it"
            );
        }
        let content = &bytes(&data)[..length];
        match op {
            Opcode::READ => {
                if let Some(at) = self.model.differs(at, content) {
                    bail!("byte {at} was read wrong");
                }
            }
            Opcode::FLUSH => {}
            _ => self.model.write(at, content),
        }
        self.connection.take_back(data)?;
        if let Some(described) = descriptors {
            self.connection.take_back(described)?;
        }
        if let Some(chunk) = chunk {
            self.model.release(chunk);
        }
        self.done.requests += 1;
        Ok(())
    }
}
