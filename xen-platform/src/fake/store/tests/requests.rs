use super::*;

#[test]
fn values_are_bytes_and_parents_come_with_the_node() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.write(dom0, "/a/b/c", "x").unwrap();
    assert_eq!(bench.read(dom0, "/a/b/c").as_deref(), Ok("x"));
    assert_eq!(bench.read(dom0, "/a/b").as_deref(), Ok(""));
    assert_eq!(bench.list(dom0, "/a"), Ok(vec!["b".into()]));
    bench.ask(dom0, 0, Kind::WRITE, b"/a/raw\0\0\xff\0").unwrap();
    assert_eq!(bench.ask(dom0, 0, Kind::READ, b"/a/raw\0").unwrap(), b"\0\xff\0");
    bench.check();
}

#[test]
fn missing_nodes() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    assert_eq!(bench.read(dom0, "/nope"), Err(Errno::Noent));
    assert_eq!(bench.list(dom0, "/nope"), Err(Errno::Noent));
    assert_eq!(bench.perms(dom0, "/nope"), Err(Errno::Noent));
    assert_eq!(bench.chmod(dom0, "/nope", "n0"), Err(Errno::Noent));
    assert_eq!(bench.remove(dom0, "/nope"), Ok(()), "its parent is there");
    assert_eq!(bench.remove(dom0, "/nope/x"), Err(Errno::Noent));
    assert_eq!(bench.remove(dom0, "/"), Err(Errno::Inval));
}

#[test]
fn mkdir_leaves_a_value_alone() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.write(dom0, "/a", "x").unwrap();
    bench.mkdir(dom0, "/a").unwrap();
    bench.mkdir(dom0, "/b/c").unwrap();
    assert_eq!(bench.read(dom0, "/a").as_deref(), Ok("x"));
    assert_eq!(bench.read(dom0, "/b/c").as_deref(), Ok(""));
    bench.check();
}

#[test]
fn remove_takes_all_below() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    for path in ["/a/b/c", "/a/b/d", "/a/e", "/ab"] {
        bench.write(dom0, path, "").unwrap();
    }
    bench.remove(dom0, "/a/b").unwrap();
    assert_eq!(bench.list(dom0, "/a"), Ok(vec!["e".into()]));
    assert_eq!(bench.read(dom0, "/a/b/c"), Err(Errno::Noent));
    bench.remove(dom0, "/a").unwrap();
    assert!(bench.read(dom0, "/ab").is_ok());
    bench.check();
}

#[test]
fn relative_paths_start_at_the_domains_own_directory() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    bench.write(guest, "data/x", "1").unwrap();
    assert_eq!(bench.read(guest, "/local/domain/5/data/x").as_deref(), Ok("1"));
    let dom0 = bench.dom0;
    bench.write(dom0, "backend", "1").unwrap();
    assert_eq!(bench.read(dom0, "/local/domain/0/backend").as_deref(), Ok("1"));
}

#[test]
fn malformed_payloads_are_einval() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    for (kind, payload) in [
        (Kind::READ, &b""[..]),
        (Kind::READ, b"/a"),
        (Kind::READ, b"/a\0b\0"),
        (Kind::READ, b"/a\0\0"),
        (Kind::READ, b"/\xff\0"),
        (Kind::READ, b"/a b\0"),
        (Kind::DIRECTORY, b"\0"),
        (Kind::DIRECTORY_PART, b"/\0"),
        (Kind::DIRECTORY_PART, b"/\0-1\0"),
        (Kind::WRITE, b"/a"),
        (Kind::WRITE, b"@releaseDomain\0x"),
        (Kind::MKDIR, b"@x\0"),
        (Kind::SET_PERMS, b"/\0"),
        (Kind::SET_PERMS, b"/\0x1\0"),
        (Kind::SET_PERMS, b"/\0n0"),
        (Kind::WATCH, b"/a\0"),
        (Kind::WATCH, b"/a\0t"),
        (Kind::WATCH, b"/a/\0t\0"),
        (Kind::TRANSACTION_END, b"T\0"),
        (Kind::INTRODUCE, b"x\x001\x001\0"),
        (Kind::INTRODUCE, b"0\x001\x001\0"),
        (Kind::RELEASE, b"70000\0"),
        (Kind::GET_DOMAIN_PATH, b"\xff\0"),
        (Kind::IS_DOMAIN_INTRODUCED, b"1"),
    ] {
        assert_eq!(bench.ask(dom0, 0, kind, payload), Err(Errno::Inval), "{kind:?} {payload:?}");
    }
    bench.check();
}

#[test]
fn unknown_requests_are_enosys() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    for kind in
        [Kind::CONTROL, Kind(20), Kind(23), Kind::WATCH_EVENT, Kind::ERROR, Kind::ACT_AS, Kind(u32::MAX)]
    {
        assert_eq!(bench.ask(dom0, 0, kind, b"/\0"), Err(Errno::Nosys), "{kind:?}");
    }
}

#[test]
fn closed_connections_answer_nothing() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.store.disconnect(dom0);
    let request = Message { kind: Kind::READ, request: 1, transaction: 0, payload: b"/\0".to_vec() };
    assert_eq!(bench.store.handle(dom0, &request), None);
}
