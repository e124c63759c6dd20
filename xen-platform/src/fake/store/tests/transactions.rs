use super::*;

#[test]
fn changes_show_inside_at_once_and_outside_at_the_end() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let other = bench.connect(DomId::DOM0);
    let tx = bench.begin(dom0).unwrap();
    bench.write_in(dom0, tx, "/a/b", "1").unwrap();
    assert_eq!(bench.ask(dom0, tx, Kind::READ, b"/a/b\0").unwrap(), b"1");
    assert_eq!(bench.ask(dom0, tx, Kind::DIRECTORY, b"/a\0").unwrap(), b"b\0");
    assert_eq!(bench.read(dom0, "/a/b"), Err(Errno::Noent), "outside, even on the same connection");
    assert_eq!(
        bench.ask(other, tx, Kind::READ, b"/a/b\0"),
        Err(Errno::Noent),
        "ids are the connection's own"
    );
    bench.end(dom0, tx, "T").unwrap();
    assert_eq!(bench.read(other, "/a/b").as_deref(), Ok("1"));
    assert_eq!(bench.end(dom0, tx, "T"), Err(Errno::Noent));
    bench.check();
}

#[test]
fn an_abort_leaves_nothing() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.watch(dom0, "/", "t").unwrap();
    let tx = bench.begin(dom0).unwrap();
    bench.write_in(dom0, tx, "/a", "1").unwrap();
    bench.end(dom0, tx, "F").unwrap();
    assert_eq!(bench.read(dom0, "/a"), Err(Errno::Noent));
    assert_eq!(bench.events(dom0), [""; 0]);
}

#[test]
fn what_was_read_must_not_have_changed() {
    for (looks_at, changes, conflict) in [
        ("/a", "/a", true),
        ("/a", "/b", false),
        ("/a", "/a/new", true),
        ("/missing", "/missing", true),
        ("/missing/deep", "/missing", true),
        ("/a", "/a/b/c", false),
    ] {
        let mut bench = Bench::new();
        let dom0 = bench.dom0;
        for path in ["/a/b/c", "/b", "/result"] {
            bench.write(dom0, path, "0").unwrap();
        }
        let tx = bench.begin(dom0).unwrap();
        let _ = bench.ask(dom0, tx, Kind::READ, &wire::strings(&[looks_at]));
        bench.write_in(dom0, tx, "/result", "1").unwrap();
        bench.write(dom0, changes, "x").unwrap();
        let outcome = bench.end(dom0, tx, "T");
        assert_eq!(outcome, if conflict { Err(Errno::Again) } else { Ok(()) }, "{looks_at} {changes}");
        assert_eq!(bench.read(dom0, "/result").as_deref(), Ok(if conflict { "0" } else { "1" }));
        bench.check();
    }
}

#[test]
fn two_writers_of_one_directory_conflict() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let (first, second) = (bench.begin(dom0).unwrap(), bench.begin(dom0).unwrap());
    bench.write_in(dom0, first, "/dir/1", "").unwrap();
    bench.write_in(dom0, second, "/dir/2", "").unwrap();
    assert_eq!(bench.end(dom0, second, "T"), Ok(()));
    assert_eq!(bench.end(dom0, first, "T"), Err(Errno::Again));
    assert_eq!(bench.list(dom0, "/dir"), Ok(vec!["2".into()]));
    bench.check();
}

#[test]
fn a_failed_request_does_not_spoil_its_transaction() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    let tx = bench.begin(guest).unwrap();
    bench.write_in(guest, tx, "data/a", "1").unwrap();
    assert_eq!(bench.write_in(guest, tx, "/forbidden", "1"), Err(Errno::Acces));
    assert_eq!(bench.write_in(guest, tx, "data/b", &"x".repeat(3000)), Err(Errno::Nospc));
    bench.end(guest, tx, "T").unwrap();
    assert_eq!(bench.read(guest, "data/a").as_deref(), Ok("1"));
    assert_eq!(bench.read(guest, "data/b"), Err(Errno::Noent));
    bench.check();
}

#[test]
fn transactions_do_not_nest_and_end_with_t_or_f() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let tx = bench.begin(dom0).unwrap();
    assert_eq!(bench.ask(dom0, tx, Kind::TRANSACTION_START, b"\0"), Err(Errno::Busy));
    assert_eq!(bench.end(dom0, tx, "X"), Err(Errno::Inval));
    assert_eq!(bench.end(dom0, tx, "T"), Ok(()));
    assert_eq!(bench.read(dom0, "/"), Ok(String::new()));
    assert_eq!(bench.ask(dom0, 77, Kind::READ, b"/\0"), Err(Errno::Noent));
}

#[test]
fn nodes_of_a_released_domain_conflict_with_who_used_them() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let guest = bench.connect(GUEST);
    bench.write(guest, "data/x", "1").unwrap();
    let tx = bench.begin(dom0).unwrap();
    bench.write_in(dom0, tx, "/local/domain/5/data/x", "2").unwrap();
    bench.store.release(GUEST);
    assert_eq!(bench.end(dom0, tx, "T"), Err(Errno::Again));
    bench.check();
}
