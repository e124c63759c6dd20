//! The control plane's grip on a worker thread: orders go down, reports come up, no request is touched.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::UnboundedSender;
use tracing::error;
use xen_platform::BackWorld;

use super::{
    inflight::InFlight,
    queue::{MappingOf, QueueKey, QueueSpec, StartError},
    resume::LogSpec,
    trace::TraceSpec,
    worker::Worker,
};
use crate::{
    stats::{Watch, WorkerStats},
    storage::{Image, Storage},
};

/// What the control plane orders.
#[derive(Debug)]
pub enum Order {
    /// Serve this queue. Answered by [`Report::Started`].
    Start(Box<QueueSpec>),
    /// Admit nothing more, finish what was admitted, let all pages and the event channel go. Answered by
    /// [`Report::Drained`], also if the queue is unknown.
    Drain(QueueKey),
    /// Admit nothing more from this queue until [`Order::Resume`], and finish what was admitted. Answered by [`Report::Quiet`], also
    /// if the queue is unknown.
    Quiesce(QueueKey),
    /// Admit requests again.
    Resume {
        /// From which queue.
        key: QueueKey,
        /// Of another medium from now on; only where the queue is quiet.
        medium: Option<Medium>,
    },
    /// Admit nothing more from any queue, finish what was admitted, and then say so; the rings stay.
    Pause(UnboundedSender<()>),
    /// Gather requests with their times; a trace that is under way ends.
    Trace(Box<TraceSpec>),
    /// End the trace, if one is under way.
    EndTrace,
    /// Come to an end; queues that were not drained are dropped.
    Stop,
}

/// What a queue serves in place of what it served.
#[derive(Debug)]
pub struct Medium {
    /// The disk.
    pub image: Arc<Image>,
    /// Where what is under way is noted from now on.
    pub log: Option<LogSpec>,
}

/// What a worker reports.
#[derive(Debug)]
pub enum Report {
    /// The queue is served, or why not.
    Started(QueueKey, Result<(), StartError>),
    /// The queue is gone, and with it everything the guest had granted for it.
    Drained(QueueKey),
    /// Nothing of the queue is under way, and nothing is admitted.
    Quiet(QueueKey),
    /// The guest broke the ring's rules: nothing more is admitted. The queue waits for [`Order::Drain`].
    Broken(QueueKey, String),
    /// The thread ends, on an error that no queue of it survives, or because it was told to.
    Ended(Result<(), String>),
}

/// Where reports go. Called on the worker's thread; must not block.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// The way down to a worker.
#[derive(Debug)]
pub struct Line {
    orders: mpsc::Sender<Order>,
    bell: Arc<EventFd>,
}

impl Line {
    /// A line and the mailbox at its other end.
    pub fn new() -> io::Result<(Line, Mailbox)> {
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let (send, orders) = mpsc::channel();
        Ok((Line { orders: send, bell: Arc::clone(&bell) }, Mailbox { orders, bell }))
    }

    /// Gives an order. False when the worker is gone.
    pub fn order(&self, order: Order) -> bool {
        self.orders.send(order).is_ok() && self.bell.write(1).is_ok()
    }
}

/// A worker thread.
#[derive(Debug)]
pub struct WorkerHandle {
    line: Line,
    stats: Arc<WorkerStats>,
    thread: Option<JoinHandle<()>>,
}

/// The worker's end of a [`Line`].
#[derive(Debug)]
pub struct Mailbox {
    /// Orders not yet taken.
    pub orders: mpsc::Receiver<Order>,
    bell: Arc<EventFd>,
}

impl Mailbox {
    /// Becomes readable when an order comes.
    pub fn fd(&self) -> io::Result<OwnedFd> {
        self.bell.as_fd().try_clone_to_owned()
    }

    /// Makes the descriptor unreadable; take all orders afterwards.
    pub fn quiet(&self) {
        // Nothing to read is as good as read.
        _ = self.bell.read();
    }
}

impl WorkerHandle {
    /// Starts a thread that serves queues of `world`. The storage is made on it, because an io_uring belongs to a thread.
    pub fn spawn<W, S, F>(
        name: String,
        world: W,
        storage: F,
        poll: Duration,
        watch: Watch,
        report: Reporter,
    ) -> io::Result<WorkerHandle>
    where
        W: BackWorld,
        S: Storage<InFlight<MappingOf<W>>>,
        F: FnOnce() -> io::Result<S> + Send + 'static,
    {
        let (line, mailbox) = Line::new()?;
        let stats = Arc::new(WorkerStats { watch, ..WorkerStats::default() });
        let counters = Arc::clone(&stats);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let mut farewell = Farewell { report: Arc::clone(&report), end: Some(Err("panicked".into())) };
            let run = || {
                let storage = storage().map_err(|error| format!("storage: {error}"))?;
                Worker::new(&world, storage, poll, mailbox, report, counters)?.run()
            };
            farewell.end = Some(run());
        })?;
        Ok(WorkerHandle { line, stats, thread: Some(thread) })
    }

    /// Gives an order. False when the worker is gone.
    pub fn order(&self, order: Order) -> bool {
        self.line.order(order)
    }

    /// What it has done.
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("a worker thread panicked");
        }
    }
}

/// Reports the end of a worker, however it comes.
struct Farewell {
    report: Reporter,
    end: Option<Result<(), String>>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            (self.report)(Report::Ended(end));
        }
    }
}
