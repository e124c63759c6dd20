//! `blkback --self-test-sandbox`: what must be refused is, what must work does, and the test can fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{os::unix::fs::PermissionsExt as _, process::Command};

use tempfile::TempDir;

/// What it says of each thing that it tried, and whether that is as it should be.
struct Trial {
    lines: Vec<String>,
    passed: bool,
}

impl Trial {
    fn run(images: &str, more: &[&str]) -> Self {
        let world = folder();
        let output = Command::new(env!("CARGO_BIN_EXE_blkback"))
            .args(["--self-test-sandbox", "--images", images, "--xen"])
            .arg(format!("sim:{}", world.path().display()))
            .args(more)
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        assert!(!world.path().join("blkback-0/self-test").exists(), "it leaves its folder behind");
        Self { lines, passed: output.status.success() }
    }

    fn count(&self, outcome: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(outcome)).count()
    }

    fn says(&self, line: &str) -> bool {
        self.lines.iter().any(|other| other == line)
    }
}

/// A folder that other users can pass through.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn nothing_but_the_daemons_work_is_possible_inside() {
    let trial = Trial::run("/srv", &[]);
    assert!(trial.passed, "{:#?}", trial.lines);
    assert_eq!((trial.count("ALLOWED"), trial.count("FAILED")), (0, 0), "{:#?}", trial.lines);
    assert!(trial.count("refused") > 35 && trial.count("works") == 5, "{:#?}", trial.lines);
    for line in [
        "refused (EPERM): run a program",
        "refused (EXDEV): have link opened as an image",
        "refused (EXDEV): have ../lock opened as an image",
        "works: read an image through an io_uring",
    ] {
        assert!(trial.says(line), "{line}: {:#?}", trial.lines);
    }
}

/// Where clusters of Ceph are to be reached, connections are left to it, and what is in their folders.
#[test]
fn with_clusters_it_may_connect_and_no_more() {
    let folder = folder();
    let config = folder.path().join("blkback.toml");
    std::fs::write(&config, "[ceph]\nconf = \"/nonexistent/ceph.conf\"\n").unwrap();
    let (with, without) =
        (Trial::run("/srv", &["--config", config.to_str().unwrap()]), Trial::run("/srv", &[]));
    assert!(with.passed, "{:#?}", with.lines);
    let only: Vec<_> = without.lines.iter().filter(|line| !with.lines.contains(line)).collect();
    assert_eq!(only, ["refused (EPERM): use the network", "refused (EPERM): connect a socket"]);
    assert!(with.says("refused (EPERM): use local services"), "{:#?}", with.lines);
}

#[test]
fn without_the_sandbox_the_self_test_fails() {
    let trial = Trial::run("/srv", &["--no-sandbox"]);
    assert!(!trial.passed && trial.says("NOT as it should be"), "{:#?}", trial.lines);
    // The folders for images are the keeper's, and stay.
    assert_eq!(trial.count("refused (EXDEV)"), 5, "{:#?}", trial.lines);
    assert!(trial.count("ALLOWED") > 25 && trial.count("FAILED") == 0, "{:#?}", trial.lines);
}

#[test]
fn folders_that_allow_everything_do_not_pass() {
    let trial = Trial::run("/", &[]);
    assert!(
        !trial.passed && trial.says("ALLOWED: have /etc/passwd opened as an image"),
        "{:#?}",
        trial.lines
    );
}

/// Without a user to become the test passes too, for root that has no capabilities left can do no more: see above. Here it is
/// another user, or, for who is not root, a clear refusal.
#[test]
fn another_user_serves_where_root_starts_it() {
    let trial = Trial::run("/srv", &["--user", "nobody"]);
    assert_eq!(trial.passed, is_root(), "{:#?}", trial.lines);
    assert_eq!(trial.lines.is_empty(), !is_root(), "{:#?}", trial.lines);
}

#[test]
fn a_user_that_is_none_is_refused() {
    for (user, reason) in [("root", "that is root"), ("nobody-at-all", "there is no user nobody-at-all")] {
        let output = Command::new(env!("CARGO_BIN_EXE_blkback"))
            .args(["--self-test-sandbox", "--user", user, "--xen"])
            .arg(format!("sim:{}", folder().path().display()))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{said}");
    }
}
