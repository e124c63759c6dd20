//! Queues that are kept from admitting requests for a while, and may serve another medium afterwards. What the guest asks for
//! meanwhile waits in the ring.

use tracing::error;
use xen_platform::BackWorld;

use super::{
    handle::{Medium, Report},
    inflight::InFlight,
    queue::{MappingOf, Quiet},
    resume,
    worker::Worker,
};
use crate::storage::Storage;

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Admits nothing more from a queue, and says when nothing of it is under way.
    pub(super) fn quiesce(&mut self, index: usize) {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return };
        queue.active = false;
        queue.quiet = Quiet::Awaited;
        self.tell_quiet(index);
    }

    /// Says that a queue is quiet, if that is waited for.
    pub(super) fn tell_quiet(&mut self, index: usize) {
        if let Some(Some(queue)) = self.queues.get_mut(index)
            && queue.quiet == Quiet::Awaited
            && queue.in_flight == 0
        {
            queue.quiet = Quiet::Told;
            (self.report)(Report::Quiet(queue.key));
        }
    }

    /// Admits requests again, for another medium if there is one. A queue that cannot have it keeps what it has, and the device is
    /// told that it is broken.
    pub(super) fn resume_queue(&mut self, index: usize, medium: Option<Medium>) {
        let Some(Some(queue)) = self.queues.get_mut(index) else { return };
        if let Some(Medium { image, log }) = medium.filter(|_| queue.quiet == Quiet::Told) {
            match self.storage.attach(&image) {
                Ok(disk) => {
                    self.storage.detach(std::mem::replace(&mut queue.disk, disk));
                    queue.image = image;
                    // In the place of the one that told of requests to another medium.
                    queue.log = log.and_then(|log| resume::begin(&log, &queue.ring));
                }
                Err(error) => {
                    error!(%error, key = ?queue.key, image = %image.name().display(), "cannot use the medium");
                    (self.report)(Report::Broken(queue.key, format!("cannot use the medium: {error}")));
                }
            }
        }
        queue.quiet = Quiet::No;
        // There may have been requests all the while.
        self.activate(index);
    }
}
