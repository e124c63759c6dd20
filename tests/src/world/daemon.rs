//! The backend daemon in a thread of this process.

use std::{
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};
use blkback::{
    config::{Config, Strategy},
    daemon,
};
use tokio::sync::oneshot;
use xen_platform::{DomId, sim};

/// A running daemon; told to stop, and waited for, when dropped.
#[derive(Debug)]
pub struct DaemonThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl DaemonThread {
    /// Starts the daemon in domain 0 of the world in `dir`, whose XenStore is behind the socket `store`, with what its program
    /// would set in a simulated world.
    pub fn start(dir: &Path, store: &Path, mut config: Config) -> Result<Self> {
        config.daemon.strategy.get_or_insert(Strategy::Direct);
        config.daemon.poll_us.get_or_insert(50);
        let (stop, stopped) = oneshot::channel();
        let (dir, store) = (dir.to_owned(), store.to_owned());
        let run = move || serve(&dir, &store, config, stopped);
        let thread = thread::Builder::new().name("blkback".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Errors when the daemon has ended, with its reason.
    pub fn check_alive(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        self.stop()?;
        bail!("blkback ended early")
    }

    /// Tells the daemon to stop as SIGTERM would, and waits. Errors: it failed or panicked.
    pub fn stop(&mut self) -> Result<()> {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("blkback failed"),
            Some(Err(_)) => Err(anyhow!("blkback panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for DaemonThread {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `stop`.
        _ = self.stop();
    }
}

fn serve(dir: &PathBuf, store: &Path, config: Config, stopped: oneshot::Receiver<()>) -> Result<()> {
    let world = sim::World::connect(dir, DomId::DOM0)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shutdown = async { _ = stopped.await };
    Ok(runtime.block_on(daemon::run(world, Some(store), config, shutdown))?)
}
