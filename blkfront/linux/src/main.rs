//! `blkfront`: a user-space tool that drives a Xen guest's block device.
//!
//! ```text
//!   cli ─▶ connect: world, probe … start ─▶ one of  info  range  copy  bench  nbd ─▶ stop, unconfigure
//!                                             range and copy: push, pull ─▶ pipe ─▶ blkfront::Queue
//! ```
//!
//! Every command gets a connected [`connect::Disk`] and leaves closing it to [`connect::with_disk`]; what passes on the way to the
//! backend can be [recorded](record). Limit: one disk per
//! process.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod connect;
mod copy;
mod exit;
mod info;
mod nbd;
mod pipe;
mod pull;
mod push;
mod range;
mod record;
mod say;
mod signal;
mod size;
#[cfg(test)]
mod testbed;
mod trace;
mod vdev;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;
use xen_platform::{DomId, linux, sim};

use crate::{
    cli::{Cli, Command, Connection, DiskCommand, Xen},
    connect::{World, with_disk},
    signal::Stop,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("BLKFRONT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    exit::report(run(cli))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Disk(command) => on_disk(&cli.connection, command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "blkfront", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), folder)
            .with_context(|| format!("writing to {}", folder.display())),
    }
}

fn on_disk(connection: &Connection, command: &DiskCommand) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("listening for signals")?;
    match &connection.xen {
        Xen::Sim(directory) => {
            let world = sim::World::connect(directory, DomId(connection.domain))?;
            in_world(world, connection, command, stop)
        }
        Xen::Linux => {
            let world = linux::World::for_frontend()?;
            let domain = linux::World::own_domain().context("finding our own domain's number")?.0;
            in_world(world, &Connection { domain, ..connection.clone() }, command, stop)
        }
    }
}

fn in_world<W: World>(
    world: W,
    connection: &Connection,
    command: &DiskCommand,
    stop: Stop,
) -> anyhow::Result<()> {
    with_disk(world, connection, 1, stop, |disk| match command {
        DiskCommand::Info(args) => info::run(args, disk),
        DiskCommand::Read(args) => range::read(args, disk),
        DiskCommand::Write(args) => range::write(args, disk),
        DiskCommand::Copy(args) => copy::run(args, disk),
        DiskCommand::Bench(args) => bench::run(args, disk),
        DiskCommand::Nbd(args) => nbd::run(args, disk),
    })
}
