//! An opened image at work.

use std::{
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::sync_channel,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::errno::Errno;
use tracing::warn;

use super::{
    connect::be_patient,
    ffi::{Rbd, Watch},
    record::Record,
};
use crate::storage::{Action, Driver, Job};

/// Serves an image. Requests wait for OSDs that are away; closed on a thread of its own, which takes a while.
pub(super) struct RbdDriver {
    client: Option<Client>,
    bytes: Arc<AtomicU64>,
    timeout_s: u32,
}

/// In the order in which it ends.
struct Client {
    watch: Option<Watch>,
    measuring: Option<JoinHandle<()>>,
    rbd: Arc<Rbd>,
    _record: Option<Record>,
}

impl RbdDriver {
    /// Serves `rbd`, of so many bytes. When it is `watched`, its size is followed. What is under way when it is let go has `timeout_s` seconds.
    pub(super) fn new(
        rbd: Rbd,
        record: Option<Record>,
        bytes: u64,
        watched: bool,
        timeout_s: u32,
    ) -> Result<Self, Errno> {
        let (rbd, bytes) = (Arc::new(rbd), Arc::new(AtomicU64::new(bytes)));
        let mut client = Client { watch: None, measuring: None, rbd, _record: record };
        if watched {
            let (changed, changes) = sync_channel(1);
            client.watch = Some(client.rbd.watch(changed)?);
            let (rbd, bytes) = (Arc::clone(&client.rbd), Arc::clone(&bytes));
            // The library's own threads must not ask it.
            let measure = move || {
                for () in changes {
                    match rbd.sizes() {
                        Ok((now, _)) => bytes.store(now, Relaxed),
                        Err(error) => warn!(%error, "cannot measure an image of Ceph"),
                    }
                }
            };
            let measuring = thread::Builder::new().name("rbd-size".into()).spawn(measure);
            client.measuring = Some(measuring.map_err(|_| Errno::EAGAIN)?);
        }
        Ok(Self { client: Some(client), bytes, timeout_s })
    }
}

impl RbdDriver {
    /// It has been attached: from now on requests wait for OSDs that are away.
    pub(super) fn wait_for_ever(&self) -> Result<(), Errno> {
        self.client.as_ref().map_or(Ok(()), |client| be_patient(client.rbd.cluster(), None))
    }
}

impl Driver for RbdDriver {
    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn start(&self, job: Job) {
        match (&self.client, job.action()) {
            (Some(_), Action::Discard { secure: true, .. }) => job.finish(Err(Errno::EOPNOTSUPP)),
            (Some(client), _) => client.rbd.start(job),
            (None, _) => job.finish(Err(Errno::ENODEV)),
        }
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let rbd = &self.client.as_ref().ok_or(Errno::ENODEV)?.rbd;
        rbd.resize(bytes)?;
        self.bytes.store(rbd.sizes()?.0, Relaxed);
        Ok(())
    }
}

impl fmt::Debug for RbdDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RbdDriver").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for RbdDriver {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let (begun, timeout_s) = (Closing::begin(), self.timeout_s);
        let close = move || {
            let _begun = begun;
            // Its lock is let go of, if somebody answers.
            _ = be_patient(client.rbd.cluster(), Some(timeout_s));
            let Client { watch, measuring, rbd, _record } = client;
            drop(watch);
            // It has nothing left to wait for.
            _ = measuring.map(JoinHandle::join);
            drop(rbd);
        };
        if let Err(error) = thread::Builder::new().name("rbd-close".into()).spawn(close) {
            warn!(%error, "no thread to close an image of Ceph: it was closed here");
        }
    }
}

/// Images that are being closed.
static CLOSING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// One of them.
struct Closing;

impl Closing {
    fn begin() -> Self {
        *CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        *CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSING.1.notify_all();
    }
}

/// Waits until all images that were let go are closed, so that others can have them at once; at most so long.
pub fn wait_until_closed(limit: Duration) {
    let closing = CLOSING.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that are left are closed by the cluster, in its own time.
    _ = CLOSING.1.wait_timeout_while(closing, limit, |closing| *closing > 0);
}
