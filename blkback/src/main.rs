//! The daemon's command line.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use blkback::{
    config::{Config, Strategy},
    daemon,
    storage::Engine,
};
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::unbounded_channel,
};
use tracing_subscriber::EnvFilter;
use xen_platform::{DomId, sim};

/// Serves disk images to Xen guests.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where Xen is: `linux` for /dev/xen on this machine, or `sim:DIR` for a simulated one
    #[arg(long, value_name = "WORLD", default_value = "linux")]
    xen: String,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and stop
    #[arg(long)]
    check_config: bool,
    /// Data-plane threads [default: one per processor]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How data moves between disk and guest [default: direct in a simulated world, else copy]
    #[arg(long)]
    strategy: Option<Strategy>,
    /// Longest polling after work, in microseconds [default: 50 in a simulated world, else 0]
    #[arg(long, value_name = "N")]
    poll_us: Option<u64>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,blkback::control=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blkback: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    start_log(&arguments.log)?;
    let mut config = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    if arguments.check_config {
        return Ok(());
    }
    let settings = &mut config.daemon;
    settings.workers = arguments.workers.unwrap_or(settings.workers);
    settings.strategy = arguments.strategy.or(settings.strategy);
    settings.poll_us = arguments.poll_us.or(settings.poll_us);
    if arguments.xen == "linux" {
        bail!(
            "--xen linux: this version does not open /dev/xen/gntdev and /dev/xen/evtchn; it serves sim:DIR only"
        );
    }
    let dir = sim::parse_spec(&arguments.xen)?;
    settings.strategy.get_or_insert(Strategy::Direct);
    settings.poll_us.get_or_insert(50);
    let world =
        sim::World::connect(dir, DomId(settings.domain)).context("cannot join the simulated world")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (measure, measures) = unbounded_channel();
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move { while hangup.recv().await.is_some() && measure.send(()).is_ok() {} });
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        let store = sim::xenstored_socket(dir);
        daemon::run_with(world, Some(&store), config, Engine::new, measures, shutdown).await?;
        Ok(())
    })
}

/// Logs to stderr; without times where the journal adds its own.
fn start_log(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().init(),
        None => log.init(),
    }
    Ok(())
}
