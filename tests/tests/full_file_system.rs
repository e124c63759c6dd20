//! A sparse image on a file system that has no room for all of it: a small tmpfs that only the daemon sees.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tests::world::{Binaries, Disk, Vbd, World};

const MIB: u64 = 1 << 20;
/// What the image pretends to hold, in MiB.
const IMAGE: u64 = 64;
/// What the file system holds, in MiB.
const ROOM: u64 = 8;

#[test]
fn a_full_file_system_fails_the_write_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("room/disk.img");
    let built = Binaries::build().unwrap();
    let blkback = daemon_with_little_room(dir.path(), &built.blkback);
    let mut world = World::start(Binaries { blkback, ..built }).unwrap();
    world.start_backend(&[]).unwrap();
    let full = world.guest_with_disk(&Disk::new(image.to_str().unwrap())).unwrap();
    let other = world.guest_with_disk(&Disk::new("null:1M")).unwrap();

    let written = (0..IMAGE).take_while(|&at| write(&mut world, &full, at).status.success()).count() as u64;
    assert_eq!(written, ROOM, "MiB written");
    let refused = write(&mut world, &full, written);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("8388608") && words.contains("I/O error"), "{words}");

    // What was acknowledged is there, what was not is refused again, and the neighbour has noticed nothing.
    for at in 0..written {
        assert!(read(&mut world, &full, at) == pattern(at), "MiB {at} is not what was written");
    }
    assert!(!write(&mut world, &full, written).status.success());
    assert!(world.blkfront(&other).arg("info").output().unwrap().status.success());
    world.check_backend().unwrap();
    let log = world.backend_words();
    assert!(log.contains("No space left on device") && log.contains("room/disk.img"), "{log}");
    world.stop().unwrap();
}

/// A program that is the daemon in a mount namespace of its own, where `dir/room` is a small tmpfs with a sparse image. The
/// namespace, and the file system with it, ends with the daemon.
fn daemon_with_little_room(dir: &Path, blkback: &Path) -> PathBuf {
    let room = dir.join("room");
    fs::create_dir(&room).unwrap();
    let script = dir.join("blkback");
    let (room, blkback) = (room.display(), blkback.display());
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --map-root-user sh -ec '\n\
         mount -t tmpfs -o size={ROOM}m none \"{room}\"\n\
         truncate -s {IMAGE}M \"{room}/disk.img\"\n\
         exec \"{blkback}\" \"$@\"' blkback \"$@\"\n"
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

fn pattern(at: u64) -> Vec<u8> {
    (0..MIB).map(|byte| (byte * 7 + at * 13 + 1).to_le_bytes()[0]).collect()
}

/// Writes one MiB at `at` MiB, durably.
fn write(world: &mut World, vbd: &Vbd, at: u64) -> Output {
    let mut command = world.blkfront(vbd);
    command.args(["write", "--offset", &(at * MIB).to_string()]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&pattern(at)).unwrap();
    child.wait_with_output().unwrap()
}

fn read(world: &mut World, vbd: &Vbd, at: u64) -> Vec<u8> {
    let mut command = world.blkfront(vbd);
    command.args(["read", "--offset", &(at * MIB).to_string(), "--length", &MIB.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    output.stdout
}
