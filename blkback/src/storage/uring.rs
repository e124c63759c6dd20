//! Files and block devices through one io_uring.
//!
//! Unsafe stands here because the kernel is handed raw pointers and uses them after the system call has returned. What makes
//! it sound: every pointer is derived from the memory of an operation that is, from then on, kept untouched in
//! [`Uring::slots`] until its completion has been seen; [`IoMemory`]'s contract keeps that memory in place meanwhile; and
//! dropping a [`Uring`] waits for all of them.
#![expect(unsafe_code, reason = "io_uring and ioctl take raw pointers; see the module documentation")]

use std::{
    collections::VecDeque,
    fs::File,
    io,
    num::NonZero,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode,
    register::Restriction,
    squeue::{self, Flags},
    types::{Fd, FsyncFlags, SubmitArgs, Timespec},
};
use nix::{errno::Errno, libc};
use tracing::{debug, error};

use super::{
    Action, DiskId, Image, IoMemory, Op, Storage, Target,
    discard::Discarder,
    gather::gather,
    stream::{READING, Stream, WRITING},
};

/// Submission entries: what one batch can hold without a second system call.
const ENTRIES: u32 = 512;
/// Completion entries; more than that in flight is queued by the kernel.
const COMPLETIONS: u32 = 4096;
/// Files the kernel keeps a reference to for us, which spares it a look-up per operation.
const FIXED_FILES: u32 = 1024;
/// `IORING_REGISTER_FILES_UPDATE`.
const FILES_UPDATE: u8 = 6;
/// Bytes from which on it pays to have another thread of the kernel copy from and to the page cache, on another processor perhaps, while
/// this one sees to other requests.
const FAR: u64 = 256 << 10;
/// Set in `user_data` of the polls on wake-up descriptors; the rest is their index.
const WAKER: u64 = 1 << 63;

/// The kernel's asynchronous I/O, for any number of disks of one thread.
pub struct Uring<T: IoMemory> {
    ring: IoUring,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    disks: Vec<Option<Disk>>,
    done: VecDeque<Box<Op<T>>>,
    wakers: Vec<Waker>,
    stream: Option<Stream>,
    discarder: Option<Discarder>,
    in_kernel: usize,
    /// Operations that other threads of the kernel have, and how many may be: half of those threads. On a slow disk they wait with what they
    /// have, and writes and flushes of all disks need some of them; reads do not.
    far: usize,
    far_most: usize,
    calls: u64,
}

/// An operation in the kernel's hands.
struct Slot<T> {
    op: Option<Box<Op<T>>>,
    parts: Vec<libc::iovec>,
    done: u64,
    total: u64,
    /// It is one of those that may go to other threads of the kernel.
    far: bool,
}

struct Disk {
    image: Arc<Image>,
    fd: Fd,
    flags: Flags,
    /// More of them, for large reads and writes.
    far: Flags,
}

struct Waker {
    fd: OwnedFd,
    armed: bool,
    /// Ends a wait without being told of.
    silent: bool,
}

impl<T: IoMemory> Uring<T> {
    /// Sets the io_uring up with what this kernel offers. Call on the thread that will use it. Errors: io_uring is disabled,
    /// or older than Linux 5.11.
    pub fn new() -> io::Result<Self> {
        let ring = set_up()?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring is too old: Linux 5.11 is needed",
            ));
        }
        if let Err(error) = ring.submitter().register_files_sparse(FIXED_FILES) {
            debug!(%error, "io_uring: no fixed files");
        }
        restrict(&ring)?;
        Ok(Self {
            ring,
            slots: Vec::new(),
            free: Vec::new(),
            disks: Vec::new(),
            done: VecDeque::new(),
            wakers: Vec::new(),
            stream: None,
            discarder: None,
            in_kernel: 0,
            far: 0,
            // The kernel has four to each processor.
            far_most: 2 * thread::available_parallelism().map_or(1, NonZero::get),
            calls: 0,
        })
    }

    /// Lets [`wait`](Storage::wait) also return when `fd` is readable, without saying so.
    pub(super) fn wait_for(&mut self, fd: OwnedFd) {
        self.wakers.push(Waker { fd, armed: false, silent: true });
    }

    /// Puts an operation into a slot and queues its first step.
    fn start(&mut self, op: Box<Op<T>>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { op: None, parts: Vec::new(), done: 0, total: 0, far: false });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        (slot.done, slot.total) = (0, 0);
        slot.op = Some(op);
        self.in_kernel += 1;
        self.step(index);
    }

    /// Queues what is left of the operation in a slot.
    fn step(&mut self, index: u32) {
        let Some(entry) = self.entry(index) else { return };
        let entry = entry.user_data(u64::from(index));
        if !self.push(&entry) {
            self.finish(index, Err(Errno::EBUSY));
        }
    }

    /// The submission entry for what is left; none when the operation is finished or goes another way.
    fn entry(&mut self, index: u32) -> Option<squeue::Entry> {
        let slot = &mut self.slots[index as usize];
        let op = slot.op.as_mut()?;
        let Some(Some(disk)) = self.disks.get(op.disk.0 as usize) else {
            self.finish(index, Err(Errno::ENODEV));
            return None;
        };
        let (fd, mut flags) = (disk.fd, disk.flags);
        let entry = match op.action {
            Action::Read { offset } | Action::Write { offset } => {
                slot.total = gather(&mut op.data, slot.done, &mut slot.parts);
                let at = offset + slot.done;
                if slot.total >= FAR && !disk.far.is_empty() && (slot.far || self.far < self.far_most) {
                    self.far += usize::from(!std::mem::replace(&mut slot.far, true));
                    flags |= disk.far;
                }
                let write = matches!(op.action, Action::Write { .. });
                match slot.parts[..] {
                    [] => {
                        self.finish(index, Ok(()));
                        return None;
                    }
                    // At most `MAX_RW_COUNT` is moved at once; the rest is a short transfer like any other.
                    [one] => {
                        let len = u32::try_from(one.iov_len).unwrap_or(1 << 30);
                        let base = one.iov_base.cast::<u8>();
                        if write {
                            opcode::Write::new(fd, base, len).offset(at).build()
                        } else {
                            opcode::Read::new(fd, base, len).offset(at).build()
                        }
                    }
                    _ => {
                        let (base, count) =
                            (slot.parts.as_ptr(), u32::try_from(slot.parts.len()).unwrap_or(0));
                        if write {
                            opcode::Writev::new(fd, base, count).offset(at).build()
                        } else {
                            opcode::Readv::new(fd, base, count).offset(at).build()
                        }
                    }
                }
            }
            Action::Flush => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            Action::Discard { len: 0, .. } => {
                self.finish(index, Ok(()));
                return None;
            }
            Action::Discard { offset, len, secure } => {
                if let Target::Block(_) = disk.image.target() {
                    let image = Arc::clone(&disk.image);
                    self.discard(index, image, offset, len, secure);
                    return None;
                }
                if secure {
                    self.finish(index, Err(Errno::EOPNOTSUPP));
                    return None;
                }
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build()
            }
        };
        Some(entry.flags(flags))
    }

    /// Hands a block device's discard to the thread for it.
    fn discard(&mut self, index: u32, image: Arc<Image>, offset: u64, len: u64, secure: bool) {
        if self.discarder.is_none() {
            match Discarder::start().and_then(|discarder| Ok((discarder.waker()?, discarder))) {
                Ok((waker, discarder)) => {
                    self.wake_on(waker);
                    self.discarder = Some(discarder);
                }
                Err(error) => error!(%error, "cannot start the discard thread"),
            }
        }
        let taken = self.discarder.as_ref().is_some_and(|d| d.submit(index, image, offset, len, secure));
        if !taken {
            self.finish(index, Err(Errno::EIO));
        }
    }

    /// Queues one entry, making room by a system call if the batch is larger than the queue.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry's pointers, if any, lead into memory of the operation in its slot, or to the slot's `parts`;
        // both stay in place and untouched until the completion has been seen (module documentation).
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return true;
        }
        if let Err(error) = self.enter(0, None) {
            error!(%error, "io_uring does not take the batch");
            return false;
        }
        // SAFETY: as above.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// One system call: starts what is queued and waits for `want` completions.
    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        let result = match timeout {
            None => self.ring.submitter().submit_and_wait(want),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&timeout))
            }
        };
        match result {
            Ok(_) => Ok(()),
            // Time is up; a signal; or completions must be taken first, which comes next anyway.
            Err(error)
                if [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN]
                    .contains(&error.raw_os_error().unwrap_or(0)) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Takes all completions in.
    fn gather_completions(&mut self) {
        while let Some(completion) = self.next_completion() {
            self.complete(&completion);
        }
    }

    /// Takes a completion in.
    fn complete(&mut self, completion: &cqueue::Entry) {
        let data = completion.user_data();
        if data & WAKER != 0 {
            if let Some(waker) = usize::try_from(data & !WAKER).ok().and_then(|i| self.wakers.get_mut(i)) {
                waker.armed = false;
            }
            return;
        }
        if let Some(stream) = &mut self.stream {
            match data {
                READING => return stream.read(completion.result()),
                WRITING => return stream.failed(completion.result()),
                _ => {}
            }
        }
        let Ok(index) = u32::try_from(data) else { return };
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(op) = &slot.op else { return };
        let transfer = matches!(op.action, Action::Read { .. } | Action::Write { .. });
        match u64::try_from(completion.result()) {
            Ok(moved) if transfer => {
                slot.done += moved;
                if slot.done >= slot.total {
                    self.finish(index, Ok(()));
                } else if moved == 0 {
                    // The end of a file that became shorter, or a disk that takes nothing more.
                    self.finish(index, Err(Errno::EIO));
                } else {
                    self.step(index);
                }
            }
            Ok(_) => self.finish(index, Ok(())),
            Err(_) => match Errno::from_raw(-completion.result()) {
                Errno::EINTR | Errno::EAGAIN => self.step(index),
                errno => self.finish(index, Err(errno)),
            },
        }
    }

    /// Empties a slot into the list of finished operations.
    fn finish(&mut self, index: u32, outcome: Result<(), Errno>) {
        if let Some(mut op) = self.slots.get_mut(index as usize).and_then(|slot| slot.op.take()) {
            op.outcome = outcome;
            self.done.push_back(op);
            self.free.push(index);
            self.in_kernel -= 1;
            if let Some(slot) = self.slots.get_mut(index as usize) {
                self.far -= usize::from(std::mem::take(&mut slot.far));
            }
        }
    }

    fn has_news(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_news)
    }

    /// Takes in what the discard thread has done.
    fn reap_discards(&mut self) {
        let Some(discarder) = &mut self.discarder else { return };
        discarder.clear();
        while let Some((index, outcome)) = self.discarder.as_mut().and_then(Discarder::reap) {
            self.finish(index, outcome);
        }
    }

    /// Lets the kernel watch the wake-up descriptors that it does not watch already.
    fn arm_wakers(&mut self) {
        // Written before it is read: what that releases may be there at once.
        let write = self.stream.as_mut().and_then(Stream::write_entry);
        let read = self.stream.as_mut().and_then(Stream::read_entry);
        for entry in [write, read].into_iter().flatten() {
            if !self.push(&entry)
                && let Some(stream) = &mut self.stream
            {
                stream.failed(-libc::EBUSY);
            }
        }
        for i in 0..self.wakers.len() {
            let waker = &self.wakers[i];
            if waker.armed {
                continue;
            }
            let events = u32::try_from(libc::POLLIN).unwrap_or(1);
            let entry =
                opcode::PollAdd::new(Fd(waker.fd.as_raw_fd()), events).build().user_data(WAKER | i as u64);
            self.wakers[i].armed = self.push(&entry);
        }
    }
}

impl<T: IoMemory> Storage<T> for Uring<T> {
    fn attach(&mut self, image: &Arc<Image>) -> io::Result<DiskId> {
        let raw = image.target().raw_fd();
        let index = self.disks.iter().position(Option::is_none).unwrap_or(self.disks.len());
        let id = u32::try_from(index).map_err(io::Error::other)?;
        let fixed = id < FIXED_FILES
            && self.ring.submitter().register_files_update(id, &[raw]).is_ok_and(|updated| updated == 1);
        let (fd, flags) = match i32::try_from(id) {
            Ok(id) if fixed => (Fd(id), Flags::FIXED_FILE),
            _ => (Fd(raw), Flags::empty()),
        };
        // Without the page cache nothing is copied by the kernel.
        let far = if image.geometry().direct_io { Flags::empty() } else { Flags::ASYNC };
        let disk = Disk { image: Arc::clone(image), fd, flags, far };
        match self.disks.get_mut(index) {
            Some(slot) => *slot = Some(disk),
            None => self.disks.push(Some(disk)),
        }
        Ok(DiskId(id))
    }

    fn detach(&mut self, disk: DiskId) {
        let Some(disk_slot) = self.disks.get_mut(disk.0 as usize) else { return };
        let fixed = disk_slot.take().is_some_and(|d| d.flags.contains(Flags::FIXED_FILE));
        if fixed && let Err(error) = self.ring.submitter().register_files_update(disk.0, &[-1]) {
            debug!(%error, "io_uring keeps a file for longer");
        }
    }

    fn submit(&mut self, mut op: Box<Op<T>>) -> Result<(), Box<Op<T>>> {
        if !matches!(self.disks.get(op.disk.0 as usize), Some(Some(_))) {
            op.outcome = Err(Errno::ENODEV);
            return Err(op);
        }
        self.start(op);
        Ok(())
    }

    fn kick(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle { Ok(()) } else { self.enter(0, None) }
    }

    fn reap(&mut self) -> Option<Box<Op<T>>> {
        loop {
            if let Some(op) = self.done.pop_front() {
                return Some(op);
            }
            let completion = self.next_completion()?;
            self.complete(&completion);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.reap_discards();
        self.gather_completions();
        if self.done.is_empty() && !self.has_news() {
            self.arm_wakers();
            self.enter(1, timeout)?;
            self.gather_completions();
            self.reap_discards();
        }
        Ok(self.has_news() || self.wakers.iter().any(|waker| !waker.armed && !waker.silent))
    }

    fn wake_on(&mut self, fd: OwnedFd) {
        self.wakers.push(Waker { fd, armed: false, silent: false });
    }

    fn follow(&mut self, fd: OwnedFd) -> Result<(), OwnedFd> {
        // Linux 5.17.
        if self.stream.is_some() || !self.ring.params().is_feature_skip_cqe_on_success() {
            return Err(fd);
        }
        self.stream = Some(Stream::new(fd));
        Ok(())
    }

    fn received(&mut self) -> Option<Result<&[u8], Errno>> {
        self.stream.as_mut()?.take()
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.send(bytes))
    }

    fn in_flight(&self) -> usize {
        self.in_kernel + self.done.len()
    }

    fn system_calls(&self) -> u64 {
        self.calls
    }
}

impl<T: IoMemory> Drop for Uring<T> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.abandon();
        }
        while self.in_kernel > 0 {
            if let Err(error) = self.wait(None) {
                // The kernel may still use the memory: better lost than used again.
                error!(%error, "io_uring broke with operations in flight");
                self.slots.iter_mut().filter_map(|slot| slot.op.take()).for_each(|op| _ = Box::leak(op));
                self.slots.drain(..).for_each(|slot| _ = slot.parts.leak());
                return;
            }
            self.gather_completions();
        }
    }
}

/// The best io_uring this kernel offers: one submitting thread and completions only when we ask for them (Linux 6.1),
/// else without inter-processor interrupts (5.19), else a plain one.
fn set_up() -> io::Result<IoUring> {
    let [mut modern, mut middling, mut plain] = [(); 3].map(|()| IoUring::builder());
    for builder in [&mut modern, &mut middling, &mut plain] {
        // Until it is restricted it does nothing.
        builder.setup_cqsize(COMPLETIONS).setup_r_disabled();
    }
    modern.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    middling.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    let better = [modern, middling].iter().find_map(|builder| builder.build(ENTRIES).ok());
    better.map_or_else(|| plain.build(ENTRIES), Ok)
}

/// Lets the ring do what is done here and nothing else, and begin: no filter sees what a ring is asked to do.
fn restrict(ring: &IoUring) -> io::Result<()> {
    let operations = [
        opcode::Read::CODE,
        opcode::Readv::CODE,
        opcode::Write::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::PollAdd::CODE,
    ];
    let flags = Flags::FIXED_FILE | Flags::SKIP_SUCCESS | Flags::ASYNC;
    let flags = Restriction::sqe_flags_allowed(flags.bits());
    let mut allowed: Vec<_> = operations.into_iter().map(Restriction::sqe_op).collect();
    allowed.extend([flags, Restriction::register_op(FILES_UPDATE)]);
    ring.submitter().register_restrictions(&mut allowed)?;
    ring.submitter().register_enable_rings()
}

mod ioctls {
    use nix::{ioctl_write_ptr_bad, request_code_none};
    // `BLKDISCARD` and `BLKSECDISCARD` of `linux/fs.h`.
    ioctl_write_ptr_bad!(blkdiscard, request_code_none!(0x12, 119), [u64; 2]);
    ioctl_write_ptr_bad!(blksecdiscard, request_code_none!(0x12, 125), [u64; 2]);
}

/// Discards a range of a block device, in bytes. Blocks.
pub(super) fn block_discard(device: &File, offset: u64, len: u64) -> Result<(), Errno> {
    let range = [offset, len];
    // SAFETY: the kernel reads the two words of `range`, which outlive the call, and keeps no pointer.
    unsafe { ioctls::blkdiscard(device.as_raw_fd(), &raw const range) }.map(drop)
}

/// Discards a range of a block device and makes its contents unrecoverable. Blocks.
pub(super) fn block_secure_discard(device: &File, offset: u64, len: u64) -> Result<(), Errno> {
    let range = [offset, len];
    // SAFETY: as in `block_discard`.
    unsafe { ioctls::blksecdiscard(device.as_raw_fd(), &raw const range) }.map(drop)
}

#[cfg(test)]
mod tests;
