//! `copy`: an image file into or out of the disk.

mod extents;
mod resume;
mod verify;

use std::{
    fmt,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, FileTypeExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tracing::warn;

use self::resume::Progress;
use crate::{
    connect::{Disk, World},
    exit::Usage,
    pipe::{Flow, Pipe},
    pull::pull,
    push::{Next, Tally, Zeroes, is_zero, push},
    say, size,
};

/// Arguments of `copy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which way: into or out of the disk
    direction: Direction,
    /// The image: a file or a block device
    image: PathBuf,
    /// Bytes to copy [default: the whole image, or the whole disk]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    length: Option<u64>,
    /// Read both sides again at the end and compare their SHA-256
    #[arg(long)]
    verify: bool,
    /// Go on where an unfinished copy stopped
    #[arg(long)]
    resume: bool,
    /// Discard what holes of the image cover before looking whether it reads as zeroes (in)
    #[arg(long)]
    discard: bool,
    /// Trust that the disk reads as zeroes everywhere: pass holes over (in)
    #[arg(long)]
    target_is_zero: bool,
    /// Show no progress and no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    flow: Flow,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// From the image into the disk
    In,
    /// From the disk into the image
    Out,
}

/// Runs the copy. Errors: [`Usage`] for what cannot be copied, [`Mismatch`](crate::exit::Mismatch), and whatever went wrong.
pub(crate) fn run<W: World>(args: &Args, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let image = Image::open(args, disk.capabilities().bytes())?;
    let mut progress = Progress {
        direction: args.direction,
        disk: disk.device.info().frontend.clone(),
        disk_bytes: disk.capabilities().bytes(),
        length: image.length,
        changed: image.changed,
        done: 0,
    };
    if args.resume {
        progress.done = progress.recall(&args.image)?;
    } else {
        resume::forget(&args.image).context("removing an old state file")?;
    }
    let mut pipe = Pipe::new(disk, args.flow)?;
    let bar = bar(args.quiet, image.length, progress.done);
    let (start, begun) = (progress.done, Instant::now());
    let copied = match args.direction {
        Direction::In => image.copy_in(&mut pipe, args, &mut progress.done, &bar),
        Direction::Out => image.copy_out(&mut pipe, &mut progress.done, &bar),
    };
    bar.finish_and_clear();
    let tally = match copied {
        Ok(tally) => tally,
        Err(error) => return Err(unfinished(args, &progress, error)),
    };
    resume::forget(&args.image).context("removing the state file")?;
    if !args.quiet {
        let summary = Summary { args, bytes: image.length - start, tally, time: begun.elapsed() };
        say::line(summary.to_string())?;
    }
    if args.verify {
        let digest = verify::compare(&image.file, &mut pipe, image.length)?;
        if !args.quiet {
            say::line(format!("verified: SHA-256 {digest}"))?;
        }
    }
    Ok(())
}

/// Keeps how far a copy got and says how to go on.
fn unfinished(args: &Args, progress: &Progress, error: anyhow::Error) -> anyhow::Error {
    let how_far = format!("stopped after {} of {} bytes", progress.done, progress.length);
    match progress.keep(&args.image) {
        Ok(_) => error.context(format!("{how_far}; --resume goes on there")),
        Err(also) => {
            warn!("{also:#}");
            error.context(how_far)
        }
    }
}

struct Image {
    file: File,
    length: u64,
    /// Of a source: when it was last changed.
    changed: Option<i128>,
    /// Of a target: a regular file, in which holes read as zeroes.
    sparse: bool,
}

impl Image {
    fn open(args: &Args, disk_bytes: u64) -> anyhow::Result<Self> {
        let (path, shown) = (&args.image, args.image.display());
        let (file, there) = match args.direction {
            Direction::In => {
                let file = File::open(path).with_context(|| format!("opening {shown}"))?;
                let there = bytes(&file).with_context(|| format!("sizing {shown}"))?;
                (file, there)
            }
            Direction::Out => {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(false).open(path);
                (file.with_context(|| format!("creating {shown}"))?, disk_bytes)
            }
        };
        let metadata = file.metadata()?;
        let length = args.length.unwrap_or(there);
        if length > there.min(disk_bytes) {
            let limit = if length > there { "image" } else { "disk" };
            let size = if length > there { there } else { disk_bytes };
            return Err(Usage(format!("cannot copy {length} bytes: the {limit} has {size}")).into());
        }
        if args.direction == Direction::Out && metadata.file_type().is_block_device() {
            let room = bytes(&file)?;
            if room < length {
                return Err(Usage(format!("cannot copy {length} bytes: {shown} has {room}")).into());
            }
        }
        let changed = (args.direction == Direction::In).then(|| resume::changed(&metadata));
        Ok(Self { length, changed, sparse: metadata.is_file(), file })
    }

    fn copy_in<W: World>(
        &self,
        pipe: &mut Pipe<'_, W>,
        args: &Args,
        done: &mut u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Tally> {
        let mut source = Source { image: self, at: *done, data_end: *done };
        let zeroes = Zeroes { discard: args.discard, already: args.target_is_zero };
        let result = push(pipe, *done, zeroes, |room| source.next(room), |written| bar.set_position(written));
        // What is to be gone on with later must not be lost in between.
        let flushed = pipe.flush();
        let tally = result.map_err(|unfinished| {
            if flushed.is_ok() {
                *done = unfinished.at;
            }
            unfinished.error
        })?;
        flushed?;
        Ok(tally)
    }

    fn copy_out<W: World>(
        &self,
        pipe: &mut Pipe<'_, W>,
        done: &mut u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Tally> {
        if self.sparse {
            // What lies behind the part that is done may be left from another copy: it becomes one hole.
            self.file
                .set_len(*done)
                .and_then(|()| self.file.set_len(self.length))
                .context("sizing the image")?;
        }
        let mut tally = Tally::default();
        let (start, mut reached) = (*done, *done);
        let result = pull(pipe, start, self.length - start, |at, data| {
            self.store(at, data, &mut tally).with_context(|| format!("writing the image at byte {at}"))?;
            reached = at + data.len() as u64;
            bar.set_position(reached);
            Ok(())
        });
        let synced = self.file.sync_data().context("making the image durable");
        if synced.is_ok() {
            *done = reached;
        }
        result.and(synced)?;
        Ok(tally)
    }

    /// Writes data, and leaves its blocks of zeroes out where they are holes already.
    fn store(&self, mut at: u64, mut data: &[u8], tally: &mut Tally) -> std::io::Result<()> {
        while !data.is_empty() {
            let zero = self.sparse && is_zero(&data[..data.len().min(BLOCK)]);
            let alike = |block: &&[u8]| (self.sparse && is_zero(block)) == zero;
            let run = data.chunks(BLOCK).take_while(alike).map(<[u8]>::len).sum();
            let (now, later) = data.split_at(run);
            if zero {
                tally.kept += run as u64;
            } else {
                self.file.write_all_at(now, at)?;
                tally.data += run as u64;
            }
            at += run as u64;
            data = later;
        }
        Ok(())
    }
}

/// Zeroes are looked for in blocks of this many bytes.
const BLOCK: usize = 4096;

/// An image on its way into the disk.
struct Source<'a> {
    image: &'a Image,
    at: u64,
    /// Up to here there is data, not a hole.
    data_end: u64,
}

impl Source<'_> {
    fn next(&mut self, room: &mut [u8]) -> anyhow::Result<Next> {
        let Image { file, length, .. } = self.image;
        if self.at == *length {
            return Ok(Next::End);
        }
        if self.at == self.data_end {
            let extent = extents::extent(file, self.at, *length).context("looking for holes in the image")?;
            if extent.hole {
                let count = extent.end - self.at;
                (self.at, self.data_end) = (extent.end, extent.end);
                return Ok(Next::Zeroes(count));
            }
            self.data_end = extent.end;
        }
        let left = usize::try_from(self.data_end - self.at).unwrap_or(usize::MAX);
        let count = left.min(room.len());
        let read = file.read_exact_at(&mut room[..count], self.at);
        read.with_context(|| format!("reading the image at byte {}", self.at))?;
        self.at += count as u64;
        Ok(Next::Data(count))
    }
}

/// Size of a file or a block device.
fn bytes(file: &File) -> std::io::Result<u64> {
    use std::io::Seek as _;
    let mut file = file;
    let end = file.seek(std::io::SeekFrom::End(0))?;
    file.rewind()?;
    Ok(end)
}

fn bar(quiet: bool, length: u64, done: u64) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length).with_position(done);
    match ProgressStyle::with_template(
        "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    ) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Summary<'a> {
    args: &'a Args,
    bytes: u64,
    tally: Tally,
    time: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { args, bytes, tally, time } = self;
        let seconds = time.as_secs_f64().max(1e-9);
        let (way, image) =
            (if args.direction == Direction::In { "in" } else { "out" }, image_name(&args.image));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "shown rounded"
        )]
        let rate = BinaryBytes((*bytes as f64 / seconds) as u64);
        write!(f, "copied {image} {way}: {} in {seconds:.2} s, {rate}/s; ", BinaryBytes(*bytes))?;
        write!(f, "{} data, {} zeroes", BinaryBytes(tally.data), BinaryBytes(tally.kept + tally.zeroed))?;
        match args.direction {
            Direction::In if tally.zeroed > 0 => {
                write!(f, " ({} of them had to be written)", BinaryBytes(tally.zeroed))
            }
            _ => Ok(()),
        }
    }
}

fn image_name(image: &Path) -> std::path::Display<'_> {
    image.file_name().map_or(image, Path::new).display()
}

#[cfg(test)]
mod tests;
