//! The program as a whole, as far as it goes without a Xen: its exit codes and its words.

use std::{
    io,
    process::{Command, Output, Stdio},
};

fn blkfront(arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blkfront"));
    command.env_remove("BLKFRONT_XEN").args(arguments).output()
}

#[test]
fn help_names_every_exit_code() {
    let output = blkfront(&["--help"]).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["0  everything", "1  an I/O", "2  the command line", "3  copy --verify"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn nonsense_and_failure_are_told_apart() {
    for (arguments, code, words) in [
        (&["frobnicate"][..], 2, "frobnicate"),
        (&["info"], 1, "does not run on Xen"),
        (&["--xen", "sim:/nonexistent", "info"], 1, "/nonexistent"),
        (&["--xen", "sim:/tmp", "info"], 1, "/tmp"),
    ] {
        let output = blkfront(arguments).unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words) && !text.contains("panicked"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_closed_standard_error_is_no_panic() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blkfront"));
    command.args(["--xen", "sim:/nonexistent", "info"]).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
