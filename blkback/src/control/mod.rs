//! The control plane: finds devices, and runs one task for each.
//!
//! ```text
//!   watch: backend/<kind>, frontend/state        workers: started, drained, broken
//!            └──────────────┬───────────────────────────────┘
//!                        device ──event──▶ vbd ──actions──▶ device ──▶ publish, connection
//! ```
//!
//! [`vbd`] decides, [`device`] does; [`store`] is XenStore, [`watch`] collapses what it says, [`publish`] writes, [`disk`]
//! chooses the image, [`connection`] and [`workers`] reach the data plane. A guest can wake its own device's task as often as
//! it likes, and nothing else.

use std::{
    collections::HashMap,
    fs::{self, File},
    future::Future,
    io::{self, BufWriter},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{Receiver, UnboundedReceiver, channel, unbounded_channel},
        oneshot,
    },
    task::{JoinError, JoinSet},
    time::{interval, timeout},
};
use tracing::{error, info, warn};

mod asked;
pub mod connection;
pub mod device;
pub mod disk;
pub mod images;
pub mod inbox;
pub mod publish;
mod socket;
pub mod store;
pub mod throttles;
pub mod trace;
pub mod vbd;
pub mod watch;
pub mod workers;

use device::{Context, Device};
use inbox::{DeviceHandle, Message};
use store::DeviceId;
use watch::Changes;

use crate::{ctl::desk::Ask, metrics::Endpoint, sandbox::outside::Progress, storage::rbd};

/// Why the control plane ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// XenStore does not tell of devices.
    #[error("XenStore: {0}")]
    Store(#[from] io::Error),
    /// A worker thread ended.
    #[error("a worker ended: {0}")]
    Worker(String),
}

/// How the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Guests close their disks.
    Stop,
    /// Another program goes on; guests do not notice.
    HandOver,
}

/// How long requests may keep a hand-over waiting.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);

/// Where the operator's wishes come from.
#[derive(Debug)]
pub struct Operator {
    /// All images are to be measured again.
    pub measure: UnboundedReceiver<()>,
    /// What is asked on the control socket.
    pub asks: Receiver<Ask>,
    /// Where counters are told.
    pub metrics: Option<Endpoint>,
    /// Where a trace of all requests goes.
    pub trace: Option<File>,
}

impl Operator {
    /// One without wishes.
    pub fn absent() -> Self {
        Self { measure: unbounded_channel().1, asks: channel(1).1, metrics: None, trace: None }
    }
}

struct Control {
    context: Arc<Context>,
    devices: HashMap<DeviceId, DeviceHandle>,
    tasks: JoinSet<DeviceId>,
}

/// Serves every device there is or comes, until `shutdown`; then lets all guests close. `ends` yields when a worker has ended.
pub async fn run(
    context: Arc<Context>,
    mut ends: UnboundedReceiver<Result<(), String>>,
    mut operator: Operator,
    shutdown: impl Future<Output = End>,
) -> Result<End, ControlError> {
    let mut control =
        Control { context: Arc::clone(&context), devices: HashMap::new(), tasks: JoinSet::new() };
    let (ended, end_of_all) = oneshot::channel::<()>();
    let trace =
        operator.trace.take().map(|file| tokio::spawn(write_trace(Arc::clone(&context), file, end_of_all)));
    let end = tokio::select! {
        served = control.serve(operator) => {
            served?;
            End::Stop
        }
        Some(end) = ends.recv() => {
            return Err(ControlError::Worker(end.err().unwrap_or_else(|| "without a reason".into())));
        }
        () = context.store.listen() => End::Stop,
        end = shutdown => end,
    };
    match &end {
        End::Stop => control.shut_down().await,
        End::HandOver => control.hand_over().await,
    }
    drop(ended);
    if let Some(trace) = trace
        && let Err(error) = trace.await
    {
        error!(%error, "the trace");
    }
    Ok(end)
}

/// Traces all requests until there are too many, or the other end of `end` is gone.
async fn write_trace(context: Arc<Context>, file: File, end: oneshot::Receiver<()>) {
    let end = async { _ = end.await };
    let trace = trace::trace(&context.workers, None, trace::MOST, end).await;
    let requests = trace.requests.len();
    match trace.write(&mut BufWriter::new(file)) {
        Ok(()) => info!(requests, "the trace is written"),
        Err(error) => error!(%error, "the trace is not written"),
    }
}

impl Control {
    /// Serves devices for ever. Errors: XenStore refuses to watch for them.
    async fn serve(&mut self, mut operator: Operator) -> Result<(), ControlError> {
        let context = Arc::clone(&self.context);
        let changes = Changes::default();
        let mut watches = Vec::new();
        for kind in &context.config.daemon.kinds {
            watches.push(changes.watch(&context.store, &context.base, kind).await?);
        }
        let resize = context.config.daemon.resize_check_s;
        let mut resize_check =
            interval(Duration::from_secs(if resize == 0 { u64::from(u32::MAX) } else { resize }));
        let mut logs = context.logs.clone();
        info!(kinds = ?context.config.daemon.kinds, base = context.base, "ready");
        context.outside.tell(Progress::Ready);
        loop {
            tokio::select! {
                (devices, all) = changes.take() => {
                    devices.into_iter().for_each(|id| self.look(id));
                    if all {
                        let found = self.scan().await;
                        match (found, logs.take()) {
                            (Ok(()), Some(logs)) => self.tidy(&logs),
                            (Ok(()), None) => {}
                            (Err(error), left) => {
                                error!(%error, "cannot look for disks");
                                logs = left;
                            }
                        }
                    }
                }
                Some(joined) = self.tasks.join_next() => self.ended(joined),
                _ = resize_check.tick() => self.tell_all(|| Message::Measure),
                Some(()) = operator.measure.recv() => self.tell_all(|| Message::Measure),
                Some(ask) = operator.asks.recv() => asked::pass_on(ask, &self.context, self.devices.iter()),
            }
        }
    }

    /// Something changed at a device: one that is known looks, another gets a task.
    fn look(&mut self, id: DeviceId) {
        match self.devices.get(&id) {
            Some(handle) => handle.look(),
            None => self.adopt(id),
        }
    }

    fn tell_all(&self, message: impl Fn() -> Message) {
        self.devices.values().for_each(|handle| handle.send(message()));
    }

    fn adopt(&mut self, id: DeviceId) {
        let (device, handle) = Device::new(Arc::clone(&self.context), id.clone());
        self.devices.insert(id.clone(), handle);
        self.tasks.spawn(async move {
            device.run().await;
            id
        });
    }

    /// Finds all devices, and lets those look that may be gone.
    async fn scan(&mut self) -> io::Result<()> {
        let store = self.context.store.clone();
        self.devices.values().for_each(DeviceHandle::look);
        for kind in self.context.config.daemon.kinds.clone() {
            let path = format!("{}/{kind}", self.context.base);
            for domain in store.list(&path).await? {
                for device in store.list(&format!("{path}/{domain}")).await? {
                    let path = format!("{path}/{domain}/{device}");
                    if let Some(id) = DeviceId::of_path(&self.context.base, &path)
                        && !self.devices.contains_key(&id)
                    {
                        self.adopt(id);
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes the logs of disks that went while no daemon was there. What stays does no harm; what tells of clients is for whoever
    /// opens their images next.
    fn tidy(&self, logs: &Path) {
        let mut known: Vec<String> = self.devices.keys().map(DeviceId::file_prefix).collect();
        known.push(rbd::RECORDS.to_owned());
        for file in fs::read_dir(logs).into_iter().flatten().flatten() {
            if !known.iter().any(|prefix| file.file_name().to_string_lossy().starts_with(prefix.as_str())) {
                _ = fs::remove_file(file.path());
            }
        }
    }

    /// A device's task has ended.
    fn ended(&mut self, joined: Result<DeviceId, JoinError>) {
        match joined {
            // What changed while it ended is for its successor.
            Ok(id) if self.devices.remove(&id).is_some_and(|handle| handle.is_stale()) => self.adopt(id),
            Ok(_) => {}
            Err(error) => error!(%error, "a device's task failed"),
        }
    }

    /// Finishes what is under way and leaves every guest as it is. What does not come to an end in time is in the logs.
    async fn hand_over(mut self) {
        info!(devices = self.devices.len(), "handing over");
        if timeout(HAND_OVER_WITHIN, self.context.workers.pause()).await.is_err() {
            warn!("requests are still under way: they will be done again");
        }
        self.tasks.shutdown().await;
    }

    /// Lets every guest close, and waits for all of them, but not for ever.
    async fn shut_down(mut self) {
        info!(devices = self.devices.len(), "shutting down");
        self.context.outside.tell(Progress::Stopping);
        if self.context.store.is_silent() {
            return warn!("XenStore does not answer: guests cannot be told, and lose their disks");
        }
        self.tell_all(|| Message::Shutdown);
        let patience = Duration::from_secs(self.context.config.daemon.shutdown_s + 5);
        let all = async {
            while let Some(joined) = self.tasks.join_next().await {
                if let Err(error) = joined {
                    error!(%error, "a device's task failed");
                }
            }
        };
        if timeout(patience, all).await.is_err() {
            warn!("some devices did not come to an end");
        }
    }
}
