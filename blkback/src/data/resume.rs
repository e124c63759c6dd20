//! A queue's log, begun anew or gone on with from where an earlier daemon was killed.

use std::path::PathBuf;

use blkif_proto::{Entry, Head, Limits, MAX_ENTRY_SIZE};
use ringbuf::{BackRing, RingMem};
use tracing::{error, info, warn};

use super::queue::{QueueSpec, StartError};
use crate::{
    log::{
        Identity, Log,
        recover::{Leftover, RecoverError, recover},
    },
    steps::{Step, reached},
};

/// A queue's log.
#[derive(Clone, Debug)]
pub struct LogSpec {
    /// The file.
    pub path: PathBuf,
    /// Which connection it is of, in words; as long as that lasts, no other may have the same.
    pub identity: String,
}

/// A log for a ring that nobody has served. Without one the queue is served all the same: what is lost then is only that a next
/// daemon could go on.
pub(super) fn begin<M: RingMem>(log: &LogSpec, ring: &BackRing<M>) -> Option<Log> {
    let identity = Identity { text: log.identity.clone(), entries: ring.layout().entries() };
    let made = Log::create(&log.path, &identity, ring.consumed());
    made.inspect_err(|error| {
        warn!(log = %log.path.display(), %error, "if this daemon is killed, the disk is lost to its guest");
    })
    .ok()
}

/// What an earlier daemon has left in its log, and moves past what it has taken. None: it has left nothing at all.
pub(super) fn take_over<M: RingMem>(
    spec: &QueueSpec,
    ring: &mut BackRing<M>,
) -> Result<Option<Leftover>, StartError> {
    let waiting = ring.available()?;
    let left = match &spec.log {
        Some(log) => {
            let identity = Identity { text: log.identity.clone(), entries: ring.layout().entries() };
            let entries_of = |first: &Entry| Head::parse(first, &spec.limits).entries;
            recover(&log.path, &identity, ring.published(), entries_of)
        }
        None => Err(RecoverError::Io(std::io::Error::other("no log is kept"))),
    };
    reached(Step::TakenOver);
    match left {
        Ok(left) => {
            ring.consume(left.consumed.since(ring.published()))?;
            let (again, untold) = (left.unfinished.len(), left.untold.len());
            info!(key = ?spec.key, again, untold, "going on where an earlier daemon was killed");
            Ok(Some(left))
        }
        Err(_) if waiting == 0 => Ok(None),
        Err(cause) => Err(StartError::Used { entries: waiting, cause: Box::new(cause) }),
    }
}

/// Answers what an earlier daemon has done and not told.
pub(super) fn tell<M: RingMem>(left: &mut Leftover, ring: &mut BackRing<M>, limits: &Limits) {
    let mut first = [[0; MAX_ENTRY_SIZE]];
    for (place, status) in left.untold.drain(..) {
        left.log.read(place, &mut first);
        let head = Head::parse(&first[0], limits);
        left.log.answer(place, status, ring.responded());
        if ring.respond(&head.answer(status).emit(), head.entries).is_err() {
            error!(id = head.id, "more answers than requests");
        }
    }
    reached(Step::Told);
}
