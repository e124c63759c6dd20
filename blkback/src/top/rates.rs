//! Rates, from what was counted at two times.

use blkback::ctl::protocol::DiskStats;

use super::Sample;

/// A disk between two samples; rates are per second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) operations: f64,
    pub(super) read: f64,
    pub(super) written: f64,
    pub(super) failures: f64,
    /// Requests under way at the second of the two times.
    pub(super) in_flight: u64,
    pub(super) image: String,
    place: (u16, u32),
}

/// By what rows are sorted, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Operations,
    Bytes,
    Name,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Order::Operations => Order::Bytes,
            Order::Bytes => Order::Name,
            Order::Name => Order::Operations,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Operations => "operations",
            Order::Bytes => "bytes",
            Order::Name => "disk",
        }
    }

    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|one, other| {
            let (more, less) = match self {
                Order::Operations => (other.operations, one.operations),
                Order::Bytes => (other.read + other.written, one.read + one.written),
                Order::Name => (0.0, 0.0),
            };
            more.total_cmp(&less).then(one.place.cmp(&other.place))
        });
    }
}

/// What happened between `before` and `now`, one row a disk.
pub(super) fn rows(before: &Sample, now: &Sample) -> Vec<Row> {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let found = |sample: &Sample, place| {
        sample.stats.iter().find(|disk| (disk.domain, disk.device) == place).cloned()
    };
    now.disks
        .iter()
        .map(|disk| {
            let place = (disk.domain, disk.device);
            let (old, new) = (found(before, place), found(now, place));
            let grown = |counter: &str| grown(old.as_ref(), new.as_ref(), counter);
            let rate = |counter: &str| if seconds > 0.0 { grown(counter) / seconds } else { 0.0 };
            let name = disk.name.clone().unwrap_or_else(|| disk.device.to_string());
            Row {
                name: format!("{}/{name}", disk.domain),
                state: if disk.drained { "drained".into() } else { disk.state.clone() },
                operations: rate("requests"),
                read: rate("bytes-read"),
                written: rate("bytes-written"),
                failures: rate("failures"),
                in_flight: sum(new.as_ref(), "in-flight"),
                image: disk.image.clone().unwrap_or_else(|| "-".into()),
                place,
            }
        })
        .collect()
}

/// By how much a counter has grown. A guest that connected anew begins at 0 again.
#[expect(clippy::cast_precision_loss, reason = "for eyes")]
fn grown(before: Option<&DiskStats>, now: Option<&DiskStats>, counter: &str) -> f64 {
    let (before, now) = (sum(before, counter), sum(now, counter));
    now.checked_sub(before).unwrap_or(now) as f64
}

/// Over all queues.
fn sum(disk: Option<&DiskStats>, counter: &str) -> u64 {
    disk.into_iter().flat_map(|disk| &disk.queues).filter_map(|queue| queue.get(counter)).sum()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use blkback::ctl::protocol::Disk;

    use super::*;

    fn sample(at: Instant, counts: &[(u32, u64, u64)]) -> Sample {
        let disk = |device| Disk {
            domain: 1,
            device,
            name: None,
            kind: "vbd".into(),
            state: "connected".into(),
            image: None,
            bytes: 0,
            read_only: false,
            removable: false,
            drained: false,
            error: None,
            connection: None,
        };
        let stats = |&(device, requests, read)| DiskStats {
            domain: 1,
            device,
            name: None,
            queues: vec![[("requests".into(), requests), ("bytes-read".into(), read)].into()],
        };
        Sample {
            at,
            disks: counts.iter().map(|(device, ..)| disk(*device)).collect(),
            stats: counts.iter().map(stats).collect(),
        }
    }

    #[test]
    fn rates_are_per_second_and_sorted() {
        let begin = Instant::now();
        let before = sample(begin, &[(1, 100, 0), (2, 0, 0), (3, 500, 0)]);
        let now = sample(begin + Duration::from_secs(2), &[(1, 300, 10), (2, 10, 4000), (3, 40, 0)]);
        let mut rows = rows(&before, &now);
        let operations = |rows: &[Row]| rows.iter().map(|row| row.operations).collect::<Vec<_>>();
        // The third has begun anew.
        assert_eq!(operations(&rows), [100.0, 5.0, 20.0]);
        Order::Operations.sort(&mut rows);
        assert_eq!(operations(&rows), [100.0, 20.0, 5.0]);
        Order::Bytes.sort(&mut rows);
        assert_eq!(rows[0].name, "1/2");
        Order::Name.sort(&mut rows);
        assert_eq!(operations(&rows), [100.0, 5.0, 20.0]);
    }
}
