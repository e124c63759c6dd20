//! Writes a recording while it happens: each line at once, so that a program that dies has written its last.

use std::{
    collections::HashMap,
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use ringbuf::{Field, Index, Tap};
use serde::Serialize;
use tracing::error;

use super::{End, Entry, Event, FORMAT, Header, MAX_BYTES, VERSION};

/// A recording under way; every thread of a program may tell it of events.
#[derive(Debug)]
pub struct Recorder {
    end: End,
    start: Instant,
    out: Mutex<Out>,
}

#[derive(Debug)]
struct Out {
    file: File,
    /// Bytes that may still be written; 0 once it is full or has failed.
    left: u64,
    /// The last value of each node, by its path.
    nodes: HashMap<String, Option<String>>,
}

impl Recorder {
    /// Begins a recording of what `end` sees, in a new file in `folder`: `backend-1.jsonl`, or the first number that is free.
    /// Errors: the system's.
    pub fn create(folder: &Path, end: End, program: &str) -> io::Result<Arc<Self>> {
        let file = create_next(folder, end)?;
        let mut out = Out { file, left: MAX_BYTES, nodes: HashMap::new() };
        let header = Header { format: FORMAT.into(), version: VERSION, end, program: program.into() };
        out.write(&header)?;
        Ok(Arc::new(Self { end, start: Instant::now(), out: Mutex::new(out) }))
    }

    /// A node of XenStore was read, written or removed. Nothing is recorded of what is no device's, or not new.
    pub fn node(&self, path: &str, value: Option<&str>) {
        let Some((device, of, key)) = locate(path) else { return };
        let mut out = self.lock();
        if out.nodes.get(path).is_some_and(|known| known.as_deref() == value) {
            return;
        }
        if key == "state" {
            // What a new state stands for is told even if it is the same as before.
            let folder = path.trim_end_matches(key);
            out.nodes.retain(|known, _| !known.starts_with(folder));
        }
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        out.nodes.insert(path.to_owned(), value.clone());
        self.put(&mut out, &device, Event::Node { of, key, value });
    }

    /// What is to be told of one queue's ring. `device` as in [`Entry::device`].
    pub fn tape(self: &Arc<Self>, device: &str, queue: u32) -> Tape {
        let recorder = Arc::clone(self);
        Tape {
            recorder,
            device: device.into(),
            queue,
            seen: AtomicU64::new(u64::MAX),
            wrote: AtomicBool::new(false),
        }
    }

    fn note(&self, device: &str, event: Event) {
        self.put(&mut self.lock(), device, event);
    }

    /// Under the lock, so that lines are in the order of their times.
    fn put(&self, out: &mut Out, device: &str, event: Event) {
        if out.left == 0 {
            return;
        }
        let at = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Err(error) = out.write(&Entry { at, device: device.into(), event }) {
            error!(%error, "the recording ends here");
            out.left = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => self.left = left,
            None => {
                let full = Entry { at: 0, device: String::new(), event: Event::Full {} };
                bytes = serde_json::to_vec(&full)?;
                bytes.push(b'\n');
                self.left = 0;
            }
        }
        self.file.write_all(&bytes)
    }
}

/// One queue's part of a recording.
#[derive(Debug)]
pub struct Tape {
    recorder: Arc<Recorder>,
    device: Box<str>,
    queue: u32,
    /// The peer's producer index as it was last seen; more than 32 bits: not yet.
    seen: AtomicU64,
    /// This end has written something.
    wrote: AtomicBool,
}

impl Tape {
    fn message(&self, from: End, index: Index, bytes: &[u8]) {
        let (queue, index, bytes) = (self.queue, index.get(), trimmed(bytes));
        self.recorder.note(
            &self.device,
            match from {
                End::Frontend => Event::Request { queue, index, bytes },
                End::Backend => Event::Answer { queue, index, bytes },
            },
        );
    }

    fn published(&self, by: End, index: Index) {
        self.recorder.note(&self.device, Event::Published { by, queue: self.queue, index: index.get() });
    }
}

impl Tap for Tape {
    fn slot_read(&self, index: Index, bytes: &[u8]) {
        self.message(self.recorder.end.peer(), index, bytes);
    }

    fn slot_written(&self, index: Index, bytes: &[u8]) {
        self.wrote.store(true, Relaxed);
        self.message(self.recorder.end, index, bytes);
    }

    fn index_read(&self, field: Field, value: Index) {
        let peer = self.recorder.end.peer();
        if field == producer(peer) && self.seen.swap(value.get().into(), Relaxed) != u64::from(value.get()) {
            self.published(peer, value);
        }
    }

    fn index_written(&self, field: Field, value: Index) {
        // A ring that is being made has nothing to show.
        if field == producer(self.recorder.end) && self.wrote.load(Relaxed) {
            self.published(self.recorder.end, value);
        }
    }

    fn aside(&self, id: u64, bytes: &[u8]) {
        let event = Event::Descriptors { queue: self.queue, id, bytes: bytes.to_vec() };
        self.recorder.note(&self.device, event);
    }

    fn failed(&self, id: u64, kind: &'static str, reason: &dyn Display) {
        let (cause, text) = (kind.to_owned(), reason.to_string());
        self.recorder.note(&self.device, Event::Failed { queue: self.queue, id, cause, text });
    }

    fn came_to(&self, _: &'static str, _: u64) {}

    fn signalled(&self) {
        self.recorder.note(&self.device, Event::Signalled { queue: self.queue });
    }
}

fn create_next(folder: &Path, end: End) -> io::Result<File> {
    let name = match end {
        End::Frontend => "frontend",
        End::Backend => "backend",
    };
    let mut number = 1;
    loop {
        let path = folder.join(format!("{name}-{number}.jsonl"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            file => return file,
        }
    }
}

/// The index by which an end shows what it has written.
fn producer(end: End) -> Field {
    match end {
        End::Frontend => Field::ReqProd,
        End::Backend => Field::RspProd,
    }
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default().to_vec()
}

/// Which device's node a path is, whose end's, and its name there: `/local/domain/GUEST/device/KIND/NUMBER/KEY` and
/// `/local/domain/HOME/backend/KIND/GUEST/NUMBER/KEY`.
fn locate(path: &str) -> Option<(String, End, &str)> {
    let (home, rest) = path.strip_prefix("/local/domain/")?.split_once('/')?;
    let (folder, rest) = rest.split_once('/')?;
    let (_, rest) = rest.split_once('/')?;
    let (of, guest, rest) = match folder {
        "device" => (End::Frontend, home, rest),
        "backend" => rest.split_once('/').map(|(guest, rest)| (End::Backend, guest, rest))?,
        _ => return None,
    };
    let (number, key) = rest.split_once('/').unwrap_or((rest, ""));
    Some((format!("{guest}/{number}"), of, key))
}

#[cfg(test)]
mod tests;
