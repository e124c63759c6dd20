//! The medium under an image: a file system of one file that fails on demand and remembers what reached it.
//!
//! It is mounted through FUSE, so that the daemon, its io_uring and the kernel between are the real ones; page cache there is none.
//! What is on it survives the death of everything but this process, and [`Tape::left`] tells what a power loss would leave.

mod files;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use fuser::{BackgroundSession, Config, spawn_mount};
use nix::errno::Errno;
use tempfile::TempDir;

use self::files::Files;
use crate::world::Disk;

/// Something that happened to the medium, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written at this byte.
    Write(usize, Vec<u8>),
    /// Everything that was written lasts from here on.
    Flush,
    /// Whoever watches has something to remember.
    Mark(u64),
}

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing of it is done.
    Fails(Errno),
    /// No more than so many bytes are moved.
    Short(usize),
}

/// The kinds of operations that reach a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// Writes are made to last.
    Flush,
    /// Bytes become zeros.
    Punch,
}

/// All that is on the medium, and all that ever happened to it.
#[derive(Debug)]
pub struct Tape {
    /// What reads bring.
    pub bytes: Vec<u8>,
    /// What happened.
    pub events: Vec<Event>,
    /// Operations that came in, whatever became of them.
    pub operations: Vec<Kind>,
    /// Strikes once, at the operation of this number in `operations`.
    pub fault: Option<(usize, Fault)>,
}

impl Tape {
    fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], events: Vec::new(), operations: Vec::new(), fault: None }
    }

    /// An operation comes in. Returns how many of its bytes are to be moved.
    fn begin(&mut self, kind: Kind, bytes: usize) -> Result<usize, Errno> {
        let number = self.operations.len();
        self.operations.push(kind);
        match self.fault.take_if(|(at, _)| *at == number) {
            None => Ok(bytes),
            Some((_, Fault::Short(most))) => Ok(bytes.min(most)),
            Some((_, Fault::Fails(errno))) => Err(errno),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> Result<usize, Errno> {
        let moved = self.begin(Kind::Write, bytes.len())?;
        self.put(at, &bytes[..moved]).map(|()| moved)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        let end = at.checked_add(bytes.len()).ok_or(Errno::EFBIG)?;
        self.bytes.get_mut(at..end).ok_or(Errno::EFBIG)?.copy_from_slice(bytes);
        self.events.push(Event::Write(at, bytes.to_vec()));
        Ok(())
    }

    /// The medium after a power loss behind the first `events` events: what was flushed, and of what was written since what `kept`
    /// says.
    pub fn left(&self, events: usize, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let events = &self.events[..events];
        let flushed = events.iter().rposition(|event| *event == Event::Flush).unwrap_or(0);
        let mut left = vec![0; self.bytes.len()];
        for (number, event) in events.iter().enumerate() {
            if let Event::Write(at, bytes) = event
                && (number < flushed || kept())
            {
                left[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
        left
    }
}

/// A mounted medium. Unmounted on drop.
#[derive(Debug)]
pub struct Medium {
    // In this order: what is mounted there goes before the folder.
    _session: BackgroundSession,
    folder: TempDir,
    tape: Arc<Mutex<Tape>>,
}

impl Medium {
    /// A medium with an image of `bytes` bytes, all zero. Errors: no FUSE (the module `fuse`, `/dev/fuse`), or no permission to mount.
    pub fn mount(bytes: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tape = Arc::new(Mutex::new(Tape::new(bytes)));
        let files = Files::new(Arc::clone(&tape));
        let session = spawn_mount(files, folder.path(), &Config::default());
        let session = session.with_context(|| format!("cannot mount FUSE at {}", folder.path().display()))?;
        Ok(Self { _session: session, folder, tape })
    }

    /// The folder where it is mounted.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The image.
    pub fn path(&self) -> PathBuf {
        self.folder().join(files::NAME)
    }

    /// A guest's disk on the image.
    pub fn disk(&self) -> Disk {
        Disk::new(self.path().display().to_string())
    }

    /// What is on it; nothing happens to it meanwhile.
    pub fn tape(&self) -> MutexGuard<'_, Tape> {
        lock(&self.tape)
    }
}

fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}
