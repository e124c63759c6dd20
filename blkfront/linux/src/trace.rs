//! Requests with the times at which they came to each stage, for a trace: told of by the queues as [taps](Tap).

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blkif_observe::trace::{End, Name, Request, Trace};
use blkif_proto::{Abi, Opcode};
use nix::time::{ClockId, clock_gettime};
use ringbuf::{Field, Index, Tap};

/// Most requests of a trace, so that it can be opened.
const MOST: usize = 1 << 16;

/// A trace under way, of all queues.
#[derive(Debug)]
pub(crate) struct Tracer {
    device: String,
    abi: Abi,
    done: Mutex<Vec<Request>>,
    file: File,
}

impl Tracer {
    /// Traces the requests of a device, as recordings name it, into a file.
    pub(crate) fn create(path: &Path, device: &str, abi: Abi) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Arc::new(Self { device: device.to_owned(), abi, done: Mutex::default(), file }))
    }

    /// The part of one queue.
    pub(crate) fn tap(self: &Arc<Self>, queue: u32) -> QueueTracer {
        QueueTracer { tracer: Arc::clone(self), queue, state: Mutex::default() }
    }

    /// Writes what has been answered.
    pub(crate) fn write(&self) -> io::Result<()> {
        let requests = std::mem::take(&mut *lock(&self.done));
        Trace { requests }.write(&mut BufWriter::new(&self.file))
    }
}

/// One queue's.
#[derive(Debug)]
pub(crate) struct QueueTracer {
    tracer: Arc<Tracer>,
    queue: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Accepted I/Os by their own ids, and those of their requests.
    ios: HashMap<u64, Io>,
    /// The one that requests are being made of, and the last request.
    present: (u64, u64),
    /// By the ids in the ring.
    requests: HashMap<u64, Open>,
    unpublished: Vec<u64>,
}

#[derive(Debug, Default)]
struct Io {
    submit: u64,
    lend: u64,
    admit: u64,
    requests: Vec<u64>,
}

/// A request in the ring.
#[derive(Debug, Default)]
struct Open {
    /// None before its entry is written.
    op: Option<u8>,
    sector: u64,
    /// Segments whose lengths are not known yet.
    left: usize,
    bytes: u64,
    entered: u64,
    published: u64,
    answered: u64,
    status: i16,
}

impl QueueTracer {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// All requests of an I/O are answered, and the application knows.
    fn end(&self, io: u64) {
        let mut state = self.lock();
        let Some(Io { submit, lend, admit, requests }) = state.ios.remove(&io) else { return };
        let now = now();
        let mut done = lock(&self.tracer.done);
        for id in requests {
            let Some(open) = state.requests.remove(&id) else { continue };
            if done.len() >= MOST {
                continue;
            }
            let name = Name {
                end: End::Frontend,
                device: self.tracer.device.clone(),
                queue: self.queue,
                id: format!("{id:x}"),
                op: word(open.op),
                sector: open.sector,
                bytes: open.bytes,
                status: open.status,
            };
            let stages = [
                ("submit", lend),
                ("lend", admit),
                ("admit", open.entered),
                ("publish", open.published),
                ("backend", open.answered),
                ("complete", now),
            ];
            done.push(Request::new(name, submit, &stages));
        }
    }
}

impl Tap for QueueTracer {
    fn slot_read(&self, _: Index, bytes: &[u8]) {
        let (Some(id), Some(status)) = (bytes.first_chunk(), bytes.get(10..12)) else { return };
        let (id, status) = (u64::from_le_bytes(*id), [status[0], status[1]]);
        if let Some(open) = self.lock().requests.get_mut(&id) {
            (open.answered, open.status) = (now(), i16::from_le_bytes(status));
        }
    }

    fn slot_written(&self, _: Index, bytes: &[u8]) {
        let mut state = self.lock();
        let (_, id) = state.present;
        let (first_sector, body) = if self.tracer.abi == Abi::X86_32 { (12, 20) } else { (16, 24) };
        let Some(open) = state.requests.get_mut(&id) else { return };
        let mut segments = bytes;
        if open.op.is_none()
            && let [op, arg, ..] = *bytes
        {
            let sector = bytes.get(first_sector..).and_then(|bytes| bytes.first_chunk());
            open.sector = sector.map_or(0, |sector| u64::from_le_bytes(*sector));
            segments = bytes.get(body..).unwrap_or_default();
            match Opcode(op) {
                Opcode::INDIRECT => open.op = Some(arg),
                Opcode::DISCARD => {
                    let sectors = segments.first_chunk().map_or(0, |sectors| u64::from_le_bytes(*sectors));
                    (open.op, open.bytes) = (Some(op), sectors.saturating_mul(512));
                }
                _ => (open.op, open.left) = (Some(op), usize::from(arg)),
            }
            // The header has room for eleven.
            segments = segments.get(..88).unwrap_or(segments);
        }
        open.count(segments);
        open.entered = now();
    }

    fn index_read(&self, _: Field, _: Index) {}

    fn index_written(&self, field: Field, _: Index) {
        if field == Field::ReqProd {
            let mut state = self.lock();
            let (now, fresh) = (now(), std::mem::take(&mut state.unpublished));
            for id in fresh {
                if let Some(open) = state.requests.get_mut(&id) {
                    open.published = now;
                }
            }
        }
    }

    fn aside(&self, id: u64, bytes: &[u8]) {
        if let Some(open) = self.lock().requests.get_mut(&id) {
            open.left = bytes.len() / SEGMENT;
            open.count(bytes);
        }
    }

    fn failed(&self, _: u64, _: &'static str, _: &dyn std::fmt::Display) {}

    fn came_to(&self, point: &'static str, id: u64) {
        let mut state = self.lock();
        match point {
            "submit" => _ = state.ios.insert(id, Io { submit: now(), ..Io::default() }),
            "lend" => {
                state.present.0 = id;
                let now = now();
                state.ios.entry(id).or_insert_with(|| Io { submit: now, ..Io::default() }).lend = now;
            }
            "admit" => {
                if let Some(io) = state.ios.get_mut(&id) {
                    io.admit = now();
                }
            }
            "request" => {
                let (io, _) = state.present;
                state.present = (io, id);
                state.requests.insert(id, Open::default());
                state.unpublished.push(id);
                if let Some(io) = state.ios.get_mut(&io) {
                    io.requests.push(id);
                }
            }
            "end" => {
                drop(state);
                self.end(id);
            }
            _ => {}
        }
    }

    fn signalled(&self) {}
}

/// Bytes of a segment.
const SEGMENT: usize = 8;

impl Open {
    fn count(&mut self, segments: &[u8]) {
        let some = segments.chunks_exact(SEGMENT).take(self.left);
        self.left -= some.len();
        for segment in some {
            if let [_, _, _, _, first, last, ..] = *segment {
                self.bytes += (u64::from(last) + 1).saturating_sub(first.into()) * 512;
            }
        }
    }
}

fn word(op: Option<u8>) -> String {
    let word = match op.map(Opcode) {
        Some(Opcode::READ) => "read",
        Some(Opcode::WRITE) => "write",
        Some(Opcode::WRITE_BARRIER) => "barrier",
        Some(Opcode::FLUSH) => "flush",
        Some(Opcode::DISCARD) => "discard",
        _ => "other",
    };
    word.to_owned()
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(std::time::Duration::ZERO, Into::into);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
