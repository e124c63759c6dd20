//! A simulated Xen with real processes in it.
//!
//! ```text
//!   World ── Broker            the hypervisor and xenstored, threads of this process, sockets in a temporary directory
//!     │ └─── Toolstack         libxl's part: guests, disks, their nodes, removal
//!     ├───── blkback           the real daemon, a child process; or its code in a thread of ours
//!     └───── blkfront ...      the real tool, a child process for each use
//! ```
//!
//! Everything ends with the [`World`]: children are stopped (or killed, by the kernel too should we be killed), sockets and the
//! directory are removed.

pub mod binaries;
pub mod daemon;
pub mod middleman;
pub mod process;
pub mod toolstack;
pub mod tuning;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use blkback::config::Config;
use tempfile::TempDir;
use xen_platform::{DomId, sim};

pub use binaries::Binaries;
pub use daemon::DaemonThread;
pub use middleman::Middleman;
pub use process::{Process, catch_interrupts, interrupted, take_interrupt, wait_until};
pub use toolstack::{Disk, Kind, Toolstack, Vbd};

/// Memory of a guest in 4 KiB pages: 1 GiB, which costs nothing until it is touched.
pub const GUEST_PAGES: u32 = 1 << 18;

/// A running simulated Xen.
#[derive(Debug)]
pub struct World {
    // In the order in which they must end.
    backend: Option<Backend>,
    toolstack: Toolstack,
    broker: sim::Broker,
    binaries: Binaries,
    dir: TempDir,
}

/// Where the daemon runs.
#[derive(Debug)]
enum Backend {
    Process(Process),
    Thread(DaemonThread),
}

impl World {
    /// Starts the hypervisor and the XenStore, in a fresh temporary directory. Nothing runs in it yet.
    pub fn start(binaries: Binaries) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("xensim-").tempdir()?;
        let broker = sim::Broker::start(dir.path())?;
        let toolstack = Toolstack::connect(dir.path())?;
        Ok(Self { backend: None, toolstack, broker, binaries, dir })
    }

    /// The world's directory; logs are in it too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `--xen` takes.
    pub fn name(&self) -> String {
        format!("sim:{}", self.dir().display())
    }

    /// The XenStore's socket, for `XENSTORED_PATH`.
    pub fn xenstore(&self) -> PathBuf {
        sim::xenstored_socket(self.dir())
    }

    /// The hypervisor, to look into.
    pub fn broker(&self) -> &sim::Broker {
        &self.broker
    }

    /// Domain 0's toolstack.
    pub fn toolstack(&mut self) -> &mut Toolstack {
        &mut self.toolstack
    }

    /// Starts the daemon in domain 0 with more arguments of its own.
    pub fn start_backend(&mut self, arguments: &[String]) -> Result<()> {
        let mut command = Command::new(&self.binaries.blkback);
        command.args(["--xen", &self.name()]).args(arguments).stdin(Stdio::null());
        let log = self.dir().join("blkback.log");
        self.backend = Some(Backend::Process(Process::spawn_logged("blkback", &mut command, &log)?));
        Ok(())
    }

    /// Starts the daemon in domain 0 in a thread of this process.
    pub fn start_backend_thread(&mut self, config: Config) -> Result<()> {
        self.backend = Some(Backend::Thread(DaemonThread::start(self.dir(), &self.xenstore(), config)?));
        Ok(())
    }

    /// The same, with the XenStore behind a [`Middleman`].
    pub fn start_backend_behind(&mut self, middleman: &Middleman, config: Config) -> Result<()> {
        self.backend = Some(Backend::Thread(DaemonThread::start(self.dir(), middleman.socket(), config)?));
        Ok(())
    }

    /// True once a daemon was started and not stopped.
    pub fn has_backend(&self) -> bool {
        self.backend.is_some()
    }

    /// Stops the daemon, if one was started. Errors: it did not stop cleanly.
    pub fn stop_backend(&mut self) -> Result<()> {
        match self.backend.take() {
            Some(Backend::Process(mut process)) => process.stop(),
            Some(Backend::Thread(mut thread)) => thread.stop(),
            None => Ok(()),
        }
    }

    /// Kills the daemon's process at once, so that nothing is closed or written down. Errors: it runs in a thread, or not at all.
    pub fn kill_backend(&mut self) -> Result<()> {
        self.backend()?.kill();
        self.backend = None;
        Ok(())
    }

    /// The daemon's run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir().join("blkback-0")
    }

    /// `blkback upgrade`: what it says, and whether it worked.
    pub fn upgrade_backend(&self) -> Result<(bool, String)> {
        let mut command = Command::new(&self.binaries.blkback);
        let output = command.args(["upgrade", "--run-dir"]).arg(self.run_dir()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Kills the daemon's process, if it has not ended by itself.
    pub fn end_backend(&mut self) {
        if let Some(Backend::Process(process)) = &mut self.backend {
            process.kill();
        }
        self.backend = None;
    }

    /// The last lines of the daemon's log, for messages; empty when it runs in a thread.
    pub fn backend_words(&self) -> String {
        match &self.backend {
            Some(Backend::Process(process)) => process.log_tail(),
            _ => String::new(),
        }
    }

    /// Errors when no daemon was started, or it has ended.
    pub fn check_backend(&mut self) -> Result<()> {
        match self.backend.as_mut().context("no blkback was started")? {
            Backend::Process(process) => process.check_alive(),
            Backend::Thread(thread) => thread.check_alive(),
        }
    }

    /// The running daemon's process. Errors: it was not started, has ended, or runs in a thread.
    pub fn backend(&mut self) -> Result<&mut Process> {
        self.check_backend()?;
        match &mut self.backend {
            Some(Backend::Process(process)) => Ok(process),
            _ => bail!("blkback runs in a thread"),
        }
    }

    /// The process that serves the disks: the daemon's keeper is the one that was started. Errors: as [`backend`](Self::backend).
    pub fn serving(&mut self) -> Result<u32> {
        let keeper = self.backend()?.id();
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        // Those that come later open images.
        let first = children.split_whitespace().next().context("the daemon has ended")?;
        Ok(first.parse()?)
    }

    /// Makes a guest with one disk behind the running daemon.
    pub fn guest_with_disk(&mut self, disk: &Disk) -> Result<Vbd> {
        let guest = self.toolstack.create_guest(GUEST_PAGES)?;
        self.attach(guest, disk)
    }

    /// Attaches a disk; if the daemon does not take it, its log is in the error.
    pub fn attach(&mut self, guest: DomId, disk: &Disk) -> Result<Vbd> {
        self.check_backend()?;
        let taken = self.toolstack.attach(guest, disk);
        taken.with_context(|| format!("blkback does not take the disk{}", self.backend_words()))
    }

    /// What steers the daemon, to be given a subcommand.
    pub fn blkctl(&self) -> Command {
        let mut command = Command::new(&self.binaries.blkctl);
        command.arg("--run-dir").arg(self.run_dir()).stdin(Stdio::null());
        command
    }

    /// The frontend's tool for one disk, to be given a subcommand.
    pub fn blkfront(&self, vbd: &Vbd) -> Command {
        let mut command = Command::new(&self.binaries.blkfront);
        command
            .args(["--xen", &self.name(), "--domain", &vbd.guest.to_string()])
            .args(["--device", &vbd.number.to_string()])
            .stdin(Stdio::null());
        command
    }

    /// Serves a disk as an NBD export: runs `blkfront ... nbd` and waits for its socket, which is named after the guest
    /// and the disk and lies in the world's directory.
    pub fn serve_nbd(&self, vbd: &Vbd, arguments: &[String]) -> Result<(Process, PathBuf)> {
        let name = format!("nbd-{}-{}", vbd.guest, vbd.number);
        let socket = self.dir().join(format!("{name}.sock"));
        let mut command = self.blkfront(vbd);
        command.args(arguments).args(["nbd", "--socket"]).arg(&socket);
        let mut process =
            Process::spawn_logged("blkfront nbd", &mut command, &self.dir().join(format!("{name}.log")))?;
        wait_until("the NBD export", Duration::from_secs(20), || {
            process.check_alive()?;
            Ok(socket.exists().then_some(()))
        })?;
        Ok((process, socket))
    }

    /// Stops the daemon and ends the world. Errors: the daemon did not stop cleanly.
    pub fn stop(mut self) -> Result<()> {
        self.stop_backend()
    }
}
