//! The disk as the workers see it: an inbox, and a thread behind it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use super::{
    Patience,
    connect::{Failure, Place},
    thread::Thread,
    uri::Uri,
};
use crate::{
    sandbox::outside::Outside,
    storage::{Driver, Geometry, ImageError, ImageOptions, Job, bell::Bell},
};

/// What the workers and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    /// Wakes the thread.
    pub(super) bell: Bell,
    /// The disk's size.
    pub(super) bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inbox {
    jobs: Vec<Job>,
    over: bool,
}

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self { inbox: Mutex::default(), bell: Bell::new()?, bytes: AtomicU64::new(0) })
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps the jobs that have come for `empty`, which stays allocated. False when there will be no more.
    pub(super) fn take(&self, empty: &mut Vec<Job>) -> bool {
        let mut inbox = self.inbox();
        std::mem::swap(&mut inbox.jobs, empty);
        !inbox.over
    }

    /// The thread is about to wait for the bell. False if there is something to do.
    pub(super) fn lie_down(&self) -> bool {
        self.bell.lie_down(|| {
            let inbox = self.inbox();
            !inbox.jobs.is_empty() || inbox.over
        })
    }

    /// Nothing more will be done.
    pub(super) fn end(&self) {
        let mut inbox = self.inbox();
        inbox.over = true;
        let jobs = std::mem::take(&mut inbox.jobs);
        drop(inbox);
        drop(jobs);
    }
}

/// An export, served.
#[derive(Debug)]
pub(super) struct Nbd(Arc<Shared>);

impl Driver for Nbd {
    fn bytes(&self) -> u64 {
        self.0.bytes.load(Relaxed)
    }

    fn start(&self, job: Job) {
        let mut inbox = self.0.inbox();
        if !inbox.over {
            inbox.jobs.push(job);
        }
    }

    fn kick(&self) {
        self.0.bell.ring();
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        self.0.inbox().over = true;
        self.0.bell.ring();
    }
}

/// Starts a disk's thread, which connects first. What came of that.
pub(super) fn start(
    outside: Arc<dyn Outside>,
    name: &str,
    uri: Uri,
    options: &ImageOptions,
    patience: Patience,
) -> Result<(Nbd, Geometry), ImageError> {
    let path = || PathBuf::from(name);
    let system = |source| ImageError::Io { what: "serve", path: path(), source };
    let shared = Arc::new(Shared::new().map_err(system)?);
    let (tell, told) = mpsc::channel();
    let (place, of_thread) = (Place { outside, uri }, Arc::clone(&shared));
    let (named, options) = (name.to_owned(), options.clone());
    let run = move || {
        let made = place.connect().and_then(|connection| {
            let geometry = connection.facts.geometry(&options).map_err(Failure::Lasting)?;
            Ok((connection, geometry))
        });
        match made {
            Err(failure) => _ = tell.send(Err(failure)),
            Ok((connection, geometry)) => {
                of_thread.bytes.store(connection.facts.bytes, Relaxed);
                // Whoever waits for this is told before there are jobs.
                _ = tell.send(Ok(geometry));
                Thread::new(named, place, of_thread, geometry, patience).run(connection);
            }
        }
    };
    thread::Builder::new().name("nbd".into()).spawn(run).map_err(system)?;
    match told.recv() {
        Ok(Ok(geometry)) => Ok((Nbd(shared), geometry)),
        Ok(Err(Failure::Lasting(why))) => Err(ImageError::Driver { name: path(), why }),
        Ok(Err(Failure::Passing(why))) => Err(ImageError::Away { name: path(), why }),
        Err(_) => Err(ImageError::Driver { name: path(), why: "its thread has died".into() }),
    }
}
