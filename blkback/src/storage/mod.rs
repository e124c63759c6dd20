//! Storage: where the sectors live. One value of a [`Storage`] serves every disk of one worker thread.
//!
//! | implementer | what it is |
//! |---|---|
//! | [`Uring`] | files and block devices through one io_uring |
//! | [`Null`] | a disk without memory: reads as zeros, forgets writes; the price of the protocol alone |
//! | [`Memory`] | a disk in memory, for tests |
//! | [`Fault`] | a decorator that fails and delays operations, for tests |
//! | [`Engine`] | what the daemon uses: `Uring`, `Null` for null disks, and a [`Driver`] for each disk that is no plain file |
//!
//! An operation is one boxed value. It moves to the storage at [`submit`](Storage::submit) and comes back at
//! [`reap`](Storage::reap); in between the storage owns it, and with it the memory that the kernel reads or fills. So no
//! memory can be unmapped or used again under the disk. [`contract::check`] is the suite that every implementer passes.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::errno::Errno;
use xen_platform::SharedMem;

mod bell;
pub mod contract;
mod discard;
mod driven;
mod driver;
mod engine;
mod fault;
mod gather;
mod geometry;
mod image;
mod library;
mod lock;
mod memory;
pub mod nbd;
mod null;
pub mod qcow2;
pub mod rbd;
mod stream;
mod uring;
mod wake;

pub use driver::{Driver, Job};
pub use engine::Engine;
pub use fault::{Fault, Faults};
pub use geometry::{DiscardLimits, Geometry};
pub use image::{Claim, Image, ImageError, ImageOptions, Target};
pub use lock::FileId;
pub use memory::Memory;
pub use null::Null;
pub use uring::Uring;

/// A disk's number within one [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskId(pub u32);

/// What the disk is to do. Offsets and lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fills the memory from `offset` on.
    Read {
        /// First byte on the disk.
        offset: u64,
    },
    /// Stores the memory from `offset` on.
    Write {
        /// First byte on the disk.
        offset: u64,
    },
    /// Makes every completed write durable (`fdatasync`).
    Flush,
    /// Gives the range back to the storage; it reads as zeros, or as before, afterwards.
    Discard {
        /// First byte on the disk.
        offset: u64,
        /// Length; 0 is done at once.
        len: u64,
        /// Also make the old contents unrecoverable.
        secure: bool,
    },
}

/// One part of an operation's memory.
pub enum Part<'a> {
    /// Pages of a guest.
    Shared(SharedMem<'a>),
    /// Memory of ours.
    Private(&'a mut [u8]),
}

impl Part<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Part::Shared(mem) => mem.len(),
            Part::Private(bytes) => bytes.len(),
        }
    }

    /// True for a part without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The memory of a read or write, in disk order.
///
/// Implementer: every part stays mapped and at its address for as long as the value is neither touched nor dropped, also when
/// the box that holds it moves; parts are the same at every call until the value is touched.
pub trait IoMemory {
    /// Calls `each` with every part in order.
    fn parts(&mut self, each: impl FnMut(Part<'_>));
}

/// One operation: on the way in, what is to be done; on the way back, how it went.
#[derive(Debug)]
pub struct Op<T> {
    /// Which disk.
    pub disk: DiskId,
    /// What to do.
    pub action: Action,
    /// How it went; set by the storage.
    pub outcome: Result<(), Errno>,
    /// The memory, and whatever else the submitter wants back.
    pub data: T,
}

/// Where the sectors live; owned by one worker thread.
///
/// Implementer: completes every accepted operation exactly once, in any order; finishes short reads and writes itself; a read
/// that meets the end of the medium fails with `EIO`. Never panics, whatever the operation says. Dropping the value waits for
/// what is in flight.
/// Caller: checks that ranges lie within [`Image::sectors`] (a range beyond it may extend a file); calls
/// [`kick`](Self::kick) once per batch; keeps a disk attached while operations on it are in flight.
pub trait Storage<T: IoMemory> {
    /// Takes a disk on. Errors: the kernel has no room for one more file.
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId>;
    /// Lets a disk go that has nothing in flight.
    fn detach(&mut self, disk: DiskId);
    /// Takes an operation over. Gives it back when it cannot be started, with [`Op::outcome`] set: the disk is not attached.
    fn submit(&mut self, op: Box<Op<T>>) -> Result<(), Box<Op<T>>>;
    /// Starts everything submitted: at most one system call.
    fn kick(&mut self) -> io::Result<()>;
    /// A finished operation. Never blocks and makes no system call.
    fn reap(&mut self) -> Option<Box<Op<T>>>;
    /// Blocks until an operation finished, a watched descriptor is readable or `timeout` has passed (`None`: for ever); may
    /// return early. The worker's only blocking call. True when a watched descriptor may be readable.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool>;
    /// Lets [`wait`](Self::wait) also return when `fd` is readable.
    fn wake_on(&mut self, fd: OwnedFd);
    /// Follows `fd`, which is in non-blocking mode: a storage that can do so reads and writes it in the same system calls as its
    /// operations. [`wait`](Self::wait) then also returns, with true, when something was [`received`](Self::received).
    /// Gives `fd` back when it cannot, or follows one already.
    fn follow(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        Err(fd)
    }
    /// What was read from the followed descriptor since the last call, at most 256 bytes; it is read on in the next
    /// [`wait`](Self::wait). Errors: that of a read, or of a write of which it is not known how much was done.
    fn received(&mut self) -> Option<Result<&[u8], Errno>> {
        None
    }
    /// Writes to the followed descriptor in the next [`wait`](Self::wait), before it sleeps. False when there is no room, or
    /// nothing is followed.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let _ = bytes;
        false
    }
    /// Operations taken over and not yet given back.
    fn in_flight(&self) -> usize;
    /// System calls made so far to start or await operations.
    fn system_calls(&self) -> u64;
}
