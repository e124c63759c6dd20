//! What a hostile guest costs the guest beside it, both on one thread of one daemon.
//!
//! A guest may use its half of a shared thread: beside one that does the innocent is slower, and nothing is wrong. Hostile is what
//! takes more than that. So there are two measures, and both are taken in the same run:
//! - attacks that are no work (events, nodes, broken rings) are held against a neighbour that burns its own processor and leaves its
//!   disk alone: what the machine itself loses is in both;
//! - attacks that are made of requests are held against a neighbour that [works](Neighbour::Works): they may take what honest
//!   requests would.
//!
//! The hostile guest is a thread of this process, the innocent one a program of its own. On Xen each guest has processors of its own.
//! Where there are fewer than four, the daemon's thread has one to itself, and the guests share another: the innocent one then sleeps
//! while it waits, and the other runs while it sleeps.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use blkif_proto::{Abi, GrantRef, Opcode, Segment, xenbus::State};
use ringbuf::Field;
use serde::Serialize;
use xen_platform::sim;

use super::{
    job::{Job, Sample, Span},
    pair, processors,
    table::median,
};
use crate::{
    conformance::rig::{Connection, Guest, Raw, Wish, whole},
    world::{Binaries, Disk, Vbd, World, tuning::Tuning},
};

/// What the innocent guest does.
pub const JOBS: [Job; 2] = [Job::random(4096, 1), Job::random(4096, 32)];
/// How much slower it may be.
pub const TARGET: f64 = 0.10;

/// What the other guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Neighbour {
    /// Burns its own processor.
    Computes,
    /// Reads 4 KiB at random, 32 at a time.
    Works,
    /// Signals without end.
    Storm,
    /// Fills its ring with requests that are refused.
    Garbage,
    /// Breaks its ring and connects again.
    Reconnects,
    /// Rewrites its nodes without end.
    Watches,
    /// Reads of 1 MiB, as many as it may have.
    Huge,
}

impl Neighbour {
    /// All, the honest ones first.
    pub const ALL: [Self; 7] = [
        Self::Computes,
        Self::Works,
        Self::Storm,
        Self::Garbage,
        Self::Reconnects,
        Self::Watches,
        Self::Huge,
    ];

    /// Whom it is held against; none for the honest.
    pub fn measure(self) -> Option<Self> {
        match self {
            Self::Computes | Self::Works => None,
            Self::Storm | Self::Reconnects | Self::Watches => Some(Self::Computes),
            Self::Garbage | Self::Huge => Some(Self::Works),
        }
    }

    fn act(self) -> fn(&mut Guest<sim::World>, &AtomicBool) -> Result<()> {
        match self {
            Self::Computes => computes,
            Self::Works => works,
            Self::Storm => storm,
            Self::Garbage => garbage,
            Self::Reconnects => reconnects,
            Self::Watches => watches,
            Self::Huge => huge,
        }
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Computes => "computes (honest)",
            Self::Works => "reads 4 KiB (honest)",
            Self::Storm => "storm of events",
            Self::Garbage => "garbage requests",
            Self::Reconnects => "breaks and reconnects",
            Self::Watches => "rewrites its nodes",
            Self::Huge => "reads 1 MiB, indirect",
        })
    }
}

/// What the innocent guest had beside one neighbour, at one job.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Beside whom.
    pub neighbour: Neighbour,
    /// The job's name.
    pub job: String,
    /// The median of the rounds.
    pub median: Sample,
    /// By how much slower it was than beside the neighbour's [measure](Neighbour::measure); negative: faster.
    pub slower: Option<f64>,
}

impl Line {
    /// False when it was slowed down by more than the target.
    pub fn is_met(&self) -> bool {
        self.slower.is_none_or(|slower| slower <= TARGET)
    }
}

/// A daemon with one thread, and two guests.
#[derive(Debug)]
pub struct Street {
    world: World,
    innocent: Vbd,
    other: Vbd,
    /// Both share a processor.
    crowded: bool,
    samples: Vec<(Neighbour, Job, Sample)>,
}

impl Street {
    /// Starts the world; both guests have a null disk, which hides nothing of what the daemon does.
    pub fn start(binaries: Binaries) -> Result<Self> {
        let crowded = processors::are_few();
        if crowded {
            processors::others()?;
        }
        let mut world = World::start(binaries)?;
        world.start_backend(&[
            "--workers".to_owned(),
            "1".to_owned(),
            "--log".to_owned(),
            "error".to_owned(),
        ])?;
        let disk = Disk::new(format!("null:{}", 1_u64 << 30));
        let (innocent, other) = (world.guest_with_disk(&disk)?, world.guest_with_disk(&disk)?);
        if crowded {
            processors::daemon(world.serving()?)?;
        }
        Ok(Self { world, innocent, other, crowded, samples: Vec::new() })
    }

    /// Measures the innocent guest's job beside a neighbour.
    pub fn sample(&mut self, neighbour: Neighbour, job: &Job, span: Span) -> Result<()> {
        let attack = Attack::begin(self.world.dir(), self.other.clone(), neighbour, self.crowded)?;
        let tuning = Tuning { poll_us: self.crowded.then_some(0), ..Tuning::default() };
        let sample = pair::measure(&mut self.world, &self.innocent, &tuning, job, span);
        attack.end()?;
        self.samples.push((neighbour, *job, sample?));
        Ok(())
    }

    /// What came of all rounds.
    pub fn lines(&self) -> Vec<Line> {
        let of = |neighbour, job: Job| {
            let samples = self.samples.iter().filter(|(who, what, _)| (*who, *what) == (neighbour, job));
            median(&samples.map(|(.., sample)| *sample).collect::<Vec<_>>())
        };
        let mut lines = Vec::new();
        for job in JOBS {
            for neighbour in Neighbour::ALL {
                let median = of(neighbour, job);
                let measure = neighbour.measure().map(|measure| of(measure, job));
                let slower = measure.map(|measure| measure.iops / median.iops - 1.0);
                lines.push(Line { neighbour, job: job.name(), median, slower });
            }
        }
        lines
    }

    /// Stops everything. Errors: the daemon does not stop cleanly.
    pub fn stop(mut self) -> Result<()> {
        for vbd in [self.innocent, self.other] {
            self.world.toolstack().detach(&vbd)?;
        }
        self.world.stop()
    }
}

/// The table, for people.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        if n % Neighbour::ALL.len() == 0 {
            let head = ["IOPS", "p50 µs", "p99 µs", "slower"];
            text += &format!(
                "{}\n  {:24}{:>10}{:>10}{:>10}{:>10}\n",
                line.job, "beside one that", head[0], head[1], head[2], head[3]
            );
        }
        let Sample { iops, p50_us, p99_us, .. } = line.median;
        let slower = line.slower.map_or(String::new(), |slower| format!("{:+.1} %", slower * 100.0));
        let verdict = if line.is_met() { "" } else { "  more than 10 %" };
        text += &format!(
            "  {:24}{iops:>10.0}{p50_us:>10.1}{p99_us:>10.1}{slower:>10}{verdict}\n",
            line.neighbour
        );
    }
    text
}

/// The other guest at its work, in a thread.
struct Attack {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Attack {
    /// Begins, and comes back once the guest is at it.
    fn begin(dir: &Path, vbd: Vbd, neighbour: Neighbour, crowded: bool) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (dir, until, (begun, started)) = (dir.to_owned(), Arc::clone(&over), mpsc::channel());
        let thread = thread::spawn(move || {
            if crowded {
                processors::stand_back()?;
            }
            let mut guest = Guest::of(&dir, vbd, Abi::NATIVE)?;
            // Nobody waits for it any more when it has failed.
            _ = begun.send(());
            neighbour.act()(&mut guest, &until).with_context(|| neighbour.to_string())?;
            guest.restart()
        });
        _ = started.recv();
        // Until it is connected and at full speed.
        thread::sleep(Duration::from_millis(100));
        Ok(Self { over, thread })
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the hostile guest panicked"))?
    }
}

/// Does the same again and again.
fn again(over: &AtomicBool, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    while !over.load(Relaxed) {
        act()?;
    }
    Ok(())
}

fn computes(_: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    again(over, || {
        std::hint::spin_loop();
        Ok(())
    })
}

fn works(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let requests = connection.reads(0..32)?;
    again(over, || connection.batch_okay(&requests).map(drop))
}

fn storm(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    again(over, || connection.queue().ring_bell())
}

fn garbage(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    let mut connection = guest.connect(&Wish::default())?;
    let nothing = [Segment::page(GrantRef(u32::MAX)); 11];
    let request = |id| match id % 2 {
        0 => Raw::data(Opcode(200), id, 0, &[]),
        _ => Raw::write(id, 0, &nothing),
    };
    let requests: Vec<Raw> = (0..32).map(request).collect();
    again(over, || connection.batch(&requests).map(drop))
}

fn reconnects(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    again(over, || {
        let mut connection = guest.connect(&Wish::default())?;
        connection.queue().set_index(Field::ReqProd, 500);
        connection.queue().ring_bell()?;
        guest.restart()?;
        connection.take_rings_back()
    })
}

fn watches(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    let _connection = guest.connect(&Wish::default())?;
    again(over, || {
        guest.set_state(State::Connected)?;
        guest.write("noise", "x")
    })
}

fn huge(guest: &mut Guest<sim::World>, over: &AtomicBool) -> Result<()> {
    let most = guest.offers()?.max_indirect_segments.min(256);
    let mut connection: Connection<sim::World> = guest.connect(&Wish::default())?;
    let pages = connection.pages(most.into(), 0)?;
    let described = connection.describe(&whole(&pages))?;
    let request = |id| Raw::indirect(Opcode::READ, id, 0, most, described.grants());
    let requests: Vec<Raw> = (0..32).map(request).collect();
    again(over, || connection.batch_okay(&requests).map(drop))
}
