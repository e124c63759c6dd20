//! The thread of an image: an executor for the library, whose waiting is that of tasks, and for files that keep threads waiting.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use imago::FormatAccess;
use tokio::{
    runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::LocalSet,
};
use tracing::error;

use super::{chain::Chain, disk::Disk, layer::Layer, places::Places};
use crate::storage::{
    Image,
    driver::{self, Job, Place},
};

/// Threads that wait for one image's files at most: as many requests as are under way at once where the page cache does not help.
const WAITING_MAX: usize = 32;
/// How long one stays without work.
const KEEP: Duration = Duration::from_secs(5);

/// Hands jobs to the image's thread.
#[derive(Debug)]
pub(super) struct Driver {
    inbox: Option<UnboundedSender<Message>>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    places: Option<Arc<Places>>,
}

#[derive(Debug)]
enum Message {
    Job(Job),
    Resize(u64, SyncSender<io::Result<()>>),
}

impl Driver {
    /// Starts the thread. `chain` is what `access` is of, where that is written to. Errors: the system has no thread.
    pub(super) fn start(access: FormatAccess<Layer>, chain: Option<Chain>, name: String) -> io::Result<Self> {
        let bytes = Arc::new(AtomicU64::new(access.size()));
        let (inbox, messages) = unbounded_channel();
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(WAITING_MAX)
            .thread_keep_alive(KEEP)
            .thread_name("image-wait")
            .build()?;
        let of_disk = Arc::clone(&bytes);
        let file = chain.as_ref().and_then(Chain::top).and_then(Layer::image);
        let places = file.map(|file| Arc::new(Places::new(Arc::clone(file))));
        let known = places.clone();
        let run = move || {
            let disk = Rc::new(Disk::new(access, chain, known, name));
            LocalSet::new().block_on(&runtime, run(disk, messages, of_disk));
        };
        let thread = thread::Builder::new().name("image".into()).spawn(run)?;
        Ok(Self { inbox: Some(inbox), bytes, thread: Some(thread), places })
    }

    fn send(&self, message: Message) {
        if let Some(inbox) = &self.inbox {
            // A job that is not taken is dropped, and has failed.
            _ = inbox.send(message);
        }
    }
}

/// Until nobody sends any more and all is done.
async fn run(disk: Rc<Disk>, mut messages: UnboundedReceiver<Message>, bytes: Arc<AtomicU64>) {
    while let Some(message) = messages.recv().await {
        let disk = Rc::clone(&disk);
        match message {
            Message::Job(job) => _ = tokio::task::spawn_local(async move { disk.serve(job).await }),
            Message::Resize(wanted, told) => {
                let bytes = Arc::clone(&bytes);
                tokio::task::spawn_local(async move {
                    let result = disk.resize(wanted).await;
                    bytes.store(disk.bytes().await, Relaxed);
                    // Who does not wait any more does not want to know.
                    _ = told.send(result);
                });
            }
        }
    }
    disk.close().await;
}

impl driver::Driver for Driver {
    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn start(&self, job: Job) {
        self.send(Message::Job(job));
    }

    fn file(&self) -> Option<&Arc<Image>> {
        self.places.as_ref().map(|places| &places.file)
    }

    fn place(&self, offset: u64, len: u64) -> Option<Place> {
        self.places.as_ref()?.find(offset, len)
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let (tell, told) = sync_channel(1);
        self.send(Message::Resize(bytes, tell));
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the image's driver has failed")))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("an image's thread has died");
        }
    }
}
