//! The page shared with the hypervisor: a bit for each event channel, and the time.
//!
//! Upcalls stay masked from first to last: nothing here ever interrupts. Who waits looks at the bits and sleeps in a poll.

use alloc::boxed::Box;
use core::{
    hint,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{
    abi::shared_info::{
        MASK, PENDING, PORTS, SYSTEM_TIME, TSC_SHIFT, TSC_TIMESTAMP, TSC_TO_SYSTEM_MUL, UPCALL_MASK, VERSION,
    },
    hypercall,
};
use crate::{Port, SharedMem};

/// Ports are given out from the lowest on.
const LAST_PORT: Port = Port(PORTS - 1);

/// `shared_info`, as the first virtual processor uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedInfo {
    page: SharedMem<'static>,
    /// Nanoseconds that had passed for us before Xen's time began.
    past: &'static AtomicU64,
}

impl SharedInfo {
    /// The page where it is mapped. No event interrupts us from here on.
    pub(super) fn new(page: SharedMem<'static>) -> Self {
        let this = Self { page, past: Box::leak(Box::new(AtomicU64::new(0))) };
        this.mask_upcalls();
        this
    }

    /// Where it is mapped.
    pub(super) fn page(self) -> SharedMem<'static> {
        self.page
    }

    /// Leaves a mark, a bit of a port that nobody has, by which the page is known again.
    pub(super) fn mark(self) {
        self.mask(LAST_PORT);
    }

    /// Whether it is the page that was marked; it no longer is then.
    pub(super) fn take_mark(self) -> bool {
        let marked = self.is_masked(LAST_PORT);
        self.unmask(LAST_PORT);
        marked
    }

    /// Goes on with a page that Xen has filled anew, in which it was `now` a moment ago.
    pub(super) fn resume(self, now: Duration) {
        self.mask_upcalls();
        let gone = now.saturating_sub(self.system_time());
        self.past.store(u64::try_from(gone.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn mask_upcalls(self) {
        if let Some(mask) = self.page.part(UPCALL_MASK, 1) {
            mask.write(&[1]);
        }
    }

    /// Whether an event for `port` waits and the port is not masked.
    pub(super) fn is_pending(self, port: Port) -> bool {
        self.is_set(PENDING, port) && !self.is_set(MASK, port)
    }

    /// Takes an event of a port that is not masked, and masks it.
    pub(super) fn take(self, port: Port) -> bool {
        let pending = self.is_pending(port);
        if pending {
            self.mask(port);
            self.clear(port);
        }
        pending
    }

    /// Forgets an event. What the peer did before it sent it is seen afterwards.
    pub(super) fn clear(self, port: Port) {
        self.change(PENDING, port, |word, bit| word.fetch_and(!bit, Ordering::SeqCst));
    }

    pub(super) fn is_masked(self, port: Port) -> bool {
        self.is_set(MASK, port)
    }

    pub(super) fn mask(self, port: Port) {
        self.change(MASK, port, |word, bit| word.fetch_or(bit, Ordering::SeqCst));
    }

    pub(super) fn unmask(self, port: Port) {
        self.change(MASK, port, |word, bit| word.fetch_and(!bit, Ordering::SeqCst));
    }

    /// Time that never goes back, not even when the guest goes on where Xen counts from another start.
    pub(super) fn now(self) -> Duration {
        self.system_time().saturating_add(Duration::from_nanos(self.past.load(Ordering::Relaxed)))
    }

    /// Xen's system time.
    pub(super) fn system_time(self) -> Duration {
        loop {
            let Some(sample) = self.sample() else {
                // Xen is in the middle of writing it.
                hint::spin_loop();
                continue;
            };
            return Duration::from_nanos(sample.nanoseconds(hypercall::tsc()));
        }
    }

    /// What Xen last said about the time; `None` when it changed meanwhile.
    fn sample(self) -> Option<Sample> {
        let word = |at| self.page.word32(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let long = |at| self.page.word64(at).map_or(0, |word| word.load(Ordering::Relaxed));
        let version = self.page.word32(VERSION)?.load(Ordering::Acquire);
        let mut shift = [0];
        self.page.part(TSC_SHIFT, 1)?.read(&mut shift);
        let sample = Sample {
            timestamp: long(TSC_TIMESTAMP),
            system_time: long(SYSTEM_TIME),
            scale: word(TSC_TO_SYSTEM_MUL),
            shift: i8::from_ne_bytes(shift),
        };
        core::sync::atomic::fence(Ordering::Acquire);
        let unchanged = self.page.word32(VERSION)?.load(Ordering::Relaxed) == version;
        (version.is_multiple_of(2) && unchanged).then_some(sample)
    }

    fn is_set(self, bits: usize, port: Port) -> bool {
        self.word(bits, port).is_some_and(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    fn change(self, bits: usize, port: Port, change: impl FnOnce(&AtomicU64, u64) -> u64) {
        if let Some((word, bit)) = self.word(bits, port) {
            change(word, bit);
        }
    }

    /// The word and the bit of a port; `None` for one that cannot be.
    fn word(self, bits: usize, port: Port) -> Option<(&'static AtomicU64, u64)> {
        let number = (port.0 < PORTS).then_some(port.0)?;
        let word = self.page.word64(bits + number as usize / 64 * size_of::<u64>())?;
        Some((word, 1 << (number % 64)))
    }
}

/// How the processor's counter and the system's time go together (`vcpu_time_info`).
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The counter when it was taken.
    timestamp: u64,
    /// The time then, in nanoseconds.
    system_time: u64,
    /// Nanoseconds of a tick, times 2^32, after the ticks were shifted.
    scale: u32,
    shift: i8,
}

impl Sample {
    /// The time when the counter says `tsc`.
    fn nanoseconds(self, tsc: u64) -> u64 {
        let ticks = u128::from(tsc.saturating_sub(self.timestamp));
        let distance = u32::from(self.shift.unsigned_abs()).min(63);
        let ticks = if self.shift < 0 { ticks >> distance } else { ticks << distance };
        let passed = ticks.saturating_mul(self.scale.into()) >> 32;
        self.system_time.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
