//! The data plane as the control plane sees it: a few threads that queues are dealt out to.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use xen_platform::BackWorld;

use crate::{
    data::{
        handle::{Order, Report, WorkerHandle},
        inflight::InFlight,
        queue::{MappingOf, QueueSpec},
    },
    metrics::Roll,
    stats::Watch,
    storage::Storage,
};

/// Takes the reports of one connection; false when nobody wants them any more.
pub type Sink = Box<dyn Fn(Report) + Send>;

type Routes = Arc<Mutex<HashMap<u64, Sink>>>;

/// All worker threads.
pub struct Workers {
    threads: Vec<WorkerHandle>,
    roll: Arc<Roll>,
    routes: Routes,
    names: Names,
    next: AtomicUsize,
    connections: AtomicU64,
}

/// A connection's address for reports; they end when it is dropped.
pub struct Route {
    connection: u64,
    routes: Routes,
    names: Names,
}

/// Devices by their connections. While somebody remembers them, those that are gone are among them.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    names: HashMap<u64, String>,
    gone: Vec<u64>,
    remembered: usize,
}

/// Names that stay known for as long as this lives.
#[derive(Debug)]
pub struct Remembered(Names);

impl Names {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    /// The latest connection of a device.
    pub fn connection(&self, device: &str) -> Option<u64> {
        let known = self.0.lock();
        known.names.iter().filter(|(_, name)| *name == device).map(|(connection, _)| *connection).max()
    }

    /// The device of a connection.
    pub fn of(&self, connection: u64) -> String {
        self.0.lock().names.get(&connection).cloned().unwrap_or_default()
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        let mut known = self.0.lock();
        known.remembered -= 1;
        if known.remembered == 0 {
            let gone = std::mem::take(&mut known.gone);
            gone.iter().for_each(|connection| _ = known.names.remove(connection));
        }
    }
}

impl Route {
    /// The connection's number.
    pub fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        lock(&self.routes).remove(&self.connection);
        let mut known = self.names.lock();
        if known.remembered > 0 {
            known.gone.push(self.connection);
        } else {
            known.names.remove(&self.connection);
        }
    }
}

impl Workers {
    /// Starts `count` threads. `storage` is called once on each. Ends of threads go to `ends`, with the reason if they were
    /// not asked for.
    pub fn start<W, S, F>(
        world: &W,
        storage: F,
        count: usize,
        poll: Duration,
        watch: Watch,
        ends: &UnboundedSender<Result<(), String>>,
    ) -> io::Result<Self>
    where
        W: BackWorld,
        S: Storage<InFlight<MappingOf<W>>>,
        F: Fn() -> io::Result<S> + Clone + Send + 'static,
    {
        let routes = Routes::default();
        let threads = (0..count)
            .map(|n| {
                let (routes, ends) = (Arc::clone(&routes), ends.clone());
                let report = Arc::new(move |report| deliver(&routes, &ends, report));
                WorkerHandle::spawn(
                    format!("worker-{n}"),
                    world.clone(),
                    storage.clone(),
                    poll,
                    watch,
                    report,
                )
            })
            .collect::<io::Result<Vec<_>>>()?;
        let roll = Arc::new(Roll::new(threads.iter().map(|thread| Arc::clone(thread.stats())).collect()));
        let (names, next, connections) = (Names::default(), AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Self { threads, roll, routes, names, next, connections })
    }

    /// An address for the reports of a new connection of a device: the guest's number, a slash, and the device's.
    pub fn route(&self, device: String, sink: Sink) -> Route {
        let connection = self.connections.fetch_add(1, Relaxed);
        lock(&self.routes).insert(connection, sink);
        self.names.lock().names.insert(connection, device);
        Route { connection, routes: Arc::clone(&self.routes), names: self.names.clone() }
    }

    /// Gives a queue to the next thread in turn, and tells which; none if that is gone.
    pub fn serve(&self, spec: QueueSpec) -> Option<usize> {
        let thread = self.next.fetch_add(1, Relaxed) % self.threads.len().max(1);
        let ordered = self.threads.get(thread)?.order(Order::Start(Box::new(spec)));
        ordered.then_some(thread)
    }

    /// Gives a thread an order. False when it is gone.
    pub fn order(&self, thread: usize, order: Order) -> bool {
        self.threads.get(thread).is_some_and(|thread| thread.order(order))
    }

    /// Gives every thread an order.
    pub fn order_all(&self, order: impl Fn() -> Order) {
        self.threads.iter().for_each(|thread| _ = thread.order(order()));
    }

    /// The names of connections, those of later ones too.
    pub fn remember_names(&self) -> Remembered {
        self.names.lock().remembered += 1;
        Remembered(self.names.clone())
    }

    /// Lets every thread finish what it has under way, and take nothing new for ever. Done when all have.
    pub async fn pause(&self) {
        let (send, mut paused) = unbounded_channel();
        self.order_all(|| Order::Pause(send.clone()));
        drop(send);
        for _ in &self.threads {
            // A thread that is gone has nothing under way.
            paused.recv().await;
        }
    }

    /// What threads and queues have done.
    pub fn roll(&self) -> &Arc<Roll> {
        &self.roll
    }
}

fn deliver(routes: &Routes, ends: &UnboundedSender<Result<(), String>>, report: Report) {
    let connection = match &report {
        Report::Started(key, _) | Report::Drained(key) | Report::Quiet(key) | Report::Broken(key, _) => {
            key.connection
        }
        Report::Ended(end) => {
            // Nobody listens when the daemon ends itself.
            _ = ends.send(end.clone());
            return;
        }
    };
    if let Some(sink) = lock(routes).get(&connection) {
        sink(report);
    }
}

fn lock(routes: &Routes) -> MutexGuard<'_, HashMap<u64, Sink>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}
