//! The daemon: divides into keeper and daemon, joins a world, goes into the sandbox, and runs [`blkback::daemon`] there until it is
//! told to stop.

use std::{io::Write as _, path::Path, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use blkback::{
    config::{Config, Strategy},
    control::{End, Operator},
    ctl::desk::{Ask, Desk},
    daemon,
    metrics::Endpoint,
    run_dir::RunDir,
    sandbox::{
        REFUSAL, Sandbox,
        calls::{Filters, Refusal},
        keeper::{Charge, Fate, Reach, Side, die_by, divide},
        self_test::{self, Trial},
    },
    storage::{self, Engine},
};
use clap::{CommandFactory as _, Parser as _};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{Receiver, UnboundedSender, channel, unbounded_channel},
};
use xen_platform::{BackWorld, DomId, linux, sim};

mod cli;
mod top;
mod upgrade;

/// Where images are on a Xen host, unless the configuration says otherwise.
const IMAGES: [&str; 2] = ["/srv", "/var/lib/xen/images"];

/// How long images of Ceph have to be closed in the end.
const CLOSING: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let done = match &arguments.command {
        Some(cli::Command::Upgrade { run_dir, patience }) => {
            upgrade::ask(run_dir, Duration::from_secs(*patience)).map(|()| ExitCode::SUCCESS)
        }
        Some(cli::Command::Top { run_dir, socket, every }) => {
            let socket = socket.clone().unwrap_or_else(|| run_dir.join("control.sock"));
            top::run(&socket, Duration::from_secs_f64(*every)).map(|()| ExitCode::SUCCESS)
        }
        Some(cli::Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut cli::Arguments::command(), "blkback", &mut script);
            std::io::stdout().write_all(&script).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
        Some(cli::Command::Man { folder }) => clap_mangen::generate_to(cli::Arguments::command(), folder)
            .map(|()| ExitCode::SUCCESS)
            .with_context(|| format!("{}", folder.display())),
        None => run(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("blkback: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &cli::Arguments) -> Result<ExitCode> {
    let mut config = arguments.config()?;
    if arguments.check_config {
        return Ok(ExitCode::SUCCESS);
    }
    arguments.start_log()?;
    // Asked for now, because the answer lies outside of the sandbox.
    config.daemon.workers = config.workers();
    let sim = if arguments.xen == "linux" { None } else { Some(sim::parse_spec(&arguments.xen)?) };
    let run_dir = config.daemon.run_dir.get_or_insert_with(|| match sim {
        None => "/run/blkback".into(),
        Some(dir) => dir.join(format!("blkback-{}", config.daemon.domain.unwrap_or(0))),
    });
    let run_dir = run_dir.clone();
    let folders = config.folders(if sim.is_some() { &["/"] } else { &IMAGES });
    let servers = config.servers();
    let prepare = |refusal| {
        let sandbox = &config.sandbox;
        let user = sandbox.user.as_deref();
        let network = config.ceph.is_some();
        let prepared = || Sandbox::prepare(user, config.logs(), config.credentials(), network, refusal);
        sandbox.enabled.then(prepared).transpose().context("cannot make the sandbox")
    };
    if arguments.self_test_sandbox {
        let (trial, sandbox) = (Trial::prepare(&run_dir, config.logs())?, prepare(Refusal::Fail)?);
        let folders = folders.and(trial.folder());
        return match divide(Reach { folders, servers })? {
            Side::Daemon(charge) => Ok(self_test::run(sandbox.as_ref(), &charge, &trial)?),
            Side::Keeper(keeper) => {
                let fate = keeper.keep(|| None)?;
                trial.remove()?;
                end_as(fate)
            }
        };
    }
    if sim.is_none() {
        // Its reasons are better told than those of what needs it.
        linux::World::for_backend()?;
    }
    let _alone = RunDir::claim(&run_dir)?;
    let sandbox = prepare(REFUSAL)?;
    match divide(Reach { folders, servers })? {
        Side::Keeper(keeper) => end_as(keeper.keep(|| upgrade::asked(&run_dir))?),
        Side::Daemon(charge) => {
            #[cfg(debug_assertions)]
            if let Some((step, count)) = arguments.die_at {
                blkback::steps::die_at(step, count);
            }
            let contained = Contained { sandbox, charge };
            if !config.servers().is_empty() {
                // Within the sandbox it cannot be. Whoever misses it is told when a disk needs it.
                _ = storage::nbd::load();
            }
            if config.ceph.is_some() {
                storage::rbd::load();
            }
            match sim {
                None => serve_linux(config, contained)?,
                Some(dir) => serve_sim(dir, config, contained)?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Ends as the daemon has.
fn end_as(fate: Fate) -> Result<ExitCode> {
    match fate {
        Fate::Ended(code) => Ok(code),
        Fate::Killed(signal) => Ok(die_by(signal)),
        Fate::HandOver(program) => Err(upgrade::become_program(&program)),
    }
}

/// The daemon's own confines.
struct Contained {
    sandbox: Option<Sandbox>,
    charge: Charge,
}

fn serve_linux(mut config: Config, contained: Contained) -> Result<()> {
    let world = linux::World::for_backend()?;
    world.open_for(config.daemon.workers)?;
    if config.daemon.domain.is_none() {
        let own = linux::World::own_domain().context("cannot find our own domain's number")?;
        config.daemon.domain = Some(own.0);
    }
    serve(world, None, config, contained)
}

fn serve_sim(dir: &Path, mut config: Config, contained: Contained) -> Result<()> {
    config.daemon.strategy.get_or_insert(Strategy::Direct);
    config.daemon.poll_us.get_or_insert(50);
    let world = sim::World::connect(dir, DomId(config.daemon.domain.unwrap_or(0)))
        .context("cannot join the simulated world")?;
    serve(world, Some(&sim::xenstored_socket(dir)), config, contained)
}

/// Runs the daemon in `world` until a signal ends it.
fn serve(world: impl BackWorld, store: Option<&Path>, config: Config, contained: Contained) -> Result<()> {
    // Images are opened on threads of their own, which do not stay.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_millis(100))
        .build()?;
    let served: Result<()> = runtime.block_on(async {
        let (measure, measures) = unbounded_channel();
        forward_hangups(measure)?;
        let shutdown = asked_to_end()?;
        Charge::hear_signals()?;
        let store = daemon::connect(store, &config).await?;
        let operator = Operator {
            measure: measures,
            asks: open_desk(&config)?,
            metrics: Endpoint::open(&config.metrics)?,
            trace: daemon::open_trace(&config)?,
        };
        let Contained { sandbox, charge } = contained;
        let filters = sandbox.map(|sandbox| sandbox.enter(&charge)).transpose();
        let filters = Arc::new(filters.context("cannot enter the sandbox")?);
        let of_workers = Arc::clone(&filters);
        let storage = move || {
            let engine = Engine::new()?;
            seal(&of_workers)?;
            Ok(engine)
        };
        let shutdown = async {
            // The workers have been started.
            match seal(&filters) {
                Ok(()) => shutdown.await,
                Err(error) => {
                    tracing::error!(%error, "cannot seal the sandbox");
                    End::Stop
                }
            }
        };
        let outside = Arc::new(charge.line);
        daemon::run_with(world, store, outside, config, storage, operator, shutdown).await?;
        Ok(())
    });
    storage::rbd::wait_until_closed(CLOSING);
    served
}

/// Makes the control socket, and what is asked there.
fn open_desk(config: &Config) -> Result<Receiver<Ask>> {
    let (send, asks) = channel(1);
    if let Some(socket) = config.control_socket() {
        let desk = Desk::open(&socket, &config.control).with_context(|| format!("{}", socket.display()))?;
        tokio::spawn(desk.serve(send));
    }
    Ok(asks)
}

fn seal(filters: &Option<Filters>) -> std::io::Result<()> {
    filters.as_ref().map_or(Ok(()), Filters::seal)
}

/// SIGHUP: the images are to be measured again.
fn forward_hangups(measure: UnboundedSender<()>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move { while hangup.recv().await.is_some() && measure.send(()).is_ok() {} });
    Ok(())
}

/// Done at the first SIGTERM or SIGINT, or when another program is to take over.
fn asked_to_end() -> Result<impl Future<Output = End>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut upgrade = signal(SignalKind::user_defined2())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => End::Stop,
            _ = interrupt.recv() => End::Stop,
            _ = upgrade.recv() => End::HandOver,
        }
    })
}
