//! What a configuration may not say, although it can be read.

use std::path::{Component, Path};

use blkif_proto::keys;

use super::{Config, Offer};
use crate::{control::disk, sandbox::servers::Servers, storage::nbd::Uri};

impl Config {
    /// Errors: the key whose value makes no sense, and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let bad = |key: &str, text: String| Err((key.to_owned(), text));
        let Offer { ring_pages, queues, block_segments, indirect_segments, .. } = self.offer;
        if !ring_pages.is_power_of_two() || ring_pages > keys::MAX_RING_PAGES_OFFERED {
            return bad("offer.ring-pages", format!("{ring_pages} is not a power of two from 1 to 32"));
        }
        if !(1..=keys::MAX_QUEUES).contains(&queues) {
            return bad("offer.queues", format!("{queues} is not from 1 to {}", keys::MAX_QUEUES));
        }
        if block_segments > 255 {
            return bad("offer.block-segments", format!("{block_segments} is more than 255"));
        }
        if indirect_segments > 4096 {
            return bad("offer.indirect-segments", format!("{indirect_segments} is more than 4096"));
        }
        if self.daemon.workers > 1024 {
            return bad("daemon.workers", format!("{} is more than 1024", self.daemon.workers));
        }
        if self.daemon.kinds.is_empty() {
            return bad("daemon.kinds", "nothing to serve".into());
        }
        if let Some(kind) = self.daemon.kinds.iter().find(|kind| !is_name(kind)) {
            return bad("daemon.kinds", format!("{kind:?} is no name of a XenStore directory"));
        }
        if let Some(domain) = self.daemon.domain.filter(|domain| *domain >= 0x7FF0) {
            return bad("daemon.domain", format!("{domain} is no domain"));
        }
        for path in self.sandbox.images.iter().flatten() {
            match server(path) {
                Some(Err(why)) => return bad("sandbox.images", format!("{}: {why}", path.display())),
                None if !is_plain(path) => {
                    return bad(
                        "sandbox.images",
                        format!("{} is not absolute, or has .. in it", path.display()),
                    );
                }
                _ => {}
            }
        }
        if let Some(path) = self.sandbox.credentials.iter().find(|path| !is_plain(path)) {
            return bad(
                "sandbox.credentials",
                format!("{} is not absolute, or has .. in it", path.display()),
            );
        }
        if let Some(ceph) = &self.ceph {
            if !(1..=300).contains(&ceph.timeout_s) {
                return bad("ceph.timeout-s", format!("{} is not from 1 to 300", ceph.timeout_s));
            }
            if !is_plain(&ceph.conf) {
                return bad("ceph.conf", format!("{} is not absolute, or has .. in it", ceph.conf.display()));
            }
        }
        let disks = self.disks.iter().map(|(name, disk)| (format!("disks.{name:?}"), disk));
        for (table, disk) in disks.chain([("disk".to_owned(), &self.disk)]) {
            if let Some(size) = disk.sector_size
                && (!size.is_power_of_two() || !(512..=4096).contains(&size))
            {
                let text = format!("{size} is not a power of two from 512 to 4096");
                return bad(&format!("{table}.sector-size"), text);
            }
            if disk.timeout_s == Some(0) {
                return bad(&format!("{table}.timeout-s"), "no server answers in no time".into());
            }
        }
        self.check_limits()?;
        let malformed = |name: &&String| {
            let domain = name.split_once('/').map(|(domain, disk)| (domain, disk.is_empty()));
            !matches!(domain, Some((domain, false)) if domain == "*" || domain.parse::<u16>().is_ok())
        };
        if let Some(name) = self.disks.keys().find(malformed) {
            let text = "the name of a disk is its domain's number or *, a slash, and its name or *".into();
            return bad(&format!("disks.{name:?}"), text);
        }
        Ok(())
    }
}

pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// The servers that an entry among folders for images stands for; none: it is no such entry. Errors: why it makes no sense.
pub(super) fn server(entry: &Path) -> Option<Result<Servers, String>> {
    let text = entry.to_str()?;
    if text == "nbd:" {
        return Some(Ok(Servers::all()));
    }
    let uri = Uri::parse(disk::nbd_of(text)?).map_err(|error| error.to_string());
    Some(uri.and_then(|uri| match uri {
        Uri { server, export, tls: None } if export.is_empty() => Ok(Servers::one(server)),
        _ => Err("a server is named without an export and without parameters of TLS".into()),
    }))
}

/// What a path can be compared with.
pub(super) fn is_plain(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}
