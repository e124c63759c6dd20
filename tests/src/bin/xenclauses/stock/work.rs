//! Pieces of work, done on a disk as any program does them.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::libc::{O_DIRECT, O_DSYNC};
use tests::conformance::rig::backend::{Range, Work, digest, written};

/// Pages are aligned to this, in bytes.
const PAGE: usize = 4096;
/// What lies in memory beside the data.
const NEIGHBOUR: u8 = 0x5A;

/// Does all of `work`, `depth` pieces at once and begun in order, and says what came of each, and in the end what was read.
pub(super) fn run(disk: &str, depth: usize, work: &[Work], say: &(impl Fn(&str) + Sync)) -> Result<()> {
    // The disk must see what is asked for, and not what the kernel makes of several pieces; one it may put together again.
    let merges = if work.len() > 1 { "2" } else { "0" };
    fs::write(format!("/sys/block/{disk}/queue/nomerges"), merges).context("nomerges")?;
    let disk = format!("/dev/{disk}");
    let (next, read) = (Mutex::new(0..work.len()), Mutex::new(vec![Vec::new(); work.len()]));
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..depth.min(work.len()) {
            scope.spawn(|| {
                while let Some(n) = take() {
                    match perform(&disk, work[n]) {
                        Ok(bytes) => {
                            read.lock().unwrap_or_else(PoisonError::into_inner)[n] = bytes;
                            say(&format!("done {n}"));
                        }
                        Err(error) => say(&format!("done {n} {error:#}")),
                    }
                }
            });
        }
    });
    say(&format!("read {}", digest(&read.into_inner().unwrap_or_else(PoisonError::into_inner).concat())));
    Ok(())
}

/// What was read, if anything was to be.
fn perform(disk: &str, work: Work) -> Result<Vec<u8>> {
    match work {
        Work::Read(range) => {
            let (mut memory, at) = memory(range);
            let len = range.bytes as usize;
            let file = File::options().read(true).custom_flags(O_DIRECT).open(disk)?;
            let read = file.read_at(&mut memory[at..at + len], place(range)?)?;
            ensure!(read == len, "{read} of {len} bytes: past the end");
            return Ok(memory[at..at + len].to_vec());
        }
        Work::Write(range) => write(disk, range, O_DIRECT)?,
        Work::Barrier(Some(range)) => write(disk, range, O_DIRECT | O_DSYNC)?,
        Work::Barrier(None) | Work::Flush => File::open(disk)?.sync_all()?,
        Work::Discard(sector, sectors, secure) => discard(disk, sector, sectors, secure)?,
    }
    Ok(Vec::new())
}

fn write(disk: &str, range: Range, flags: i32) -> Result<()> {
    let (mut memory, at) = memory(range);
    let len = range.bytes as usize;
    memory[at..at + len].copy_from_slice(&written(range.sector, len));
    let file = File::options().write(true).custom_flags(flags).open(disk)?;
    Ok(file.write_all_at(&memory[at..at + len], place(range)?)?)
}

/// Memory with room for a range at its offset from the start of a page, and where that is.
fn memory(range: Range) -> (Vec<u8>, usize) {
    let end = range.offset as usize + range.bytes as usize;
    let memory = vec![NEIGHBOUR; end.next_multiple_of(PAGE) + PAGE];
    let at = memory.as_ptr().align_offset(PAGE) + range.offset as usize;
    (memory, at)
}

fn place(range: Range) -> Result<u64> {
    range.sector.checked_mul(512).context("past the end")
}

fn discard(disk: &str, sector: u64, sectors: u64, secure: bool) -> Result<()> {
    let bytes =
        |sectors: u64| sectors.checked_mul(512).context("past the end").map(|bytes| bytes.to_string());
    let mut command = std::process::Command::new("blkdiscard");
    command
        .args(["-f", "-o", &bytes(sector)?, "-l", &bytes(sectors)?])
        .args(secure.then_some("-s"))
        .arg(disk);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(())
}
