//! What the daemon writes into XenStore about a device.

use std::io;

use blkif_proto::{
    Abi, Discard, Operations,
    keys::{
        self, BackendDisk, BackendFeatures, DeviceType, DiskInfo, RequestMaxima, RingDialect,
        ToolstackBackend,
    },
    segment_block,
    xenbus::State,
};

use super::store::{DeviceId, Store};
use crate::{
    config::{DiskConfig, Offer, Segments, Strategy},
    storage::Image,
};

/// What is offered to a guest that wrote `protocol` beforehand, for an image if it is open already.
pub fn features(
    offer: &Offer,
    settings: &DiskConfig,
    strategy: Strategy,
    image: Option<&Image>,
    protocol: Option<Abi>,
) -> BackendFeatures {
    let allowed = |way| settings.segments.is_none_or(|only| only == way);
    let original = keys::ORIGINAL_SEGMENTS;
    // On this ABI longer requests would be damaged in the ring; others are held to their own limit when they connect.
    let most = if protocol == Some(Abi::X86_32) { segment_block::max_segments(Abi::X86_32) } else { 255 };
    let blocks = offer.block_segments.min(u16::try_from(most).unwrap_or(original));
    let durable = image.is_none_or(|image| image.geometry().flush);
    let discard = image.and_then(|image| image.geometry().discard).filter(|_| offer.discard);
    BackendFeatures {
        max_ring_pages: offer.ring_pages,
        dialect: RingDialect::Order,
        max_queues: offer.queues,
        max_indirect_segments: if allowed(Segments::Indirect) { offer.indirect_segments } else { 0 },
        request_maxima: (blocks > original && allowed(Segments::Blocks)).then(|| RequestMaxima {
            requests: Abi::X86_64.ring_entries(offer.ring_pages),
            segments: blocks,
            bytes: u32::from(blocks) * 4096,
        }),
        persistent: offer.persistent.unwrap_or(strategy == Strategy::Persistent),
        operations: Operations {
            flush: offer.flush && durable,
            barrier: offer.barrier && durable,
            discard: discard.map(|discard| Discard {
                granularity: discard.granularity,
                alignment: discard.alignment,
                secure: discard.secure,
            }),
        },
    }
}

/// What the disk is.
pub fn disk(image: &Image, record: &ToolstackBackend) -> BackendDisk {
    let geometry = image.geometry();
    let mut info = DiskInfo::empty();
    info.set(DiskInfo::CDROM, record.device_type == DeviceType::Cdrom);
    info.set(DiskInfo::REMOVABLE, record.removable);
    info.set(DiskInfo::READ_ONLY, geometry.read_only);
    BackendDisk {
        sectors: image.sectors(),
        sector_size: geometry.sector_size,
        physical_sector_size: geometry.physical_sector_size,
        info,
    }
}

/// One device's place to write to. Every function is false when the toolstack has deleted it.
#[derive(Clone, Debug)]
pub struct Publisher {
    store: Store,
    dir: String,
    error: String,
}

impl Publisher {
    /// The place of device `id` below `base`, our own `backend` directory.
    pub fn new(store: Store, base: &str, id: &DeviceId) -> Self {
        // As Linux' drivers do: error/<path relative to the domain> in our own domain.
        let home = base.strip_suffix("/backend").unwrap_or(base);
        Self { store, dir: id.dir(base), error: format!("{home}/error/backend/{id}") }
    }

    /// Writes what is offered, and the disk if it is known; removes what an earlier backend offered beyond.
    pub async fn offer(&self, features: &BackendFeatures, disk: Option<&BackendDisk>) -> io::Result<bool> {
        let mut nodes = Vec::new();
        let mut put = |key: &str, value: &str| nodes.push((key.to_owned(), value.to_owned()));
        features.emit(&mut put);
        if let Some(disk) = disk {
            disk.emit(&mut put);
        }
        let present = self.store.list(&self.dir).await?;
        for key in features.stale(present.iter().map(String::as_str)) {
            self.store.remove(&format!("{}/{key}", self.dir)).await?;
        }
        self.store.write_all(&self.dir, &nodes).await
    }

    /// Writes our state.
    pub async fn state(&self, state: State) -> io::Result<bool> {
        self.write(&[(keys::STATE, state.as_str())]).await
    }

    /// Writes the disk's size, and the state again, which makes the guest look.
    pub async fn size(&self, sectors: u64, state: State) -> io::Result<bool> {
        self.write(&[(keys::SECTORS, &sectors.to_string()), (keys::STATE, state.as_str())]).await
    }

    /// Names another medium, as a toolstack does, and in place of a hotplug script that named the one before.
    pub async fn medium(&self, image: &str, scripted: bool) -> io::Result<bool> {
        let nodes = [(keys::PARAMS, image), (keys::PHYSICAL_DEVICE_PATH, image)];
        self.write(&nodes[..1 + usize::from(scripted)]).await
    }

    /// Writes what went wrong. `unscripted`: no hotplug script will say it, so the toolstack hears it from us.
    pub async fn blame(&self, text: &str, unscripted: bool) -> io::Result<bool> {
        let mut nodes = vec![(keys::ERROR, text)];
        if unscripted {
            nodes.extend([(keys::HOTPLUG_ERROR, text), (keys::HOTPLUG_STATUS, "error")]);
        }
        let there = self.write(&nodes).await?;
        if there {
            self.store.write(&format!("{}/{}", self.error, keys::ERROR), text).await?;
        }
        Ok(there)
    }

    /// Says in the hotplug script's place that the disk can be used.
    pub async fn approve(&self) -> io::Result<bool> {
        self.write(&[(keys::HOTPLUG_STATUS, "connected")]).await
    }

    /// Removes what [`blame`](Self::blame) wrote.
    pub async fn absolve(&self, unscripted: bool) -> io::Result<()> {
        let hotplug: &[&str] = if unscripted { &[keys::HOTPLUG_ERROR, keys::HOTPLUG_STATUS] } else { &[] };
        for key in hotplug.iter().chain(&[keys::ERROR]) {
            self.store.remove(&format!("{}/{key}", self.dir)).await?;
        }
        self.forget_error().await
    }

    /// Removes our node about an error outside of the device's directory.
    pub async fn forget_error(&self) -> io::Result<()> {
        self.store.remove(&self.error).await
    }

    /// Removes the whole directory: where no toolstack does.
    pub async fn remove(&self) -> io::Result<()> {
        self.store.remove(&self.dir).await
    }

    async fn write(&self, nodes: &[(&str, &str)]) -> io::Result<bool> {
        let nodes: Vec<_> =
            nodes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.store.write_all(&self.dir, &nodes).await
    }
}
