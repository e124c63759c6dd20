//! Whoever uses the disk, and keeps count of what it is owed.

use core::time::Duration;
use std::collections::BTreeMap;

use blkfront::{Buffer, Completion, Device, DeviceEvent, Io, Operation, Queue, Ticket};

use super::{act::Work, world::Seat};

/// Buffers of one queue at most.
const BUFFERS: usize = 24;

pub(super) struct Application {
    device: Device<Seat>,
    queues: Vec<Queue<Seat>>,
    /// What was accepted and not given back: by queue and ticket, its mark.
    owed: BTreeMap<(usize, Ticket), u64>,
    /// Buffers that came back, and their queue.
    buffers: Vec<(usize, Buffer)>,
    cookie: u64,
}

impl Application {
    pub(super) fn new(device: Device<Seat>, queues: Vec<Queue<Seat>>) -> Self {
        Self { device, queues, owed: BTreeMap::new(), buffers: Vec::new(), cookie: 0 }
    }

    pub(super) fn work(&mut self, work: Work) {
        let count = self.queues.len();
        let of = |queue: u8| usize::from(queue) % count;
        match work {
            Work::Submit { queue, op, sector, bytes, more } => {
                for n in 0..if more { 8 } else { 1 } {
                    self.submit(of(queue), op, u64::from(sector) + n, usize::from(bytes));
                }
            }
            Work::Publish(queue) => _ = self.queues[of(queue)].publish(),
            Work::Finish(queue) => self.finish(of(queue)),
            Work::Wait { queue, ms } => {
                _ = self.queues[of(queue)].wait(Some(Duration::from_millis(u64::from(ms))));
                self.finish(of(queue));
            }
            Work::Execute { queue, sector } => self.execute(of(queue), u64::from(sector)),
            Work::Poll => {
                let event = self.device.poll_control();
                self.control(event.ok().flatten());
            }
            Work::WaitControl(ms) => {
                let event = self.device.wait_control(Some(Duration::from_millis(u64::from(ms))));
                self.control(event.ok().flatten());
            }
            Work::Free => {
                for (queue, buffer) in self.buffers.drain(..) {
                    self.queues[queue].free_buffer(buffer);
                }
            }
            Work::Dispatch(queue) => {
                let queue = &mut self.queues[of(queue)];
                _ = queue.arm();
                _ = queue.dispatch();
                _ = queue.stats();
            }
        }
    }

    fn submit(&mut self, queue: usize, op: u8, sector: u64, bytes: usize) {
        let bytes = bytes.max(1).next_multiple_of(512);
        let has_data = op % 5 < 3;
        let buffer = match has_data {
            true => {
                let used = self.buffers.iter().position(|(of, buffer)| *of == queue && buffer.len() >= bytes);
                match used.map(|used| self.buffers.swap_remove(used).1) {
                    Some(buffer) => Some(buffer),
                    None if self.owed.len() < BUFFERS => self.queues[queue].alloc_buffer(bytes).ok(),
                    None => None,
                }
            }
            false => None,
        };
        self.cookie += 1;
        let op = match op % 5 {
            0 => Operation::Read,
            1 => Operation::Write,
            2 => Operation::WriteBarrier,
            3 => Operation::Flush,
            _ => Operation::Discard { sectors: bytes as u64 / 512, secure: false },
        };
        if has_data && buffer.is_none() {
            return;
        }
        let len = if has_data { bytes as u32 } else { 0 };
        let io = Io { op, sector, buffer, offset: 0, len, cookie: self.cookie };
        match self.queues[queue].submit(io) {
            Ok(ticket) => {
                let before = self.owed.insert((queue, ticket), self.cookie);
                assert_eq!(before, None, "a ticket is given twice");
            }
            Err(rejected) => self.buffers.extend(rejected.io.buffer.map(|buffer| (queue, buffer))),
        }
    }

    fn execute(&mut self, queue: usize, sector: u64) {
        let Ok(buffer) = self.queues[queue].alloc_buffer(4096) else { return };
        let (mut others, cookie) = (Vec::new(), u64::MAX);
        let io = Io { cookie, ..Io::read(sector, buffer) };
        match self.queues[queue].execute(io, &mut |other| others.push(other)) {
            Ok(own) => {
                assert_eq!(own.io.cookie, cookie);
                self.buffers.extend(own.io.buffer.map(|buffer| (queue, buffer)));
            }
            Err(rejected) => self.buffers.extend(rejected.io.buffer.map(|buffer| (queue, buffer))),
        }
        others.into_iter().for_each(|other| self.settle(queue, other));
    }

    fn finish(&mut self, queue: usize) {
        let mut done = Vec::new();
        _ = self.queues[queue].finish(&mut |completion| done.push(completion));
        done.into_iter().for_each(|completion| self.settle(queue, completion));
    }

    fn settle(&mut self, queue: usize, completion: Completion) {
        let owed = self.owed.remove(&(queue, completion.ticket));
        assert_eq!(owed, Some(completion.io.cookie), "given back twice, or never taken: {completion:?}");
        self.buffers.extend(completion.io.buffer.map(|buffer| (queue, buffer)));
    }

    fn control(&mut self, event: Option<DeviceEvent<Seat>>) {
        let Some(DeviceEvent::Reconnected(links)) = event else { return };
        for link in links {
            let queue = link.index() as usize;
            _ = self.queues[queue].reconnect(link);
        }
    }

    /// Ends the device, and counts. How many buffers came too late to be given back.
    pub(super) fn stop(mut self) -> usize {
        // Buffers must be given back first, and come back for as long as there is work.
        self.work(Work::Free);
        let Self { device, queues, mut owed, .. } = self;
        let (mut late, mut held) = (Vec::new(), 0);
        let stopped = device.stop(queues, &mut |completion| {
            late.push(completion.io.cookie);
            held += usize::from(completion.io.buffer.is_some());
        });
        let stopped = stopped.map_err(|kept| kept.error);
        owed.retain(|_, cookie| !late.contains(cookie));
        assert!(owed.is_empty(), "never given back: {owed:?}");
        match stopped {
            Ok(stopped) => _ = stopped.unconfigure(),
            Err(error) => panic!("all queues were given: {error}"),
        }
        held
    }
}
