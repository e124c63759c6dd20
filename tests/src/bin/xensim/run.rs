//! `run`: a command inside a world.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::BufWriter,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};
use blkif_observe::trace::Trace;
use tempfile::TempDir;
use tests::world::{Process, tuning::Tuning};

use crate::{
    guests::{Guests, new_world, target},
    image,
};

/// Arguments of `run`.
#[derive(clap::Args, Debug)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Args {
    /// A raw image to serve (also null:SIZE); may be repeated [default: an empty disk of --size]
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Size of the empty disk in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    size: u64,
    /// Trace requests through both ends, for <https://ui.perfetto.dev>
    #[arg(long, value_name = "FILE", conflicts_with = "record")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    tuning: Tuning,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const ENVIRONMENT: &str = "\
The command finds in its environment:
  XENSTORED_PATH      the XenStore's socket
  BLKIF_WORLD         the world, for --xen
  BLKIF_IMAGE         the file behind the first disk
  BLKIF_NBD_SOCKET    the socket of the first disk's NBD export
  BLKIF_NBD_URI       its address
  BLKIF_NBD_URI_2...  those of further disks";

/// Longest run of a command: a day.
const FOREVER: Duration = Duration::from_secs(86_400);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let world = new_world()?;
    let mut targets = args.images.iter().map(|image| target(image)).collect::<Result<Vec<_>>>()?;
    if targets.is_empty() {
        let empty = world.dir().join("disk.img");
        image::make_empty(&empty, args.size << 20)?;
        targets.push(target(&empty)?);
    }
    let traces = args.trace.as_ref().map(|_| tempfile::tempdir()).transpose()?;
    let guests = Guests::start(world, &targets, &args.tuning, traces.as_ref().map(TempDir::path))?;
    let status = run_inside(&guests, &args.command)?;
    guests.stop()?;
    if let (Some(traces), Some(file)) = (&traces, &args.trace) {
        merge(traces.path(), file).with_context(|| format!("the trace {}", file.display()))?;
    }
    // As a shell reports it.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// One trace of all programs' traces.
fn merge(folder: &Path, file: &Path) -> Result<()> {
    let mut trace = Trace::default();
    for part in fs::read_dir(folder)? {
        let part = part?.path();
        let read = Trace::read(&fs::read(&part)?).with_context(|| part.display().to_string())?;
        trace.requests.extend(read.requests);
    }
    trace.write(&mut BufWriter::new(File::create(file)?))?;
    eprintln!("xensim: {} requests at both ends, in {}", trace.requests.len(), file.display());
    Ok(())
}

fn run_inside(guests: &Guests, words: &[OsString]) -> Result<ExitStatus> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("XENSTORED_PATH", guests.world().xenstore())
        .env("BLKIF_WORLD", guests.world().name())
        .env("PATH", with_our_programs()?);
    for (guest, number) in guests.iter().zip(1..) {
        if number == 1 {
            command
                .env("BLKIF_IMAGE", &guest.target)
                .env("BLKIF_NBD_SOCKET", &guest.socket)
                .env("BLKIF_NBD_URI", guest.uri());
        } else {
            command.env(format!("BLKIF_NBD_URI_{number}"), guest.uri());
        }
    }
    Process::spawn(&program.to_string_lossy(), &mut command)?.wait(FOREVER)
}

/// The search path with the folder of this program, where `blkfront` and `blkback` are too, in front.
fn with_our_programs() -> Result<OsString> {
    let us = env::current_exe()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = us.parent().map(PathBuf::from).into_iter().chain(env::split_paths(&path));
    Ok(env::join_paths(folders)?)
}
