//! Debian's `xenstore-utils`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::*;

/// Runs one of the utilities; fails with the package's name where it is not installed.
fn run(served: &Served, tool: &str, arguments: &[&str]) -> Output {
    let output = served.command(tool).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{tool}: {error}; `tests/run setup` installs xenstore-utils"))
}

fn ok(served: &Served, tool: &str, arguments: &[&str]) -> String {
    printed(&run(served, tool, arguments))
}

fn fails(served: &Served, tool: &str, arguments: &[&str]) -> String {
    let output = run(served, tool, arguments);
    assert!(!output.status.success(), "{tool} {arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn write_read_list_exists_rm() {
    let mut served = Served::new();
    ok(&served, "xenstore-write", &["/a/b", "hello", "/a/c", ""]);
    assert_eq!(served.get("/a/b").as_deref(), Ok("hello"));
    assert_eq!(ok(&served, "xenstore-read", &["/a/b"]), "hello\n");
    assert_eq!(ok(&served, "xenstore-read", &["-p", "/a/b", "/a/c"]), "/a/b: hello\n/a/c: \n");
    assert_eq!(ok(&served, "xenstore-list", &["/a"]), "b\nc\n");
    ok(&served, "xenstore-exists", &["/a/b"]);
    fails(&served, "xenstore-exists", &["/a/nope"]);
    assert!(fails(&served, "xenstore-read", &["/a/nope"]).contains("couldn't read path /a/nope"));
    assert!(fails(&served, "xenstore-write", &["/a b", "x"]).contains("could not write path"));
    ok(&served, "xenstore-rm", &["/a"]);
    assert_eq!(served.get("/a"), Err(StoreError::NoEntry("/a".into())));
}

#[test]
fn rm_tidies_empty_parents() {
    let mut served = Served::new();
    served.put("/a/b/c", "");
    served.put("/keep/x", "");
    served.put("/keep/y", "");
    ok(&served, "xenstore-rm", &["-t", "/a/b/c"]);
    ok(&served, "xenstore-rm", &["-t", "/keep/x"]);
    assert!(served.get("/a").is_err());
    assert!(served.get("/keep/y").is_ok());
}

#[test]
fn ls_shows_values_and_permissions() {
    let mut served = Served::new();
    served.put("/local/domain/1/name", "guest");
    ok(&served, "xenstore-chmod", &["-r", "/local/domain/1", "n1", "r0"]);
    let listed = ok(&served, "xenstore-ls", &["-f", "-p", "/local"]);
    assert_eq!(
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
        [
            "/local/domain = \"\" (n0)",
            "/local/domain/1 = \"\" (n1,r0)",
            "/local/domain/1/name = \"guest\" (n1,r0)",
        ]
    );
    assert_eq!(ok(&served, "xenstore-ls", &["/local"]), "domain = \"\"\n 1 = \"\"\n  name = \"guest\"\n");
}

#[test]
fn ls_of_a_directory_over_one_message() {
    let mut served = Served::new();
    served
        .direct
        .transact(|tx| {
            (0..600).try_for_each(|node| tx.write(&format!("/big/quite-a-long-name-{node:03}"), "v"))
        })
        .unwrap();
    let listed = ok(&served, "xenstore-ls", &["-f", "/big"]);
    let expected: String =
        (0..600).map(|node| format!("/big/quite-a-long-name-{node:03} = \"v\"\n")).collect();
    assert_eq!(listed, expected);
    assert_eq!(ok(&served, "xenstore-list", &["/big"]).lines().count(), 600);
}

#[test]
fn values_that_are_no_text() {
    let served = Served::new();
    ok(&served, "xenstore-write", &["/raw", "a\\x01\\n\\\\z"]);
    assert_eq!(ok(&served, "xenstore-read", &["/raw"]), "a\\001\\n\\\\z\n");
    assert_eq!(ok(&served, "xenstore-read", &["-R", "/raw"]), "a\u{1}\n\\z");
}

#[test]
fn watch_fires_at_once_for_changes_and_for_removal() {
    let mut served = Served::new();
    served.put("/dev/state", "1");
    let mut watch = served
        .command("xenstore-watch")
        .args(["-n", "4", "/dev"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("xenstore-watch; `tests/run setup` installs xenstore-utils");
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Each change waits for the event before it, lest two be merged.
    assert_eq!(lines.next().as_deref(), Some("/dev"));
    served.put("/dev/state", "2");
    assert_eq!(lines.next().as_deref(), Some("/dev/state"));
    served.put("/dev/queue-0/ring-ref", "8");
    assert_eq!(lines.next().as_deref(), Some("/dev/queue-0/ring-ref"));
    served.direct.transact(|tx| tx.remove("/dev")).unwrap();
    assert_eq!(lines.next().as_deref(), Some("/dev"));
    assert!(watch.wait().unwrap().success(), "it leaves after four events");
}

#[test]
fn relative_paths_belong_to_domain_0() {
    let mut served = Served::new();
    ok(&served, "xenstore-write", &["backend/vbd", "x"]);
    assert_eq!(served.get("/local/domain/0/backend/vbd").as_deref(), Ok("x"));
}
