//! `blkctl` and the real daemon: what it tells, and what it does to disks whose guests are connected.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::FileExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::world::{Binaries, Disk, Process, Vbd, World, wait_until};

const MIB: u64 = 1 << 20;
const WHOLE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

fn world() -> World {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    world.start_backend(&[]).unwrap();
    world
}

/// An image of one MiB, all of this byte.
fn image(world: &World, name: &str, byte: u8) -> PathBuf {
    let path = world.dir().join(name);
    fs::write(&path, vec![byte; WHOLE]).unwrap();
    path
}

fn blkctl(world: &World, words: &[&str]) -> Output {
    world.blkctl().args(words).output().unwrap()
}

fn done(world: &World, words: &[&str]) {
    let output = blkctl(world, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Fails with this exit code, and says why.
fn refused(world: &World, words: &[&str], code: i32, why: &str) {
    let output = blkctl(world, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(code) && said.contains(why), "{words:?}: {output:?}");
}

fn json(world: &World, words: &[&str]) -> Value {
    let output = blkctl(world, &[words, &["--json"]].concat());
    assert!(output.status.success(), "{words:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A guest that is connected to the disk for as long as the process lives.
fn connected(world: &World, vbd: &Vbd) -> (Process, PathBuf) {
    world.serve_nbd(vbd, &[]).unwrap()
}

/// What the guest reads of its whole disk.
fn read(socket: &Path) -> Result<Vec<u8>, String> {
    let out = socket.with_extension("out");
    let copied =
        Command::new("nbdcopy").arg(format!("nbd+unix:///?socket={}", socket.display())).arg(&out).output();
    let copied = copied.unwrap();
    let read = fs::read(&out).unwrap_or_default();
    _ = fs::remove_file(out);
    if copied.status.success() { Ok(read) } else { Err(String::from_utf8_lossy(&copied.stderr).into_owned()) }
}

fn sectors(world: &mut World, vbd: &Vbd) -> u64 {
    world.toolstack().read(&format!("{}/sectors", vbd.backend)).unwrap().unwrap().parse().unwrap()
}

#[test]
fn what_there_is_is_told() {
    let mut world = world();
    let a = image(&world, "a.img", 1);
    let vbd = world.guest_with_disk(&Disk::new(a.to_str().unwrap())).unwrap();
    let other = world.guest_with_disk(&Disk::new("null:1G")).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    assert_eq!(read(&socket).unwrap(), vec![1; WHOLE]);

    let list = String::from_utf8(blkctl(&world, &["list"]).stdout).unwrap();
    let lines: Vec<_> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["DISK", "STATE", "SIZE", "QUEUES", "IMAGE"]);
    assert_eq!(lines[1][..4], ["1/xvda", "connected", "1.00", "MiB"]);
    assert!(lines[1].last().unwrap().ends_with("a.img"), "{list}");
    assert_eq!(lines[2][..2], [&format!("{}/xvda", other.guest)[..], "initwait"]);

    // By name and by number.
    for name in ["1/xvda", "1/51712"] {
        let disk = &json(&world, &["show", name])["disk"];
        assert_eq!((&disk["state"], &disk["bytes"]), (&"connected".into(), &MIB.into()), "{disk}");
        assert_eq!(disk["connection"]["abi"], "x86_64-abi");
    }
    let shown = String::from_utf8(blkctl(&world, &["show", "1/xvda"]).stdout).unwrap();
    assert!(shown.contains("1.00 MiB (1048576 bytes)") && shown.contains("x86_64-abi"), "{shown}");

    let stats = &json(&world, &["stats", "1/xvda"])["stats"];
    assert_eq!(stats[0]["queues"][0]["bytes-read"], MIB, "{stats}");
    assert_eq!(json(&world, &["stats"])["stats"].as_array().unwrap().len(), 2);
    refused(&world, &["show", "1/xvdb"], 3, "there is no disk 1/xvdb");
    refused(&world, &["show", "7/xvda"], 3, "there is no disk 7/xvda");
    refused(&world, &["show", "xvda"], 2, "names no disk");
    guest.stop().unwrap();
    world.stop().unwrap();
}

#[test]
fn without_a_daemon_it_says_so() {
    let world = World::start(Binaries::build().unwrap()).unwrap();
    refused(&world, &["list"], 5, "cannot reach a blkback");
}

#[test]
fn a_disk_grows_and_shrinks_under_its_guest() {
    let mut world = world();
    let a = image(&world, "a.img", 1);
    let vbd = world.guest_with_disk(&Disk::new(a.to_str().unwrap())).unwrap();
    let null = world.guest_with_disk(&Disk::new("null:1G")).unwrap();
    let (mut guest, _) = connected(&world, &vbd);
    for (size, bytes) in [("3M", 3 * MIB), ("524288", MIB / 2)] {
        done(&world, &["resize", "1/xvda", size]);
        // The guest has been told by then.
        assert_eq!(sectors(&mut world, &vbd), bytes / 512);
        assert_eq!(fs::metadata(&a).unwrap().len(), bytes);
        wait_until("the guest to see it", PATIENCE, || {
            Ok(guest.log_tail().contains(&format!("{} sectors now", bytes / 512)).then_some(()))
        })
        .unwrap();
    }
    refused(&world, &["resize", "1/xvda", "1000"], 2, "no whole number of sectors");
    refused(&world, &["resize", "1/xvda", "0"], 2, "no whole number of sectors");
    refused(&world, &["resize", "1/xvda", "16000T"], 1, "cannot be resized");
    refused(&world, &["resize", &format!("{}/xvda", null.guest), "2G"], 6, "there is nothing to resize");
    assert_eq!(fs::metadata(&a).unwrap().len(), MIB / 2);
    guest.stop().unwrap();
    world.stop().unwrap();
}

#[test]
fn limits_are_shown_and_changed() {
    let mut world = world();
    let a = image(&world, "a.img", 1);
    let vbd = world.guest_with_disk(&Disk::new(a.to_str().unwrap())).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    let shown = |words: &[&str]| String::from_utf8(blkctl(&world, words).stdout).unwrap();
    assert_eq!(shown(&["limit", "1/xvda"]), "no limits\n");
    done(&world, &["limit", "1/xvda", "--read-bytes", "512K", "--iops", "1000"]);
    let limits = json(&world, &["limit", "1/xvda"]);
    assert_eq!((&limits["limits"]["read-bytes"], &limits["limits"]["iops"]), (&524_288.into(), &1000.into()));
    assert!(shown(&["limit", "1/xvda"]).contains("512.00 KiB/s"));
    // One MiB at half a MiB a second, but for the burst.
    let begin = Instant::now();
    read(&socket).unwrap();
    assert!(begin.elapsed() > Duration::from_millis(1500), "{:?}", begin.elapsed());
    refused(&world, &["limit", "1/xvda", "--iops", "0"], 2, "iops: 0 would let nothing pass");
    refused(&world, &["limit", "--group", "gold"], 3, "there is no group gold");
    refused(&world, &["limit"], 2, "required");
    done(&world, &["limit", "1/xvda", "--off"]);
    assert_eq!(shown(&["limit", "1/xvda"]), "no limits\n");
    guest.stop().unwrap();
    world.stop().unwrap();
}

#[test]
fn media_are_changed_under_a_guest() {
    let mut world = world();
    let [a, b] = [image(&world, "a.img", 1), image(&world, "b.img", 2)];
    let [a, b] = [a.to_str().unwrap(), b.to_str().unwrap()];
    let vbd = world.guest_with_disk(&Disk::new(a)).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    assert_eq!(read(&socket).unwrap()[0], 1);

    done(&world, &["insert", "1/xvda", b]);
    assert_eq!(read(&socket).unwrap(), vec![2; WHOLE]);
    // The one that was let go is free for another guest, and the other is not.
    let other = world.guest_with_disk(&Disk::new(a)).unwrap();
    refused(&world, &["insert", "1/xvda", a], 1, "is in use by guest 2");
    read(&socket).unwrap_err();
    done(&world, &["insert", "1/xvda", b]);
    assert_eq!(read(&socket).unwrap()[0], 2);

    done(&world, &["eject", "1/xvda"]);
    assert_eq!(sectors(&mut world, &vbd), 0);
    read(&socket).unwrap_err();
    assert_eq!(json(&world, &["show", "1/xvda"])["disk"]["image"], Value::Null);
    done(&world, &["eject", "1/xvda"]);

    // An empty drive survives the daemon, and so does what is put into it.
    world.kill_backend().unwrap();
    world.start_backend(&[]).unwrap();
    wait_until("the drive", PATIENCE, || {
        Ok((blkctl(&world, &["show", "1/xvda", "--json"]).status.success()
            && json(&world, &["show", "1/xvda"])["disk"]["connection"] != Value::Null)
            .then_some(()))
    })
    .unwrap();
    assert_eq!(sectors(&mut world, &vbd), 0);
    done(&world, &["insert", "1/xvda", b]);
    assert_eq!(sectors(&mut world, &vbd), MIB / 512);
    assert_eq!(read(&socket).unwrap(), vec![2; WHOLE]);

    refused(&world, &["insert", "1/xvda", "/no/such/image"], 1, "/no/such/image");
    refused(&world, &["insert", "1/xvda", "vhd:/x"], 2, "vhd");
    refused(&world, &["insert", "1/xvda", ""], 2, "no image is named");
    world.toolstack().detach(&other).unwrap();
    guest.stop().unwrap();
    world.stop().unwrap();
}

/// The toolstack does the same to a CD drive by writing `params`.
#[test]
fn a_toolstack_changes_media() {
    let mut world = world();
    let [a, b] = [image(&world, "a.img", 1), image(&world, "b.img", 2)];
    let drive = Disk { cdrom: true, writable: false, ..Disk::new(a.to_str().unwrap()) };
    let vbd = world.guest_with_disk(&drive).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    for (medium, byte) in [(b.to_str().unwrap(), Some(2)), ("", None), (a.to_str().unwrap(), Some(1))] {
        let keys = ["params", "physical-device-path"].map(|key| format!("{}/{key}", vbd.backend));
        let store = world.toolstack().store();
        store.transact(|t| keys.iter().try_for_each(|key| t.write(key, medium))).unwrap();
        wait_until("another medium", PATIENCE, || {
            Ok((read(&socket).ok().map(|bytes| bytes[0]) == byte).then_some(()))
        })
        .unwrap();
    }
    guest.stop().unwrap();
    world.stop().unwrap();
}

#[test]
fn a_drained_disk_stays_as_it_is_until_it_is_released() {
    let mut world = world();
    let a = image(&world, "a.img", 1);
    let vbd = world.guest_with_disk(&Disk::new(a.to_str().unwrap())).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let fill = |byte: u8| {
        let source = world.dir().join("fill");
        fs::write(&source, vec![byte; WHOLE]).unwrap();
        let mut command = Command::new("nbdcopy");
        command.arg(source).arg(&uri);
        command
    };
    assert!(fill(5).status().unwrap().success());
    done(&world, &["drain", "1/xvda"]);
    assert_eq!(json(&world, &["show", "1/xvda"])["disk"]["drained"], true);
    let mut writing = fill(9).spawn().unwrap();
    sleep(Duration::from_millis(300));
    assert!(writing.try_wait().unwrap().is_none(), "nothing keeps the guest from writing");
    assert_eq!(fs::read(&a).unwrap(), vec![5; WHOLE]);
    done(&world, &["drain", "1/xvda"]);
    done(&world, &["release", "1/xvda"]);
    assert!(writing.wait().unwrap().success());
    assert_eq!(fs::read(&a).unwrap(), vec![9; WHOLE]);
    // What waits when the daemon ends is not in its way.
    done(&world, &["drain", "1/xvda"]);
    guest.stop().unwrap();
    world.stop().unwrap();
}

/// Clients that do not behave, and a disk that is served all the while.
#[test]
fn no_client_disturbs_the_daemon() {
    let mut world = world();
    let a = image(&world, "a.img", 1);
    let vbd = world.guest_with_disk(&Disk::new(a.to_str().unwrap())).unwrap();
    let (mut guest, socket) = connected(&world, &vbd);
    let control = world.run_dir().join("control.sock");
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&control).unwrap()).collect();
    let noise = File::open("/dev/urandom").unwrap();
    for _ in 0..50 {
        let mut bytes = [0; 4096];
        noise.read_exact_at(&mut bytes, 0).unwrap();
        // Hung up on before it is through.
        _ = UnixStream::connect(&control).unwrap().write_all(&bytes);
    }
    assert_eq!(read(&socket).unwrap()[0], 1);
    done(&world, &["list"]);
    drop(silent);
    world.check_backend().unwrap();
    guest.stop().unwrap();
    world.stop().unwrap();
}

#[test]
fn completions_and_manuals() {
    let world = World::start(Binaries::build().unwrap()).unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(blkctl(&world, &["completions", shell]).stdout).unwrap();
        assert!(script.contains("resize") && script.contains("insert"), "{shell}");
    }
    let pages = world.dir().join("man");
    fs::create_dir(&pages).unwrap();
    done(&world, &["man", pages.to_str().unwrap()]);
    let page = fs::read_to_string(pages.join("blkctl-insert.1")).unwrap();
    assert!(page.contains("Put a medium into a removable disk"), "{page}");
}
