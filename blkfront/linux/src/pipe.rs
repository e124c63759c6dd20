//! Several I/Os in flight over one queue, from one thread: what `read`, `write` and `copy` are built on.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use blkfront::{Buffer, Capabilities, Completion, Device, Io, Queue};

use crate::{
    connect::{Disk, World, flush, look_after},
    signal::Stop,
};

/// How large the pieces are in which data moves, and how many are under way at once.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Flow {
    /// Bytes moved by one I/O
    #[arg(long, default_value = "256k", value_name = "SIZE", value_parser = piece_size)]
    pub(crate) piece: u32,
    /// I/Os in flight at once
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) depth: u16,
}

/// Pieces are whole pages, so that they are whole sectors of every disk.
fn piece_size(text: &str) -> Result<u32, String> {
    match crate::size::parse_u32(text)? {
        size if size % 4096 != 0 => Err("must be a multiple of 4096 bytes".into()),
        size if size > 64 << 20 => Err("must be at most 64M".into()),
        size => Ok(size),
    }
}

/// How often a waiting command looks at signals and at the backend's state.
const LOOK: Duration = Duration::from_millis(200);
/// How long a failed command waits for what it has under way.
const SETTLE: Duration = Duration::from_secs(5);

/// One queue of a disk with a set of equally large buffers. Buffers go out with [`take`](Self::take), come back with
/// completions, and are given back by [`put`](Self::put).
pub(crate) struct Pipe<'a, W: World> {
    device: &'a mut Device<W>,
    queue: &'a mut Queue<W>,
    stop: &'a Stop,
    poll: Duration,
    piece: u32,
    spare: Vec<Buffer>,
    done: VecDeque<Completion>,
    flying: usize,
}

impl<'a, W: World> Pipe<'a, W> {
    /// Takes the disk's first queue and as many of the wanted buffers as there is memory for (at least one).
    pub(crate) fn new(disk: &'a mut Disk<W>, flow: Flow) -> anyhow::Result<Self> {
        let Disk { device, queues, stop, poll } = disk;
        let queue = queues.first_mut().context("the device has no queue")?;
        let depth = usize::from(flow.depth).min(queue.depth());
        let mut spare = Vec::with_capacity(depth);
        while spare.len() < depth {
            match queue.alloc_buffer(flow.piece as usize) {
                Ok(buffer) => spare.push(buffer),
                Err(error) if spare.is_empty() => return Err(error).context("no memory for a single buffer"),
                Err(_) => break,
            }
        }
        let done = VecDeque::with_capacity(depth);
        Ok(Self { device, queue, stop, poll: *poll, piece: flow.piece, spare, done, flying: 0 })
    }

    /// What the disk can do.
    pub(crate) fn capabilities(&self) -> Capabilities {
        *self.device.capabilities()
    }

    /// Bytes of each buffer.
    pub(crate) fn piece(&self) -> u32 {
        self.piece
    }

    /// A buffer, if one is free: then there is also room to submit it.
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        self.spare.pop()
    }

    /// Gives a buffer back.
    pub(crate) fn put(&mut self, buffer: Buffer) {
        self.spare.push(buffer);
    }

    /// Submits one I/O; the backend sees it at the latest in [`next`](Self::next).
    pub(crate) fn submit(&mut self, io: Io) -> anyhow::Result<()> {
        match self.queue.submit(io) {
            Ok(_) => {
                self.flying += 1;
                Ok(())
            }
            Err(rejected) => {
                let at = rejected.io.sector * u64::from(blkfront::SECTOR_SIZE);
                self.spare.extend(rejected.io.buffer);
                Err(anyhow!("{} at byte {at}", rejected.reason))
            }
        }
    }

    /// The next completion; waits for it. `None` when nothing is under way. Errors: the connection is unusable, or a signal
    /// asks to stop. The completion itself may be a failure.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Completion>> {
        self.stop.check()?;
        self.wait(|pipe| Ok(pipe.stop.check()?))
    }

    /// Makes everything durable that was written. Nothing may be under way. Goes on after a signal, for the sake of what is
    /// to be recorded as done.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        let Some(io) = flush(self.device.capabilities()) else { return Ok(()) };
        self.submit(io)?;
        while let Some(completion) = self.wait(|_| Ok(()))? {
            completion.result.context("flush")?;
        }
        Ok(())
    }

    /// Waits a while for what is still under way when a command has failed or was stopped, and tells `out` of it.
    pub(crate) fn settle(&mut self, mut out: impl FnMut(&Completion)) {
        let deadline = Instant::now() + SETTLE;
        let in_time = |_: &Self| if Instant::now() < deadline { Ok(()) } else { Err(anyhow!("late")) };
        while let Ok(Some(completion)) = self.wait(in_time) {
            out(&completion);
            self.spare.extend(completion.io.buffer);
        }
    }

    /// Waits for the next completion as long as `go_on` agrees, which is asked now and then.
    fn wait(&mut self, go_on: impl Fn(&Self) -> anyhow::Result<()>) -> anyhow::Result<Option<Completion>> {
        if self.done.is_empty() && self.flying > 0 {
            self.queue.publish()?;
            self.reap()?;
            while self.done.is_empty() {
                if !self.queue.wait_polling(self.poll, Some(LOOK))? {
                    go_on(self)?;
                    look_after(self.device)?;
                }
                self.reap()?;
            }
        }
        let completion = self.done.pop_front();
        self.flying -= usize::from(completion.is_some());
        Ok(completion)
    }

    fn reap(&mut self) -> anyhow::Result<()> {
        let done = &mut self.done;
        self.queue.finish(&mut |completion| done.push_back(completion))?;
        Ok(())
    }
}

impl<W: World> Drop for Pipe<'_, W> {
    /// Memory goes back before the queue is stopped.
    fn drop(&mut self) {
        let done = self.done.drain(..).filter_map(|completion| completion.io.buffer);
        for buffer in self.spare.drain(..).chain(done) {
            self.queue.free_buffer(buffer);
        }
    }
}
