//! The library under test, on a thread of the test's process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};

use blkfront::{Buffer, Completion, Device, DeviceEvent, Frontend, Io, Operation, Queue, RejectReason};
use xen_platform::{GrantError, sim::World};

use super::{
    job::{Job, Outcome},
    work::{Range, Work, digest, written},
};

/// From the clause to the thread.
pub(super) enum Order {
    /// More work.
    Do(Work),
    /// Close when all work is done.
    Stop,
}

/// What the thread has seen so far, for clauses that wait for it.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does a job from probing to the end.
pub(super) fn run(world: World, path: &str, job: Job, orders: &Receiver<Order>, notes: &Notes) -> Outcome {
    let mut outcome = Outcome::default();
    let connected = Frontend::probe_within(world, path, job.config.timeout)
        .and_then(|frontend| frontend.configure(job.config.clone()))
        .and_then(blkfront::Configured::set_up_queues)
        .and_then(blkfront::Prepared::start);
    let (device, queues) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            outcome.error = Some(error.to_string());
            return outcome;
        }
    };
    outcome.capabilities = Some(*device.capabilities());
    let stop = !job.hold;
    let waiting = job.work.iter().copied().enumerate().collect();
    let mut driver =
        Driver { device, queues, given: job.work.len(), waiting, done: Done::default(), job, stop };
    if let Err(error) = driver.work(orders, notes) {
        outcome.error = Some(error);
    }
    driver.close(&mut outcome);
    outcome
}

struct Driver {
    device: Device<World>,
    queues: Vec<Queue<World>>,
    job: Job,
    given: usize,
    waiting: VecDeque<(usize, Work)>,
    done: Done,
    stop: bool,
}

#[derive(Default)]
struct Done {
    results: Vec<(usize, Result<(), String>)>,
    read: BTreeMap<usize, Vec<u8>>,
}

impl Done {
    /// Takes what was read out of the buffer, and notes the result.
    fn note(&mut self, completion: &Completion) {
        let Completion { io, result, .. } = completion;
        let number = usize::try_from(io.cookie).unwrap_or(usize::MAX);
        if let (Operation::Read, Some(buffer)) = (io.op, &io.buffer) {
            let mut data = vec![0; io.len as usize];
            buffer.read(io.offset as usize, &mut data);
            self.read.insert(number, data);
        }
        self.results.push((number, result.map_err(|error| error.to_string())));
    }
}

impl Driver {
    fn work(&mut self, orders: &Receiver<Order>, notes: &Notes) -> Result<(), String> {
        loop {
            self.take_orders(orders);
            let mut told = self.device.poll_control().map_err(|error| error.to_string())?;
            while let Some(event) = told {
                self.handle(event, notes)?;
                told = self.device.poll_control().map_err(|error| error.to_string())?;
            }
            self.submit()?;
            self.reap(notes)?;
            let busy = self.queues.iter().position(|queue| queue.in_flight() > 0);
            if self.stop && busy.is_none() && self.waiting.is_empty() {
                return Ok(());
            }
            match busy.filter(|n| !self.queues[*n].is_stale()) {
                Some(n) => {
                    // What goes wrong is told by the next `finish`.
                    let nap = if self.queues.len() == 1 { self.job.nap } else { Duration::from_millis(1) };
                    let _ = self.queues[n].wait(Some(nap));
                }
                None => {
                    let nap = Some(Duration::from_millis(2));
                    if let Some(event) = self.device.wait_control(nap).map_err(|error| error.to_string())? {
                        self.handle(event, notes)?;
                    }
                }
            }
        }
    }

    fn take_orders(&mut self, orders: &Receiver<Order>) {
        loop {
            match orders.try_recv() {
                Ok(Order::Do(work)) => {
                    self.waiting.push_back((self.given, work));
                    self.given += 1;
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stop = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn submit(&mut self) -> Result<(), String> {
        while let Some((number, work)) = self.waiting.front().copied() {
            let of = number % self.queues.len();
            let queue = &mut self.queues[of];
            if queue.in_flight() >= self.job.depth {
                break;
            }
            let io = io(queue, work).map_err(|error| error.to_string())?;
            match queue.submit(io.cookie(number as u64)) {
                Ok(_) => {}
                Err(rejected) => {
                    rejected.io.buffer.into_iter().for_each(|buffer| queue.free_buffer(buffer));
                    if rejected.reason == RejectReason::Full {
                        break;
                    }
                    self.done.results.push((number, Err(rejected.reason.to_string())));
                }
            }
            self.waiting.pop_front();
        }
        self.queues.iter_mut().try_for_each(|queue| queue.publish().map_err(|error| error.to_string()))
    }

    fn reap(&mut self, notes: &Notes) -> Result<(), String> {
        for queue in &mut self.queues {
            let mut ended = Vec::new();
            let finished = queue.finish(&mut |completion| ended.push(completion));
            for completion in ended {
                self.done.note(&completion);
                notes.add(format!("done {}", completion.io.cookie));
                completion.io.buffer.into_iter().for_each(|buffer| queue.free_buffer(buffer));
            }
            finished.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn handle(&mut self, event: DeviceEvent<World>, notes: &Notes) -> Result<(), String> {
        notes.add(format!("{event:?}"));
        match event {
            DeviceEvent::Lost if !self.job.patient => Err("the backend is gone".to_owned()),
            DeviceEvent::Reconnected(links) => links.into_iter().try_for_each(|link| {
                let queue = &mut self.queues[link.index() as usize];
                queue.reconnect(link).map_err(|error| error.to_string())
            }),
            _ => Ok(()),
        }
    }

    fn close(self, outcome: &mut Outcome) {
        let Self { device, queues, mut done, .. } = self;
        for stats in queues.iter().map(Queue::stats) {
            outcome.stats.submitted += stats.submitted;
            outcome.stats.completed += stats.completed;
            outcome.stats.requests += stats.requests;
            outcome.stats.notifications += stats.notifications;
            outcome.stats.events += stats.events;
            outcome.stats.spurious += stats.spurious;
            outcome.stats.requeued += stats.requeued;
            outcome.stats.quarantined += stats.quarantined;
        }
        let error = match device.stop(queues, &mut |completion| done.note(&completion)) {
            Err(not_stopped) => Some(not_stopped.error.to_string()),
            Ok(stopped) => {
                let error = stopped.error().map(ToString::to_string);
                let world = stopped.unconfigure();
                let error = error.or(world.as_ref().err().map(ToString::to_string));
                outcome.world = world.ok();
                error
            }
        };
        let failed = done.results.iter().find_map(|(_, result)| result.clone().err());
        outcome.error = outcome.error.take().or(failed).or(error);
        outcome.results = done.results;
        outcome.read = digest(&done.read.into_values().flatten().collect::<Vec<_>>());
    }
}

/// The work as the library takes it.
fn io(queue: &mut Queue<World>, work: Work) -> Result<Io, GrantError> {
    Ok(match work {
        Work::Read(range) => Io::read(range.sector, buffer(queue, range)?).part(range.offset, range.bytes),
        Work::Write(range) => Io::write(range.sector, full(queue, range)?).part(range.offset, range.bytes),
        Work::Barrier(Some(range)) => {
            Io::write_barrier(range.sector, full(queue, range)?).part(range.offset, range.bytes)
        }
        Work::Barrier(None) => Io { op: Operation::WriteBarrier, ..Io::flush() },
        Work::Flush => Io::flush(),
        Work::Discard(sector, sectors, false) => Io::discard(sector, sectors),
        Work::Discard(sector, sectors, true) => Io::discard_securely(sector, sectors),
    })
}

fn buffer(queue: &mut Queue<World>, range: Range) -> Result<Buffer, GrantError> {
    queue.alloc_buffer((range.offset + range.bytes) as usize)
}

fn full(queue: &mut Queue<World>, range: Range) -> Result<Buffer, GrantError> {
    let buffer = buffer(queue, range)?;
    buffer.write(range.offset as usize, &written(range.sector, range.bytes as usize));
    Ok(buffer)
}
