//! An opened disk image: what is served, how large it is and what it can do.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use blkif_proto::SECTOR_SIZE;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, fallocate},
    libc,
};
use tracing::warn;
use zerocopy::IntoBytes;

use super::{
    discard::secure_supported,
    lock::{self, FileId},
};
use crate::{
    data::buffer::Page,
    sandbox::outside::{How, Outside, Unconfined},
};

/// How an image is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Bypass the page cache (`O_DIRECT`) if the image allows it in units of 512 bytes.
    pub direct_io: bool,
    /// Offer discard if the image can.
    pub discard: bool,
    /// Logical sector size in bytes: a power of two, 512 to 4096.
    pub sector_size: u32,
    /// Others may write to the image too.
    pub shared: bool,
    /// Whose writes they are, where others write too: a number that no other disk on this host has.
    pub writer: Option<u64>,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            direct_io: false,
            discard: true,
            sector_size: 512,
            shared: false,
            writer: None,
        }
    }
}

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be opened or measured.
    #[error("cannot {what} image {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The image.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is neither a file nor a block device.
    #[error("image {} is neither a regular file nor a block device", .0.display())]
    Kind(PathBuf),
    /// It is somewhere else.
    #[error("image {} lies outside of the folders for images (`images` in the section [sandbox] of the configuration)", .0.display())]
    Outside(PathBuf),
    /// Somebody writes to it, or would see what we write.
    #[error("image {} is in use", path.display())]
    Locked {
        /// The image.
        path: PathBuf,
        /// Its file.
        file: FileId,
    },
    /// The same writer's requests are under way, from a process that is no more.
    #[error("requests of an earlier daemon are under way to image {}", .0.display())]
    Fenced(PathBuf),
    /// It has no whole sector.
    #[error("image {} is smaller than one sector of {sector_size} bytes", path.display())]
    Empty {
        /// The image.
        path: PathBuf,
        /// The sector size, in bytes.
        sector_size: u32,
    },
}

/// What the sectors are kept in.
#[derive(Debug)]
pub enum Target {
    /// A regular file.
    File(File),
    /// A block device.
    Block(File),
    /// Nothing.
    Null,
}

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
}

/// An opened image. Its size may change while it is served: see [`refresh`](Self::refresh).
#[derive(Debug)]
pub struct Image {
    name: PathBuf,
    target: Target,
    sectors: AtomicU64,
    geometry: Geometry,
    file_id: Option<FileId>,
    _lock: Option<Flock<File>>,
}

impl Image {
    /// Opens a file or block device, wherever it is, and keeps others from it for as long as it is open.
    pub fn open(path: &Path, options: &ImageOptions) -> Result<Self, ImageError> {
        Self::open_by(&Unconfined, path, options)
    }

    /// [`open`](Self::open) with the help of the `outside`.
    pub fn open_by(outside: &dyn Outside, path: &Path, options: &ImageOptions) -> Result<Self, ImageError> {
        let failed = |what| move |source| ImageError::Io { what, path: path.to_owned(), source };
        let (file, direct_io) =
            open(outside, path, options).map_err(|source| match source.raw_os_error() {
                Some(libc::ENOTBLK) => ImageError::Kind(path.to_owned()),
                Some(libc::EXDEV) => ImageError::Outside(path.to_owned()),
                Some(libc::ENOENT) => failed("find")(source),
                _ => failed("open")(source),
            })?;
        let kind = file.metadata().map_err(failed("find"))?.file_type();
        let file_id = FileId::of(&file).map_err(failed("find"))?;
        let lock = match lock::take(&file, !options.read_only && !options.shared) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(ImageError::Locked { path: path.to_owned(), file: file_id });
            }
            lock => lock.map_err(failed("lock"))?,
        };
        if let Some(writer) = options.writer.filter(|_| options.shared && !options.read_only)
            && !lock::fence(&file, writer).map_err(failed("lock"))?
        {
            return Err(ImageError::Fenced(path.to_owned()));
        }
        let (target, geometry) = if kind.is_block_device() {
            let geometry = block_geometry(&file, options, direct_io);
            (Target::Block(file), geometry)
        } else {
            let geometry = file_geometry(&file, options, direct_io);
            (Target::File(file), geometry)
        };
        let image = Self {
            name: path.to_owned(),
            target,
            sectors: AtomicU64::new(0),
            geometry,
            file_id: Some(file_id),
            _lock: lock,
        };
        image.refresh().map_err(failed("measure"))?;
        if image.sectors() == 0 {
            return Err(ImageError::Empty { path: path.to_owned(), sector_size: options.sector_size });
        }
        Ok(image)
    }

    /// A disk of `bytes` without memory. Its direct I/O is only a word, for who treats such images differently.
    pub fn null(bytes: u64, options: &ImageOptions) -> Result<Self, ImageError> {
        let name = PathBuf::from("null");
        let sectors = whole_sectors(bytes, options.sector_size);
        if sectors == 0 {
            return Err(ImageError::Empty { path: name, sector_size: options.sector_size });
        }
        let discard = (options.discard && !options.read_only).then_some(DiscardLimits {
            granularity: options.sector_size,
            alignment: 0,
            secure: false,
        });
        let geometry = Geometry {
            sector_size: options.sector_size,
            physical_sector_size: options.sector_size,
            read_only: options.read_only,
            discard,
            direct_io: options.direct_io,
        };
        let sectors = AtomicU64::new(sectors);
        Ok(Self { name, target: Target::Null, sectors, geometry, file_id: None, _lock: None })
    }

    /// Measures the image again. True when its size changed.
    pub fn refresh(&self) -> io::Result<bool> {
        let bytes = match &self.target {
            Target::File(file) => file.metadata()?.len(),
            // A block device has no length of its own in `stat`.
            Target::Block(file) => (&mut &*file).seek(SeekFrom::End(0))?,
            Target::Null => return Ok(false),
        };
        let sectors = whole_sectors(bytes, self.geometry.sector_size);
        Ok(self.sectors.swap(sectors, Relaxed) != sectors)
    }

    /// Size in 512-byte sectors, a multiple of the logical sector size.
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Relaxed)
    }

    /// True when writes are refused.
    pub fn read_only(&self) -> bool {
        self.geometry.read_only
    }

    /// What does not change.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What the sectors are kept in.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The file; none behind a null disk.
    pub fn file_id(&self) -> Option<FileId> {
        self.file_id
    }

    /// The path, for messages.
    pub fn name(&self) -> &Path {
        &self.name
    }
}

fn whole_sectors(bytes: u64, sector_size: u32) -> u64 {
    let size = u64::from(sector_size.max(1));
    bytes / size * size / SECTOR_SIZE as u64
}

/// Opens with `O_DIRECT` if asked to and possible; says whether it was.
fn open(outside: &dyn Outside, path: &Path, options: &ImageOptions) -> io::Result<(File, bool)> {
    let how = How { write: !options.read_only, direct: false };
    if options.direct_io {
        match outside.open(path, How { direct: true, ..how }) {
            Ok(file) if reads_512(&file)? => return Ok((file, true)),
            Ok(_) => {
                warn!(image = %path.display(), "O_DIRECT needs more than 512-byte alignment: buffered instead")
            }
            // tmpfs before Linux 6.6, for one.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                warn!(image = %path.display(), "O_DIRECT is not possible here: buffered instead");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((outside.open(path, how)?, false))
}

/// Guests may use any 512-byte sector at any 512-byte place of a page: whether the image takes that, by trying.
fn reads_512(file: &File) -> io::Result<bool> {
    let mut page = Page::default();
    match file.read_at(&mut page.as_mut_bytes()[512..1024], 512) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

fn file_geometry(file: &File, options: &ImageOptions, direct_io: bool) -> Geometry {
    let block = file.metadata().map_or(4096, |meta| meta.blksize());
    let block = u32::try_from(block).unwrap_or(4096).clamp(512, 4096).next_power_of_two();
    let discard = (options.discard && !options.read_only && punches_holes(file)).then_some(DiscardLimits {
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

fn block_geometry(file: &File, options: &ImageOptions, direct_io: bool) -> Geometry {
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
    }
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

impl Target {
    /// The file to do I/O on.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Target::File(file) | Target::Block(file) => Some(file),
            Target::Null => None,
        }
    }

    /// Its descriptor; -1, which the kernel refuses, for none.
    pub(super) fn raw_fd(&self) -> i32 {
        self.file().map_or(-1, AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests;
