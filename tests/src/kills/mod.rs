//! The kill campaign: the daemon is killed again and again while guests with rings of every kind write, read and check.
//!
//! ```text
//!   Campaign ── kill, start, kill, start ...          the real blkback, at any time or at a named step of its own
//!     └─ a thread for each Shape ── Workload          random requests, all of whose answers are checked against a Model
//! ```
//!
//! What a guest must not notice: every request is answered once, okay, with the right bytes, behind the barriers before it.

mod disks;
mod model;
mod shape;
mod workload;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blkback::steps::Step;

use self::workload::Workload;
pub use self::{
    disks::{Disks, Files},
    shape::{SHAPES, Shape},
};
use crate::{
    conformance::rig::{Guest, noise},
    world::{Binaries, Disk, World, interrupted},
};

/// What to do.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How often the daemon is killed.
    pub kills: u32,
    /// From which everything random follows, but for what threads and disks make of it.
    pub seed: u64,
    /// Longest time from one kill to the next; many come much earlier, while the daemon takes its rings over.
    pub longest: Duration,
    /// Whether the daemon can be told to die at a step: a build for tests can.
    pub steps: bool,
    /// The programs.
    pub binaries: Binaries,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Kills at some time or other.
    pub at_random: u32,
    /// Kills at each named step, where it was reached.
    pub at_steps: Vec<(Step, u32)>,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that a next daemon found under way and did again.
    pub again: u64,
    /// Requests that a next daemon found done and told.
    pub untold: u64,
    /// From the start of a new daemon's process to the first answer on each ring, sorted.
    pub pauses: Vec<Duration>,
    /// How long it all took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: u32 = self.at_steps.iter().map(|(_, kills)| kills).sum();
        let Self { at_random, requests, again, untold, took, .. } = self;
        writeln!(
            f,
            "{} kills in {:.1} s: {at_random} at random, {steps} at named steps",
            at_random + steps,
            took.as_secs_f64()
        )?;
        for (step, kills) in &self.at_steps {
            writeln!(f, "  {kills:5}  {step}")?;
        }
        writeln!(
            f,
            "{requests} requests answered once each and checked; {again} were done again, {untold} only told"
        )?;
        let pause =
            |part: usize| self.pauses.get(self.pauses.len() * part / 100).copied().unwrap_or_default();
        write!(
            f,
            "from the start of a daemon to the first answer on a ring: median {:.1} ms, 99 % {:.1} ms",
            pause(50).as_secs_f64() * 1e3,
            pause(99).as_secs_f64() * 1e3,
        )
    }
}

/// Between the one who kills and the guests.
#[derive(Debug)]
struct Shared {
    begin: Instant,
    /// When the present daemon was started, in nanoseconds after `begin`.
    started: AtomicU64,
    /// Guests are to finish what is under way.
    over: AtomicBool,
    /// A guest has found something wrong.
    failed: AtomicBool,
}

/// Longest time from one kill to the next, for daemons that have their images open in no time.
pub const LONGEST: Duration = Duration::from_millis(50);
/// How much longer a step is waited for.
const STEPS_LONGER: u32 = 6;
const CONFIG: &str =
    "[daemon]\nworkers = 2\nshutdown-s = 2\n[offer]\nring-pages = 4\nqueues = 4\npersistent = true\n";

impl Campaign {
    /// Runs it. Errors: what a guest noticed, or what is not on its disk in the end.
    pub fn run(&self, disks: &dyn Disks, mut progress: impl FnMut(u32)) -> Result<Report> {
        let mut world = World::start(self.binaries.clone())?;
        std::fs::write(world.dir().join("blkback.toml"), format!("{CONFIG}{}", disks.config()))?;
        self.start(&mut world, None)?;
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            started: AtomicU64::new(0),
            over: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        });
        let mut guests = Vec::new();
        for (number, shape) in (1..).zip(SHAPES) {
            let image = disks.make(world.dir(), shape.name, model::BYTES as u64)?;
            let vbd = world.guest_with_disk(&Disk::new(image))?;
            let guest = Guest::of(world.dir(), vbd, shape.abi)?;
            let workload = Workload::new(shape, guest, self.seed ^ number, Arc::clone(&shared))?;
            guests.push(thread::Builder::new().name(shape.name.into()).spawn(move || workload.run())?);
        }
        let mut report = Report::default();
        let killed = self.kill(disks, &mut world, &shared, &mut report, &mut progress);
        shared.over.store(true, SeqCst);
        let mut models = Vec::new();
        for guest in guests {
            let name = guest.thread().name().unwrap_or_default().to_owned();
            let done = guest.join().map_err(|_| anyhow::anyhow!("the guest panicked"))?;
            let done =
                done.with_context(|| format!("guest {name}, seed {}\n{}", self.seed, world.backend_words()))?;
            report.requests += done.requests;
            report.pauses.extend(done.pauses);
            models.push((name, done.model));
        }
        killed?;
        report.took = shared.begin.elapsed();
        report.pauses.sort_unstable();
        (report.again, report.untold) = recovered(&std::fs::read_to_string(world.dir().join("blkback.log"))?);
        world.stop_backend()?;
        for (name, model) in models {
            let contents = disks.contents(world.dir(), &name)?;
            ensure!(contents.len() == model::BYTES, "guest {name}: {} bytes in the end", contents.len());
            if let Some(at) = model.differs(0, &contents) {
                bail!("guest {name}, seed {}: in the end the image differs at byte {at}", self.seed);
            }
        }
        Ok(report)
    }

    fn start(&self, world: &mut World, die_at: Option<(Step, u32)>) -> Result<()> {
        let mut arguments =
            vec!["--config".to_owned(), world.dir().join("blkback.toml").display().to_string()];
        if let Some((step, count)) = die_at {
            arguments.extend(["--die-at".to_owned(), format!("{step}:{count}")]);
        }
        world.start_backend(&arguments)
    }

    fn kill(
        &self,
        disks: &dyn Disks,
        world: &mut World,
        shared: &Shared,
        report: &mut Report,
        progress: &mut impl FnMut(u32),
    ) -> Result<()> {
        let mut random = noise(self.seed, self.kills as usize * 4).into_iter().map(u32::from);
        let mut random = move |below: u32| random.next().unwrap_or(0) * below / 256;
        report.at_steps = Step::ALL.iter().map(|step| (*step, 0)).collect();
        let mut armed: Option<usize> = None;
        for kill in 0..self.kills {
            let begin = Instant::now();
            match armed {
                None => thread::sleep(self.longest * random(256) / 256),
                Some(_) => {
                    while begin.elapsed() < self.longest * STEPS_LONGER && world.check_backend().is_ok() {
                        thread::sleep(Duration::from_micros(500));
                    }
                }
            }
            match armed {
                Some(step) if world.check_backend().is_err() => report.at_steps[step].1 += 1,
                _ => report.at_random += 1,
            }
            world.end_backend();
            disks.killed(world.dir())?;
            // Every other one dies at a step, each of which has its turn.
            let next = (self.steps && kill % 2 == 0).then_some(kill as usize / 2 % Step::ALL.len());
            armed = next;
            shared.started.store(u64::try_from(shared.begin.elapsed().as_nanos())?, SeqCst);
            self.start(world, next.map(|step| (Step::ALL[step], 1 + random(most_times(Step::ALL[step])))))?;
            if shared.failed.load(SeqCst) {
                return Ok(());
            }
            if interrupted() {
                bail!("interrupted");
            }
            progress(kill + 1);
        }
        // The last one is to live.
        if armed.is_some() {
            thread::sleep(self.longest * STEPS_LONGER);
            world.end_backend();
            self.start(world, None)?;
        }
        Ok(())
    }
}

/// How often a daemon comes to a step within the time that it has: some only once for each ring, and guests want to be notified
/// rarely where the daemon is never far behind.
fn most_times(step: Step) -> u32 {
    match step {
        Step::TakenOver | Step::Bound | Step::Told => 10,
        Step::Notified => 2,
        _ => 24,
    }
}

/// Sums of what new daemons told of their rings: requests done again, requests told.
fn recovered(log: &str) -> (u64, u64) {
    let number = |line: &str, key: &str| -> u64 {
        let value = line.split_once(key).map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default());
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    let lines = log.lines().filter(|line| line.contains("an earlier daemon was killed"));
    lines.fold((0, 0), |(again, untold), line| {
        (again + number(line, "again="), untold + number(line, "untold="))
    })
}
