//! A throw-away Ceph cluster on the loopback address: one monitor, one OSD, no manager.
//!
//! ```text
//!   Cluster ── ceph-mon      knows who takes part; clients ask it first
//!      └────── ceph-osd      keeps the objects, in a sparse file
//!              ceph, rbd     what an administrator would type, each with a time-out
//! ```
//!
//! Debian's programs, unpacked by `tests/ceph/fetch`; nothing is installed, and no path outside of the cluster's own temporary directory
//! is written to. Each cluster has ports of its own, so that any number can run side by side. It is up in some five seconds, and ends
//! with the value, or with the process that made it.

mod programs;
mod settings;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

pub use self::programs::Programs;
use crate::world::{Process, wait_until};

/// How long anything about a cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The one pool of a new cluster.
pub const POOL: &str = "rbd";

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// With keys.
    Cephx,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they must end.
    osd: Option<Process>,
    mon: Option<Process>,
    programs: Programs,
    dir: TempDir,
}

impl Cluster {
    /// Makes a cluster with an empty pool, and waits until it serves.
    pub fn start(auth: Auth) -> Result<Self> {
        let programs = Programs::find()?;
        let dir = tempfile::Builder::new().prefix("ceph-").tempdir()?;
        for folder in ["run", "log", "mon", "osd"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        let mut cluster = Self { osd: None, mon: None, programs, dir };
        cluster.make(auth).with_context(|| format!("no Ceph cluster{}", cluster.last_words()))?;
        Ok(cluster)
    }

    fn make(&mut self, auth: Auth) -> Result<()> {
        let (fsid, osd) = (uuid()?, uuid()?);
        let monitor = format!("v2:127.0.0.1:{}", free_port()?);
        fs::write(self.conf(), settings::text(self.dir.path(), &self.programs, &fsid, &monitor, auth))?;
        let map = self.path("monmap");
        if auth == Auth::Cephx {
            self.make_keys()?;
        }
        self.run("monmaptool", &["--create", "--fsid", &fsid, "--addv", "a", &format!("[{monitor}]"), &map])?;
        let keyring = self.path("keyring");
        let with_keys = if auth == Auth::Cephx { &["--keyring", &keyring][..] } else { &[] };
        self.run("ceph-mon", &[&["--mkfs", "-i", "a", "--monmap", &map], with_keys].concat())?;
        self.mon = Some(self.launch("ceph-mon", "a")?);
        let id = self.ceph(&["osd", "new", &osd])?;
        ensure!(id.trim() == "0", "the first OSD has the number {id}");
        self.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &osd])?;
        self.start_osd()?;
        self.ceph(&["osd", "pool", "create", POOL, "8", "8"])?;
        // Until its placement groups are active.
        self.rbd(&["pool", "init", POOL])?;
        Ok(())
    }

    fn make_keys(&self) -> Result<()> {
        let keyring = self.path("keyring");
        let new = ["--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"];
        self.tool("ceph-authtool", &[&[&*keyring], &new[..]].concat())?;
        let all = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"];
        self.tool("ceph-authtool", &[&[&*keyring, "--gen-key", "-n", "client.admin"], &all[..]].concat())?;
        let of_osd = ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"];
        self.tool("ceph-authtool", &[&[&*keyring, "--gen-key", "-n", "osd.0"], &of_osd[..]].concat())?;
        Ok(())
    }

    /// The configuration, for clients too.
    pub fn conf(&self) -> PathBuf {
        self.dir.path().join("ceph.conf")
    }

    /// The cluster's directory: its configuration, keys and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The programs that it is made of.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// `ceph`, with these arguments: what it prints. Errors: it fails; it takes longer than a minute.
    pub fn ceph(&self, arguments: &[&str]) -> Result<String> {
        self.run("ceph", arguments)
    }

    /// The same for `rbd`.
    pub fn rbd(&self, arguments: &[&str]) -> Result<String> {
        self.run("rbd", arguments)
    }

    /// A program of these, to be run as a client of the cluster.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.programs.command(program);
        command.arg("-c").arg(self.conf());
        command
    }

    /// Starts the OSD, and waits until it serves.
    pub fn start_osd(&mut self) -> Result<()> {
        let mut osd = self.launch("ceph-osd", "0")?;
        let socket = self.dir.path().join("run/osd.asok");
        // A client that comes to its port before that waits ten seconds.
        wait_until("the OSD", PATIENCE, || {
            osd.check_alive()?;
            Ok(state_at(&socket).filter(|state| state == "active").map(drop))
        })?;
        self.osd = Some(osd);
        Ok(())
    }

    /// Ends the OSD; with SIGKILL it has no time to write anything down.
    pub fn stop_osd(&mut self, how: Signal) -> Result<()> {
        let mut osd = self.osd.take().context("there is no OSD")?;
        osd.signal(how)?;
        osd.wait(PATIENCE).map(drop)
    }

    /// Ends the monitor, so that there is no quorum.
    pub fn stop_mon(&mut self) -> Result<()> {
        self.mon.take().context("there is no monitor")?.stop()
    }

    fn launch(&self, program: &str, id: &str) -> Result<Process> {
        let mut command = self.client(program);
        command.args(["-f", "-i", id]);
        Process::spawn_logged(program, &mut command, &self.dir.path().join(format!("log/{program}.out")))
    }

    /// A program as a client of the cluster, until its end.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let conf = self.path("ceph.conf");
        self.tool(program, &[&["-c", &conf], arguments].concat())
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let limit = PATIENCE.as_secs().to_string();
        let mut command = self.programs.command("timeout");
        command.args(["--kill-after=5", &limit, program]).args(arguments);
        let output = command.output().with_context(|| format!("cannot run {program}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let words = || format!("{program} {}", arguments.join(" "));
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Some(124) => bail!("{}: nothing after {limit} s: {said}", words()),
            _ => bail!("{}: {}: {said}", words(), output.status),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn last_words(&self) -> String {
        let of = |process: &Option<Process>| process.as_ref().map(Process::log_tail).unwrap_or_default();
        of(&self.mon) + &of(&self.osd)
    }
}

/// What the OSD behind an admin socket says of itself. None: it does not listen yet.
fn state_at(socket: &Path) -> Option<String> {
    let mut socket = UnixStream::connect(socket).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    socket.write_all(b"{\"prefix\":\"status\"}\0").ok()?;
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut answer).ok()?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).ok()?;
    Some(answer.get("state")?.as_str()?.to_owned())
}

fn uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(text.trim().to_owned())
}

/// A port that nobody has now, below those that the kernel gives to whoever connects: nobody gets it by chance meanwhile.
fn free_port() -> Result<u16> {
    for attempt in 0..100 {
        let chance =
            uuid()?.bytes().fold(attempt, |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let port = 20_000 + chance % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}
