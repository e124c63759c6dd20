//! What is said of an export when a disk is attached to it.

use tests::nbd::{Fake, Manners, Server};

use super::*;

#[test]
fn a_disk_is_as_the_server_says() {
    let mut bench = Bench::start();
    let file = bench.file("a.img", 8);
    let file = file.to_str().unwrap();
    let dir = bench.dir().to_owned();
    let start = |name, arguments: &[&str]| Server::nbdkit(&dir, name, arguments).unwrap();

    let plain = start("plain", &["file", file]);
    let vbd = bench.attach(&plain.uri(""));
    let info = bench.info(&vbd);
    assert_eq!((&info["bytes"], &info["sector_size"]), (&(8 * MIB).into(), &512.into()));
    assert_eq!((&info["flush"], &info["read_only"]), (&true.into(), &false.into()));
    assert!(info["discard"].is_object(), "{info}");

    let readonly = start("readonly", &["--readonly", "memory", "1M"]);
    let vbd = bench.attach(&readonly.uri(""));
    assert_eq!(bench.info(&vbd)["read_only"], true);

    let policy = ["blocksize-minimum=4096", "blocksize-preferred=65536", "blocksize-maximum=131072"];
    let rules =
        [&["--filter=blocksize-policy", "memory", "1M"], &policy[..], &["blocksize-error-policy=error"]];
    let sectors = start("sectors", &rules.concat());
    let vbd = bench.attach(&sectors.uri(""));
    let info = bench.info(&vbd);
    assert_eq!((&info["sector_size"], &info["physical_sector_size"]), (&4096.into(), &4096.into()));
    assert_eq!(info["discard"]["granularity"], 65536);
    // More than the server takes at a time, which it would refuse.
    bench.must_write(&vbd, 0);
    bench.must_read(&vbd, 0);

    // Neither flushes nor trims.
    let manners = Manners { flags: 1, size: 1_000_000, ..Manners::default() };
    let fake = Fake::start(&dir, manners).unwrap();
    let vbd = bench.attach(&fake.uri());
    let info = bench.info(&vbd);
    assert_eq!(
        (&info["flush"], &info["barrier"], &info["discard"]),
        (&false.into(), &false.into(), &Value::Null)
    );
    assert_eq!(info["bytes"], 1_000_000 / 512 * 512, "whole sectors");
    bench.stop();
}

#[test]
fn what_is_wrong_is_told() {
    let mut bench = Bench::start();
    let good = bench.file("good.img", 1);
    let good = bench.attach(good.to_str().unwrap());
    let fake = Fake::start(bench.dir(), Manners::default()).unwrap();
    let usual = Manners::default;
    let cases = [
        (Manners { magic: 1, ..usual() }, "magic"),
        (Manners { refusal: Some("go away".into()), ..usual() }, "has no export named"),
        (Manners { size: 0, ..usual() }, "smaller than one sector"),
        (Manners { size: 511, ..usual() }, "smaller than one sector"),
        (Manners { size: u64::MAX, ..usual() }, "no size that a disk could have"),
        (Manners { blocks: Some([8192, 8192, 1 << 20]), ..usual() }, "blocks of 8192 bytes only"),
        (Manners { silent: true, ..usual() }, "does not answer"),
    ];
    for (manners, word) in cases {
        fake.behave(manners);
        let said = bench.refusal(&fake.uri());
        assert!(said.contains(word) && said.contains("fake.sock"), "{said:?} does not say {word:?}");
    }
    let gone = format!("nbd+unix:///?socket={}/none.sock", bench.dir().display());
    for (uri, word) in [
        (gone.as_str(), "No such file or directory"),
        ("nbd://127.0.0.1:1/", "Connection refused"),
        ("nbd://no.such.host.invalid/", "cannot connect to no.such.host.invalid:10809"),
        ("nbd://h/?sokcet=/s", "the parameter \"sokcet\" is not known"),
        ("nbd:unix:/s", "unix:// is none of nbd://"),
        ("nbds://127.0.0.1/", "takes tls-psk-file=FILE or tls-certificates=FOLDER"),
    ] {
        let said = bench.refusal(uri);
        assert!(said.contains(word), "{uri}: {said:?} does not say {word:?}");
    }
    bench.must_write(&good, 0);
    bench.stop();
}

#[test]
fn servers_that_are_not_named_are_not_connected_to() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    fs::create_dir(&folder).unwrap();
    let sandbox = format!("images = [\"nbd+unix:///?socket={}\"]", folder.display());
    let mut bench = Bench::start_with(&sandbox, "");
    let inside = Server::nbdkit(&folder, "inside", &["memory", "1M"]).unwrap();
    let outside = Server::nbdkit(dir.path(), "outside", &["memory", "1M"]).unwrap();
    let vbd = bench.attach(&inside.uri(""));
    bench.must_write(&vbd, 0);
    for uri in [outside.uri("").as_str(), "nbd://127.0.0.1:10809/"] {
        let said = bench.refusal(uri);
        assert!(said.contains("is none of those for images"), "{said}");
    }
    bench.stop();
}

#[test]
fn one_guest_at_a_time() {
    let mut bench = Bench::start();
    let server = Server::nbdkit(bench.dir(), "one", &["memory", "1M"]).unwrap();
    let first = bench.attach(&server.uri("a"));
    bench.must_write(&first, 0);
    let said = bench.refusal(&server.uri("a"));
    assert!(said.contains(&format!("is in use by guest {}, disk {}", first.guest, first.number)), "{said}");
    let other = bench.attach(&server.uri("b"));
    bench.must_write(&other, 0);
    bench.world.toolstack().detach(&first).unwrap();
    let again = bench.attach(&server.uri("a"));
    bench.must_read(&again, 0);
    bench.stop();
}

#[test]
fn without_the_library_other_disks_are_served() {
    let mut built = Binaries::build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("blkback");
    let library = "/usr/lib/x86_64-linux-gnu/libnbd.so.0";
    assert!(Path::new(library).exists(), "there is no {library} to hide");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount --map-root-user sh -ec 'mount --bind /dev/null {library}; exec \"{}\" \"$@\"' blkback \"$@\"\n",
        built.blkback.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    built.blkback = script;
    let mut bench = Bench::start_by(built, "images = [\"/\", \"nbd:\"]", "");
    let server = Server::nbdkit(bench.dir(), "one", &["memory", "1M"]).unwrap();
    let said = bench.refusal(&server.uri(""));
    assert!(said.contains("libnbd.so.0") && said.contains("install the package libnbd0"), "{said}");
    let file = bench.file("a.img", 1);
    let vbd = bench.attach(file.to_str().unwrap());
    bench.must_write(&vbd, 0);
    bench.stop();
}
