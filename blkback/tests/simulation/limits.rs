//! Limits that some of the disks have: so low that requests are held.

use blkback::limit::{DiskThrottle, Rates};

/// What of a disk's limits `choice` stands for; most have none.
pub(crate) fn throttle(choice: usize) -> Option<DiskThrottle> {
    let rates = match choice {
        0 => Rates { iops: Some(100), write_iops: Some(30), ..Rates::default() },
        1 => Rates { bytes: Some(1 << 20), read_bytes: Some(100_000), ..Rates::default() },
        _ => return None,
    };
    Some(DiskThrottle::new(&Rates { burst_ms: Some(10), ..rates }, None))
}
