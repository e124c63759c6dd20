//! A descriptor that the io_uring reads and writes for its owner, in the same system calls as the disks: the event channels.

use std::os::fd::{AsRawFd as _, OwnedFd};

use io_uring::{opcode, squeue, types::Fd};
use nix::errno::Errno;

/// Bytes read at once: 64 ports.
const READ: usize = 256;
/// Bytes under way to the descriptor at once.
const WRITE: usize = 256;

/// `user_data` of the entry that reads.
pub(super) const READING: u64 = 1 << 62;
/// `user_data` of the entry that writes.
pub(super) const WRITING: u64 = 1 << 61;

/// One descriptor that is read whenever there is something, and written without an answer unless it fails. Both ways must not
/// block: the descriptor is in non-blocking mode.
pub(super) struct Stream {
    fd: OwnedFd,
    input: Box<[u8; READ]>,
    /// Whether the kernel has `input`.
    reading: bool,
    /// What was read and not taken yet.
    got: Option<Result<usize, Errno>>,
    output: Box<[u8; WRITE]>,
    /// How much of `output` waits to be written.
    queued: usize,
}

impl Stream {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            input: Box::new([0; READ]),
            reading: false,
            got: None,
            output: Box::new([0; WRITE]),
            queued: 0,
        }
    }

    /// Queues bytes to be written. False when there is no room.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.output.get_mut(self.queued..self.queued + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.queued += bytes.len();
        true
    }

    /// What was read: taken once. Errors: the descriptor's.
    pub(super) fn take(&mut self) -> Option<Result<&[u8], Errno>> {
        let got = self.got.take()?;
        Some(got.map(|count| self.input.get(..count).unwrap_or_default()))
    }

    /// True when something was read and not taken.
    pub(super) fn has_news(&self) -> bool {
        self.got.is_some()
    }

    /// The entry that writes what is queued, to be pushed and started now. Its memory stays in place as long as the stream.
    pub(super) fn write_entry(&mut self) -> Option<squeue::Entry> {
        let len = u32::try_from(std::mem::take(&mut self.queued)).ok().filter(|len| *len > 0)?;
        let entry = opcode::Write::new(self.raw(), self.output.as_ptr(), len).offset(u64::MAX).build();
        // Its completion would end the wait that starts it.
        Some(entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(WRITING))
    }

    /// The entry that reads on, to be pushed now; none while it is being read, or what was read was not taken. Its memory stays
    /// in place until [`read`](Self::read).
    pub(super) fn read_entry(&mut self) -> Option<squeue::Entry> {
        if self.reading || self.got.is_some() {
            return None;
        }
        self.reading = true;
        let (base, len) = (self.input.as_mut_ptr(), u32::try_from(READ).unwrap_or(0));
        Some(opcode::Read::new(self.raw(), base, len).offset(u64::MAX).build().user_data(READING))
    }

    /// The kernel has read.
    pub(super) fn read(&mut self, result: i32) {
        // At its end there is nothing more to read, ever.
        self.reading = result == 0;
        self.got = match usize::try_from(result) {
            Ok(0) => None,
            Ok(count) => Some(Ok(count)),
            Err(_) => match Errno::from_raw(result.saturating_neg()) {
                // Read on.
                Errno::EAGAIN | Errno::EINTR => None,
                errno => Some(Err(errno)),
            },
        };
    }

    /// The kernel could not write.
    pub(super) fn failed(&mut self, result: i32) {
        self.got = Some(Err(Errno::from_raw(result.saturating_neg())));
    }

    /// Gives the memory up: a ring that is going away may still use it.
    pub(super) fn abandon(self) {
        Box::leak(self.input);
        Box::leak(self.output);
    }

    fn raw(&self) -> Fd {
        Fd(self.fd.as_raw_fd())
    }
}
