//! NBD exports: real servers and one that lies, the pair before them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::world::{Binaries, Disk, Process, Vbd, World, wait_until};

mod attach;
mod broken;
mod kills;
mod storage;
mod tls;

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// A world whose daemon may use all NBD servers, and waits for none as long as usual.
struct Bench {
    world: World,
}

impl Bench {
    fn start() -> Self {
        Self::start_with("images = [\"/\", \"nbd:\"]", "timeout-s = 2\nreconnect-s = 5\nsettle-ms = 100")
    }

    /// With these lines in the sections `[sandbox]` and `[disk]`.
    fn start_with(sandbox: &str, disk: &str) -> Self {
        Self::start_by(Binaries::build().unwrap(), sandbox, disk)
    }

    fn start_by(binaries: Binaries, sandbox: &str, disk: &str) -> Self {
        let mut world = World::start(binaries).unwrap();
        let config = world.dir().join("blkback.toml");
        let resize = "[daemon]\nresize-check-s = 1\n";
        fs::write(&config, format!("{resize}[sandbox]\n{sandbox}\n[disk]\n{disk}\n")).unwrap();
        world.start_backend(&["--config".into(), config.display().to_string()]).unwrap();
        Self { world }
    }

    fn dir(&self) -> &Path {
        self.world.dir()
    }

    /// A sparse file of so many MiB.
    fn file(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.dir().join(name);
        File::create(&path).unwrap().set_len(mib * MIB).unwrap();
        path
    }

    fn attach(&mut self, uri: &str) -> Vbd {
        self.world.guest_with_disk(&Disk::new(uri)).unwrap()
    }

    /// What the daemon says of a disk that it does not serve.
    fn refusal(&mut self, uri: &str) -> String {
        let guest = self.world.toolstack().create_guest(64).unwrap();
        let disk = Disk::new(uri);
        let vbd = self.world.toolstack().make_nodes(guest, &disk).unwrap();
        self.world.toolstack().run_script(&vbd, &disk).unwrap();
        let error = format!("{}/error", vbd.backend);
        let said = wait_until("a refusal", PATIENCE, || self.world.toolstack().read(&error)).unwrap();
        self.world.toolstack().force_detach(&vbd).unwrap();
        said
    }

    fn info(&mut self, vbd: &Vbd) -> Value {
        let output = self.world.blkfront(vbd).args(["info", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}{}", words(&output), self.world.backend_words());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Writes one MiB at `at` MiB, durably.
    fn write(&mut self, vbd: &Vbd, at: u64) -> Output {
        let mut command = self.world.blkfront(vbd);
        command.args(["write", "--offset", &(at * MIB).to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // It may have ended already.
        _ = child.stdin.take().unwrap().write_all(&pattern(at));
        child.wait_with_output().unwrap()
    }

    fn read(&mut self, vbd: &Vbd, at: u64) -> Output {
        let mut command = self.world.blkfront(vbd);
        command.args(["read", "--offset", &(at * MIB).to_string(), "--length", &MIB.to_string()]);
        command.output().unwrap()
    }

    fn must_write(&mut self, vbd: &Vbd, at: u64) {
        let output = self.write(vbd, at);
        assert!(output.status.success(), "MiB {at}: {}{}", words(&output), self.world.backend_words());
    }

    fn must_read(&mut self, vbd: &Vbd, at: u64) {
        let output = self.read(vbd, at);
        assert!(output.status.success(), "MiB {at}: {}{}", words(&output), self.world.backend_words());
        assert!(output.stdout == pattern(at), "MiB {at} is not what was written");
    }

    /// The guest connects to the disk, and stays connected.
    fn live(&mut self, vbd: &Vbd) -> Live {
        let (process, socket) = self.world.serve_nbd(vbd, &[]).unwrap();
        Live { _process: process, uri: format!("nbd+unix:///?socket={}", socket.display()) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir().join("blkback.log")).unwrap()
    }

    fn must_log(&self, line: &str) {
        let said = || Ok(self.log().contains(line).then_some(()));
        wait_until(line, PATIENCE, said).unwrap_or_else(|error| panic!("{error}; {}", self.log()));
    }

    fn stop(self) {
        self.world.stop().unwrap();
    }
}

/// A guest that is connected to its disk.
struct Live {
    _process: Process,
    uri: String,
}

impl Live {
    /// Orders of `qemu-io`, done by the guest. What it said, if all went well.
    fn does(&self, orders: &[&str]) -> Result<String, String> {
        let mut command = Command::new("qemu-io");
        command.args(["--format=raw", "--cache=none"]);
        for order in orders {
            command.args(["--cmd", order]);
        }
        let output = command.arg(&self.uri).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// Writes one MiB at `at` MiB, durably.
    fn write(&self, at: u64) -> Result<String, String> {
        self.does(&[&format!("write -P {} {at}M 1M", at + 1), "flush"])
    }

    /// Reads it back.
    fn read(&self, at: u64) -> Result<String, String> {
        self.does(&[&format!("read -P {} {at}M 1M", at + 1)])
    }
}

fn pattern(at: u64) -> Vec<u8> {
    (0..MIB).map(|byte| (byte * 7 + at * 13 + 1).to_le_bytes()[0]).collect()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `run` gives, and how long it took.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    (run(), begin.elapsed())
}
