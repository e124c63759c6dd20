//! `blkback top` in a real terminal of 80 columns and 24 lines, as an emulator of terminals shows it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::Signal,
        termios::{LocalFlags, tcgetattr},
    },
};
use tests::world::{Binaries, Disk, Process, World, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// The program in its terminal.
struct Top {
    child: Child,
    keyboard: File,
    program_end: OwnedFd,
    output: mpsc::Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Top {
    fn start(program: &Path, run_dir: &Path) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new(program)
            .args(["top", "--every", "0.2", "--run-dir"])
            .arg(run_dir)
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(pty.master);
        let mut display = keyboard.try_clone().unwrap();
        let (send, output) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = display.read(&mut bytes) {
                if send.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, program_end: pty.slave, output, screen: vt100::Parser::new(24, 80, 0) }
    }

    fn lines(&mut self) -> Vec<String> {
        self.output.try_iter().for_each(|bytes| self.screen.process(&bytes));
        self.screen.screen().rows(0, 80).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as `wanted`.
    fn shows(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut last = Vec::new();
        let shown = wait_until(what, PATIENCE, || {
            last = self.lines();
            Ok(wanted(&last).then_some(()))
        });
        assert!(shown.is_ok(), "{what}:\n{}", last.join("\n"));
        last
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Lines are edited and echoed, as shells want it.
    fn is_as_it_was(&self) -> bool {
        let flags = tcgetattr(&self.program_end).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }
}

fn busy(world: &mut World, target: &str) -> Process {
    let vbd = world.guest_with_disk(&Disk::new(target)).unwrap();
    let mut command = world.blkfront(&vbd);
    command.args(["bench", "--runtime", "120", "--rw", "randread", "--depth", "4"]);
    let log = world.dir().join(format!("bench-{}.log", vbd.guest));
    Process::spawn_logged("bench", &mut command, &log).unwrap()
}

#[test]
fn disks_are_shown_sorted_and_followed() {
    let binaries = Binaries::build().unwrap();
    let mut world = World::start(binaries.clone()).unwrap();
    world.start_backend(&[]).unwrap();
    let idle = world.guest_with_disk(&Disk::new("null:1G")).unwrap();
    let mut guest = busy(&mut world, "null:2G");
    let mut top = Top::start(&binaries.blkback, &world.run_dir());

    let lines = top.shows("two disks, the busy one first", |lines| {
        lines[0].starts_with("blkback: 2 disks") && lines[3].starts_with("2/xvda")
    });
    assert_eq!(lines.len(), 24);
    let words: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(words, ["DISK", "STATE", "OPS/S", "READ/S", "WRITE/S", "DEPTH", "ERR/S", "IMAGE"]);
    let cells: Vec<_> = lines[3].split_whitespace().collect();
    let operations: u64 = cells[2].replace(',', "").parse().unwrap();
    assert!(cells[1] == "connected" && operations > 0, "{lines:?}");
    assert!(lines[3].contains("null:2147483648") && lines[4].contains("1/xvda"), "{lines:?}");
    assert!(lines[23].contains("q quit") && lines[23].contains("by operations"), "{lines:?}");

    top.press("ss");
    top.shows("the first disk first", |lines| {
        lines[23].contains("by disk") && lines[3].starts_with("1/xvda")
    });
    top.press("p");
    top.shows("a pause", |lines| lines[0].ends_with("paused"));
    top.press("pj");
    top.shows("scrolled by one", |lines| lines[3].starts_with("2/xvda") && lines[4].is_empty());
    world.toolstack().force_detach(&idle).unwrap();
    top.shows("one disk", |lines| lines[0].starts_with("blkback: 1 disks"));
    assert!(!top.is_as_it_was());
    top.press("q");
    assert!(top.child.wait().unwrap().success());
    assert!(top.is_as_it_was(), "the terminal is left in raw mode");
    // It has not finished, and says so.
    guest.signal(Signal::SIGTERM).unwrap();
    assert_eq!(guest.wait(PATIENCE).unwrap().code(), Some(1));
    world.stop().unwrap();
}

#[test]
fn a_daemon_that_goes_ends_it_and_leaves_the_terminal_as_it_was() {
    let binaries = Binaries::build().unwrap();
    let mut world = World::start(binaries.clone()).unwrap();
    world.start_backend(&[]).unwrap();
    world.guest_with_disk(&Disk::new("null:1G")).unwrap();
    let mut top = Top::start(&binaries.blkback, &world.run_dir());
    top.shows("a disk", |lines| lines[0].starts_with("blkback: 1 disks"));
    world.kill_backend().unwrap();
    assert_eq!(top.child.wait().unwrap().code(), Some(1));
    top.shows("why", |lines| lines.iter().any(|line| line.contains("blkback: ")));
    assert!(top.is_as_it_was());
    world.stop().unwrap();
}
