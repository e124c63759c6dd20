//! The driver at work.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use blkif_proto::{keys, xenbus::State};
use xen_platform::{FrontWorld as _, Store as _, StoreClient, linux};

use super::{
    super::{
        job::{Job, Outcome},
        work::Work,
    },
    Console, UsedUp,
    console::Line,
};
use crate::world::{Vbd, wait_until};

/// The program in the guest.
const PROGRAM: &str = "xenclauses stock";
/// Most pages of a ring that Linux' driver can be told to have.
const MOST_RING_PAGES: u32 = 16;

/// How long the guest may take for what it does alone.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often its console is looked at: under emulation every look is at the cost of the guest.
const LOOK: Duration = Duration::from_millis(10);

/// A guest's driver with one disk.
pub(in super::super) struct Driver {
    console: Console,
    store: StoreClient,
    vbd: Vbd,
    /// Its name in the guest.
    disk: String,
    job: Job,
    /// What the guest does, by the number of the command.
    tasks: BTreeMap<u64, Task>,
    stage: Stage,
    /// It may close when it has nothing to do.
    released: bool,
    /// Pieces of work that were given.
    given: usize,
    outcome: Outcome,
    notes: Vec<String>,
    /// When it was known last that the guest lives.
    seen: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The words that it ends with are of no interest.
    Step,
    /// Does work, the first piece of which has this number.
    Work(usize),
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Bound,
    /// The guest is to tell when it has looked at the disk.
    Looking,
    Begun,
    Stopping,
    /// Unbound, or disabled by itself.
    Ended,
}

impl Driver {
    pub(super) fn new(console: Console, vbd: &Vbd, disk: String, job: Job) -> Result<Self> {
        Ok(Self {
            console,
            store: linux::World::for_backend()?.store()?,
            vbd: vbd.clone(),
            disk,
            job,
            tasks: BTreeMap::new(),
            stage: Stage::Bound,
            released: false,
            given: 0,
            outcome: Outcome { foreign: true, ..Outcome::default() },
            notes: Vec::new(),
            seen: Instant::now(),
        })
    }

    /// Waits until the guest has noticed that the disk is gone. Errors: [`UsedUp`].
    pub(super) fn wait_gone(&mut self) -> Result<()> {
        self.step(&["gone", &self.vbd.number.to_string()])
    }

    /// Gives the disk to the driver. Errors: [`UsedUp`].
    pub(super) fn bind(&mut self) -> Result<()> {
        let config = &self.job.config;
        let pages = config.ring_pages.clamp(1, MOST_RING_PAGES);
        let words =
            [self.vbd.number, config.queues, pages.ilog2(), config.max_segments, config.persistent.into()];
        let words = words.map(|word| word.to_string());
        self.step(&[&["start"], &words.each_ref().map(String::as_str)[..]].concat())
    }

    /// True once the guest has looked at the new disk.
    pub(in super::super) fn is_ready(&mut self) -> Result<bool> {
        if self.stage == Stage::Bound {
            self.tell(Task::Step, &["ready", &self.disk.clone()])?;
            self.stage = Stage::Looking;
        }
        self.listen()?;
        Ok(self.tasks.is_empty())
    }

    /// Begins with the job's work.
    pub(in super::super) fn begin(&mut self) -> Result<()> {
        self.stage = Stage::Begun;
        self.start(&self.job.work.clone())
    }

    /// Gives it work.
    pub(in super::super) fn start(&mut self, work: &[Work]) -> Result<()> {
        if work.is_empty() {
            return Ok(());
        }
        let words = work.iter().map(ToString::to_string);
        let (depth, disk) = (self.job.depth.to_string(), self.disk.clone());
        let words: Vec<String> = ["work".to_owned(), disk, depth].into_iter().chain(words).collect();
        self.tell(Task::Work(self.given), &words.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.given += work.len();
        Ok(())
    }

    /// Lets it close.
    pub(in super::super) fn release(&mut self) {
        self.released = true;
    }

    /// True once it has closed, or will never do anything any more. Closes it when its time has come.
    pub(in super::super) fn has_ended(&mut self) -> Result<bool> {
        self.listen()?;
        let done = self.stage == Stage::Begun && !self.job.hold;
        if self.tasks.is_empty() && self.stage < Stage::Stopping && (done || self.released) {
            self.outcome.error = self.outcome.error.take().or(self.refusal()?);
            self.tell(Task::Stop, &["stop", &self.vbd.number.to_string()])?;
            self.stage = Stage::Stopping;
        }
        Ok(self.stage == Stage::Ended)
    }

    /// What it has seen.
    pub(in super::super) fn notes(&mut self) -> Result<Vec<String>> {
        self.listen()?;
        Ok(self.notes.clone())
    }

    /// What came of it.
    pub(in super::super) fn outcome(&mut self) -> Outcome {
        std::mem::take(&mut self.outcome)
    }

    /// Why it is not connected, if it is not.
    fn refusal(&mut self) -> Result<Option<String>> {
        let state = self.node(&format!("{}/{}", self.vbd.frontend, keys::STATE))?;
        let state = State::of_node(state);
        let why = self
            .node(&format!("/local/domain/{}/error/device/vbd/{}/error", self.vbd.guest, self.vbd.number))?;
        Ok((state != State::Connected).then(|| why.unwrap_or_else(|| format!("it is {state}"))))
    }

    /// Has the guest do something, and waits for the end. Errors: [`UsedUp`].
    fn step(&mut self, words: &[&str]) -> Result<()> {
        self.tell(Task::Step, words)?;
        let done = wait_until("the guest", PATIENCE, || {
            self.listen()?;
            Ok(self.tasks.is_empty().then_some(()))
        });
        let failed = self.outcome.error.take().or(done.err().map(|error| format!("{words:?}: {error:#}")));
        failed.map_or(Ok(()), |words| Err(UsedUp(words).into()))
    }

    fn tell(&mut self, task: Task, words: &[&str]) -> Result<()> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let number = self.console.tell(PROGRAM, &words)?;
        self.tasks.insert(number, task);
        Ok(())
    }

    /// Takes in what the guest has told, and lets the guest's side of the machine go on if it has told nothing.
    fn listen(&mut self) -> Result<()> {
        let mut heard = false;
        while let Some(line) = self.console.next()? {
            match &line {
                Line::Answer(number, text) => self.hear(*number, text)?,
                Line::Other(_) => self.overhear(&line),
            }
            heard = true;
        }
        if !heard {
            thread::sleep(LOOK);
        }
        if self.seen.elapsed() > Duration::from_secs(1) {
            self.seen = Instant::now();
            let name = self.node(&format!("/local/domain/{}/name", self.vbd.guest))?;
            ensure!(name.is_some(), UsedUp("it has crashed".into()));
        }
        Ok(())
    }

    fn hear(&mut self, number: u64, text: &str) -> Result<()> {
        let Some(&task) = self.tasks.get(&number) else { return Ok(()) };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, task) {
            ("done", Task::Work(first)) => {
                let (work, error) = rest.split_once(' ').unwrap_or((rest, ""));
                let work = first + work.parse::<usize>().with_context(|| text.to_owned())?;
                let result = if error.is_empty() { Ok(()) } else { Err(error.to_owned()) };
                self.outcome.error = self.outcome.error.take().or(result.clone().err());
                self.outcome.results.push((work, result));
                self.notes.push(format!("done {work}"));
            }
            ("read", _) => rest.clone_into(&mut self.outcome.read),
            ("failed", _) => self.outcome.error = Some(rest.to_owned()),
            ("over", _) => {
                self.tasks.remove(&number);
                if task == Task::Stop {
                    self.stage = Stage::Ended;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn overhear(&mut self, line: &Line) {
        let Some(words) = line.of_the_kernel() else { return };
        if let Some(sectors) = words.strip_prefix("Setting capacity to ") {
            self.notes.push(format!("Resized({sectors} sectors)"));
        }
        // It says so of itself, and never takes another answer.
        if words.contains("disabled for further use") {
            self.outcome.error = Some(words.to_owned());
            self.stage = Stage::Ended;
        }
    }

    fn node(&mut self, path: &str) -> Result<Option<String>> {
        match self.store.read(path) {
            Ok(value) => Ok(Some(String::from_utf8(value)?)),
            Err(xen_platform::StoreError::NoEntry(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
