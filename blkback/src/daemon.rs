//! The whole program, for any world.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{sync::mpsc::unbounded_channel, time::Instant};
use xen_platform::{BackWorld, Clock as _};

use crate::{
    config::Config,
    control::{
        self, ControlError, End, Operator, device::Context, images::Images, store::Store,
        throttles::Throttles, workers::Workers,
    },
    data::{inflight::InFlight, queue::MappingOf},
    sandbox::outside::{Outside, Unconfined},
    storage::{Engine, Storage, rbd::Clusters},
};

/// Why the daemon ends before it is told to, or does not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// XenStore cannot be reached.
    #[error("cannot connect to XenStore: {0}")]
    Store(io::Error),
    /// There is no place for what is to outlive the daemon.
    #[error("{}: {cause}", path.display())]
    Logs {
        /// The place.
        path: PathBuf,
        /// Why it cannot be used.
        cause: io::Error,
    },
    /// Nothing can be recorded.
    #[error("cannot record in {}: {cause}", path.display())]
    Record {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// No threads can be started.
    #[error("cannot start workers: {0}")]
    Workers(io::Error),
    /// It ran, and failed.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Serves the disks of `world` until `shutdown` is done, then lets the guests close and returns.
///
/// `store` is the path of xenstored's socket; without one it is the system's. Runs on the caller's tokio runtime, for which
/// one thread is enough, and starts its worker threads itself. Errors: no XenStore, no threads, or a loss of either.
///
/// ```no_run
/// # async fn example(world: xen_platform::sim::World) -> Result<(), blkback::daemon::DaemonError> {
/// use blkback::{config::Config, daemon};
/// let shutdown = async { _ = tokio::signal::ctrl_c().await };
/// daemon::run(world, None, Config::default(), shutdown).await
/// # }
/// ```
pub async fn run<W: BackWorld>(
    world: W,
    store: Option<&Path>,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let shutdown = async {
        shutdown.await;
        End::Stop
    };
    let store = connect(store, &config).await?;
    let operator = Operator { trace: open_trace(&config)?, ..Operator::absent() };
    let outside = Arc::new(Unconfined);
    run_with(world, store, outside, config, Engine::new, operator, shutdown).await.map(|_| ())
}

/// XenStore behind `store` or the system's, with the recording that is configured. Outside of a sandbox.
pub async fn connect(store: Option<&Path>, config: &Config) -> Result<Store, DaemonError> {
    let mut store = Store::connect(store).await.map_err(DaemonError::Store)?;
    if let Some(folder) = &config.daemon.record {
        let failed = |cause| DaemonError::Record { path: folder.clone(), cause };
        store.start_recording(folder).map_err(failed)?;
    }
    Ok(store)
}

/// The file for the trace that is configured. Outside of a sandbox.
pub fn open_trace(config: &Config) -> Result<Option<File>, DaemonError> {
    let create = |path: &PathBuf| {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        file.map_err(|cause| DaemonError::Record { path: path.clone(), cause })
    };
    config.daemon.trace.as_ref().map(create).transpose()
}

/// [`run`] with a XenStore that is connected, what the sandbox leaves of the `outside`, another storage, made once on each worker thread,
/// an `operator`, and a choice of ends. Returns which it was; after a hand-over nothing is left of the daemon
/// but its logs.
pub async fn run_with<W, S, F>(
    world: W,
    store: Store,
    outside: Arc<dyn Outside>,
    config: Config,
    storage: F,
    mut operator: Operator,
    shutdown: impl Future<Output = End>,
) -> Result<End, DaemonError>
where
    W: BackWorld,
    S: Storage<InFlight<MappingOf<W>>>,
    F: Fn() -> io::Result<S> + Clone + Send + 'static,
{
    let (send_end, ends) = unbounded_channel();
    let workers = Workers::start(&world, storage, config.workers(), config.poll(), config.watch(), &send_end)
        .map_err(DaemonError::Workers)?;
    if let Some(endpoint) = operator.metrics.take() {
        tokio::spawn(endpoint.serve(Arc::clone(workers.roll())));
    }
    let logs = config.logs();
    if let Some(logs) = &logs {
        let failed = |cause| DaemonError::Logs { path: logs.clone(), cause };
        std::fs::create_dir_all(logs).map_err(failed)?;
    }
    let clusters =
        Clusters { ceph: config.ceph.clone(), credentials: config.credentials(), records: logs.clone() };
    let clock = world.time();
    let throttles = Throttles::new(&config, move || clock.now());
    let context = Arc::new(Context {
        store,
        base: format!("/local/domain/{}/backend", config.daemon.domain.unwrap_or(0)),
        config,
        workers: Arc::new(workers),
        images: Images::new(Arc::clone(&outside), clusters),
        throttles,
        outside,
        logs,
        start: Instant::now(),
    });
    Ok(control::run(context, ends, operator, shutdown).await?)
}
