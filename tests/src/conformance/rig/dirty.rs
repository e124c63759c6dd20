#![expect(
    unsafe_code,
    reason = "no library has the system call that tells what is not on the medium yet: ADR-0005"
)]
//! Which pages of a file are only in memory: the one trace that a missing `fsync` leaves on a running machine.

use std::{fs::File, ops::Range, os::fd::AsRawFd as _, ptr};

use anyhow::{Result, bail};
use nix::{errno::Errno, libc};

/// `cachestat`, since Linux 6.5, with the same number on every architecture of ours.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` of `linux/mman.h`, in bytes.
#[repr(C)]
struct Asked {
    offset: u64,
    len: u64,
}

/// `struct cachestat` of `linux/mman.h`, in pages.
#[derive(Default)]
#[repr(C)]
struct Answer {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many of the 4 KiB `pages` of a file are not on its medium. Errors: a kernel before 6.5.
pub fn dirty_pages(file: &File, pages: Range<u64>) -> Result<u64> {
    let asked = Asked { offset: pages.start * 4096, len: (pages.end - pages.start) * 4096 };
    let mut answer = Answer::default();
    let flags: libc::c_uint = 0;
    // SAFETY: the kernel reads one `Asked` and writes one `Answer`, both of which live until the call returns; the file
    // descriptor is borrowed for as long.
    let done = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), ptr::from_ref(&asked), ptr::from_mut(&mut answer), flags)
    };
    if let Err(errno) = Errno::result(done) {
        bail!("cachestat, which needs Linux 6.5: {errno}");
    }
    Ok(answer.dirty + answer.writeback)
}
