//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Says whether the user wants the command to stop. Cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// The command was told to stop by a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl Stop {
    /// Listens for both signals from now on. Errors: the handlers cannot be installed.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag that an earlier signal has set, not its own.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop.0))?;
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// A stream that becomes readable when a signal arrives, for event loops.
    pub(crate) fn wake_up(&self) -> io::Result<UnixStream> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(read)
    }

    /// True once a stop was asked for.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// [`Interrupted`] once a stop was asked for.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.requested() { Err(Interrupted) } else { Ok(()) }
    }

    /// Asks for a stop from inside the process: a worker failed, or a test ends.
    pub(crate) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
