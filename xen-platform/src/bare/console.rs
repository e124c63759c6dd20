//! The console: what is written here, the control domain shows and logs.

use core::{fmt, sync::atomic::Ordering};

use super::{Start, abi, byte_ring::ByteRing, hypercall, start::Daemon};

/// How often other domains are let run while the daemon takes nothing, before output is given up.
const PATIENCE: u32 = 1 << 20;

/// The console of this guest. Needs no memory and no world, so that it can tell of what goes wrong with either.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    out: ByteRing,
    daemon: Daemon,
}

impl Console {
    /// The console that Xen names at the start. `None`: it names none.
    pub fn new(start: &Start) -> Option<Self> {
        let daemon = start.console()?;
        Some(Self { out: ByteRing::new(daemon.page, abi::console::OUT)?, daemon })
    }

    /// Writes all of it, waiting for the daemon when the ring is full; but not for ever.
    pub fn write(&mut self, mut bytes: &[u8]) {
        let mut patience = PATIENCE;
        while !bytes.is_empty() {
            let Ok(count) = self.out.write(bytes) else { return };
            bytes = bytes.get(count..).unwrap_or_default();
            self.ring();
            if count == 0 && !give_way(&mut patience) {
                return;
            }
        }
    }

    /// Waits until the daemon has taken everything; but not for ever.
    pub fn flush(&mut self) {
        let mut patience = PATIENCE;
        while self.out.waiting().is_ok_and(|waiting| waiting > 0) && give_way(&mut patience) {}
    }

    fn ring(self) {
        // The index is to be seen before the event; and without a daemon there is nobody to tell.
        core::sync::atomic::fence(Ordering::SeqCst);
        let _ = hypercall::send(self.daemon.port());
    }
}

fn give_way(patience: &mut u32) -> bool {
    hypercall::yield_now();
    *patience -= 1;
    *patience > 0
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
