//! What is known of a device before it is connected.

use alloc::string::String;

use blkif_proto::{keys::BackendFeatures, xenbus::State};
use xen_platform::DomId;

/// The two ends of a device and what the backend offers so far. Some backends publish their features only when they connect
/// (QEMU); they are read again then.
#[derive(Clone, Debug)]
pub struct BackendInfo {
    /// The frontend's own XenStore directory.
    pub frontend: String,
    /// The backend's XenStore directory.
    pub backend: String,
    /// The backend's domain.
    pub domain: DomId,
    /// The backend's state when it was last looked at.
    pub state: State,
    /// The device number the toolstack chose (`virtual-device`; its encoding is in the manual page xen-vbd-interface), if any.
    pub virtual_device: Option<u32>,
    /// A CD-ROM rather than a disk (`device-type`).
    pub cdrom: bool,
    /// The toolstack vouches for the backend (`trusted`; absent means yes).
    pub trusted: bool,
    /// What the backend offers.
    pub features: BackendFeatures,
}
