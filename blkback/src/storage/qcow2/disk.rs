//! The disk in an image: jobs, one task each, on the one thread of the disk.
//!
//! What a guest has been told to be written has reached the file, with everything that leads to it, before it is told: the daemon that
//! follows a killed one finds it there. The library keeps tables in memory and writes them when told to ([`Disk::written`]). So a
//! write that needs a cluster goes: take a cluster, write the data, *write tables* (with the cluster's count), make the entry that
//! leads to it, *write tables*. Writes that come together share the last step, and the first with the one before.

use std::{cell::Cell, io, pin::pin, sync::Arc};

use imago::{FormatAccess, Mapping, format::PreallocateMode};
use nix::errno::Errno;
use tokio::{
    sync::{Mutex, OwnedRwLockWriteGuard, RwLock},
    task::yield_now,
};
use tracing::{error, warn};

use super::{
    chain::Chain,
    layer::{self, Layer},
    places::Places,
};
use crate::storage::{Action, driver::Job};

/// Bytes of the disk whose place is learned at once, at most.
const LEARNED_MAX: u64 = 1 << 30;

/// One image, as the tasks of its jobs share it.
#[derive(Debug)]
pub(super) struct Disk {
    /// Shared by what reads and writes, alone for what takes clusters away.
    access: RwLock<FormatAccess<Layer>>,
    /// None for what is read only.
    chain: Option<Chain>,
    places: Option<Arc<Places>>,
    name: String,
    /// Held from where a cluster is taken to where it is led to.
    allocating: Mutex<()>,
    writing: Mutex<()>,
    /// How often tables were written: begun, done, and what number has to be done so that nothing waits.
    begun: Cell<u64>,
    done: Cell<u64>,
    due: Cell<u64>,
    complained: Cell<bool>,
    broken: Cell<bool>,
}

impl Disk {
    pub(super) fn new(
        access: FormatAccess<Layer>,
        chain: Option<Chain>,
        places: Option<Arc<Places>>,
        name: String,
    ) -> Self {
        Self {
            access: RwLock::new(access),
            chain,
            places,
            name,
            allocating: Mutex::new(()),
            writing: Mutex::new(()),
            begun: Cell::new(0),
            done: Cell::new(0),
            due: Cell::new(0),
            complained: Cell::new(false),
            broken: Cell::new(false),
        }
    }

    /// Does a job, and finishes it.
    pub(super) async fn serve(&self, job: Job) {
        if self.broken.get() {
            return job.finish(Err(Errno::EIO));
        }
        let _watch = Watch(self);
        let (job, result) = match job.action() {
            Action::Read { offset } => self.read(job, offset).await,
            Action::Write { offset } => self.write(job, offset).await,
            Action::Flush => (job, self.flush().await),
            Action::Discard { offset, len, secure: false } => (job, self.discard(offset, len).await),
            Action::Discard { .. } => (job, Err(Errno::EOPNOTSUPP.into())),
        };
        job.finish(result.map_err(|error| self.errno(&error)));
    }

    /// What the guest is told, and once for each disk people.
    fn errno(&self, error: &io::Error) -> Errno {
        if !self.complained.replace(true) {
            warn!(image = self.name, %error, "a request has failed; later ones are not logged");
        }
        error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
    }

    async fn read(&self, mut job: Job, offset: u64) -> (Job, io::Result<()>) {
        let access = self.access.read().await;
        let mut done = 0;
        while done < job.len() {
            let at = offset + done as u64;
            let (mapping, len) = match access.get_mapping(at, (job.len() - done) as u64).await {
                Ok(found) => found,
                Err(error) => return (job, Err(error)),
            };
            let part = done..done + usize::try_from(len).unwrap_or(usize::MAX).min(job.len() - done);
            let result;
            (job, result) = match mapping {
                Mapping::Raw { storage, offset, .. } => storage.read(job, part.clone(), offset).await,
                Mapping::Zero { .. } => {
                    job.bytes_mut()[part.clone()].fill(0);
                    (job, Ok(()))
                }
                // Compressed clusters.
                Mapping::Special { .. } => {
                    let result = access.read(&mut job.bytes_mut()[part.clone()], at).await;
                    (job, result)
                }
                _ => (job, Err(beyond())),
            };
            if result.is_err() || part.is_empty() {
                return (job, result.and(Err(beyond())));
            }
            done = part.end;
        }
        self.learn(&access, offset).await;
        (job, Ok(()))
    }

    /// Lets workers know where this byte of the disk is, with all that lies behind it in one piece.
    async fn learn(&self, access: &FormatAccess<Layer>, offset: u64) {
        let Some((places, chain)) = self.places.as_ref().zip(self.chain.as_ref()) else { return };
        let (Some(header), Some(top)) = (chain.header(), chain.top()) else { return };
        let start = offset - offset % header.cluster();
        let Ok((mapping, len)) = access.get_mapping(start, LEARNED_MAX).await else { return };
        // Nothing comes between: what the library has found by now, the file leads to if nothing is due.
        if let Mapping::Raw { storage, offset: place, writable: true, .. } = mapping
            && top.is(storage)
            && self.done.get() >= self.due.get()
        {
            // Beyond its end a file has no zeros for a worker.
            let len = len.min(top.len().saturating_sub(place));
            places.learn(start, len, place);
        }
    }

    async fn write(&self, job: Job, offset: u64) -> (Job, io::Result<()>) {
        let access = self.access.read().await;
        let (job, mut result) = self.write_parts(&access, job, offset).await;
        let due = self.due.get();
        if result.is_ok() && self.done.get() < due {
            // Others, who come to this place meanwhile, have their tables written by the same turn.
            yield_now().await;
            if self.done.get() < due {
                result = self.written(&access).await;
            }
        }
        if result.is_ok() {
            self.learn(&access, offset).await;
        }
        (job, result)
    }

    async fn write_parts(
        &self,
        access: &FormatAccess<Layer>,
        mut job: Job,
        offset: u64,
    ) -> (Job, io::Result<()>) {
        let mut done = 0;
        while done < job.len() {
            let (at, left) = (offset + done as u64, (job.len() - done) as u64);
            let part = |len: u64| done..done + usize::try_from(len.min(left)).unwrap_or(0);
            let (mapping, len) = match access.get_mapping(at, left).await {
                Ok(found) => found,
                Err(error) => return (job, Err(error)),
            };
            let result;
            (job, result) = match mapping {
                Mapping::Raw { storage, offset, writable: true, .. } => {
                    let (job, result) = storage.write(job, part(len), offset).await;
                    (job, result.map(|()| part(len).end))
                }
                mapping => {
                    let frees = self.frees(&mapping);
                    let (job, result) = self.write_new(access, job, at, done, frees).await;
                    (job, result.map(|len| part(len).end))
                }
            };
            match result {
                Ok(end) if end > done => done = end,
                result => return (job, result.and(Err(beyond()))),
            }
        }
        (job, Ok(()))
    }

    /// Writes to a new cluster as much as fits, from byte `at` of the disk and `from` of the job on. How many bytes.
    async fn write_new(
        &self,
        access: &FormatAccess<Layer>,
        job: Job,
        at: u64,
        from: usize,
        frees: bool,
    ) -> (Job, io::Result<u64>) {
        let turn = self.allocating.lock().await;
        let left = (job.len() - from) as u64;
        let prepared = match self.in_order(access, access.prepare_data_mapping(at, left, true)).await {
            Ok(prepared) => prepared,
            Err(error) => return (job, Err(error)),
        };
        let len = prepared.length().min(left);
        let part = from..from + usize::try_from(len).unwrap_or(0);
        if prepared.is_nonblocking() {
            // Somebody else has written there meanwhile.
            drop(turn);
            let (job, result) = prepared.storage().write(job, part, prepared.offset()).await;
            return (job, result.map(|()| len));
        }
        let (job, result) = prepared.storage().write(job, part, prepared.offset()).await;
        let committed = async {
            result?;
            self.written(access).await?;
            access.commit_data_mapping(prepared).await?;
            self.due.set(self.begun.get() + 1);
            // What has been given up must not be taken again as long as the file leads to it.
            if frees { self.written(access).await } else { Ok(()) }
        };
        let result = committed.await;
        drop(turn);
        (job, result.map(|()| len))
    }

    /// Whether to write there gives clusters up: compressed ones, or those shared with a snapshot.
    fn frees(&self, mapping: &Mapping<'_, Layer>) -> bool {
        match mapping {
            Mapping::Zero { explicit, .. } => *explicit,
            Mapping::Raw { storage, .. } => {
                self.chain.as_ref().and_then(Chain::top).is_none_or(|top| top.is(storage))
            }
            _ => true,
        }
    }

    /// Has everything that the library keeps in memory now written to the file. Who comes while it is being done has it done again,
    /// once for all who came.
    async fn written(&self, access: &FormatAccess<Layer>) -> io::Result<()> {
        let number = self.begun.get() + 1;
        let _turn = self.writing.lock().await;
        if self.done.get() >= number {
            return Ok(());
        }
        let number = self.begun.get() + 1;
        self.begun.set(number);
        let order = self.chain.as_ref().and_then(|chain| Some((chain.order.as_ref()?, chain.top()?)));
        let held = order.map_or(0, |(order, _)| order.held());
        access.flush().await?;
        if let Some((order, file)) = order {
            order.release(held, |at, bytes| file.write_now(bytes, at))?;
        }
        self.done.set(number);
        Ok(())
    }

    /// Runs what changes tables, and writes tables where it has to wait for that.
    async fn in_order<R>(
        &self,
        access: &FormatAccess<Layer>,
        work: impl Future<Output = io::Result<R>>,
    ) -> io::Result<R> {
        let Some(order) = self.chain.as_ref().and_then(|chain| chain.order.as_ref()) else {
            return work.await;
        };
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = order.asked() => {
                    let written = self.written(access).await;
                    // A table of level 2 must never be led to before it is one, not after a power loss either.
                    let lasts = match self.chain.as_ref().and_then(Chain::top) {
                        Some(file) if written.is_ok() => file.sync().await,
                        _ => written,
                    };
                    order.answer(lasts.is_ok());
                }
            }
        }
    }

    async fn flush(&self) -> io::Result<()> {
        let access = self.access.read().await;
        if self.done.get() < self.due.get() {
            self.written(&access).await?;
        }
        match self.chain.as_ref().and_then(Chain::top) {
            Some(file) => file.sync().await,
            None => Ok(()),
        }
    }

    /// Gives whole clusters back; what of the range is none stays.
    async fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _alone = self.alone().await;
        let access = self.access.write().await;
        self.discard_within(&access, offset, len).await
    }

    /// Without workers that read or write by themselves.
    async fn alone(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        match &self.places {
            Some(places) => Some(places.alone().await),
            None => None,
        }
    }

    async fn discard_within(&self, access: &FormatAccess<Layer>, offset: u64, len: u64) -> io::Result<()> {
        let Some(header) = self.chain.as_ref().and_then(Chain::header) else {
            return Err(Errno::EOPNOTSUPP.into());
        };
        let cluster = header.cluster();
        let end = offset.saturating_add(len).min(access.size());
        let end = if end == access.size() { end } else { end - end % cluster };
        let mut at = offset.checked_next_multiple_of(cluster).unwrap_or(end);
        while at < end {
            let (mapping, len) = access.get_mapping(at, end - at).await?;
            if len == 0 {
                return Err(beyond());
            }
            if !matches!(mapping, Mapping::Zero { .. }) {
                self.in_order(access, layer::discard(access, at, len, header.version > 2)).await?;
                self.due.set(self.begun.get() + 1);
            }
            at += len;
        }
        if self.done.get() < self.due.get() { self.written(access).await } else { Ok(()) }
    }

    /// Makes the disk larger or smaller. Errors: what the image cannot.
    pub(super) async fn resize(&self, bytes: u64) -> io::Result<()> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        let Some((chain, header)) = self.chain.as_ref().and_then(|chain| Some((chain, chain.header()?)))
        else {
            return refuse("images of this kind keep their size");
        };
        if !bytes.is_multiple_of(512) || i64::try_from(bytes).is_err() {
            return refuse("the size is no number of sectors");
        }
        if header.snapshots > 0 {
            return refuse("an image with internal snapshots keeps its size");
        }
        let _alone = self.alone().await;
        let mut access = self.access.write().await;
        let _watch = Watch(self);
        if bytes >= access.size() {
            // What is added reads as zeros, whatever lies below.
            let new = if chain.is_based() { PreallocateMode::Zero } else { PreallocateMode::None };
            self.in_order(&access, access.resize_grow(bytes, new)).await?;
            self.due.set(self.begun.get() + 1);
            return self.written(&access).await;
        }
        let size = access.size();
        self.discard_within(&access, bytes, size - bytes).await?;
        let Some(file) = chain.top() else { return refuse("there is no file") };
        file.sync().await?;
        file.write_now(&bytes.to_be_bytes(), super::header::SIZE_AT)?;
        // The library knows the header by heart.
        *access = chain.access()?;
        Ok(())
    }

    /// Bytes of the disk.
    pub(super) async fn bytes(&self) -> u64 {
        self.access.read().await.size()
    }

    /// Writes what is left, once no job is under way any more.
    pub(super) async fn close(&self) {
        let access = self.access.write().await;
        if self.chain.is_some()
            && let Err(error) = self.written(&access).await
        {
            error!(image = self.name, %error, "cannot write all tables; clusters may be lost");
        }
    }
}

/// Sees a task die by a bug, of which nobody knows what it left behind.
struct Watch<'a>(&'a Disk);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.set(true);
            error!(image = self.0.name, "the image's driver has failed; the disk serves no more");
        }
    }
}

fn beyond() -> io::Error {
    io::Error::other("the image ends before the disk")
}
