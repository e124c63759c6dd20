//! `bench`: the numbers behind the promises.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tests::{
    bench::{
        Bench, Parts,
        job::{Sample, Span},
        plot, rows,
        table::{Row, Table},
        targets::{self, Target},
    },
    world::{Binaries, interrupted, tuning::Tuning},
};

use crate::image;

/// Arguments of `bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The file to read, only read [default: one made on the spot]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Size of the file made on the spot, in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    size: u64,
    /// Rounds; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement, after a warm-up of a quarter of it
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// Leave qemu-storage-daemon out
    #[arg(long)]
    no_qemu: bool,
    /// Leave the sweep over depths out (and the plot)
    #[arg(long)]
    no_sweep: bool,
    /// Leave the comparison of direct, indirect and segment-block requests out
    #[arg(long)]
    no_modes: bool,
    /// Leave the null storage out
    #[arg(long)]
    no_null: bool,
    /// Only jobs whose name contains this, such as "depth 32"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where the results go: bench.json and bench.svg
    #[arg(long, default_value = "target/xensim", value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    tuning: Tuning,
}

/// The JSON file.
#[derive(Debug, Serialize)]
struct Report<'a> {
    machine: Machine,
    rounds: u32,
    seconds: f64,
    rows: Vec<Line<'a>>,
    targets: &'a [Target],
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    row: &'a Row,
    median: Sample,
    samples: &'a [Sample],
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// Runnable threads in the minute before the run: what else kept the machine busy.
    load: f64,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let parts = Parts {
        qemu: !args.no_qemu,
        sweep: !args.no_sweep,
        modes: !args.no_modes,
        null: !args.no_null,
        unlogged: !args.tuning.no_recovery,
        watched: true,
    };
    let mut rows = rows(parts);
    if let Some(text) = &args.only {
        rows.retain(|row| row.job.name().contains(text.as_str()));
    }
    if rows.is_empty() {
        bail!("there is no such job");
    }
    let machine = Machine::look()?;
    if machine.load > 0.3 {
        eprintln!(
            "xensim: the machine is not idle (load {}): what follows says more of that than of anything else",
            machine.load
        );
    }
    let scratch = tempfile::Builder::new().prefix("xensim-bench-").tempdir()?;
    let file = match &args.file {
        Some(file) => file.canonicalize().with_context(|| format!("cannot open {}", file.display()))?,
        None => {
            let made = scratch.path().join("bench.img");
            image::make_full(&made, args.size << 20)?;
            made
        }
    };
    let span = Span {
        warm_up: Duration::from_secs_f64(args.seconds / 4.0),
        measure: Duration::from_secs_f64(args.seconds),
    };
    let mut bench = Bench::start(Binaries::build()?, &file, parts, args.tuning.clone(), span)?;
    let table = measure(&mut bench, &rows, args.rounds, &file)?;
    bench.stop()?;
    report(args, machine, &table)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(bench: &mut Bench<'_>, rows: &[Row], rounds: u32, file: &Path) -> Result<Table> {
    let bar = ProgressBar::new(u64::from(rounds) * rows.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left: {msg}")?);
    let mut table = Table::default();
    for _ in 0..rounds {
        // Whatever else runs here may have pushed the file out of the page cache.
        image::warm(file)?;
        for row in rows {
            if interrupted() {
                bail!("interrupted");
            }
            bar.set_message(format!("{}, {}", row.job.name(), row.who.name()));
            let sample =
                bench.sample(row).with_context(|| format!("{}, {}", row.job.name(), row.who.name()))?;
            table.add(*row, sample);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

fn report(args: &Args, machine: Machine, table: &Table) -> Result<()> {
    let targets = targets::check(table);
    println!(
        "Medians of {} rounds of {} s each, one queue; latencies from submission to the program's own sight of the completion;\n\
         CPU time of client and server together. \"client polls\": the peer's driver spins where the other sleeps.\n",
        args.rounds, args.seconds
    );
    println!("{}\n{}", table.text(), targets::text(&targets));
    fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot make the folder {}", args.output.display()))?;
    let report = Report {
        machine,
        rounds: args.rounds,
        seconds: args.seconds,
        rows: table
            .rows()
            .map(|(row, samples)| Line { row, median: tests::bench::table::median(samples), samples })
            .collect(),
        targets: &targets,
    };
    let json = args.output.join("bench.json");
    fs::write(&json, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", json.display()))?;
    println!("Every sample: {}", json.display());
    if !args.no_sweep && args.only.is_none() {
        let svg = args.output.join("bench.svg");
        plot::draw(table, &svg)?;
        println!("Over queue depth: {}", svg.display());
    }
    Ok(())
}

impl Machine {
    fn look() -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = cpuinfo
            .lines()
            .find_map(|line| {
                line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
            })
            .unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            load: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default(),
            processor,
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string(Path::new("/proc/sys/kernel/osrelease"))?.trim().to_owned(),
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be 0.01 to 3600 seconds".into()),
    }
}
