//! One file of an image, or of those that it is based on, as the library wants storage to be, and as the disk uses it past the library.
//!
//! `unsafe` stands here as the library's trait has it: its methods are unsafe to *call*, since they bypass what it does about
//! alignment; and once to call one, for discard.
#![expect(
    unsafe_code,
    reason = "methods of a foreign trait are declared unsafe; see the module documentation"
)]

use std::{
    fmt,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use imago::{
    FormatAccess, Storage,
    io_buffers::{IoVector, IoVectorMut},
    storage::drivers::CommonStorageHelper,
};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, fallocate},
};
use rustix::io::ReadWriteFlags;
use tokio::task::spawn_blocking;

use super::order::{Order, Step};
use crate::{
    data::buffer::Buffer,
    storage::{Image, driver::Job, lock},
};

/// Written at once where zeros have to be written.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// An opened file. Clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Layer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    name: PathBuf,
    direct: bool,
    /// Bytes in the file. What lies beyond reads as zeros.
    len: AtomicU64,
    /// Of the image that is written to.
    order: Option<Arc<Order>>,
    helper: CommonStorageHelper,
    /// What keeps others from the file.
    lock: Lock,
}

#[derive(Debug)]
enum Lock {
    Image(Arc<Image>),
    File(#[expect(dead_code, reason = "kept for its lock")] Option<Flock<File>>),
}

impl Layer {
    /// The file of an `image`, which is one.
    pub(super) fn new(image: Image, order: Option<Arc<Order>>) -> io::Result<Self> {
        let file = file(&image)?.try_clone()?;
        let (name, direct) = (image.name().to_owned(), image.geometry().direct_io);
        Self::of(file, name, direct, order, Lock::Image(Arc::new(image)))
    }

    /// A small file to be read only, that is no image by itself.
    pub(super) fn small(file: File, name: PathBuf) -> io::Result<Self> {
        let lock = lock::take(&file, false)?;
        Self::of(file, name, false, None, Lock::File(lock))
    }

    fn of(
        file: File,
        name: PathBuf,
        direct: bool,
        order: Option<Arc<Order>>,
        lock: Lock,
    ) -> io::Result<Self> {
        let len = measure(&file)?.into();
        let helper = CommonStorageHelper::default();
        Ok(Self(Arc::new(Inner { file, name, direct, len, order, helper, lock })))
    }

    /// The image that it is, if it is one.
    pub(super) fn image(&self) -> Option<&Arc<Image>> {
        match &self.0.lock {
            Lock::Image(image) => Some(image),
            Lock::File(_) => None,
        }
    }

    /// True for the same file, by any of its clones.
    pub(super) fn is(&self, other: &Layer) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Bytes in the file.
    pub(super) fn len(&self) -> u64 {
        self.0.len.load(Relaxed)
    }

    fn direct(&self) -> bool {
        self.0.direct
    }

    /// Fills a part of the job's memory from byte `at` on. What the page cache has is there at once; else a thread waits for it.
    pub(super) async fn read(&self, mut job: Job, part: Range<usize>, at: u64) -> (Job, io::Result<()>) {
        let done = if self.direct() { 0 } else { self.read_at_once(&mut job.bytes_mut()[part.clone()], at) };
        if done == part.len() {
            return (job, Ok(()));
        }
        let layer = self.clone();
        let rest = part.start + done..part.end;
        away(move || {
            let at = at + done as u64;
            let result = fill(&layer.0.file, &mut job.bytes_mut()[rest.clone()], at);
            let result = result.map(|count| job.bytes_mut()[rest][count..].fill(0));
            (job, result)
        })
        .await
    }

    /// As much as is there at once.
    fn read_at_once(&self, bytes: &mut [u8], at: u64) -> usize {
        let mut parts = [io::IoSliceMut::new(bytes)];
        rustix::io::preadv2(&self.0.file, &mut parts, at, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    /// Writes a part of the job's memory at byte `at`.
    pub(super) async fn write(&self, job: Job, part: Range<usize>, at: u64) -> (Job, io::Result<()>) {
        let layer = self.clone();
        let work = move || {
            let result = layer.write_all(&job.bytes()[part], at);
            (job, result)
        };
        // The page cache takes it at once, or there is too much in it, and everybody has to wait.
        if self.direct() { away(work).await } else { work() }
    }

    /// Writes now. May block.
    pub(super) fn write_now(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.direct() {
            let mut padded = Padded::new(at, bytes.len())?;
            if padded.within.start > 0 || padded.within.len() < padded.len {
                padded.fill(&self.0.file)?;
            }
            let within = padded.within.clone();
            padded.bytes()[within].copy_from_slice(bytes);
            let start = padded.start;
            return self.write_all(padded.bytes(), start);
        }
        self.write_all(bytes, at)
    }

    /// Reads now; what lies beyond the end is zeros. May block.
    pub(super) fn read_now(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        if self.direct() {
            let mut padded = Padded::new(at, bytes.len())?;
            padded.fill(&self.0.file)?;
            let within = padded.within.clone();
            bytes.copy_from_slice(&padded.bytes()[within]);
            return Ok(());
        }
        let count = fill(&self.0.file, bytes, at)?;
        bytes[count..].fill(0);
        Ok(())
    }

    fn write_all(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.file.write_all_at(bytes, at)?;
        self.0.len.fetch_max(at.saturating_add(bytes.len() as u64), Relaxed);
        Ok(())
    }

    /// Makes durable what was written.
    pub(super) async fn sync(&self) -> io::Result<()> {
        let layer = self.clone();
        spawn_blocking(move || layer.0.file.sync_data())
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    fn zero(&self, at: u64, len: u64) -> io::Result<()> {
        let end = at.saturating_add(len).min(self.len());
        let Some(len) = end.checked_sub(at).filter(|len| *len > 0) else { return Ok(()) };
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |value: u64| i64::try_from(value).map_err(|_| Errno::EFBIG);
        match fallocate(&self.0.file, hole, signed(at)?, signed(len)?) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
            result => return Ok(result?),
        }
        let mut at = at;
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
            self.write_now(&ZEROS[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }
}

/// Memory and range of whole sectors around a range that is none, for a file past the page cache. The library does the same, but over
/// whole pages, in which others' sectors may be.
struct Padded {
    buffer: Buffer,
    start: u64,
    len: usize,
    within: Range<usize>,
}

impl Padded {
    fn new(at: u64, len: usize) -> io::Result<Self> {
        let before = usize::try_from(at % 512).unwrap_or(0);
        let padded = (before + len).next_multiple_of(512);
        let mut buffer = Buffer::default();
        if !buffer.reserve(padded) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { buffer, start: at - before as u64, len: padded, within: before..before + len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut(self.len)
    }

    fn fill(&mut self, file: &File) -> io::Result<()> {
        let start = self.start;
        let count = fill(file, self.bytes(), start)?;
        self.bytes()[count..].fill(0);
        Ok(())
    }
}

/// Does `work` on a thread that may wait.
async fn away(work: impl FnOnce() -> (Job, io::Result<()>) + Send + 'static) -> (Job, io::Result<()>) {
    match spawn_blocking(work).await {
        Ok(done) => done,
        // The thread's death has taken the job with it, which fails by that.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Reads until `bytes` are full or the file ends; how many.
pub(super) fn fill(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Bytes of a file or block device.
pub(super) fn measure(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

pub(super) fn file(image: &Image) -> io::Result<&File> {
    image.target().file().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Gives a range of whole clusters back: to zeros, or to what lies below.
///
/// Caller: nobody else uses the image meanwhile.
pub(super) async fn discard(
    image: &FormatAccess<Layer>,
    at: u64,
    len: u64,
    to_zeros: bool,
) -> io::Result<()> {
    // SAFETY: the library wants that no mapping is used that was looked up before; the caller keeps all others away.
    unsafe {
        if to_zeros {
            image.discard_to_zero_unsafe(at, len).await
        } else {
            image.discard_to_backing_unsafe(at, len).await
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.name.display().fmt(f)
    }
}

impl Storage for Layer {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len())
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        Ok(self.0.name.parent().unwrap_or(Path::new("/")).join(relative))
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        for mut part in bufv.into_inner() {
            self.read_now(&mut part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let mut at = offset;
        for part in bufv.into_inner() {
            let order = self.0.order.as_ref();
            match order.map_or(Step::Now, |order| order.step(at, &part)) {
                Step::Now => self.write_now(&part, at)?,
                Step::Later => order.into_iter().for_each(|order| order.hold(at, part.to_vec())),
                Step::Last => {
                    let asked = match order {
                        Some(order) => order.ask().await,
                        None => Ok(()),
                    };
                    if let Err(error) = asked.and_then(|()| self.write_now(&part, at)) {
                        // The library believes in it already.
                        order.into_iter().for_each(|order| order.hold(at, part.to_vec()));
                        return Err(error);
                    }
                }
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.zero(offset, length)
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Layer::sync(self).await
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.0.helper
    }
}
