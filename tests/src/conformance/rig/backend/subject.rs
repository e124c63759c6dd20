//! The frontend under test: the library on a thread, the real tool as a child process, or the driver of a guest's kernel.

use std::{
    fs,
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use blkif_proto::Abi;
use nix::sys::signal::Signal;
use xen_platform::sim;

use super::{
    job::{Job, Outcome},
    library::{self, Notes, Order},
    stock::Driver,
    work::{Work, digest},
};
use crate::world::{Process, Vbd, World};

/// A frontend at work.
pub(super) enum Subject {
    Library { thread: Option<JoinHandle<Outcome>>, orders: Sender<Order>, notes: Arc<Notes> },
    Tool { process: Process, log: PathBuf, output: PathBuf },
    Stock(Box<Driver>),
}

impl Subject {
    /// Starts the library on a thread.
    pub(super) fn library(world: &World, vbd: &Vbd, job: Job) -> Result<Self> {
        let world = sim::World::connect(world.dir(), vbd.guest)?;
        let (orders, received) = mpsc::channel();
        let notes = Arc::<Notes>::default();
        let (path, seen) = (vbd.frontend.clone(), notes.clone());
        let thread = thread::Builder::new()
            .name("blkfront".into())
            .spawn(move || library::run(world, &path, job, &received, &seen))?;
        Ok(Self::Library { thread: Some(thread), orders, notes })
    }

    /// Starts the tool. Errors: it cannot be told to do this.
    pub(super) fn tool(world: &World, vbd: &Vbd, job: &Job, abi: Abi) -> Result<Self> {
        let [input, output, log] = ["input", "output", "blkfront.log"].map(|name| world.dir().join(name));
        let arguments = job.arguments(abi.as_protocol(), &input, &output)?;
        fs::write(&log, "")?;
        let mut command = world.blkfront(vbd);
        command.args(arguments);
        Ok(Self::Tool { process: Process::spawn_logged("blkfront", &mut command, &log)?, log, output })
    }

    /// True once it has ended. Errors: it cannot be asked.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        match self {
            Self::Library { thread, .. } => Ok(thread.as_ref().is_none_or(JoinHandle::is_finished)),
            Self::Tool { process, .. } => Ok(process.check_alive().is_err()),
            Self::Stock(driver) => driver.has_ended(),
        }
    }

    /// More work for a frontend that holds. Errors: the tool takes no orders.
    pub(super) fn order(&mut self, work: Work) -> Result<()> {
        match self {
            Self::Library { orders, .. } => orders.send(Order::Do(work)).context("the frontend has ended"),
            Self::Tool { .. } => bail!("the tool takes no orders"),
            Self::Stock(driver) => driver.start(&[work]),
        }
    }

    /// Lets a frontend that holds close.
    pub(super) fn release(&mut self, held: bool) {
        match self {
            Self::Library { orders, .. } => {
                // It may have ended by itself.
                let _ = orders.send(Order::Stop);
            }
            Self::Tool { process, .. } if held => {
                let _ = process.signal(Signal::SIGTERM);
            }
            Self::Tool { .. } => {}
            Self::Stock(driver) => driver.release(),
        }
    }

    /// What it has seen. Errors: the tool does not tell.
    pub(super) fn notes(&mut self) -> Result<Vec<String>> {
        match self {
            Self::Library { notes, .. } => Ok(notes.all()),
            Self::Tool { .. } => bail!("the tool does not tell what it sees"),
            Self::Stock(driver) => driver.notes(),
        }
    }

    /// What came of it, once it has ended. Errors: it panicked.
    pub(super) fn outcome(&mut self) -> Result<Outcome> {
        match self {
            Self::Library { thread, .. } => {
                let thread = thread.take().context("joined before")?;
                thread.join().map_err(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or(panic.downcast_ref::<&str>().map(ToString::to_string));
                    anyhow!("the frontend panicked: {}", text.unwrap_or_default())
                })
            }
            Self::Tool { process, log, output } => {
                let status = process.wait(Duration::from_secs(1))?;
                let words = String::from_utf8_lossy(&fs::read(log)?).into_owned();
                let error = tool_error(status, &words)?;
                let read = digest(&fs::read(output).unwrap_or_default());
                Ok(Outcome { error, read, ..Outcome::default() })
            }
            Self::Stock(driver) => Ok(driver.outcome()),
        }
    }
}

/// The tool's message if it failed. Errors: it did not end as it promises to.
fn tool_error(status: ExitStatus, words: &str) -> Result<Option<String>> {
    match status.code() {
        Some(0) => Ok(None),
        Some(1..=3) if words.contains("blkfront: ") => Ok(Some(words.to_owned())),
        _ => bail!("the tool ended with {status} and said: {words}"),
    }
}

impl Drop for Subject {
    /// A clause that failed leaves a frontend that waits for its backend: the tool is not asked twice, the library's thread
    /// ends with the world.
    fn drop(&mut self) {
        match self {
            Self::Library { orders, .. } => drop(orders.send(Order::Stop)),
            Self::Tool { process, .. } => process.kill(),
            Self::Stock(_) => {}
        }
    }
}
