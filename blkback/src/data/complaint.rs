//! Failed requests in the log: enough to find the cause, never so many that a guest or a broken disk fills it.

use std::time::{Duration, Instant};

use tracing::{error, warn};
use xen_platform::Mapping;

use super::inflight::{Failure, InFlight};
use crate::storage::Image;

/// A queue's lines are at least so far apart.
const PAUSE: Duration = Duration::from_secs(1);

/// What one queue has told of its failures.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Tells of a failed request, unless that was just done for another.
    pub(super) fn tell<M: Mapping>(&mut self, image: &Image, id: u64, data: &InFlight<M>, failure: Failure) {
        let Some(untold) = self.due(Instant::now()) else { return };
        let (guest, image) = (data.dom, image.name().display());
        match failure {
            Failure::Storage(errno) => error!(
                %guest, %image, op = ?data.op, sector = data.sector, bytes = data.bytes, untold,
                "disk operation failed: {}", errno.desc()
            ),
            _ => warn!(%guest, %image, id = format_args!("{id:#x}"), untold, "request failed: {failure}"),
        }
    }

    /// How many failures went untold before this one; none if this one goes untold too.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        assert_eq!(complaints.due(start), Some(0));
        assert_eq!(complaints.due(start + PAUSE / 3), None);
        assert_eq!(complaints.due(start + PAUSE / 2), None);
        assert_eq!(complaints.due(start + PAUSE), Some(2));
        assert_eq!(complaints.due(start + PAUSE * 2), Some(0));
    }
}
