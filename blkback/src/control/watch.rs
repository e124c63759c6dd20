//! What changed, collapsed: however often a guest writes a node, at most one change of each device waits (XSA-349).

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::store::{DeviceId, Store, Watch};

/// Devices whose directories changed.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    devices: BTreeSet<DeviceId>,
    /// A change above the devices: any of them may have come or gone.
    all: bool,
}

impl Changes {
    /// Watches all of `base`/`kind`. The toolstack writes there, and we; guests cannot.
    pub async fn watch(&self, store: &Store, base: &str, kind: &str) -> io::Result<Watch> {
        let changes = self.clone();
        let base = base.to_owned();
        let path = format!("{base}/{kind}");
        store.watch(&path, move |path| changes.note(DeviceId::of_path(&base, path))).await
    }

    /// Waits for changes and takes them: the devices, and whether to look for others.
    pub async fn take(&self) -> (BTreeSet<DeviceId>, bool) {
        loop {
            let seen = {
                let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *seen)
            };
            if seen.all || !seen.devices.is_empty() {
                return (seen.devices, seen.all);
            }
            self.0.news.notified().await;
        }
    }

    fn note(&self, device: Option<DeviceId>) {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match device {
            Some(device) => _ = seen.devices.insert(device),
            None => seen.all = true,
        }
        drop(seen);
        self.0.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(device: &str) -> DeviceId {
        DeviceId { kind: "vbd".into(), domain: "1".into(), device: device.into() }
    }

    #[tokio::test]
    async fn a_storm_is_one_change() {
        let changes = Changes::default();
        (0..10_000).for_each(|_| changes.note(Some(id("1"))));
        changes.note(Some(id("2")));
        let (devices, all) = changes.take().await;
        assert_eq!((devices.len(), all), (2, false));
        changes.note(None);
        assert_eq!(changes.take().await, (BTreeSet::new(), true));
    }
}
