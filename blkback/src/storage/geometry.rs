//! What an image can do, and how that is found out.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    libc,
};
use zerocopy::IntoBytes;

use super::{ImageOptions, discard::secure_supported};
use crate::data::buffer::Page;

/// How discard works on an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// Bytes that go together.
    pub granularity: u32,
    /// Offset of the first such unit, in bytes.
    pub alignment: u32,
    /// Old contents can be made unrecoverable.
    pub secure: bool,
}

/// What does not change while an image is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Physical sector size in bytes, a multiple of `sector_size`.
    pub physical_sector_size: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// Discard, if the image can.
    pub discard: Option<DiscardLimits>,
    /// The page cache is bypassed.
    pub direct_io: bool,
    /// What was written can be made durable. Without it flushes are not offered.
    pub flush: bool,
}

/// Guests may use any 512-byte sector at any 512-byte place of a page: whether the image takes that, by trying.
pub(super) fn reads_512(file: &File) -> io::Result<bool> {
    let mut page = Page::default();
    match file.read_at(&mut page.as_mut_bytes()[512..1024], 512) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Geometry {
    /// Of a regular file.
    pub(super) fn of_file(file: &File, options: &ImageOptions, direct_io: bool) -> Geometry {
        let block = file.metadata().map_or(4096, |meta| meta.blksize());
        let block = u32::try_from(block).unwrap_or(4096).clamp(512, 4096).next_power_of_two();
        let discard =
            (options.discard && !options.read_only && punches_holes(file)).then_some(DiscardLimits {
                granularity: block.max(options.sector_size),
                alignment: 0,
                secure: false,
            });
        Geometry {
            sector_size: options.sector_size,
            physical_sector_size: block.max(options.sector_size),
            read_only: options.read_only,
            discard,
            direct_io,
            flush: true,
        }
    }

    /// Of a block device.
    pub(super) fn of_block(file: &File, options: &ImageOptions, direct_io: bool) -> Geometry {
        let queue = |name: &str| queue_limit(file, name);
        let physical = queue("physical_block_size").unwrap_or(512);
        let physical = u32::try_from(physical).unwrap_or(4096).clamp(512, 4096).next_power_of_two();
        let can_discard = queue("discard_max_bytes").unwrap_or(0) > 0;
        let discard = (options.discard && !options.read_only && can_discard).then(|| DiscardLimits {
            granularity: queue("discard_granularity")
                .and_then(|bytes| u32::try_from(bytes).ok())
                .unwrap_or(options.sector_size)
                .max(options.sector_size),
            alignment: 0,
            secure: secure_supported(file),
        });
        Geometry {
            sector_size: options.sector_size,
            physical_sector_size: physical.max(options.sector_size),
            read_only: options.read_only,
            discard,
            direct_io,
            flush: true,
        }
    }
}

/// Whether holes can be punched, by punching far behind the end, which changes nothing. `EFBIG` comes before the file system
/// is asked: then the guest's first discard tells.
fn punches_holes(file: &File) -> bool {
    let Ok(end) = file.metadata().map(|meta| meta.len()) else { return false };
    let Ok(far) = i64::try_from(end.next_multiple_of(4096).max(1 << 40)) else { return false };
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    matches!(fallocate(file.as_fd(), mode, far, 4096), Ok(()) | Err(Errno::EFBIG))
}

/// A limit of the device's request queue, from sysfs; a partition has its disk's.
fn queue_limit(file: &File, name: &str) -> Option<u64> {
    let rdev = file.metadata().ok()?.rdev();
    let device = format!("/sys/dev/block/{}:{}", libc::major(rdev), libc::minor(rdev));
    let mut text = String::new();
    [format!("{device}/queue/{name}"), format!("{device}/../queue/{name}")]
        .iter()
        .find_map(|path| File::open(path).ok())?
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}
