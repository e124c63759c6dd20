//! The daemon: joins a world, and runs [`blkback::daemon`] in it until it is told to stop.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use blkback::{
    config::{Config, Strategy},
    control::End,
    daemon,
    run_dir::RunDir,
    storage::Engine,
};
use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use xen_platform::{BackWorld, DomId, linux, sim};

mod cli;
mod upgrade;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let done = match &arguments.command {
        Some(cli::Command::Upgrade { run_dir, patience }) => {
            upgrade::ask(run_dir, Duration::from_secs(*patience))
        }
        None => run(&arguments).and_then(go_on),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blkback: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How the daemon has ended: where another program takes its place, in this process, that begins now.
fn go_on(end: End) -> Result<()> {
    match end {
        End::Stop => Ok(()),
        End::HandOver(program) => Err(upgrade::become_program(&program)),
    }
}

fn run(arguments: &cli::Arguments) -> Result<End> {
    let mut config = arguments.config()?;
    if arguments.check_config {
        return Ok(End::Stop);
    }
    arguments.start_log()?;
    #[cfg(debug_assertions)]
    if let Some((step, count)) = arguments.die_at {
        blkback::steps::die_at(step, count);
    }
    if arguments.xen == "linux" {
        let world = linux::World::for_backend()?;
        let run_dir = config.daemon.run_dir.get_or_insert_with(|| "/run/blkback".into());
        let _alone = RunDir::claim(run_dir)?;
        if config.daemon.domain.is_none() {
            let own = linux::World::own_domain().context("cannot find our own domain's number")?;
            config.daemon.domain = Some(own.0);
        }
        return serve(world, None, config);
    }
    let dir = sim::parse_spec(&arguments.xen)?;
    config.daemon.strategy.get_or_insert(Strategy::Direct);
    config.daemon.poll_us.get_or_insert(50);
    let own = config.daemon.domain.unwrap_or(0);
    let run_dir = config.daemon.run_dir.get_or_insert_with(|| dir.join(format!("blkback-{own}")));
    let _alone = RunDir::claim(run_dir)?;
    let world = sim::World::connect(dir, DomId(config.daemon.domain.unwrap_or(0)))
        .context("cannot join the simulated world")?;
    serve(world, Some(&sim::xenstored_socket(dir)), config)
}

/// Runs the daemon in `world` until a signal ends it.
fn serve(world: impl BackWorld, store: Option<&Path>, config: Config) -> Result<End> {
    // Images are opened on threads of their own, which do not stay.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_millis(100))
        .build()?;
    runtime.block_on(async {
        let (measure, measures) = unbounded_channel();
        tokio::spawn(forward_hangups(measure));
        let shutdown = asked_to_end(config.daemon.run_dir.clone())?;
        Ok(daemon::run_with(world, store, config, Engine::new, measures, shutdown).await?)
    })
}

/// SIGHUP: the images are to be measured again.
async fn forward_hangups(measure: UnboundedSender<()>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() && measure.send(()).is_ok() {}
}

/// Done at the first SIGTERM or SIGINT, or when another program is to take over.
fn asked_to_end(run_dir: Option<PathBuf>) -> Result<impl Future<Output = End>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut upgrade = signal(SignalKind::user_defined2())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return End::Stop,
                _ = interrupt.recv() => return End::Stop,
                _ = upgrade.recv() => {
                    if let Some(program) = run_dir.as_deref().and_then(upgrade::asked) {
                        return End::HandOver(program);
                    }
                }
            }
        }
    })
}
