//! XenStore records: what the ends write for each other, typed.
//!
//! ```text
//! toolstack ──► ToolstackBackend   in the backend's directory    which image, how, for whom
//!           └─► ToolstackFrontend  in the frontend's directory   which backend, which device
//! backend   ──► BackendFeatures    with state 2, again with 4    what it is able to do
//!           └─► BackendDisk        with state 4                  what the disk is
//! frontend  ──► FrontendRecord     with state 3                  rings, event channels, ABI, choices
//! ```
//!
//! `parse` takes a look-up from a key (relative to the device's directory) to its value, and asks for no key twice, so that a
//! value which changes in between does not matter. Numbers are strict: decimal digits and nothing else. An empty value counts
//! as absent (GRUB leaves such). `emit` hands keys and values to a sink and leaves out what has its default: a key written as
//! 0 reads as "yes" in illumos. `stale` names what an earlier driver has left behind; delete that in the same transaction.
//!
//! Names and defaults: Xen's public header `io/blkif.h`; FreeBSD's extension of 2010; PROTOCOL.md 3.1 and section 4.

use alloc::string::String;

use crate::{PAGE_SIZE, segment_block};

mod backend;
mod frontend;
mod read;
mod ring;
mod toolstack;

pub use self::{
    backend::{BackendDisk, BackendFeatures, DiskInfo},
    frontend::{FrontendRecord, QueueRecord, is_connection_key},
    ring::{MAX_RING_PAGES_OFFERED, RequestMaxima, RingDialect},
    toolstack::{DeviceType, Hotplug, Target, ToolstackBackend, ToolstackFrontend},
};

/// Both: [`State`](crate::xenbus::State).
pub const STATE: &str = "state";
/// Below the device's directory in `error/`: what went wrong, for people.
pub const ERROR: &str = "error";

/// Backend: order (log2 of pages) of the largest ring.
pub const MAX_RING_PAGE_ORDER: &str = "max-ring-page-order";
/// Backend: pages of the largest ring; deprecated, but the only key of 2010.
pub const MAX_RING_PAGES: &str = "max-ring-pages";
/// Backend: most queues.
pub const MULTI_QUEUE_MAX_QUEUES: &str = "multi-queue-max-queues";
/// Backend: most segments of an indirect request.
pub const FEATURE_MAX_INDIRECT_SEGMENTS: &str = "feature-max-indirect-segments";
/// Both: grants may stay mapped.
pub const FEATURE_PERSISTENT: &str = "feature-persistent";
/// Backend: write barriers are offered.
pub const FEATURE_BARRIER: &str = "feature-barrier";
/// Backend: flushes are offered.
pub const FEATURE_FLUSH_CACHE: &str = "feature-flush-cache";
/// Backend: discards are offered.
pub const FEATURE_DISCARD: &str = "feature-discard";
/// Backend: discard granule, in bytes.
pub const DISCARD_GRANULARITY: &str = "discard-granularity";
/// Backend: offset of the first granule, in bytes.
pub const DISCARD_ALIGNMENT: &str = "discard-alignment";
/// Backend: secure discards are offered.
pub const DISCARD_SECURE: &str = "discard-secure";
/// Backend: capacity in 512-byte units.
pub const SECTORS: &str = "sectors";
/// Backend: logical sector, in bytes.
pub const SECTOR_SIZE: &str = "sector-size";
/// Backend: physical sector, in bytes.
pub const PHYSICAL_SECTOR_SIZE: &str = "physical-sector-size";
/// Backend: [`DiskInfo`].
pub const INFO: &str = "info";

/// Both, segment-block extension: requests under way at once.
pub const MAX_REQUESTS: &str = "max-requests";
/// Both, segment-block extension: segments of a request.
pub const MAX_REQUEST_SEGMENTS: &str = "max-request-segments";
/// Both, segment-block extension: bytes of a request.
pub const MAX_REQUEST_SIZE: &str = "max-request-size";

/// Frontend: [`Abi`](crate::Abi).
pub const PROTOCOL: &str = "protocol";
/// Frontend: grant reference of the ring's only page; followed by a number where there are several.
pub const RING_REF: &str = "ring-ref";
/// Frontend: order (log2 of pages) of its rings.
pub const RING_PAGE_ORDER: &str = "ring-page-order";
/// Frontend: pages of its rings, deprecated.
pub const NUM_RING_PAGES: &str = "num-ring-pages";
/// Frontend: pages of its ring, as in 2010.
pub const RING_PAGES: &str = "ring-pages";
/// Frontend: its unbound event-channel port.
pub const EVENT_CHANNEL: &str = "event-channel";
/// Frontend: number of queues.
pub const MULTI_QUEUE_NUM_QUEUES: &str = "multi-queue-num-queues";
/// Frontend: begin of the name of each queue's directory, followed by its number.
pub const QUEUE_PREFIX: &str = "queue-";

/// Toolstack, backend's directory: the frontend's path.
pub const FRONTEND: &str = "frontend";
/// Toolstack, backend's directory: the frontend's domain.
pub const FRONTEND_ID: &str = "frontend-id";
/// Toolstack, backend's directory: 1 while the device is to exist.
pub const ONLINE: &str = "online";
/// Toolstack, backend's directory: what to serve.
pub const PARAMS: &str = "params";
/// Toolstack, backend's directory: `w` or `r`.
pub const MODE: &str = "mode";
/// Toolstack, backend's directory: kind of backend, such as `phy`.
pub const TYPE: &str = "type";
/// Toolstack, backend's directory: the disk's name in the guest, such as `xvda`.
pub const DEV: &str = "dev";
/// Toolstack, backend's directory: 1 for removable media.
pub const REMOVABLE: &str = "removable";
/// Toolstack, backend's directory: always 1.
pub const BOOTABLE: &str = "bootable";
/// Toolstack, backend's directory: 0 to offer no discard.
pub const DISCARD_ENABLE: &str = "discard-enable";
/// Toolstack, backend's directory: 1 when I/O straight from guest pages is safe with this storage.
pub const DIRECT_IO_SAFE: &str = "direct-io-safe";
/// Toolstack, backend's directory: path of the hotplug script.
pub const SCRIPT: &str = "script";
/// Toolstack, both directories: `disk` or `cdrom`.
pub const DEVICE_TYPE: &str = "device-type";
/// Hotplug script: `connected`, or what went wrong.
pub const HOTPLUG_STATUS: &str = "hotplug-status";
/// Hotplug script: what went wrong, for people.
pub const HOTPLUG_ERROR: &str = "hotplug-error";
/// Hotplug script: the block device's `major:minor`, hexadecimal.
pub const PHYSICAL_DEVICE: &str = "physical-device";
/// Hotplug script: the block device's path.
pub const PHYSICAL_DEVICE_PATH: &str = "physical-device-path";
/// Toolstack, frontend's directory: the backend's path.
pub const BACKEND: &str = "backend";
/// Toolstack, frontend's directory: the backend's domain.
pub const BACKEND_ID: &str = "backend-id";
/// Toolstack, frontend's directory: the device's number.
pub const VIRTUAL_DEVICE: &str = "virtual-device";
/// The same, as old toolstacks wrote it for large numbers.
pub const VIRTUAL_DEVICE_EXT: &str = "virtual-device-ext";
/// Toolstack, frontend's directory: 0 when the backend must not see more than it needs.
pub const TRUSTED: &str = "trusted";

/// Segments of a request where nothing else was negotiated.
#[expect(clippy::cast_possible_truncation, reason = "11")]
pub const ORIGINAL_SEGMENTS: u16 = segment_block::HEADER_SEGMENTS as u16;

/// Requests under way where the extension is used but `max-requests` is absent: the entries of a ring of one page.
pub const ORIGINAL_REQUESTS: u32 = 32;

/// Bytes of a request where the extension is used but `max-request-size` is absent.
#[expect(clippy::cast_possible_truncation, reason = "45056")]
pub const ORIGINAL_REQUEST_BYTES: u32 = (segment_block::HEADER_SEGMENTS * PAGE_SIZE) as u32;

/// The most queues an end here uses or offers.
pub const MAX_QUEUES: u32 = 256;

/// The directory of a queue where there are two or more: `queue-0` and so on.
pub fn queue_dir(queue: usize) -> String {
    alloc::format!("{QUEUE_PREFIX}{queue}")
}

#[cfg(test)]
mod tests;
