//! An opened disk image: what is served, how large it is and what it can do.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{fd::AsRawFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use blkif_proto::SECTOR_SIZE;
use nix::{fcntl::Flock, libc};
use tracing::warn;

use super::{
    driver::Driver,
    geometry::{DiscardLimits, Geometry, reads_512},
    lock::{self, FileId},
};
use crate::sandbox::outside::{How, Outside, Unconfined};

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
    /// Its driver cannot serve it.
    #[error("cannot serve image {}: {why}", name.display())]
    Driver {
        /// What was to be served.
        name: PathBuf,
        /// Why not, for people.
        why: String,
    },
    /// What serves it cannot be reached now.
    #[error("cannot reach image {}: {why}", name.display())]
    Away {
        /// What was to be served.
        name: PathBuf,
        /// Why not, for people.
        why: String,
    },
    /// Another client has it.
    #[error("image {} is in use by {by}", name.display())]
    Held {
        /// What was to be served.
        name: PathBuf,
        /// The other, for people.
        by: String,
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
    /// What only its driver knows.
    Driven(Arc<dyn Driver>),
    /// Nothing.
    Null,
}

/// What keeps others of this daemon's guests from an image that has no lock of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The image, by the one name it has.
    pub name: String,
    /// It is written to.
    pub writes: bool,
    /// Others may write to it too.
    pub shared: bool,
}

impl Claim {
    /// True when both cannot be served at a time.
    pub fn excludes(&self, other: &Claim) -> bool {
        self.name == other.name && (self.writes || other.writes) && !(self.shared && other.shared)
    }
}

/// An opened image. Its size may change while it is served: see [`refresh`](Self::refresh).
#[derive(Debug)]
pub struct Image {
    name: PathBuf,
    target: Target,
    sectors: AtomicU64,
    geometry: Geometry,
    identity: Identity,
    _lock: Option<Flock<File>>,
}

/// What an image is, by whatever name it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    Nothing,
    File(FileId),
    Claim(Claim),
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
            let geometry = Geometry::of_block(&file, options, direct_io);
            (Target::Block(file), geometry)
        } else {
            let geometry = Geometry::of_file(&file, options, direct_io);
            (Target::File(file), geometry)
        };
        let image = Self {
            name: path.to_owned(),
            target,
            sectors: AtomicU64::new(0),
            geometry,
            identity: Identity::File(file_id),
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
            flush: true,
        };
        let sectors = AtomicU64::new(sectors);
        Ok(Self { name, target: Target::Null, sectors, geometry, identity: Identity::Nothing, _lock: None })
    }

    /// A drive without a medium: no sectors.
    pub fn empty(options: &ImageOptions) -> Self {
        let geometry = Geometry {
            sector_size: options.sector_size,
            physical_sector_size: options.sector_size,
            read_only: options.read_only,
            discard: None,
            direct_io: false,
            flush: true,
        };
        let (name, sectors) = (PathBuf::new(), AtomicU64::new(0));
        Self { name, target: Target::Null, sectors, geometry, identity: Identity::Nothing, _lock: None }
    }

    /// A disk that `driver` serves, known to people as `name`. `claim` says what it is, where nothing else keeps others from it; else it is
    /// the `file` that is locked, and stays so for as long as the driver has it.
    pub fn driven(
        name: PathBuf,
        driver: Arc<dyn Driver>,
        geometry: Geometry,
        identity: Result<FileId, Claim>,
    ) -> Result<Self, ImageError> {
        let sectors = whole_sectors(driver.bytes(), geometry.sector_size);
        if sectors == 0 {
            return Err(ImageError::Empty { path: name, sector_size: geometry.sector_size });
        }
        let identity = identity.map_or_else(Identity::Claim, Identity::File);
        let sectors = AtomicU64::new(sectors);
        Ok(Self { name, target: Target::Driven(driver), sectors, geometry, identity, _lock: None })
    }

    /// Measures the image again. True when its size changed.
    pub fn refresh(&self) -> io::Result<bool> {
        let bytes = match &self.target {
            Target::File(file) => file.metadata()?.len(),
            // A block device has no length of its own in `stat`.
            Target::Block(file) => (&mut &*file).seek(SeekFrom::End(0))?,
            Target::Driven(driver) => driver.bytes(),
            Target::Null => return Ok(false),
        };
        let sectors = whole_sectors(bytes, self.geometry.sector_size);
        Ok(self.sectors.swap(sectors, Relaxed) != sectors)
    }

    /// Makes the image larger or smaller, to so many bytes: a whole number of sectors, and at least one. May block. Errors:
    /// `InvalidInput`, it is not; `Unsupported`, what the image is made of has another way to be resized; the system's.
    pub fn resize(&self, bytes: u64) -> io::Result<()> {
        let refused = |kind, text: &str| Err(io::Error::new(kind, text));
        if bytes == 0 || !bytes.is_multiple_of(self.geometry.sector_size.into()) {
            return refused(io::ErrorKind::InvalidInput, "that is no whole number of sectors");
        }
        if self.geometry.read_only {
            return refused(io::ErrorKind::PermissionDenied, "it is read-only");
        }
        match &self.target {
            Target::File(file) => file.set_len(bytes),
            Target::Block(_) => refused(
                io::ErrorKind::Unsupported,
                "the device it is has tools of its own; the guest is told of what they do",
            ),
            Target::Driven(driver) => driver.resize(bytes),
            Target::Null => refused(io::ErrorKind::Unsupported, "there is nothing to resize"),
        }
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

    /// The file that is locked for this image; none where there is nothing to lock.
    pub fn file_id(&self) -> Option<FileId> {
        match self.identity {
            Identity::File(file) => Some(file),
            Identity::Nothing | Identity::Claim(_) => None,
        }
    }

    /// What keeps others from an image that is no file.
    pub fn claim(&self) -> Option<&Claim> {
        match &self.identity {
            Identity::Claim(claim) => Some(claim),
            Identity::Nothing | Identity::File(_) => None,
        }
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

impl Target {
    /// The file to do I/O on.
    pub(super) fn file(&self) -> Option<&File> {
        match self {
            Target::File(file) | Target::Block(file) => Some(file),
            Target::Driven(_) | Target::Null => None,
        }
    }

    /// Its descriptor; -1, which the kernel refuses, for none.
    pub(super) fn raw_fd(&self) -> i32 {
        self.file().map_or(-1, AsRawFd::as_raw_fd)
    }
}

#[cfg(test)]
mod tests;
