//! The recorded backend, played to the real frontend in the fake world: turn by turn in one thread, so that it is the same each time.
//! The application asks for what the recorded requests asked for, one I/O each.

mod hand;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use blkfront::{Completion, Device, Frontend, Io, IoError, Operation, Queue, SegmentChoice, SegmentMode};
use blkif_observe::recording::End;
use blkif_proto::{
    Entry, Limits, Op, Parsed, Request, Response, Segment, Status,
    keys::{BackendFeatures, FrontendRecord},
    xenbus::State,
};
use xen_platform::fake::Machine;

use self::hand::Backend;
use super::{
    Difference,
    script::{Script, Step, describe, limits, state_of},
};
use crate::fuzz::backend_seat::world::{Peer as _, Seat};

/// What nobody answers within is given up, in the fake world's time.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The first difference between the real frontend and the recorded one.
pub(super) fn play(script: &Script) -> Result<Option<Difference>> {
    let machine = Machine::new(1);
    let backend = Arc::new(Mutex::new(Backend::new(&machine, script)?));
    let path = lock(&backend).frontend_directory.clone();
    let seat = Seat::new(machine.world(lock(&backend).guest), &machine, backend.clone());
    let connected = Frontend::probe_within(seat, &path, TIMEOUT)
        .and_then(|frontend| frontend.configure(config(script)))
        .and_then(blkfront::Configured::set_up_queues)
        .and_then(blkfront::Prepared::start);
    if let Some(difference) = lock(&backend).difference.take() {
        return Ok(Some(difference));
    }
    let (device, queues) = match connected {
        Ok(connected) => connected,
        // As it was, if the recorded one got no further.
        Err(_) if script.requests() == 0 => return Ok(None),
        Err(error) => return Ok(Some(Difference::Broken { reason: error.to_string() })),
    };
    let mut player = Player { backend, device, queues, asked: Vec::new(), told: HashMap::new() };
    let difference = player.work()?;
    let Player { device, queues, backend, .. } = player;
    // How it ends is of no interest after a difference, and was recorded otherwise.
    _ = device.stop(queues, &mut |_| ());
    Ok(difference.or_else(|| lock(&backend).difference.take()))
}

fn lock(backend: &Mutex<Backend>) -> MutexGuard<'_, Backend> {
    backend.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wishes that led to the recorded connection.
fn config(script: &Script) -> blkfront::Config {
    let (backend, frontend) = (script.first_nodes(End::Backend), script.first_nodes(End::Frontend));
    let offered = BackendFeatures::parse(|key| backend.get(key)).unwrap_or(BackendFeatures::ORIGINAL);
    let default = blkfront::Config { timeout: TIMEOUT, ..blkfront::Config::default() };
    let Ok(record) = FrontendRecord::parse(|key| frontend.get(key), &offered) else { return default };
    let segments = match limits(&backend, &frontend).map(|limits| limits.mode) {
        Some(SegmentMode::Blocks) => SegmentChoice::Blocks,
        Some(SegmentMode::Indirect) => SegmentChoice::Indirect,
        Some(SegmentMode::Direct) | None => SegmentChoice::Direct,
    };
    let most = record.request_maxima.map_or(offered.max_indirect_segments, |maxima| maxima.segments);
    blkfront::Config {
        queues: record.queues.len() as u32,
        ring_pages: record.ring_pages() as u32,
        dialect: Some(record.dialect),
        persistent: record.persistent,
        segments,
        max_segments: u32::from(most).max(1),
        abi: record.abi,
        ..default
    }
}

/// The application.
struct Player {
    backend: Arc<Mutex<Backend>>,
    device: Device<Seat>,
    queues: Vec<Queue<Seat>>,
    /// What is asked of each queue and not published.
    asked: Vec<(u32, usize)>,
    /// What the application is told of requests, by their numbers.
    told: HashMap<usize, Result<(), IoError>>,
}

impl Player {
    fn work(&mut self) -> Result<Option<Difference>> {
        loop {
            let next = lock(&self.backend).next();
            let Some(step) = next else { return Ok(None) };
            let difference = match step {
                Step::Request { queue, number, entries, descriptors, .. } => {
                    lock(&self.backend).pass();
                    self.ask(queue, number, &entries, descriptors.as_deref())?
                }
                Step::Publish { by: End::Frontend, queue, .. } => {
                    lock(&self.backend).pass();
                    self.publish(queue)
                }
                step if matches!(state_of(&step), Some((End::Frontend, State::Closing))) => return Ok(None),
                Step::Publish { by: End::Backend, queue, beyond } => {
                    let (answers, honest) = lock(&self.backend).written(queue);
                    lock(&self.backend).act();
                    self.finish(queue, &answers, honest && beyond == 0)
                }
                Step::Signal { by: End::Backend, queue } => {
                    lock(&self.backend).act();
                    if let Some(queue) = self.queues.get_mut(queue as usize) {
                        _ = queue.wait(Some(Duration::ZERO));
                    }
                    None
                }
                _ => {
                    // A state that is not reached by itself is not waited for.
                    let mut backend = lock(&self.backend);
                    if !backend.act() {
                        backend.pass();
                    }
                    drop(backend);
                    _ = self.device.poll_control();
                    None
                }
            };
            if let Some(difference) = difference.or_else(|| lock(&self.backend).difference.take()) {
                return Ok(Some(difference));
            }
        }
    }

    /// Asks for what a request asks for.
    fn ask(
        &mut self,
        queue: u32,
        number: usize,
        entries: &[Entry],
        descriptors: Option<&[u8]>,
    ) -> Result<Option<Difference>> {
        let limits = lock(&self.backend).limits.context("a request without a connection")?;
        let (Some(wish), Some(own)) =
            (Wish::of(entries, descriptors, &limits), self.queues.get_mut(queue as usize))
        else {
            return Ok(None);
        };
        let buffer =
            if wish.len > 0 { Some(own.alloc_buffer((wish.offset + wish.len) as usize)?) } else { None };
        let Wish { op, sector, offset, len } = wish;
        let io = Io { op, sector, buffer, offset, len, cookie: number as u64 };
        match own.submit(io) {
            Ok(_) => {
                self.asked.push((queue, number));
                Ok(None)
            }
            Err(rejected) => {
                let recorded = describe(entries, &limits);
                Ok(Some(Difference::Request {
                    recorded,
                    found: Some(format!("refused: {}", rejected.reason)),
                }))
            }
        }
    }

    /// What was asked for is in the ring, as it was recorded.
    fn publish(&mut self, queue: u32) -> Option<Difference> {
        let own = self.queues.get_mut(queue as usize)?;
        if let Err(error) = own.publish() {
            return Some(Difference::Broken { reason: error.to_string() });
        }
        let asked: Vec<usize> =
            self.asked.extract_if(.., |(of, _)| *of == queue).map(|(_, number)| number).collect();
        asked.into_iter().find_map(|number| lock(&self.backend).compare(queue, number))
    }

    /// The application is told of the answers that were published.
    fn finish(&mut self, queue: u32, answers: &[(usize, Response)], honest: bool) -> Option<Difference> {
        let own = self.queues.get_mut(queue as usize)?;
        let mut done: Vec<Completion> = Vec::new();
        let finished = own.finish(&mut |completion| done.push(completion));
        for completion in done {
            self.told.insert(completion.io.cookie as usize, completion.result);
            if let Some(buffer) = completion.io.buffer {
                own.free_buffer(buffer);
            }
        }
        if !honest {
            return None;
        }
        if let Err(error) = finished {
            return Some(Difference::Broken { reason: error.to_string() });
        }
        answers.iter().find_map(|(number, response)| {
            let found = self.told.remove(number);
            let expected = match response.status {
                Status::OKAY => Ok(()),
                Status::ERROR => Err(IoError::Failed),
                Status::NOT_SUPPORTED => Err(IoError::NotSupported),
                Status(other) => Err(IoError::UnknownStatus(other)),
            };
            if found == Some(expected) {
                return None;
            }
            let found =
                found.map(|result| result.map_or_else(|error| error.to_string(), |()| "success".into()));
            let request = format!("request {number} ({}, queue {queue})", response.op);
            Some(Difference::Outcome { request, recorded: response.status, found })
        })
    }
}

/// What an I/O is made of.
struct Wish {
    op: Operation,
    sector: u64,
    offset: u32,
    len: u32,
}

impl Wish {
    /// The I/O that becomes this request; none if no application can ask for it.
    fn of(entries: &[Entry], descriptors: Option<&[u8]>, limits: &Limits) -> Option<Self> {
        let request = match (Request::parse(entries, limits).ok()?, descriptors) {
            (Parsed::Whole(request), _) => request,
            (Parsed::Indirect(indirect), Some(bytes)) => indirect.with_descriptors(bytes, limits).ok()?,
            (Parsed::Indirect(_), None) => return None,
        };
        let op = match request.op {
            Op::Read => Operation::Read,
            Op::Write => Operation::Write,
            Op::WriteBarrier => Operation::WriteBarrier,
            Op::Flush => Operation::Flush,
            Op::Discard { sectors, secure } => Operation::Discard { sectors, secure },
        };
        let offset = request.segments.iter().next().map_or(0, |first: Segment| first.offset()) as u32;
        let len = request.segments.iter().map(|segment| segment.bytes()).sum::<usize>() as u32;
        Some(Self { op, sector: request.sector, offset, len })
    }
}
