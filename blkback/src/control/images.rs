//! The images that are open, and for which disks: so that a second guest is kept from an image, and told by whom.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::sleep,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{disk::Choice, store::DeviceId};
use crate::{
    sandbox::outside::{Outside, Unconfined},
    storage::{Claim, FileId, Image, ImageError, rbd},
};

/// How long a lock is waited for that nobody seems to have: a killed daemon's requests may be on their way to the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where a guest is connected, and waits too: longer than Linux tries to write to a disk that does not answer.
const PATIENCE_CONNECTED: Duration = Duration::from_secs(300);
/// How often it is tried.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// The images that this daemon has open, and who opens them. Clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    outside: Arc<dyn Outside>,
    clusters: Arc<rbd::Clusters>,
    served: Arc<Mutex<Vec<Served>>>,
}

impl Default for Images {
    fn default() -> Self {
        Self::new(Arc::new(Unconfined), rbd::Clusters::default())
    }
}

#[derive(Debug)]
struct Served {
    disk: DeviceId,
    image: Weak<Image>,
}

impl Served {
    fn is(&self, file: FileId) -> bool {
        self.image.upgrade().is_some_and(|image| image.file_id() == Some(file))
    }

    fn excludes(&self, claim: &Claim) -> bool {
        self.image.upgrade().is_some_and(|image| image.claim().is_some_and(|other| other.excludes(claim)))
    }
}

fn named(disk: &DeviceId) -> String {
    format!("guest {}, disk {}", disk.domain, disk.device)
}

impl Images {
    /// None yet; they will be opened by the `outside`, or in the `clusters`.
    pub fn new(outside: Arc<dyn Outside>, clusters: rbd::Clusters) -> Self {
        Self { outside, clusters: Arc::new(clusters), served: Arc::default() }
    }

    /// Opens what was chosen for a disk. May block, the longer if its guest is `connected` since before this daemon began. Errors:
    /// why not, for people; names the image, and who else has it.
    pub fn open(&self, choice: &Choice, disk: &DeviceId, connected: bool) -> Result<Arc<Image>, String> {
        let (begin, mut told) = (Instant::now(), String::new());
        let patience = if connected { PATIENCE_CONNECTED } else { PATIENCE };
        if connected {
            sleep(choice.settle());
        }
        loop {
            match choice.open(&self.outside, &self.clusters) {
                Ok(image) => {
                    let image = Arc::new(image);
                    return match self.note(disk, &image) {
                        None => Ok(image),
                        Some(rival) => Err(format!("image {} is in use by {rival}", image.name().display())),
                    };
                }
                Err(error @ ImageError::Locked { file, .. }) => {
                    let holder = self.holder(file, disk);
                    if let Some(holder) = holder {
                        return Err(format!("{error} by {holder}"));
                    }
                    if begin.elapsed() >= patience {
                        return Err(format!("{error} by a process that is not known here"));
                    }
                    sleep(RETRY_EVERY);
                }
                Err(ImageError::Fenced(_) | ImageError::Held { .. }) if begin.elapsed() < patience => {
                    sleep(RETRY_EVERY);
                }
                // A guest that waits does not lose its disk for that; others are told at once.
                Err(error @ ImageError::Away { .. }) if connected && begin.elapsed() < patience => {
                    let error = error.to_string();
                    if told != error {
                        warn!(%disk, error, "trying again");
                        told = error;
                    }
                    sleep(RETRY_EVERY);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Notes that the image is served. Who keeps it from that, where there is no lock to do so.
    fn note(&self, disk: &DeviceId, image: &Arc<Image>) -> Option<String> {
        let mut open = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|served| served.image.strong_count() > 0);
        let rival = image.claim().and_then(|claim| open.iter().find(|served| served.excludes(claim)));
        if let Some(Served { disk, .. }) = rival {
            return Some(named(disk));
        }
        open.push(Served { disk: disk.clone(), image: Arc::downgrade(image) });
        None
    }

    /// Who has the file's lock. None: somebody who is about to let it go, or is not in sight.
    fn holder(&self, file: FileId, asker: &DeviceId) -> Option<String> {
        let open = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Served { disk, .. }) = open.iter().find(|served| served.is(file)) {
            // What it had before is about to go.
            return (disk != asker).then(|| named(disk));
        }
        let process = file.locker().filter(|process| *process != std::process::id())?;
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(format!("process {process} ({})", name.trim()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{config::DiskConfig, control::disk::Source, storage::ImageOptions};

    struct Bench {
        folder: tempfile::TempDir,
        images: Images,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.img"), [0; 4096]).unwrap();
            Self { folder, images: Images::default() }
        }

        fn open(&self, domain: u16, options: ImageOptions) -> Result<Arc<Image>, String> {
            let source = Source::Path(self.folder.path().join("a.img"));
            let choice = Choice { source, options, settings: DiskConfig::default() };
            let disk = DeviceId { kind: "vbd".into(), domain: domain.to_string(), device: "51712".into() };
            self.images.open(&choice, &disk, false)
        }
    }

    fn writer() -> ImageOptions {
        ImageOptions::default()
    }

    fn reader() -> ImageOptions {
        ImageOptions { read_only: true, ..writer() }
    }

    #[test]
    fn one_guest_writes_and_others_are_told_who() {
        let bench = Bench::new();
        let first = bench.open(1, writer()).unwrap();
        for options in [writer(), reader(), ImageOptions { shared: true, ..writer() }] {
            let refused = bench.open(2, options).unwrap_err();
            assert!(refused.contains("a.img is in use by guest 1, disk 51712"), "{refused}");
        }
        drop(first);
        bench.open(2, writer()).unwrap();
    }

    #[test]
    fn any_number_read() {
        let bench = Bench::new();
        let _readers = [bench.open(1, reader()).unwrap(), bench.open(2, reader()).unwrap()];
        let refused = bench.open(3, writer()).unwrap_err();
        assert!(refused.contains("in use by guest 1"), "{refused}");
    }

    #[test]
    fn guests_that_share_write_together() {
        let bench = Bench::new();
        let shared = || ImageOptions { shared: true, ..writer() };
        let _writers = [bench.open(1, shared()).unwrap(), bench.open(2, shared()).unwrap()];
        bench.open(3, writer()).unwrap_err();
    }

    /// A lock of which nobody alive is known is that of a killed daemon's last requests, and passes.
    #[test]
    fn a_lock_that_nobody_has_is_waited_for() {
        let mut bench = Bench::new();
        let leftover = bench.open(1, writer()).unwrap();
        bench.images = Images::default();
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| bench.open(1, writer()));
            sleep(RETRY_EVERY * 2);
            assert!(!opened.is_finished());
            drop(leftover);
            opened.join().unwrap().unwrap();
        });
    }
}
