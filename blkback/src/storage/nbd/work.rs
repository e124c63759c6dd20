//! A job on its way through connections, as many as it takes.

use std::time::Instant;

use nix::errno::Errno;

use crate::storage::{Action, Job};

/// What one command trims at most, in bytes: the protocol's lengths have 32 bits, and this is a multiple of all block sizes.
const TRIM_MAX: usize = 1 << 30;

/// A job, how far it is, and for how long it may take.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) job: Job,
    /// Which it is, counted by arrival.
    pub(super) order: u64,
    /// When it has failed: known once a connection was lost.
    pub(super) until: Option<Instant>,
    /// When the connection got it that it is on.
    pub(super) sent: Instant,
    /// Bytes that are in commands; none: all is.
    next: Option<usize>,
    /// Commands that are not answered.
    unanswered: u32,
    error: Option<Errno>,
}

/// What one command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte on the disk.
    pub(super) offset: u64,
    /// The same in the job's memory.
    pub(super) start: usize,
    /// Bytes; 0 for a flush.
    pub(super) len: usize,
}

impl Work {
    pub(super) fn new(job: Job, order: u64) -> Self {
        Self { job, order, until: None, sent: Instant::now(), next: Some(0), unanswered: 0, error: None }
    }

    /// As if nothing of it had been done.
    pub(super) fn again(&mut self, now: Instant) {
        (self.next, self.unanswered, self.error, self.sent) = (Some(0), 0, None, now);
    }

    /// True if it lies on a disk of so many bytes.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let (offset, len) = self.range();
        offset.checked_add(len).is_some_and(|end| end <= bytes)
    }

    /// The first byte on the disk, and how many.
    fn range(&self) -> (u64, u64) {
        match self.job.action() {
            Action::Read { offset } | Action::Write { offset } => (offset, self.job.len() as u64),
            Action::Discard { offset, len, .. } => (offset, len),
            Action::Flush => (0, 0),
        }
    }

    /// What the next command is about, which moves `payload` bytes at most. None: there is nothing more to order.
    pub(super) fn cut(&mut self, payload: usize) -> Option<Piece> {
        let start = self.next.take_if(|_| self.error.is_none())?;
        let (offset, whole) = self.range();
        let whole = usize::try_from(whole).unwrap_or(usize::MAX);
        let most = if matches!(self.job.action(), Action::Discard { .. }) { TRIM_MAX } else { payload };
        let len = (whole - start).min(most);
        self.next = Some(start + len).filter(|next| *next < whole);
        self.unanswered += 1;
        Some(Piece { offset: offset + start as u64, start, len })
    }

    /// A command was answered. True when all are that there will be.
    pub(super) fn answered(&mut self, outcome: Result<(), Errno>) -> bool {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.error = self.error.or(outcome.err());
        self.unanswered == 0 && (self.next.is_none() || self.error.is_some())
    }

    /// Gives the job back as it went.
    pub(super) fn finish(self) {
        self.job.finish(self.error.map_or(Ok(()), Err));
    }

    /// Gives the job back as failed.
    pub(super) fn fail(self, errno: Errno) {
        self.job.finish(Err(errno));
    }
}
