//! The real daemon in its sandbox: who serves, what it may, how it ends, and where images may lie (docs/THREAT-MODEL.md).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use tests::{
    must,
    world::{Binaries, Disk, Process, World, wait_until},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A world whose daemon runs with these arguments, and finds images in the folder `in` of it only.
fn world(arguments: &[&str]) -> (World, PathBuf) {
    let mut world = World::start(Binaries::build().unwrap()).unwrap();
    // Another user must get through.
    fs::set_permissions(world.dir(), Permissions::from_mode(0o755)).unwrap();
    let folder = world.dir().join("in");
    fs::create_dir(&folder).unwrap();
    let images = ["--images".to_owned(), folder.display().to_string()];
    let arguments: Vec<_> = images.into_iter().chain(arguments.iter().map(|word| (*word).into())).collect();
    world.start_backend(&arguments).unwrap();
    wait_until("a daemon", PATIENCE, || Ok(world.backend_words().contains(" ready ").then_some(()))).unwrap();
    (world, folder)
}

/// A sparse image that nobody but its owner may open.
fn image(path: PathBuf) -> PathBuf {
    File::create_new(&path).unwrap().set_len(1 << 20).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A line of the serving process' `status`.
fn status_of(process: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_gone(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| stat.contains(") Z ")) || !Path::new(&format!("/proc/{process}")).exists()
}

fn serves(world: &mut World, image: &Path) {
    let vbd = world.guest_with_disk(&Disk::new(image.to_str().unwrap())).unwrap();
    let output = world.blkfront(&vbd).arg("info").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn refusal(world: &mut World, image: &Path) -> String {
    let guest = world.toolstack().create_guest(64).unwrap();
    let disk = Disk::new(image.to_str().unwrap());
    let vbd = world.toolstack().make_nodes(guest, &disk).unwrap();
    world.toolstack().run_script(&vbd, &disk).unwrap();
    let error = format!("{}/error", vbd.backend);
    let said = wait_until("a refusal", PATIENCE, || world.toolstack().read(&error)).unwrap();
    world.toolstack().force_detach(&vbd).unwrap();
    said
}

#[test]
fn every_thread_that_serves_is_contained() {
    let (mut world, folder) = world(&[]);
    serves(&mut world, &image(folder.join("a")));
    let process = world.serving().unwrap();
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let task: u32 = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
        assert_eq!(status_of(task, "NoNewPrivs"), "1");
        assert_eq!(status_of(task, "Seccomp"), "2");
        // What refuses `clone3`, the list, and the seal.
        assert_eq!(status_of(task, "Seccomp_filters"), "3", "{}", status_of(task, "Name"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status_of(task, set), "0000000000000000", "{set}");
        }
    }
    world.stop().unwrap();
}

#[test]
fn with_the_sandbox_off_it_is_not() {
    let (mut world, folder) = world(&["--no-sandbox"]);
    let a = image(folder.join("a"));
    serves(&mut world, &a);
    let process = world.serving().unwrap();
    assert_eq!(status_of(process, "Seccomp"), "0");
    let said = refusal(&mut world, &world_dir_image(&a));
    assert!(said.contains("lies outside of the folders for images"), "{said}");
    world.stop().unwrap();
}

/// An image beside the folder that `inside` lies in.
fn world_dir_image(inside: &Path) -> PathBuf {
    image(inside.parent().unwrap().with_file_name("beside"))
}

/// Its images are root's and nobody else's: the keeper opens them.
#[test]
fn an_unprivileged_user_serves_images_of_root() {
    let (mut world, folder) = world(&["--user", "nobody"]);
    if !geteuid().is_root() {
        let ended = wait_until("its end", PATIENCE, || Ok(world.check_backend().err())).unwrap();
        assert!(ended.to_string().contains("only root can become another user"), "{ended}");
        return;
    }
    serves(&mut world, &image(folder.join("a")));
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let process = world.serving().unwrap();
    let [uid, gid] = [nobody.uid.to_string(), nobody.gid.to_string()];
    assert_eq!(status_of(process, "Uid"), [&*uid; 4].join(" "));
    assert_eq!(status_of(process, "Gid"), [&*gid; 4].join(" "));
    assert_eq!(status_of(process, "Groups"), "");
    let (worked, said) = world.upgrade_backend().unwrap();
    assert!(worked, "{said}");
    serves(&mut world, &image(folder.join("b")));
    world.stop().unwrap();
}

#[test]
fn images_outside_of_the_folders_are_refused() {
    let (mut world, folder) = world(&[]);
    let secret = image(world.dir().join("secret"));
    symlink(&secret, folder.join("link")).unwrap();
    symlink("..", folder.join("up")).unwrap();
    for path in [secret, folder.join("link"), folder.join("../secret"), folder.join("up/secret")] {
        let said = refusal(&mut world, &path);
        assert!(said.contains(path.to_str().unwrap()) && said.contains("outside of the folders"), "{said}");
    }
    let said = refusal(&mut world, &folder.join("missing"));
    assert!(said.contains("cannot find image"), "{said}");
    serves(&mut world, &image(folder.join("a")));
    world.stop().unwrap();
}

#[test]
fn keeper_and_daemon_die_together() {
    let (mut world, _) = world(&[]);
    let daemon = world.serving().unwrap();
    world.kill_backend().unwrap();
    wait_until("the daemon's end", PATIENCE, || Ok(is_gone(daemon).then_some(()))).unwrap();

    // In the same way: whoever started the keeper sees what has become of the daemon.
    world.start_backend(&[]).unwrap();
    let daemon = wait_until("a daemon", PATIENCE, || Ok(world.serving().ok())).unwrap();
    kill(Pid::from_raw(i32::try_from(daemon).unwrap()), Signal::SIGKILL).unwrap();
    let ended = wait_until("the keeper's end", PATIENCE, || {
        Ok(world.check_backend().err().map(|error| error.to_string()))
    });
    assert!(ended.unwrap().contains("SIGKILL"));
}

/// A file server that does not answer: somebody has a lease on the file, and is in no haste to give it back.
#[test]
fn an_image_that_takes_long_to_open_holds_up_no_other() {
    let (mut world, folder) = world(&[]);
    let slow = image(folder.join("slow"));
    let set_lease = "open(F, '+<', $ARGV[0]) and fcntl(F, 1024, 1) or die $!; $SIG{IO} = 'IGNORE'; $| = 1; \
                     print \"held\\n\"; sleep 60";
    let mut holder = Command::new("perl");
    let log = world.dir().join("holder.log");
    let mut holder = Process::spawn_logged("perl", holder.args(["-e", set_lease]).arg(&slow), &log).unwrap();
    wait_until("the lease", PATIENCE, || {
        holder.check_alive()?;
        Ok(fs::read_to_string(&log)?.contains("held").then_some(()))
    })
    .unwrap();

    let guest = world.toolstack().create_guest(64).unwrap();
    let disk = Disk::new(slow.to_str().unwrap());
    let vbd = world.toolstack().make_nodes(guest, &disk).unwrap();
    world.toolstack().run_script(&vbd, &disk).unwrap();
    let (keeper, daemon) = (world.backend().unwrap().id(), world.serving().unwrap());
    let opens = wait_until("the process that opens it", PATIENCE, || {
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        Ok(children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child| *child != daemon))
    })
    .unwrap();
    serves(&mut world, &image(folder.join("quick")));
    assert!(!is_gone(opens), "the image was opened");

    holder.kill();
    let output = world.blkfront(&vbd).arg("info").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    world.stop().unwrap();
}

#[test]
fn the_keeper_is_left_without_children_but_one() {
    let (mut world, folder) = world(&[]);
    for name in ["a", "b", "c"] {
        serves(&mut world, &image(folder.join(name)));
    }
    let keeper = world.backend().unwrap().id();
    let alone = || -> anyhow::Result<()> {
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        must!(children.split_whitespace().count() == 1, "children {children}");
        Ok(())
    };
    wait_until("the others' end", PATIENCE, || Ok(alone().ok())).unwrap();
    world.stop().unwrap();
}

/// The name of a program to take over is root's to leave, or that of who started the daemon.
#[test]
fn nobody_else_can_order_an_upgrade() {
    let (mut world, folder) = world(&[]);
    let keeper = world.backend().unwrap().id();
    let order = world.run_dir().join("upgrade");
    fs::write(&order, "/bin/true").unwrap();
    let given = std::os::unix::fs::chown(&order, Some(65534), None);
    if !geteuid().is_root() {
        assert!(given.is_err(), "who is not root cannot make somebody else's file there");
        return;
    }
    kill(Pid::from_raw(i32::try_from(keeper).unwrap()), Signal::SIGUSR2).unwrap();
    wait_until("a refusal", PATIENCE, || Ok(world.backend_words().contains("no hand-over").then_some(())))
        .unwrap();
    serves(&mut world, &image(folder.join("a")));
    assert_eq!(kill(Pid::from_raw(i32::try_from(keeper).unwrap()), None), Ok::<_, Errno>(()));
    world.stop().unwrap();
}
