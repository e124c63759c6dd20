//! The daemon's command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use blkback::config::{Config, Listen, Strategy};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Serves disk images to Xen guests.
///
/// Finds virtual disks in XenStore as toolstacks make them, and serves each from the file or block device that the toolstack
/// or the configuration names. SIGHUP measures all images again; SIGTERM and SIGINT let the guests close, and end it. Killed at any
/// instant it is followed by the next one, which goes on where it was: guests see a pause.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// Where Xen is: `linux` for /dev/xen on this machine, or `sim:DIR` for a simulated one
    #[arg(long, value_name = "WORLD", default_value = "linux")]
    pub(crate) xen: String,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and stop
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Data-plane threads [default: one per processor]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How data moves between disk and guest [default: direct in a simulated world, else copy for
    /// images with direct I/O and persistent for others]
    #[arg(long)]
    strategy: Option<Strategy>,
    /// Longest polling after work, in microseconds [default: 50 in a simulated world, else 0]
    #[arg(long, value_name = "N")]
    poll_us: Option<u64>,
    /// Tell counters to whoever asks there, as OpenMetrics over HTTP: `unix:/path`, or an address such as 127.0.0.1:9180
    #[arg(long, value_name = "PLACE")]
    metrics: Option<Listen>,
    /// Note nothing for a next daemon: guests lose their disks if this one is killed
    #[arg(long)]
    no_recovery: bool,
    /// Record what guests and this daemon do, in a new file in this folder, for `xensim replay`
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Trace requests through all stages, and write that to this file at the end, for <https://ui.perfetto.dev>
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The user to become when root starts it [default: blkback, if there is such a user]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Where the toolstack may choose images: a folder, file or device; may be repeated [default: /srv and /var/lib/xen/images, or
    /// everywhere in a simulated world]
    #[arg(long, value_name = "PATH")]
    images: Vec<PathBuf>,
    /// Keep the user's rights
    #[arg(long)]
    no_sandbox: bool,
    /// Go into the sandbox as configured, try what must not be possible there and what must, say how that went, and stop
    #[arg(long)]
    pub(crate) self_test_sandbox: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The process dies at a step: STEP:COUNT
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_parser = step)]
    pub(crate) die_at: Option<(blkback::steps::Step, u32)>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,blkback::control=debug; what the library
    /// that talks to XenStore says is of no use to anybody else
    #[arg(long, value_name = "FILTER", default_value = "info,xenstore_rs=off")]
    log: String,
}

/// What else this program does.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Show what the disks of the running daemon carry, second by second
    Top {
        /// The running daemon's run directory
        #[arg(long, value_name = "DIR", default_value = "/run/blkback")]
        run_dir: PathBuf,
        /// Its control socket [default: control.sock in the run directory]
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Seconds between two looks
        #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = seconds)]
        every: f64,
    },
    /// Print a script that completes command lines
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Put this program in the place of the daemon that runs: guests see a pause
    Upgrade {
        /// The running daemon's run directory
        #[arg(long, value_name = "DIR", default_value = "/run/blkback")]
        run_dir: PathBuf,
        /// Seconds to wait for it
        #[arg(long, value_name = "N", default_value_t = 30)]
        patience: u64,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|every| (0.1..=3600.0).contains(every)).ok_or("from 0.1 to 3600".into())
}

#[cfg(debug_assertions)]
fn step(text: &str) -> Result<(blkback::steps::Step, u32), String> {
    let (step, count) = text.split_once(':').ok_or("STEP:COUNT")?;
    Ok((step.parse()?, count.parse().map_err(|error| format!("{count}: {error}"))?))
}

impl Arguments {
    /// The configuration file, or the defaults, with what the command line says instead.
    pub(crate) fn config(&self) -> Result<Config> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        let daemon = &mut config.daemon;
        daemon.workers = self.workers.unwrap_or(daemon.workers);
        daemon.strategy = self.strategy.or(daemon.strategy);
        daemon.poll_us = self.poll_us.or(daemon.poll_us);
        daemon.recovery &= !self.no_recovery;
        daemon.record = self.record.clone().or(daemon.record.take());
        daemon.trace = self.trace.clone().or(daemon.trace.take());
        config.metrics.listen = self.metrics.clone().or(config.metrics.listen.take());
        let sandbox = &mut config.sandbox;
        sandbox.enabled &= !self.no_sandbox;
        sandbox.user = self.user.clone().or(sandbox.user.take());
        if !self.images.is_empty() {
            sandbox.images = Some(self.images.clone());
        }
        Ok(config)
    }

    /// Logs to stderr; without times where the journal adds its own.
    pub(crate) fn start_log(&self) -> Result<()> {
        let filter = EnvFilter::try_new(&self.log).with_context(|| format!("--log {}", self.log))?;
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        match std::env::var_os("JOURNAL_STREAM") {
            Some(_) => log.without_time().init(),
            None => log.init(),
        }
        Ok(())
    }
}
