//! The order in which an image's tables reach its file.
//!
//! The library writes reference counts before entries of level 2 that rely on them, but it writes the tables above those, level 1 and
//! the list of blocks of reference counts, at once, when what they point to is not counted yet. A daemon that is killed then leaves
//! an image whose clusters are given away twice. So a write to one of these tables is seen here, before it goes to the file:
//!
//! - *an entry of level 1, or the header's pointer to that table*: everything else is written first ([`Order::ask`]);
//! - *an entry of the list of blocks*: it is kept back until the next time that everything is written ([`Order::release`]), and no
//!   entry of level 2 that relies on it is made before.

use std::{
    io,
    ops::Range,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use super::header::{Header, be32, be64};

/// Bytes of the header that hold the places of both tables.
const HEADER_BYTES: usize = 72;

/// What is to be done with a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Now,
    /// Everything else is written first.
    Last,
    /// It waits until everything is written.
    Later,
}

/// Of the image that is written to; shared by the library's storage and the disk.
#[derive(Debug)]
pub(super) struct Order {
    tables: Mutex<Tables>,
    asked: Notify,
    answered: Notify,
    written: AtomicBool,
    /// From now on there is somebody to ask.
    pub(super) served: AtomicBool,
}

#[derive(Debug)]
struct Tables {
    l1: Range<u64>,
    reftable: Range<u64>,
    cluster: u64,
    /// Writes that wait, with their places.
    held: Vec<(u64, Vec<u8>)>,
}

impl Order {
    pub(super) fn new(header: &Header) -> Self {
        let tables = Tables {
            l1: header.l1.clone(),
            reftable: header.reftable.clone(),
            cluster: header.cluster(),
            held: Vec::new(),
        };
        Self {
            tables: Mutex::new(tables),
            asked: Notify::new(),
            answered: Notify::new(),
            written: AtomicBool::new(false),
            served: AtomicBool::new(false),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do with a write of `bytes` at byte `at` of the file.
    pub(super) fn step(&self, at: u64, bytes: &[u8]) -> Step {
        let mut tables = self.tables();
        let Range { start, end } = at..at.saturating_add(bytes.len() as u64);
        let within = |table: &Range<u64>| start < table.end && table.start < end;
        if at == 0 && bytes.len() >= HEADER_BYTES {
            let moved = l1(bytes) != tables.l1;
            tables.l1 = l1(bytes);
            let reftable = reftable(bytes, tables.cluster);
            if reftable != tables.reftable {
                // The new table has all that was to be written to the old one, which is nobody's now.
                tables.held.clear();
                tables.reftable = reftable;
            }
            return if moved { Step::Last } else { Step::Now };
        }
        match () {
            () if within(&tables.l1) => Step::Last,
            () if within(&tables.reftable) => Step::Later,
            () => Step::Now,
        }
    }

    /// Keeps a write back.
    pub(super) fn hold(&self, at: u64, bytes: Vec<u8>) {
        self.tables().held.push((at, bytes));
    }

    /// How many are kept back.
    pub(super) fn held(&self) -> usize {
        self.tables().held.len()
    }

    /// Does the first `count` of the writes that are kept back. One that fails stays, with all behind it.
    pub(super) fn release(
        &self,
        count: usize,
        mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..count {
            let Some((at, bytes)) = self.tables().held.first().cloned() else { break };
            write(at, &bytes)?;
            let mut tables = self.tables();
            if !tables.held.is_empty() {
                tables.held.remove(0);
            }
        }
        Ok(())
    }

    /// Has everything written, by whoever listens ([`asked`](Self::asked)). Errors: it could not be.
    pub(super) async fn ask(&self) -> io::Result<()> {
        if !self.served.load(Relaxed) {
            return Ok(());
        }
        self.asked.notify_one();
        self.answered.notified().await;
        if self.written.load(Relaxed) {
            Ok(())
        } else {
            Err(io::Error::other("the tables could not be written"))
        }
    }

    /// Done when somebody asks.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Lets who asked go on.
    pub(super) fn answer(&self, written: bool) {
        self.written.store(written, Relaxed);
        self.answered.notify_one();
    }
}

/// From the first bytes of the file.
fn l1(header: &[u8]) -> Range<u64> {
    let at = be64(header, 40);
    let len = u64::from(be32(header, 36)) * 8;
    if len == 0 { 0..0 } else { at..at.saturating_add(len) }
}

fn reftable(header: &[u8], cluster: u64) -> Range<u64> {
    let at = be64(header, 48);
    at..at.saturating_add(u64::from(be32(header, 56)).saturating_mul(cluster))
}

#[cfg(test)]
mod tests;
