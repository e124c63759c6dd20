//! `demo`: the README's first command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::world::{Binaries, Disk, Process, Vbd, World, tuning::Tuning};

use crate::image;

/// Arguments of `demo`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The raw image to copy; it is only read [default: one made on the spot]
    image: Option<PathBuf>,
    /// Size of the image made on the spot, in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    size: u64,
    #[command(flatten)]
    tuning: Tuning,
}

/// Longest copy.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    say("build", "blkback and blkfront, unless they are up to date");
    let mut world = World::start(Binaries::build()?)?;
    let source = match &args.image {
        Some(image) => image.canonicalize().with_context(|| format!("cannot open {}", image.display()))?,
        None => {
            let made = world.dir().join("source.img");
            image::make_mixed(&made, args.size << 20)?;
            made
        }
    };
    let bytes = fs::metadata(&source)?.len();
    ensure!(bytes > 0, "{} is empty", source.display());
    let expected = image::digest(&source, bytes)?;
    say("image", &format!("{} ({} bytes), sha256 {}", source.display(), bytes, &expected[..16]));

    let disk = world.dir().join("disk.img");
    image::make_empty(&disk, bytes.next_multiple_of(512))?;
    world.start_backend(&args.tuning.backend())?;
    let vbd = world.guest_with_disk(&Disk::new(disk.to_str().context("path is not UTF-8")?))?;
    say("world", &format!("{}: domain 0 with blkback, domain {} with xvda", world.name(), vbd.guest));
    blkfront(&world, &vbd, &args.tuning, &["info"])?;

    let length = bytes.to_string();
    let begin = Instant::now();
    blkfront(&world, &vbd, &args.tuning, &["copy", "in", path(&source)?])?;
    said("in", bytes, begin.elapsed());
    let back = world.dir().join("back.img");
    let begin = Instant::now();
    blkfront(&world, &vbd, &args.tuning, &["copy", "out", path(&back)?, "--length", &length])?;
    said("out", bytes, begin.elapsed());

    for (what, file) in [("disk", &disk), ("copy", &back)] {
        let found = image::digest(file, bytes)?;
        ensure!(found == expected, "the {what} differs from the image: sha256 {found}, expected {expected}");
        say(what, &format!("sha256 {} as it should be", &found[..16]));
    }

    world.toolstack().detach(&vbd)?;
    world.toolstack().destroy_guest(vbd.guest, &[])?;
    world.stop()?;
    say("end", "the disk is detached, both processes have ended, nothing is left behind");
    Ok(ExitCode::SUCCESS)
}

/// Runs the frontend's tool on our terminal.
fn blkfront(world: &World, vbd: &Vbd, tuning: &Tuning, words: &[&str]) -> Result<()> {
    let mut command = world.blkfront(vbd);
    // What was negotiated is shown once, by `info`.
    command.args(tuning.frontend()).args(words).env("BLKFRONT_LOG", "warn").stdin(Stdio::null());
    Process::spawn(&format!("blkfront {}", words[0]), &mut command)?.wait_success(PATIENCE)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn say(what: &str, text: &str) {
    println!("{what:>7}  {text}");
}

fn said(what: &str, bytes: u64, time: Duration) {
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    say(what, &format!("{bytes} bytes through the ring in {:.2} s, {rate:.0} MB/s", time.as_secs_f64()));
}
