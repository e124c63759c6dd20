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
mod vdev;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use xen_platform::{DomId, linux, sim};

use crate::{
    cli::{Cli, Command, Connection, Xen},
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
    let stop = Stop::on_signals().context("listening for signals")?;
    match &cli.connection.xen {
        Xen::Sim(directory) => {
            let world = sim::World::connect(directory, DomId(cli.connection.domain))?;
            in_world(world, &cli.connection, &cli.command, stop)
        }
        Xen::Linux => {
            let world = linux::World::for_frontend()?;
            let domain = linux::World::own_domain().context("finding our own domain's number")?.0;
            in_world(world, &Connection { domain, ..cli.connection }, &cli.command, stop)
        }
    }
}

fn in_world<W: World>(
    world: W,
    connection: &Connection,
    command: &Command,
    stop: Stop,
) -> anyhow::Result<()> {
    with_disk(world, connection, 1, stop, |disk| match command {
        Command::Info(args) => info::run(args, disk),
        Command::Read(args) => range::read(args, disk),
        Command::Write(args) => range::write(args, disk),
        Command::Copy(args) => copy::run(args, disk),
        Command::Bench(args) => bench::run(args, disk),
        Command::Nbd(args) => nbd::run(args, disk),
    })
}
