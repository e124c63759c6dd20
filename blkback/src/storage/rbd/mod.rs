//! Images of Ceph clusters, through librbd.
//!
//! ```text
//!   name       what the toolstack calls an image
//!   connect    a client of our own for each disk
//!   fence      whose image it is now: the dead are kept out, the living respected
//!   record     how a next daemon knows the dead
//!   driver     an image at work
//!   ffi        the libraries
//! ```
//!
//! A client for each disk: a client that is kept out of its cluster takes no other disk along.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::errno::Errno;
use serde::Deserialize;
use tracing::warn;

use super::{Claim, DiscardLimits, Geometry, Image, ImageError, ImageOptions};

mod connect;
mod driver;
mod fence;
mod ffi;
mod name;
mod record;

use connect::{NoConnection, connect};
use driver::RbdDriver;
pub use driver::wait_until_closed;
use ffi::Rbd;
pub use name::{Name, NameError};
pub use record::RECORDS;
use record::Record;

/// How clusters are reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Ceph {
    /// The configuration file of images that name none. What lies beside it may be read.
    pub conf: PathBuf,
    /// The client of images that name none, without its `client.`.
    pub id: String,
    /// Seconds that a cluster has to answer while a disk is attached, 1 to 300. Afterwards a guest waits for as long as it takes.
    pub timeout_s: u32,
}

impl Default for Ceph {
    fn default() -> Self {
        Self { conf: "/etc/ceph/ceph.conf".into(), id: "admin".into(), timeout_s: 10 }
    }
}

/// The clusters whose images are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    /// How they are reached; absent: there are none.
    pub ceph: Option<Ceph>,
    /// Files and folders that configurations and keys may be read from.
    pub credentials: Vec<PathBuf>,
    /// Where clients are noted for a next daemon.
    pub records: Option<PathBuf>,
}

/// Loads the libraries, before the sandbox is entered. What fails is told here, and again when a disk wants them.
pub fn load() {
    if let Err(error) = ffi::functions() {
        warn!(%error, "images of Ceph cannot be served");
    }
}

impl Clusters {
    /// Opens an image, and keeps others from writing to it. Blocks for a few times [`Ceph::timeout_s`] at most.
    pub fn open(&self, name: &Name, options: &ImageOptions) -> Result<Image, ImageError> {
        let called = PathBuf::from(name.to_string());
        let refused = |why: String| ImageError::Driver { name: called.clone(), why };
        let away = |why: String| ImageError::Away { name: called.clone(), why };
        let ceph = self.ceph.as_ref();
        let ceph = ceph.ok_or_else(|| refused("the configuration has no section [ceph]".into()))?;
        let functions = ffi::functions().map_err(|error| refused(error.to_string()))?;
        let cluster = connect(functions, name, ceph, &self.credentials).map_err(|why| match why {
            NoConnection::Away(why) => away(why),
            NoConnection::Refused(why) => refused(why),
        })?;

        let Name { pool, namespace, image, snapshot, .. } = name;
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno: Errno| match errno {
                Errno::ETIMEDOUT => away(format!("the cluster has not answered within {} s", ceph.timeout_s)),
                errno => refused(format!("{what}: {}", errno.desc())),
            }
        };
        let read_only = options.read_only || snapshot.is_some();
        let unique = unique(name, &cluster.fsid().map_err(failed("cannot tell the cluster"))?);
        let record = match self.records.as_deref().filter(|_| !read_only) {
            Some(folder) => Some(note(folder, &cluster, &unique, options).map_err(refused)?),
            None => None,
        };
        let pool = cluster.pool(pool, namespace.as_deref()).map_err(failed(&format!("pool {pool}")))?;
        let rbd = pool.open(image, snapshot.as_deref(), read_only).map_err(failed("cannot open it"))?;
        if !read_only {
            fence::take(&rbd, self.records.as_deref(), &unique, options.shared).map_err(|why| match why {
                fence::Refusal::Held(by) => ImageError::Held { name: called.clone(), by },
                fence::Refusal::Failed(what, errno) => failed(what)(errno),
            })?;
        }
        let (bytes, object_size) = rbd.sizes().map_err(failed("cannot measure it"))?;
        let geometry = geometry(&rbd, object_size, read_only, options);
        let driver = RbdDriver::new(rbd, record, bytes, !read_only, ceph.timeout_s)
            .map_err(failed("cannot watch it"))?;
        driver.wait_for_ever().map_err(failed("cannot wait for ever"))?;
        let claim = Claim { name: unique, writes: !read_only, shared: options.shared };
        Image::driven(called, Arc::new(driver), geometry, Err(claim))
    }
}

/// The one name that the image has, whatever it is called here.
fn unique(name: &Name, fsid: &str) -> String {
    let Name { pool, namespace, image, snapshot, .. } = name;
    let [namespace, snapshot] = [namespace, snapshot].map(|part| part.as_deref().unwrap_or_default());
    format!("rbd:{fsid}/{pool}/{namespace}/{image}@{snapshot}")
}

fn note(
    folder: &Path,
    cluster: &ffi::Cluster,
    image: &str,
    options: &ImageOptions,
) -> Result<Record, String> {
    let address =
        cluster.address().map_err(|errno| format!("cannot tell our own address: {}", errno.desc()))?;
    let disk = options.writer.map_or_else(String::new, |writer| {
        format!("guest {}, disk {}", writer >> 32, writer & u64::from(u32::MAX))
    });
    Record::create(folder, cluster.instance(), &address, image, &disk)
        .map_err(|error| format!("cannot note it in {}: {error}", folder.display()))
}

fn geometry(rbd: &Rbd, object_size: u64, read_only: bool, options: &ImageOptions) -> Geometry {
    // What is smaller, or crosses such a border, is left as it is (`rbd_skip_partial_discard`).
    let unit =
        rbd.cluster().get("rbd_discard_granularity_bytes").ok().and_then(|text| text.parse::<u64>().ok());
    let unit = unit.unwrap_or(object_size).clamp(4096, object_size.max(4096));
    Geometry {
        sector_size: options.sector_size,
        // What its OSDs allocate at least, as they are made nowadays.
        physical_sector_size: 4096,
        read_only,
        discard: (options.discard && !read_only).then_some(DiscardLimits {
            granularity: u32::try_from(unit).unwrap_or(1 << 22),
            alignment: 0,
            secure: false,
        }),
        // Its memory is ours in any case: guests' pages are only copied from and to.
        direct_io: false,
        flush: true,
    }
}
