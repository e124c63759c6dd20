//! Connections by TLS: keys and certificates are read in the sandbox.

use tests::nbd::Server;

use super::*;

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str], dir: &Path) {
    let output = Command::new(program).args(arguments).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", words(&output));
}

/// A world whose daemon may read the folder `keys` of `dir`.
fn bench(dir: &Path) -> (Bench, PathBuf) {
    let keys = dir.join("keys");
    fs::create_dir(&keys).unwrap();
    let sandbox = format!("images = [\"/\", \"nbd:\"]\ncredentials = [{:?}]", keys.display().to_string());
    (Bench::start_with(&sandbox, ""), keys)
}

#[test]
fn both_ends_have_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bench, keys) = bench(dir.path());
    for (file, user) in [("keys.psk", "alice"), ("other.psk", "alice"), ("../beside.psk", "alice")] {
        run("psktool", &["--username", user, "--pskfile", file], &keys);
    }
    let file = |name: &str| keys.join(name).display().to_string();
    let key = format!("--tls-psk={}", file("keys.psk"));
    let mut server = Server::nbdkit(dir.path(), "tls", &["--tls=require", &key, "memory", "8M"]).unwrap();
    let uri = |user: &str, name: &str| {
        let socket = dir.path().join("tls.sock");
        format!("nbds+unix://{user}@/?socket={}&tls-psk-file={}", socket.display(), file(name))
    };
    let vbd = bench.attach(&uri("alice", "keys.psk"));
    bench.must_write(&vbd, 0);
    bench.must_read(&vbd, 0);
    let guest = bench.live(&vbd);
    guest.write(1).unwrap();
    server.kill();
    server.start().unwrap();
    guest.write(2).unwrap();
    guest.read(2).unwrap();
    drop(guest);
    for (uri, word) in [
        (uri("alice", "other.psk"), "tls.sock: "),
        (uri("bob", "keys.psk"), "tls.sock: "),
        (uri("alice", "none.psk"), "none.psk: No such file"),
        (uri("alice", "../beside.psk"), "it has to be among `credentials`"),
        (server.uri(""), "TLS"),
    ] {
        let said = bench.refusal(&uri);
        assert!(said.contains(word), "{uri}: {said}");
    }
    bench.stop();
}

#[test]
fn certificates_are_believed_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bench, keys) = bench(dir.path());
    fs::write(keys.join("ca.info"), "cn = nobody\nca\ncert_signing_key\n").unwrap();
    fs::write(keys.join("server.info"), "cn = elsewhere\ntls_www_server\nsigning_key\nencryption_key\n")
        .unwrap();
    let make = |arguments: &str| run("certtool", &arguments.split(' ').collect::<Vec<_>>(), &keys);
    for name in ["ca", "server"] {
        make(&format!("--generate-privkey --key-type=ecdsa --outfile {name}-key.pem"));
    }
    make("--generate-self-signed --load-privkey ca-key.pem --template ca.info --outfile ca-cert.pem");
    make(
        "--generate-certificate --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem \
         --load-privkey server-key.pem --template server.info --outfile server-cert.pem",
    );
    fs::copy(keys.join("ca-cert.pem"), keys.join("cacert.pem")).unwrap();
    let certificates = format!("--tls-certificates={}", keys.display());
    let server =
        Server::nbdkit(dir.path(), "tls", &["--tls=require", &certificates, "memory", "8M"]).unwrap();
    let uri =
        format!("nbds+unix:///?socket={}&tls-certificates={}", server.socket().display(), keys.display());
    // It is no "localhost"; libraries before 1.22 cannot tell.
    let said = bench.refusal(&uri);
    assert!(said.contains("ertificate"), "{said}");
    let vbd = bench.attach(&format!("{uri}&tls-verify-peer=false"));
    bench.must_write(&vbd, 0);
    bench.must_read(&vbd, 0);
    bench.stop();
}
