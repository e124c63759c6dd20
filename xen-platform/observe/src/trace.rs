//! Traces: requests, and when they were where, at one end or both.
//!
//! The file is Chrome's trace event format, which <https://ui.perfetto.dev> opens: a process for each end, a thread for each place in
//! a queue, a slice for each request and within it one for each stage. Arrows go from a request at the frontend to the same at the
//! backend, and back. Times in the file are microseconds since its `base`, which is the system's monotonic clock in nanoseconds.
//!
//! Limits: the clock is one machine's, and on Xen one domain's: ends of different domains lie beside each other, but not in time.

mod chrome;
mod lanes;

use serde::{Deserialize, Serialize};

pub use crate::recording::End;
pub use chrome::TraceError;

/// Requests that were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// In any order.
    pub requests: Vec<Request>,
}

/// One request at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it was.
    pub name: Name,
    /// Its stages in order, without gaps: each begins where the one before it ends.
    pub stages: Vec<Stage>,
}

/// What a request was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Where it was seen.
    pub end: End,
    /// The guest's number, a slash, and the device's.
    pub device: String,
    /// From 0.
    pub queue: u32,
    /// The guest's mark, in hexadecimal digits: not all numbers of 64 bits are numbers to everybody.
    pub id: String,
    /// What it does, in a word.
    pub op: String,
    /// First 512-byte sector.
    pub sector: u64,
    /// Length of its data in bytes.
    pub bytes: u64,
    /// What the guest was told: 0 for okay.
    pub status: i16,
}

/// A part of a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds of the system's monotonic clock.
    pub begin: u64,
    /// When it ended.
    pub end: u64,
}

impl Request {
    /// A request that began at `begin` and ended each stage at the time beside its name. A time that lies before that of the stage
    /// before it is taken for the same: that stage was left out.
    pub fn new(name: Name, begin: u64, stages: &[(&str, u64)]) -> Self {
        let mut last = begin;
        let stage = |(name, end): &(&str, u64)| {
            let begin = last;
            last = last.max(*end);
            Stage { name: (*name).to_owned(), begin, end: last }
        };
        Self { name, stages: stages.iter().map(stage).collect() }
    }

    /// When its first stage began.
    pub fn begin(&self) -> u64 {
        self.stages.first().map_or(0, |stage| stage.begin)
    }

    /// When its last stage ended.
    pub fn end(&self) -> u64 {
        self.stages.last().map_or(0, |stage| stage.end)
    }
}

impl Name {
    /// What both ends call it.
    fn both(&self) -> (&str, u32, &str) {
        (&self.device, self.queue, &self.id)
    }
}
