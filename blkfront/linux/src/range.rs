//! `read` and `write`: ranges of bytes between the disk and a file or a pipe.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd as _,
    path::PathBuf,
};

use anyhow::Context as _;

use crate::{
    connect::{Disk, World},
    exit::Usage,
    pipe::{Flow, Pipe},
    pull::pull,
    push::{Next, Zeroes, push},
    size,
};

/// Arguments of `read`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadArgs {
    /// Where to begin, in bytes
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = size::parse)]
    offset: u64,
    /// How many bytes [default: to the end of the disk]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    length: Option<u64>,
    /// Where the bytes go [default: standard output]
    file: Option<PathBuf>,
    #[command(flatten)]
    flow: Flow,
}

/// Arguments of `write`.
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// Where to begin, in bytes
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = size::parse)]
    offset: u64,
    /// How many bytes at most [default: to the end of the input]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    length: Option<u64>,
    /// Where the bytes come from [default: standard input]
    file: Option<PathBuf>,
    #[command(flatten)]
    flow: Flow,
}

/// Writes a range of the disk to a file or to standard output.
pub(crate) fn read<W: World>(args: &ReadArgs, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let bytes = disk.capabilities().bytes();
    let length = args.length.unwrap_or(bytes.saturating_sub(args.offset));
    if args.offset.checked_add(length).is_none_or(|end| end > bytes) {
        return Err(Usage(format!(
            "bytes {}+{length} lie past the end of the disk ({bytes} bytes)",
            args.offset
        ))
        .into());
    }
    let mut out: Box<dyn Write> = match &args.file {
        Some(path) => Box::new(File::create(path).with_context(|| format!("creating {}", path.display()))?),
        // Not through the standard library's buffer, which looks for the ends of lines.
        None => Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
    };
    let mut pipe = Pipe::new(disk, args.flow)?;
    pull(&mut pipe, args.offset, length, |_, data| out.write_all(data).context("writing the output"))?;
    out.flush().context("writing the output")
}

/// Writes a file or standard input to a range of the disk, and makes it durable.
pub(crate) fn write<W: World>(args: &WriteArgs, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let bytes = disk.capabilities().bytes();
    if args.offset > bytes {
        return Err(
            Usage(format!("byte {} lies past the end of the disk ({bytes} bytes)", args.offset)).into()
        );
    }
    let input: Box<dyn Read> = match &args.file {
        Some(path) => Box::new(File::open(path).with_context(|| format!("opening {}", path.display()))?),
        None => Box::new(io::stdin().lock()),
    };
    let mut input = input.take(args.length.unwrap_or(u64::MAX));
    let mut pipe = Pipe::new(disk, args.flow)?;
    let source = |room: &mut [u8]| {
        Ok(match fill(&mut input, room).context("reading the input")? {
            0 => Next::End,
            count => Next::Data(count),
        })
    };
    let tally = push(&mut pipe, args.offset, Zeroes::default(), source, |_| ()).map_err(|unfinished| {
        unfinished.error.context(format!("only bytes {} to {} were written", args.offset, unfinished.at))
    })?;
    if let Some(length) = args.length.filter(|length| tally.data < *length) {
        return Err(
            Usage(format!("the input has {} bytes, not {length}; they were written", tally.data)).into()
        );
    }
    pipe.flush()
}

/// Reads until `room` is full or the input ends.
fn fill(input: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < room.len() {
        match input.read(&mut room[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
