use std::{
    io::Read as _,
    net::TcpListener,
    os::unix::{fs::symlink, net::UnixListener},
};

use super::*;

fn refusal(servers: &Servers, server: &Server) -> Errno {
    Errno::from_raw(servers.connect(server).unwrap_err().raw_os_error().unwrap())
}

#[test]
fn sockets_are_found_within_their_folders() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| Server::Unix(root.path().join(name));
    let folder = root.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    let (inside, _outside) =
        (UnixListener::bind(folder.join("a")).unwrap(), UnixListener::bind(root.path().join("b")).unwrap());
    std::fs::write(folder.join("file"), "").unwrap();
    symlink("../b", folder.join("link")).unwrap();
    let servers = Servers::one(Server::Unix(folder));
    drop(servers.connect(&at("in/a")).unwrap());
    assert_eq!(inside.accept().unwrap().0.read(&mut [0]).unwrap(), 0, "this one was meant");
    assert_eq!(refusal(&servers, &at("b")), Errno::EXDEV);
    assert_eq!(refusal(&servers, &at("in/../b")), Errno::EXDEV);
    assert_eq!(refusal(&servers, &at("in/link")), Errno::EXDEV);
    assert_eq!(refusal(&servers, &at("in/file")), Errno::ENOTSOCK);
    assert_eq!(refusal(&servers, &at("in/none")), Errno::ENOENT);
    let one = Servers::one(at("in/a"));
    drop(one.connect(&at("in/a")).unwrap());
    assert_eq!(refusal(&one, &at("b")), Errno::EXDEV);
}

#[test]
fn hosts_are_named_with_their_ports() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let at = |host: &str, port| Server::Tcp { host: host.into(), port };
    let servers: Servers =
        [Servers::one(at("127.0.0.1", port)), Servers::one(at("127.0.0.1", 1))].into_iter().collect();
    drop(servers.connect(&at("127.0.0.1", port)).unwrap());
    assert_eq!(refusal(&servers, &at("127.0.0.1", 1)), Errno::ECONNREFUSED);
    assert_eq!(refusal(&servers, &at("127.0.0.1", 2)), Errno::EXDEV);
    assert_eq!(refusal(&servers, &at("localhost", port)), Errno::EXDEV, "what is compared is the text");
    assert_eq!(refusal(&Servers::default(), &at("127.0.0.1", port)), Errno::EXDEV);
    drop(Servers::all().connect(&at("localhost", port)).unwrap());
}
