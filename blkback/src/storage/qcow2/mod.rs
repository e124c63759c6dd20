//! Images of QEMU's format qcow2, and flat ones of VMware's, by the library `imago`.
//!
//! | file | what it is |
//! |---|---|
//! | `header` | what is served, and what refused |
//! | `chain` | an image and what it is based on, opened and locked |
//! | `check` | whether its tables add up |
//! | `layer` | one file of it |
//! | `order` | the order in which tables reach the file |
//! | `disk` | what becomes of a job |
//! | `places` | what workers read and write by themselves |
//! | `driver` | the thread that does it |
//!
//! [ADR-0013](../../../../docs/adr/0013-images-of-qcow2.md) says why it is so.

use std::{path::Path, sync::Arc, sync::atomic::Ordering::Relaxed};

use tracing::warn;

use super::{DiscardLimits, Geometry, Image, ImageError, ImageOptions};
use crate::sandbox::outside::Outside;

mod chain;
mod check;
mod disk;
mod driver;
mod gate;
mod header;
mod layer;
mod order;
mod places;

use chain::Chain;
use driver::Driver;

/// Opens a qcow2 image with the help of the `outside`. May block. Errors: name the image, and the way through what it is based on.
pub fn open(outside: &dyn Outside, path: &Path, options: &ImageOptions) -> Result<Image, ImageError> {
    let refuse = |why: String| ImageError::Driver { name: path.to_owned(), why };
    if options.shared && !options.read_only {
        return Err(refuse("guests cannot write to a qcow2 image together".into()));
    }
    let (chain, file) = Chain::open(outside, path, options)?;
    let Some(header) = chain.header() else { return Err(refuse("it is no qcow2 image".into())) };
    if let Some(top) = chain.top().filter(|_| !options.read_only) {
        let lost = check::check(top, header).map_err(|why| refuse(why.to_string()))?;
        if lost > 0 {
            warn!(image = %path.display(), clusters = lost, "clusters are lost; `qemu-img check -r leaks` finds them");
        }
    }
    let cluster = u32::try_from(header.cluster()).unwrap_or(512);
    // Old images cannot tell zeros from what lies below.
    let discards = options.discard && !options.read_only && (header.version > 2 || !chain.is_based());
    let discard = discards.then_some(DiscardLimits {
        granularity: cluster.max(options.sector_size),
        alignment: 0,
        secure: false,
    });
    let geometry = Geometry { discard, ..geometry(options) };
    let access = chain.access().map_err(|error| refuse(error.to_string()))?;
    if let Some(order) = &chain.order {
        order.served.store(true, Relaxed);
    }
    let name = path.display().to_string();
    let driver = Driver::start(access, Some(chain), name).map_err(|error| refuse(error.to_string()))?;
    Image::driven(path.to_owned(), Arc::new(driver), geometry, Ok(file))
}

/// Opens a VMDK image whose extents are flat, to be read only, with the help of the `outside`. May block.
pub fn open_vmdk(outside: &dyn Outside, path: &Path, options: &ImageOptions) -> Result<Image, ImageError> {
    let refuse = |why: &str| ImageError::Driver { name: path.to_owned(), why: why.into() };
    if !options.read_only {
        return Err(refuse("VMDK images are read only (mode `r`)"));
    }
    let (access, file) = chain::open_vmdk(outside, path, options)?;
    let name = path.display().to_string();
    let driver = Driver::start(access, None, name).map_err(|error| refuse(&error.to_string()))?;
    Image::driven(path.to_owned(), Arc::new(driver), geometry(options), Ok(file))
}

fn geometry(options: &ImageOptions) -> Geometry {
    Geometry {
        sector_size: options.sector_size,
        physical_sector_size: options.sector_size.max(4096),
        read_only: options.read_only,
        discard: None,
        direct_io: options.direct_io,
        flush: true,
    }
}

#[cfg(test)]
mod tests;
