//! Configuration: one TOML file, every key optional, unknown keys refused.
//!
//! ```toml
//! [daemon]
//! domain = 0                # our own domain; absent: asked of Xen, 0 in the simulator
//! run-dir = "/run/blkback"  # the lock that keeps a second daemon out, and what a next one needs to go on where this one is killed
//! recovery = true           # note what is under way, for that
//! kinds = ["vbd"]           # directories below backend/ to serve
//! workers = 0               # data-plane threads; 0: one per processor
//! strategy = "copy"         # copy, persistent or direct; absent: by the image
//! poll-us = 0               # longest polling after work, in microseconds
//! resize-check-s = 5        # how often images are measured again; 0: never
//! shutdown-s = 10           # how long guests have to close at the end
//! driver-domain = false     # nobody else runs scripts and removes closed disks here; absent: in any domain but 0
//! slow-ms = 0               # tell of requests that take so many milliseconds; 0: of none
//! record = "/var/tmp/rec"   # record what guests and this daemon do, in a new file there; absent: nothing is recorded
//! trace = "/var/tmp/t.json" # trace requests through all stages, and write that there at the end; absent: nothing is traced
//!
//! [offer]                   # what guests may use; 0, 1 or false: not offered
//! ring-pages = 16
//! queues = 4
//! block-segments = 255      # segments of a request in ring entries
//! indirect-segments = 256   # segments of a request in descriptor pages
//! persistent = false        # absent: with the strategy persistent only
//! flush = true
//! barrier = true
//! discard = true
//!
//! [sandbox]                 # what is left to somebody who has taken the daemon over
//! enabled = true
//! user = "blkback"          # the user to become if root starts it; absent: this one, if there is such a user
//! images = ["/srv", "/var/lib/xen/images"]  # where the toolstack may choose images: folders, single files and devices, NBD servers
//! credentials = []          # keys and certificates for servers: files and folders
//!
//! [control]                 # the socket of blkctl
//! enabled = true
//! socket = "/run/blkback/control.sock"  # absent: in run-dir
//! group = "disk"            # who else may connect, to look; absent: nobody but root and the daemon's user
//! admins = ["oper"]         # users who may also change things
//!
//! [metrics]                 # counters for monitoring, as OpenMetrics over HTTP
//! listen = "unix:/run/blkback/metrics.sock"  # or an address, 127.0.0.1:9180; absent: nowhere
//! group = "prometheus"      # who else may connect to the socket; absent: nobody but root and the daemon's user
//!
//! [disk]                    # how images are opened
//! direct-io = false
//! sector-size = 512
//! shared = false            # let several guests write to the same image
//! timeout-s = 30            # NBD: how long a server may take to answer
//! reconnect-s = 60          # NBD: how long requests wait for a server that is away, before they fail
//! settle-ms = 1000          # NBD: how long a server has to finish what came by a lost connection, before it is sent again
//!
//! [groups.gold]             # limits of several disks together, per second: those of [disks] that say so
//! iops = 20000
//! bytes = "1G"
//!
//! [disks."1/xvda"]          # the same for one disk: domain or *, slash, name in the guest, device number or *
//! image = "/srv/one.img"
//! read-only = true
//! group = "gold"
//! # of this disk alone, per second; also bytes, read-iops, write-iops
//! limit = { iops = 1000, read-bytes = "200M", write-bytes = "100M", burst-ms = 100 }
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    control::disk::{nbd_of, path_of},
    limit::Rates,
    sandbox::{folders::Folders, servers::Servers},
    storage::{nbd::Uri, rbd::Ceph},
};

mod check;
mod disk;
mod limits;
mod metrics;

pub use disk::{DiskConfig, Segments};
pub use metrics::{Listen, MetricsConfig, NoPlace};

use check::server;

/// How data moves between the disk and the guest's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Through private pages, by grant copy. No memory of a guest stays in reach.
    Copy,
    /// Guest pages stay mapped. The page cache copies from and to them; where it is bypassed, the data goes through private
    /// pages. As `copy` where a guest does not offer persistent grants, or no more pages can be kept.
    Persistent,
    /// The disk works on the guest's pages themselves, direct I/O too.
    Direct,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The daemon itself.
    pub daemon: DaemonConfig,
    /// What guests may use.
    pub offer: Offer,
    /// What is left to somebody who has taken the daemon over.
    pub sandbox: SandboxConfig,
    /// The socket of `blkctl`.
    pub control: ControlConfig,
    /// How images of Ceph are reached; absent: they are not served.
    pub ceph: Option<Ceph>,
    /// How images are opened, unless [`disks`](Self::disks) says otherwise.
    pub disk: DiskConfig,
    /// Settings of single disks by `domain/disk`, either of which may be `*`. The most exact name counts.
    pub disks: BTreeMap<String, DiskConfig>,
    /// Limits of groups of disks, by name.
    pub groups: BTreeMap<String, Rates>,
    /// Where counters are told.
    pub metrics: MetricsConfig,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DaemonConfig {
    /// The domain it runs in; absent: by world, our own on Xen and 0 in the simulator.
    pub domain: Option<u16>,
    /// Where the daemon keeps the lock that keeps a second one out, and what a next one needs to go on where it was killed. On a
    /// file system in memory. Absent: by world, `/run/blkback` on Xen and a folder of the simulated world.
    pub run_dir: Option<PathBuf>,
    /// What is under way is noted, so that a next daemon goes on where this one is killed.
    pub recovery: bool,
    /// The directories below `backend/` it serves.
    pub kinds: Vec<String>,
    /// Data-plane threads; 0 means one per processor.
    pub workers: usize,
    /// How data moves; absent: `direct` in the simulator; on Xen `copy` for images with direct I/O, `persistent` for others.
    pub strategy: Option<Strategy>,
    /// Longest polling after work, in microseconds; absent: by world, 50 in the simulator and 0 on Xen.
    pub poll_us: Option<u64>,
    /// Seconds between measurements of the images; 0: only when `params` is written or on SIGHUP.
    pub resize_check_s: u64,
    /// Seconds that guests have to close when the daemon ends.
    pub shutdown_s: u64,
    /// The toolstack is in another domain, and no `xl devd` is in this one: the daemon does their part here. It waits for no
    /// hotplug script, says itself that a disk is connected, and removes the nodes of one that is closed for good. Absent: in
    /// every domain but 0.
    pub driver_domain: Option<bool>,
    /// Requests that take so many milliseconds are told of in the log; 0: none is.
    pub slow_ms: u64,
    /// A folder: what guests and this daemon do is recorded there, in a new file for each start.
    pub record: Option<PathBuf>,
    /// A file: all requests are traced, and at the end, or when there are too many, their trace is written there.
    pub trace: Option<PathBuf>,
}

/// What guests may use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Offer {
    /// Pages of the largest ring, a power of two from 1 to 32.
    pub ring_pages: u32,
    /// Most queues, 1 to 256.
    pub queues: u32,
    /// Segments of the largest request in ring entries; 11 or fewer: the extension is not offered.
    pub block_segments: u16,
    /// Segments of the largest request in descriptor pages, at most 4096; 11 or fewer: not offered.
    pub indirect_segments: u16,
    /// Persistent grants; absent: with the strategy of that name only. A guest that uses them copies all its data in its own
    /// memory, which `direct` is there to avoid and `copy` does not repay; and in the simulated world, where mapping is cheap,
    /// looking a kept page up costs more than mapping it anew. Some frontends insist on them.
    pub persistent: Option<bool>,
    /// Pages kept mapped for each queue at most. The default, 16 MiB, keeps sixteen requests of 1 MiB mapped; Linux' backend
    /// keeps 1056 pages, which suits its requests of 128 KiB.
    pub persistent_pages: usize,
    /// Cache flushes.
    pub flush: bool,
    /// Write barriers.
    pub barrier: bool,
    /// Discards, where image and toolstack allow.
    pub discard: bool,
}

/// What is left to somebody who has taken the daemon over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// Off: the daemon keeps its user and rights. Image paths are confined nevertheless.
    pub enabled: bool,
    /// The user to become if root starts the daemon; absent: `blkback`, if there is such a user.
    pub user: Option<String>,
    /// Where the toolstack may choose images: folders, single files and devices, absolute. Those that this configuration gives to single
    /// disks are allowed without being named here. Absent: by world, `/srv` and `/var/lib/xen/images` on Xen, everywhere in the
    /// simulator. Also the NBD servers that may have some: `nbd://host:port` or `nbd+unix:///?socket=PATH` for one, TLS or not;
    /// `nbd+unix:///?socket=FOLDER` for all sockets in a folder; `nbd:` for all there are.
    pub images: Option<Vec<PathBuf>>,
    /// Files and folders that libraries read from within to prove who we are, and to know the other end: keys and certificates. The
    /// daemon's user must be able to read them.
    pub credentials: Vec<PathBuf>,
}

/// The socket of `blkctl`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Off: there is none.
    pub enabled: bool,
    /// Its path; absent: `control.sock` in the run directory.
    pub socket: Option<PathBuf>,
    /// The group that may connect; absent: root and the daemon's user only.
    pub group: Option<String>,
    /// Users besides those two who may change things, and not only look.
    pub admins: Vec<String>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { enabled: true, socket: None, group: None, admins: Vec::new() }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self { enabled: true, user: None, images: None, credentials: Vec::new() }
    }
}

/// Why a configuration is refused; names the file, the line where there is one, and the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// It is not TOML, or has a key or type that does not exist.
    #[error("{}:{line}: {text}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        text: String,
    },
    /// A value is out of its range.
    #[error("{}: {key}: {text}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// What is wrong.
        text: String,
    },
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            domain: None,
            run_dir: None,
            recovery: true,
            kinds: vec!["vbd".into()],
            workers: 0,
            strategy: None,
            poll_us: None,
            resize_check_s: 5,
            shutdown_s: 10,
            driver_domain: None,
            slow_ms: 0,
            record: None,
            trace: None,
        }
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            ring_pages: 16,
            queues: 4,
            block_segments: 255,
            indirect_segments: 256,
            persistent: None,
            persistent_pages: 4096,
            flush: true,
            barrier: true,
            discard: true,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            text: match error.span().and_then(|span| text.lines().nth(line_of(text, span.start) - 1)) {
                Some(line) => format!("{} in `{}`", error.message(), line.trim()),
                None => error.message().to_owned(),
            },
        })?;
        config.check().map_err(|(key, text)| ConfigError::Value { path: path.to_owned(), key, text })?;
        Ok(config)
    }

    /// The settings of one disk. `name` is its name in the guest, if the toolstack has told it.
    pub fn disk(&self, domain: u16, device: &str, name: Option<&str>) -> DiskConfig {
        let domain = domain.to_string();
        let names = [name, Some(device), Some("*")].into_iter().flatten();
        let single = names
            .flat_map(|name| [format!("{domain}/{name}"), format!("*/{name}")])
            .find_map(|key| self.disks.get(&key));
        single.map_or_else(|| self.disk.clone(), |single| single.or(&self.disk))
    }

    /// Where logs of what is under way are, if there are any.
    pub fn logs(&self) -> Option<PathBuf> {
        let DaemonConfig { run_dir, recovery, .. } = &self.daemon;
        run_dir.as_ref().filter(|_| *recovery).map(|dir| dir.join("inflight"))
    }

    /// Where images may be: those of the configuration, or else of the `world`, and what single disks are given.
    pub fn folders(&self, world: &[&str]) -> Folders {
        let named = self.sandbox.images.clone();
        let named = named.unwrap_or_else(|| world.iter().map(PathBuf::from).collect());
        let given = self.disks.values().chain([&self.disk]).filter_map(|disk| disk.image.as_deref());
        Folders::new(named.into_iter().chain(given.map(|image| path_of(image).into())))
    }

    /// The path of the control socket, if there is to be one.
    pub fn control_socket(&self) -> Option<PathBuf> {
        let in_run_dir = || self.daemon.run_dir.as_ref().map(|dir| dir.join("control.sock"));
        self.control.socket.clone().or_else(in_run_dir).filter(|_| self.control.enabled)
    }

    /// Files and folders with what it takes to connect to servers; what lies beside the configuration of Ceph is among it.
    pub fn credentials(&self) -> Vec<PathBuf> {
        let of_ceph = self.ceph.iter().filter_map(|ceph| ceph.conf.parent());
        self.sandbox.credentials.iter().cloned().chain(of_ceph.map(Path::to_owned)).collect()
    }

    /// The servers that images may be on: those of the configuration, and of what single disks are given.
    pub fn servers(&self) -> Servers {
        let named = self.sandbox.images.iter().flatten().filter_map(|path| server(path)?.ok());
        let given = self.disks.values().chain([&self.disk]).filter_map(|disk| disk.image.as_deref());
        let given = given.filter_map(|image| Some(Servers::one(Uri::parse(nbd_of(image)?).ok()?.server)));
        named.chain(given).collect()
    }

    /// Longest polling after work.
    pub fn poll(&self) -> Duration {
        Duration::from_micros(self.daemon.poll_us.unwrap_or(0))
    }

    /// True when nobody but the daemon looks after its disks' nodes.
    pub fn is_driver_domain(&self) -> bool {
        self.daemon.driver_domain.unwrap_or(self.daemon.domain.is_some_and(|own| own != 0))
    }

    /// Data-plane threads.
    pub fn workers(&self) -> usize {
        match self.daemon.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests;
