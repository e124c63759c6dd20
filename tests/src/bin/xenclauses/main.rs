//! The conformance clauses on real Xen, against peers that nobody here wrote, and the table of what came of it.
//!
//! ```text
//!   in a guest   backends  ─┐
//!                           ├─▶ a line a clause (verdict) ─▶ tests/xen/expected ─▶ table ─▶ docs/INTEROP.md
//!   in dom0      frontends ─┘
//! ```

mod backends;
mod child;
mod device;
mod frontends;
mod stock;
mod table;
mod verdict;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The conformance clauses on real Xen
#[derive(Debug, Parser)]
#[command(name = "xenclauses", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// In a guest whose kernel leaves its disks alone: clauses about the backend of those disks
    Backends(backends::Args),
    /// One of them, as a process of its own
    #[command(hide = true)]
    Backend(backends::one::Args),
    /// In dom0: clauses about the block driver of a guest's kernel
    Frontends(frontends::Args),
    /// One of them, as a process of its own
    #[command(hide = true)]
    Frontend(frontends::one::Args),
    /// In that guest, by order of the one in dom0
    #[command(hide = true)]
    Stock(stock::Args),
    /// Print docs/INTEROP.md
    Table(table::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Backends(args) => backends::run(&args),
        Command::Backend(args) => backends::one::run(&args),
        Command::Frontends(args) => frontends::run(&args),
        Command::Frontend(args) => frontends::one::run(&args),
        Command::Stock(args) => stock::run(&args),
        Command::Table(args) => table::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xenclauses: {error:#}");
        ExitCode::FAILURE
    })
}
