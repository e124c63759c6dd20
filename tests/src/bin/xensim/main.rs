//! Starts a simulated Xen on this machine and plays toolstack in it, with the real `blkback` and the real `blkfront`.

mod bench;
mod demo;
mod formats;
mod guests;
mod image;
mod kills;
mod limits;
mod nbd;
mod neighbour;
mod rbd;
mod replay;
mod rounds;
mod run;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A simulated Xen with a real block driver pair in it
#[derive(Debug, Parser)]
#[command(name = "xensim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy a disk image into a guest's disk and out again, and compare
    Demo(demo::Args),
    /// Measure images of other formats against qemu-storage-daemon
    Formats(formats::Args),
    /// Keep a world up until SIGINT, with an NBD export of each image
    Up(up::Args),
    /// Run a command inside a world
    Run(run::Args),
    /// Measure the pair against raw io_uring and qemu-storage-daemon
    Bench(bench::Args),
    /// Kill the backend again and again under guests that check everything
    Kills(kills::Args),
    /// Measure whether disks with limits do what they are allowed to, no more and no less
    Limits(limits::Args),
    /// Measure what a hostile guest costs the guest beside it
    Neighbour(neighbour::Args),
    /// Measure an export of nbdkit against fio with libnbd
    Nbd(nbd::Args),
    /// Measure an image of a Ceph cluster against fio with librbd
    Rbd(rbd::Args),
    /// Play a recording to one end again, and make it smaller
    Replay(replay::Args),
}

fn main() -> ExitCode {
    let outcome = tests::world::catch_interrupts().and_then(|()| match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Formats(args) => formats::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Kills(args) => kills::run(&args),
        Command::Limits(args) => limits::run(&args),
        Command::Neighbour(args) => neighbour::run(&args),
        Command::Nbd(args) => nbd::run(&args),
        Command::Rbd(args) => rbd::run(&args),
        Command::Replay(args) => replay::run(&args),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("xensim: {error:#}");
        ExitCode::FAILURE
    })
}
