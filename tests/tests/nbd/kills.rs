//! The daemon is killed, the server is killed, both are: guests see pauses.

use std::{cell::RefCell, thread};

use anyhow::Result;
use tests::{
    kills::{Campaign, Disks},
    nbd::Server,
};

use super::*;

/// Files, and who serves them.
#[derive(Debug, Default)]
struct Exports {
    servers: RefCell<Vec<Server>>,
    /// One `nbdkit` for all, which is killed whenever the daemon is. Else a `qemu-nbd` for each: `nbdkit` 1.32 aborts now and then when
    /// clients die.
    both: bool,
}

impl Disks for Exports {
    fn config(&self) -> String {
        "[sandbox]\nimages = [\"nbd:\"]\n[disk]\nsettle-ms = 100\n".into()
    }

    fn make(&self, folder: &Path, name: &str, bytes: u64) -> Result<String> {
        let files = folder.join("files");
        fs::create_dir_all(&files)?;
        let file = files.join(name);
        File::create_new(&file)?.set_len(bytes)?;
        let mut servers = self.servers.borrow_mut();
        if self.both {
            if servers.is_empty() {
                servers.push(Server::nbdkit(
                    folder,
                    "exports",
                    &["file", &format!("dir={}", files.display())],
                )?);
            }
            return Ok(servers[0].uri(name));
        }
        let server = Server::qemu(folder, name, &["--format=raw", &file.display().to_string()])?;
        let uri = server.uri("");
        servers.push(server);
        Ok(uri)
    }

    fn killed(&self, _: &Path) -> Result<()> {
        for server in self.servers.borrow_mut().iter_mut() {
            if self.both {
                server.kill();
                server.start()?;
            } else {
                server.process()?.check_alive()?;
            }
        }
        Ok(())
    }

    fn contents(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(folder.join("files").join(name))?)
    }
}

fn campaign(both: bool) {
    let binaries = Binaries::build().unwrap();
    let seed = u64::from(std::process::id());
    let longest = Duration::from_millis(700);
    let campaign = Campaign { kills: 12, seed, longest, steps: cfg!(debug_assertions), binaries };
    let report = campaign.run(&Exports { both, ..Exports::default() }, |_| {}).unwrap();
    println!("{report}");
    assert!(report.requests > 1000 && report.again > 0, "{report}");
}

#[test]
fn a_daemon_that_is_killed_is_followed_by_one_that_goes_on() {
    campaign(false);
}

#[test]
fn daemon_and_server_may_be_killed_together() {
    campaign(true);
}

/// `fio` finds all that it wrote, in the end also without us.
#[test]
fn a_server_may_be_killed_under_load() {
    let mut bench = Bench::start();
    let file = bench.file("a.img", 64);
    let mut server = Server::nbdkit(bench.dir(), "load", &["file", file.to_str().unwrap()]).unwrap();
    let vbd = bench.attach(&server.uri(""));
    let guest = bench.live(&vbd);
    let fio = |more: &[&str]| {
        let mut command = Command::new("fio");
        command.args([
            "--name=load",
            "--rw=randwrite",
            "--bs=4k",
            "--size=64M",
            "--iodepth=32",
            "--randseed=7",
        ]);
        command.args(["--verify=crc32c", "--verify_fatal=1", "--eta=never"]).args(more);
        command.current_dir(bench.dir()).output().unwrap()
    };
    let uri = format!("--uri={}", guest.uri);
    thread::scope(|scope| {
        let load = scope.spawn(|| fio(&["--ioengine=nbd", &uri, "--end_fsync=1", "--rate=16M"]));
        let mut killed = 0;
        while !load.is_finished() && killed < 6 {
            thread::sleep(Duration::from_millis(400));
            server.kill();
            thread::sleep(Duration::from_millis(100));
            server.start().unwrap();
            killed += 1;
        }
        let output = load.join().unwrap();
        assert!(output.status.success(), "{}{}", words(&output), bench.world.backend_words());
        assert!(killed > 2, "fio was too fast for the test");
    });
    let filename = format!("--filename={}", file.display());
    let output = fio(&["--ioengine=psync", "--verify_only", &filename]);
    assert!(output.status.success(), "{}", words(&output));
    drop(guest);
    bench.stop();
}
