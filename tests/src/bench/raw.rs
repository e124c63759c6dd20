#![expect(unsafe_code, reason = "io_uring takes raw pointers: ADR-0005")]
//! The ceiling: io_uring on the image itself, nothing between.
//!
//! The best loop we know for one thread: registered file, registered buffers, completions run by the submitter, one
//! system call per batch. A pair that does the same I/O through a ring and two processes is measured against it.

use std::{fs::File, os::fd::AsRawFd, path::Path, time::Instant};

use anyhow::{Context as _, Result, bail};
use io_uring::{IoUring, opcode, types::Fixed};

use super::{
    job::{Job, Offsets, Sample, Span},
    meter::Meter,
};

/// Runs `job` on the file.
pub fn run(file: &Path, job: &Job, span: Span) -> Result<Sample> {
    let file = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut buffers = Buffers::new(usize::try_from(job.depth)?, usize::try_from(job.block)?);
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(job.depth.next_power_of_two())
        .context("io_uring")?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    // SAFETY: the iovecs name `buffers`, which outlives the ring's use of it: `drive` returns well only when every read has
    // completed, and otherwise the buffers are leaked.
    unsafe { ring.submitter().register_buffers(&buffers.iovecs())? };
    let sample = drive(&mut ring, &mut buffers, job, Offsets::new(job, file.metadata()?.len()), span);
    if sample.is_err() {
        std::mem::forget(buffers);
    }
    sample
}

fn drive(
    ring: &mut IoUring,
    buffers: &mut Buffers,
    job: &Job,
    mut offsets: Offsets,
    span: Span,
) -> Result<Sample> {
    let depth = buffers.count;
    let mut meter = Meter::start(span, &[])?;
    let mut sent = vec![Instant::now(); depth];
    let mut idle: Vec<usize> = (0..depth).collect();
    let mut over = false;
    loop {
        let now = Instant::now();
        while !over && let Some(slot) = idle.pop() {
            let entry =
                opcode::ReadFixed::new(Fixed(0), buffers.address(slot), job.block, u16::try_from(slot)?)
                    .offset(offsets.next_offset())
                    .build()
                    .user_data(slot as u64);
            // SAFETY: the entry reads into the slot's own buffer of `block` bytes, which stays alive (see `run`) and is not
            // touched until the completion that names the slot.
            unsafe { ring.submission().push(&entry) }.context("submission queue full")?;
            sent[slot] = now;
        }
        if idle.len() == depth {
            return meter.finish(job, now);
        }
        ring.submit_and_wait(1)?;
        let now = Instant::now();
        for completion in ring.completion() {
            let slot = usize::try_from(completion.user_data())?;
            if completion.result() != i32::try_from(job.block)? {
                bail!("read of {} bytes gave {}", job.block, completion.result());
            }
            meter.record(now - sent[slot]);
            idle.push(slot);
        }
        over = over || meter.tick(now)?;
    }
}

/// Page-aligned buffers of one size.
#[derive(Debug)]
struct Buffers {
    memory: Vec<Page>,
    stride: usize,
    block: usize,
    count: usize,
}

#[repr(align(4096))]
#[derive(Clone, Debug)]
struct Page(#[expect(dead_code, reason = "written by the kernel, never looked at")] [u8; 4096]);

impl Buffers {
    fn new(count: usize, block: usize) -> Self {
        let stride = block.next_multiple_of(4096);
        Self { memory: vec![Page([0; 4096]); count * stride / 4096], stride, block, count }
    }

    fn address(&mut self, slot: usize) -> *mut u8 {
        self.memory.as_mut_ptr().cast::<u8>().wrapping_add(slot * self.stride)
    }

    fn iovecs(&mut self) -> Vec<nix::libc::iovec> {
        (0..self.count)
            .map(|slot| nix::libc::iovec { iov_base: self.address(slot).cast(), iov_len: self.block })
            .collect()
    }
}
