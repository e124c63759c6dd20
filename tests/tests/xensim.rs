//! The launcher does what it says and leaves nothing behind, however it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::world::{Process, wait_until};

/// Longest run of anything here.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a launcher under test puts all its temporary files.
fn place() -> TempDir {
    tempfile::Builder::new().prefix("place-").tempdir().unwrap()
}

fn xensim(place: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xensim"));
    command.args(arguments).env("TMPDIR", place.path()).stdin(Stdio::null());
    command
}

fn run(place: &TempDir, arguments: &[&str]) -> Output {
    xensim(place, arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn assert_nothing_is_left(place: &TempDir) {
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert_no_process_is_left(place);
}

/// All our processes have the world's directory among their arguments. They may take a moment to be gone.
fn assert_no_process_is_left(place: &TempDir) {
    wait_until("the last process", Duration::from_secs(10), || {
        Ok(processes_about(place.path()).is_empty().then_some(()))
    })
    .unwrap();
}

fn processes_about(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let arguments = |pid: fs::DirEntry| fs::read_to_string(pid.path().join("cmdline")).ok();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|pid| arguments(pid.unwrap()))
        .filter(|line| line.contains(place))
        .collect()
}

#[test]
fn demo_copies_an_image_and_leaves_it_alone() {
    let place = place();
    let images = tempfile::tempdir().unwrap();
    let image = images.path().join("odd.img");
    // Not a whole number of pages.
    let bytes: Vec<u8> = (0..(3 << 20) + 512_u32).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect();
    fs::write(&image, &bytes).unwrap();
    let output = run(&place, &["demo", image.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output).matches("as it should be").count(), 2, "{}", text(&output));
    assert_eq!(fs::read(&image).unwrap(), bytes);
    assert_nothing_is_left(&place);
}

#[test]
fn demo_says_what_is_wrong_with_its_image() {
    let place = place();
    let output = run(&place, &["demo", "/nonexistent/disk.img"]);
    assert!(!output.status.success());
    assert!(text(&output).contains("cannot open /nonexistent/disk.img"), "{}", text(&output));
    assert_nothing_is_left(&place);
}

#[test]
fn run_returns_the_commands_status_and_shows_it_the_world() {
    let place = place();
    let output = run(
        &place,
        &["run", "--size", "8", "--", "sh", "-c", "echo uri=$BLKIF_NBD_URI; ls -l $BLKIF_IMAGE; exit 7"],
    );
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(text(&output).contains("uri=nbd+unix:///"), "{}", text(&output));
    assert_nothing_is_left(&place);
}

#[test]
fn up_ends_cleanly_on_sigint() {
    let place = place();
    let (mut process, log) = up(&place);
    process.signal(Signal::SIGINT).unwrap();
    process.wait_success(PATIENCE).unwrap();
    drop(log);
    assert_nothing_is_left(&place);
}

#[test]
fn children_die_with_a_killed_launcher() {
    let place = place();
    let (mut process, _log) = up(&place);
    assert!(processes_about(place.path()).len() >= 2, "blkback and blkfront run");
    process.kill();
    assert_no_process_is_left(&place);
}

/// A running `xensim up` with one disk, and the folder of its log.
fn up(place: &TempDir) -> (Process, TempDir) {
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("up.log");
    let mut process = Process::spawn_logged("xensim", &mut xensim(place, &["up", "null:64M"]), &log).unwrap();
    wait_until("the world", PATIENCE, || {
        process.check_alive()?;
        Ok(fs::read_to_string(&log)?.contains("ends it").then_some(()))
    })
    .unwrap();
    (process, logs)
}
