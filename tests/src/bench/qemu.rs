#![expect(unsafe_code, reason = "blkio hands completions out as uninitialised memory: ADR-0005")]
//! The peer: `qemu-storage-daemon`'s vhost-user-blk export, driven by the `blkio` crate.
//!
//! A user-space backend behind shared-memory rings, as ours is, with the same cut: one process serves, another drives.

use std::{
    mem::MaybeUninit,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use blkio::{Blkio, Blkioq, Completion, MemoryRegion, ReqFlags};
use tempfile::TempDir;

use super::{
    job::{Job, Offsets, Sample, Span},
    meter::Meter,
};
use crate::world::process::{Process, wait_until};

/// What the daemon exports.
#[derive(Clone, Copy, Debug)]
pub enum Disk<'a> {
    /// An image file, buffered.
    File(&'a Path),
    /// An image in a format of QEMU's, as it names it, in a file, buffered; to be written to.
    Format(&'a str, &'a Path),
    /// Nothing: requests complete at once, buffers are left as they are (`null-co`). Size in bytes.
    Null(u64),
}

/// How the driving side learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Sleeps until the daemon's event, as a guest does.
    Event,
    /// Spins on the used ring.
    Poll,
}

/// A running `qemu-storage-daemon` with one export.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    socket: PathBuf,
    bytes: u64,
    _dir: TempDir,
}

impl Daemon {
    /// Starts it and waits for its socket.
    pub fn start(disk: Disk<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("xensim-qemu-").tempdir()?;
        let socket = dir.path().join("vhost.sock");
        let (blockdev, bytes) = match disk {
            Disk::File(path) => (
                format!(
                    "driver=file,node-name=disk,read-only=on,aio=io_uring,cache.direct=off,filename={}",
                    path.display()
                ),
                path.metadata().with_context(|| format!("cannot open {}", path.display()))?.len(),
            ),
            Disk::Format(format, path) => {
                let file = format!("driver=file,aio=io_uring,cache.direct=off,filename={}", path.display());
                let file =
                    file.split(',').map(|option| format!("file.{option}")).collect::<Vec<_>>().join(",");
                (format!("driver={format},node-name=disk,{file}"), virtual_size(path)?)
            }
            Disk::Null(bytes) => (
                format!(
                    "driver=null-co,node-name=disk,read-only=on,read-zeroes=off,latency-ns=0,size={bytes}"
                ),
                bytes,
            ),
        };
        let writable = if matches!(disk, Disk::Format(..)) { "on" } else { "off" };
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable={writable},iothread=io,addr.type=unix,addr.path={}",
            socket.display()
        );
        let mut command = Command::new("qemu-storage-daemon");
        command
            .args(["--object", "iothread,id=io", "--blockdev", &blockdev, "--export", &export])
            .stdin(Stdio::null());
        let mut process = Process::spawn("qemu-storage-daemon", &mut command)?;
        wait_until("qemu-storage-daemon's socket", Duration::from_secs(10), || {
            process.check_alive()?;
            Ok(socket.exists().then_some(()))
        })?;
        Ok(Self { process, socket, bytes, _dir: dir })
    }

    /// Runs `job` on the export through a fresh connection.
    pub fn run(&self, job: &Job, wait: Wait, span: Span) -> Result<Sample> {
        let mut client = Client::connect(&self.socket, job, wait)?;
        client.drive(job, Offsets::new(job, self.bytes), Meter::start(span, &[self.process.id()])?)
    }
}

/// Bytes of the disk in an image.
fn virtual_size(image: &Path) -> Result<u64> {
    let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(image).output()?;
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).context("qemu-img info")?;
    info.get("virtual-size").and_then(serde_json::Value::as_u64).context("qemu-img info tells no size")
}

/// One connection to the export: `blkio`'s driver with one queue.
struct Client {
    // Dropped in this order: the queue uses the memory that the driver frees.
    queue: Blkioq,
    region: MemoryRegion,
    _driver: Blkio,
    depth: usize,
}

impl Client {
    fn connect(socket: &Path, job: &Job, wait: Wait) -> Result<Self> {
        let mut driver = Blkio::new("virtio-blk-vhost-user")?;
        driver.set_str("path", socket.to_str().context("the socket's path is not UTF-8")?)?;
        driver.set_bool("read-only", !job.writes)?;
        driver.connect()?;
        let polled = wait == Wait::Poll;
        driver.set_i32("num-queues", i32::from(!polled))?;
        driver.set_i32("num-poll-queues", i32::from(polled))?;
        let mut started = driver.start()?;
        let queues = if polled { &mut started.poll_queues } else { &mut started.queues };
        let queue = queues.pop().context("blkio gave no queue")?;
        let align = usize::try_from(driver.get_u64("mem-region-alignment")?)?.max(4096);
        let depth = usize::try_from(job.depth)?;
        let bytes = (depth * usize::try_from(job.block)?).next_multiple_of(align);
        let region = driver.alloc_mem_region(bytes)?;
        driver.map_mem_region(&region)?;
        Ok(Self { queue, region, _driver: driver, depth })
    }

    fn drive(&mut self, job: &Job, mut offsets: Offsets, mut meter: Meter) -> Result<Sample> {
        let block = usize::try_from(job.block)?;
        ensure!(self.region.len >= block * self.depth, "buffer too small");
        let mut sent = vec![Instant::now(); self.depth];
        let mut idle: Vec<usize> = (0..self.depth).collect();
        let mut completions: Vec<MaybeUninit<Completion>> =
            std::iter::repeat_with(MaybeUninit::uninit).take(self.depth).collect();
        let mut over = false;
        loop {
            let now = Instant::now();
            while !over && let Some(slot) = idle.pop() {
                let buffer = std::ptr::with_exposed_provenance_mut(self.region.addr + slot * block);
                let at = offsets.next_offset();
                if job.writes {
                    self.queue.write(at, buffer, block, slot, ReqFlags::empty());
                } else {
                    self.queue.read(at, buffer, block, slot, ReqFlags::empty());
                }
                sent[slot] = now;
            }
            if idle.len() == self.depth {
                return meter.finish(job, now);
            }
            let mut patience = Duration::from_secs(10);
            let count = self.queue.do_io(&mut completions, 1, Some(&mut patience), None)?;
            let now = Instant::now();
            for completion in completions.iter().take(count) {
                // SAFETY: `do_io` has initialised the first `count` entries.
                let completion = unsafe { completion.assume_init_ref() };
                if completion.ret != 0 {
                    bail!("qemu-storage-daemon answered with error {}", completion.ret);
                }
                meter.record(now - sent[completion.user_data]);
                idle.push(completion.user_data);
            }
            over = over || meter.tick(now)?;
        }
    }
}
