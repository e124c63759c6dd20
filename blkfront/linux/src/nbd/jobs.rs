//! Requests on their way through the disk: cut into pieces, several under way at once, put together again.

use std::collections::VecDeque;

use blkfront::{Buffer, Capabilities, Completion, Io, IoError, Operation, Queue, RejectReason, SECTOR_SIZE};

use super::{
    conversation::PIECE,
    export::Job,
    wire::{Errno, REPLY_BYTES, reply},
};
use crate::connect::{World, flush};

/// All requests that one worker has under way. Their places do not change, so that completions find them by number.
#[derive(Debug)]
pub(super) struct Jobs {
    disk: Capabilities,
    slots: Vec<Option<Running>>,
    free: Vec<usize>,
    /// Jobs with something to submit, each once, in turn: large ones do not hold up small ones.
    due: VecDeque<usize>,
    /// Buffers of sent answers, to be used again.
    spare: Vec<Vec<u8>>,
}

/// One request under way.
#[derive(Debug)]
struct Running {
    owner: Owner,
    job: Job,
    /// The part of the disk that is not submitted yet, in bytes.
    next: u64,
    end: u64,
    /// Pieces under way.
    flying: u32,
    /// A flush must still follow.
    flush: bool,
    error: Errno,
    /// The header and, for reads, the data.
    answer: Vec<u8>,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The client's place and its generation.
    pub(super) client: usize,
    pub(super) generation: u64,
    /// The client's mark of the request.
    pub(super) cookie: u64,
}

/// Where a piece of a write goes.
pub(super) enum Room {
    /// Here.
    Buffer(Buffer),
    /// There is no memory, and nothing under way that could give some back: the write fails.
    Never,
}

/// A request that is done.
pub(super) struct Answer {
    pub(super) owner: Owner,
    pub(super) bytes: Vec<u8>,
    /// What was promised for it when it began.
    pub(super) promised: usize,
}

/// Sizes of buffers in bytes, so that few kinds go round in the queue's pool.
const BUFFERS: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, PIECE];
/// Answers kept to be used again, and how large they may be.
const MOST_SPARE: usize = 256;
const LARGEST_SPARE: usize = 1 << 20;

impl Jobs {
    pub(super) fn new(disk: Capabilities) -> Self {
        Self { disk, slots: Vec::new(), free: Vec::new(), due: VecDeque::new(), spare: Vec::new() }
    }

    /// Begins a request; answers its number. A write waits for its [data](Self::write).
    pub(super) fn begin(&mut self, owner: Owner, job: Job) -> usize {
        let (offset, length, durable) = match job {
            Job::Read { offset, length } => (offset, length, false),
            Job::Write { offset, length, durable }
            | Job::Zero { offset, length, durable }
            | Job::Trim { offset, length, durable } => (offset, length, durable),
            Job::Flush => (0, 0, true),
        };
        let mut answer = self.spare.pop().unwrap_or_default();
        answer.clear();
        answer.resize(promised(&job), 0);
        let end = offset + u64::from(length);
        let flush = durable && flush(&self.disk).is_some();
        let running = Running { owner, job, next: offset, end, flying: 0, flush, error: Errno::OK, answer };
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[number] = Some(running);
        if !matches!(job, Job::Write { .. }) {
            self.due.push_back(number);
        }
        number
    }

    /// Submits the next piece of data of write `number`, in a buffer that has [room](Self::room) for it.
    pub(super) fn write<W: World>(&mut self, queue: &mut Queue<W>, number: usize, room: Room, data: &[u8]) {
        let Some(job) = self.slots.get_mut(number).and_then(Option::as_mut) else { return };
        let sector = job.next / u64::from(SECTOR_SIZE);
        job.next += data.len() as u64;
        match room {
            Room::Buffer(buffer) => {
                buffer.write(0, data);
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                job.submit(queue, number, Io::write(sector, buffer).part(0, length));
            }
            Room::Never => job.fail(Errno::NO_MEMORY),
        }
        if job.next == job.end && job.flying == 0 {
            self.due.push_back(number);
        }
    }

    /// Room for `bytes` of a write. `None` when there is none before something that is under way has ended.
    pub(super) fn room<W: World>(&self, queue: &mut Queue<W>, bytes: usize) -> Option<Room> {
        match buffer(queue, bytes) {
            Some(buffer) => Some(Room::Buffer(buffer)),
            None => (queue.in_flight() == 0).then_some(Room::Never),
        }
    }

    /// Gives up on the data of write `number`: its client is gone.
    pub(super) fn abandon(&mut self, number: usize, done: &mut impl FnMut(Answer)) {
        if let Some(job) = self.slots.get_mut(number).and_then(Option::as_mut) {
            job.end = job.next;
            job.flush = false;
            self.settle(number, done);
        }
    }

    /// Submits what is due as far as the queue has room. Requests that end at once go to `done`.
    pub(super) fn submit<W: World>(&mut self, queue: &mut Queue<W>, done: &mut impl FnMut(Answer)) {
        while let Some(number) = self.due.pop_front() {
            let Some(job) = self.slots.get_mut(number).and_then(Option::as_mut) else { continue };
            if job.wants() && !job.submit_next(queue, number, &self.disk) {
                if queue.in_flight() > 0 {
                    self.due.push_front(number);
                    return;
                }
                // Nothing is under way that could make room.
                job.error = Errno::NO_MEMORY;
                (job.next, job.flush) = (job.end, false);
            }
            if job.wants() {
                self.due.push_back(number);
            }
            self.settle(number, done);
        }
    }

    /// Takes the completion of a piece. Requests that are done by it go to `done`.
    pub(super) fn complete<W: World>(
        &mut self,
        queue: &mut Queue<W>,
        completion: Completion,
        done: &mut impl FnMut(Answer),
    ) {
        let Completion { io, result, .. } = completion;
        let number = usize::try_from(io.cookie).unwrap_or(usize::MAX);
        if let Some(job) = self.slots.get_mut(number).and_then(Option::as_mut) {
            job.flying -= 1;
            match result {
                Ok(()) if io.op == Operation::Read => job.keep(&io),
                Ok(()) => {}
                Err(error) => job.fail(errno(error)),
            }
            self.settle(number, done);
        }
        if let Some(buffer) = io.buffer {
            queue.free_buffer(buffer);
        }
    }

    /// Takes the buffer of a sent answer back.
    pub(super) fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < MOST_SPARE && bytes.capacity() <= LARGEST_SPARE {
            self.spare.push(bytes);
        }
    }

    /// A buffer for an answer without data.
    pub(super) fn refusal(&mut self, cookie: u64, error: Errno) -> Vec<u8> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend(reply(error, cookie));
        bytes
    }

    /// Ends the request if nothing of it is left to do, or lets its flush follow.
    fn settle(&mut self, number: usize, done: &mut impl FnMut(Answer)) {
        let Some(slot) = self.slots.get_mut(number) else { return };
        let Some(job) = slot.as_mut().filter(|job| job.flying == 0 && job.next == job.end) else { return };
        if job.flush && job.error == Errno::OK {
            self.due.push_back(number);
            return;
        }
        let Some(job) = slot.take() else { return };
        self.free.push(number);
        done(job.finish());
    }
}

impl Running {
    /// There is something to submit that needs no data of the client.
    fn wants(&self) -> bool {
        match self.job {
            _ if self.next == self.end => self.flush && self.error == Errno::OK && self.flying == 0,
            Job::Write { .. } => false,
            _ => true,
        }
    }

    /// Submits the next piece, or the flush that ends the request. False when there is no room.
    fn submit_next<W: World>(&mut self, queue: &mut Queue<W>, number: usize, disk: &Capabilities) -> bool {
        if queue.in_flight() >= queue.depth() {
            return false;
        }
        let sector = self.next / u64::from(SECTOR_SIZE);
        let left = self.end - self.next;
        let piece = u32::try_from(left.min(PIECE as u64)).unwrap_or(u32::MAX);
        let io = match self.job {
            _ if left == 0 => {
                self.flush = false;
                let Some(io) = flush(disk) else { return true };
                io
            }
            Job::Trim { .. } => {
                self.next = self.end;
                Io::discard(sector, left / u64::from(SECTOR_SIZE))
            }
            Job::Zero { .. } => {
                let Some(buffer) = buffer(queue, piece as usize) else { return false };
                buffer.mem().zero();
                self.next += u64::from(piece);
                Io::write(sector, buffer).part(0, piece)
            }
            _ => {
                let Some(buffer) = buffer(queue, piece as usize) else { return false };
                self.next += u64::from(piece);
                Io::read(sector, buffer).part(0, piece)
            }
        };
        self.submit(queue, number, io);
        true
    }

    fn submit<W: World>(&mut self, queue: &mut Queue<W>, number: usize, io: Io) {
        match queue.submit(io.cookie(number as u64)) {
            Ok(_) => self.flying += 1,
            Err(rejected) => {
                self.fail(match rejected.reason {
                    RejectReason::ReadOnly => Errno::READ_ONLY,
                    RejectReason::OutOfRange { .. } => Errno::NO_SPACE,
                    RejectReason::Misaligned(_) => Errno::INVALID,
                    RejectReason::NotSupported => Errno::NOT_SUPPORTED,
                    _ => Errno::IO,
                });
                if let Some(buffer) = rejected.io.buffer {
                    queue.free_buffer(buffer);
                }
            }
        }
    }

    /// Copies what was read to its place in the answer.
    fn keep(&mut self, io: &Io) {
        let Job::Read { offset, .. } = self.job else { return };
        let Some(at) = (io.sector * u64::from(SECTOR_SIZE)).checked_sub(offset) else { return };
        let from = REPLY_BYTES + usize::try_from(at).unwrap_or(usize::MAX - REPLY_BYTES);
        let place = from.checked_add(io.len as usize).and_then(|to| self.answer.get_mut(from..to));
        if let (Some(place), Some(buffer)) = (place, &io.buffer) {
            buffer.read(0, place);
        }
    }

    /// The first error is the one that is told.
    fn fail(&mut self, error: Errno) {
        if self.error == Errno::OK {
            self.error = error;
        }
    }

    fn finish(mut self) -> Answer {
        let promised = self.answer.len();
        let header = reply(self.error, self.owner.cookie);
        if self.error != Errno::OK {
            self.answer.truncate(REPLY_BYTES);
        }
        if let Some(place) = self.answer.first_chunk_mut() {
            *place = header;
        }
        Answer { owner: self.owner, bytes: self.answer, promised }
    }
}

/// Bytes that the answer to a request will have if all goes well.
pub(super) fn promised(job: &Job) -> usize {
    match job {
        Job::Read { length, .. } => REPLY_BYTES + *length as usize,
        _ => REPLY_BYTES,
    }
}

/// Memory for `bytes`, of one of a few sizes. `None` when there is none, or no room in the queue.
fn buffer<W: World>(queue: &mut Queue<W>, bytes: usize) -> Option<Buffer> {
    if queue.in_flight() >= queue.depth() {
        return None;
    }
    let size = BUFFERS.into_iter().find(|size| *size >= bytes).unwrap_or(bytes);
    queue.alloc_buffer(size).ok()
}

fn errno(error: IoError) -> Errno {
    match error {
        IoError::NotSupported => Errno::NOT_SUPPORTED,
        IoError::Cancelled => Errno::SHUTDOWN,
        _ => Errno::IO,
    }
}
