use super::*;

#[test]
fn only_introduced_domains_connect() {
    let mut bench = Bench::new();
    assert_eq!(bench.store.connect(DomId(9)), None);
    assert_eq!(bench.ask(bench.dom0, 0, Kind::IS_DOMAIN_INTRODUCED, b"9\0").unwrap(), b"F\0");
    bench.ask(bench.dom0, 0, Kind::INTRODUCE, b"9\x001234\x0015\0").unwrap();
    assert!(bench.store.connect(DomId(9)).is_some());
    assert_eq!(bench.ask(bench.dom0, 0, Kind::IS_DOMAIN_INTRODUCED, b"9\0").unwrap(), b"T\0");
    assert_eq!(bench.ask(bench.dom0, 0, Kind::GET_DOMAIN_PATH, b"9\0").unwrap(), b"/local/domain/9\0");
    bench.ask(bench.dom0, 0, Kind::RESUME, b"9\0").unwrap();
    bench.ask(bench.dom0, 0, Kind::RELEASE, b"9\0").unwrap();
    assert_eq!(bench.ask(bench.dom0, 0, Kind::RELEASE, b"9\0"), Err(Errno::Noent));
}

#[test]
fn special_watches_tell_of_domains_to_who_may_know() {
    let mut bench = Bench::new();
    let (dom0, guest) = (bench.dom0, bench.connect(GUEST));
    for name in ["@introduceDomain", "@releaseDomain"] {
        bench.watch(dom0, name, "t").unwrap();
        bench.watch(guest, name, "t").unwrap();
    }
    bench.watch(dom0, "/", "root").unwrap();
    assert!(bench.store.introduce(DomId(9)));
    assert!(!bench.store.introduce(DomId(9)));
    assert_eq!(bench.events(dom0), ["@introduceDomain t"]);
    bench.store.release(DomId(9));
    bench.store.release(DomId(9));
    assert_eq!(bench.events(dom0), ["@releaseDomain t"]);
    assert_eq!(bench.events(guest), [""; 0]);
    bench.chmod(dom0, "@releaseDomain", "n0 r5").unwrap();
    bench.store.introduce(DomId(9));
    bench.store.release(DomId(9));
    assert_eq!(bench.events(guest).last().map(String::as_str), Some("@releaseDomain t"));
    assert_eq!(bench.chmod(guest, "@releaseDomain", "b5"), Err(Errno::Acces));
}

#[test]
fn a_released_domain_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let (dom0, guest) = (bench.dom0, bench.connect(GUEST));
    bench.write(guest, "data/a/b", "1").unwrap();
    bench.write(dom0, "/shared", "").unwrap();
    bench.chmod(dom0, "/shared", "n0 r5 r6").unwrap();
    bench.watch(dom0, "/local/domain/5/data/a/b", "t").unwrap();
    let tx = bench.begin(guest).unwrap();
    bench.write_in(guest, tx, "data/late", "1").unwrap();
    bench.store.release(GUEST);
    assert!(!bench.store.is_open(guest));
    assert_eq!(bench.store.next_event(guest), None);
    assert_eq!(bench.read(dom0, "/local/domain/5/data"), Err(Errno::Noent));
    assert_eq!(bench.events(dom0), ["/local/domain/5/data/a/b t"]);
    assert_eq!(bench.perms(dom0, "/shared").as_deref(), Ok("n0 r6"));
    assert!(
        bench.read(dom0, "/local/domain/5").is_ok(),
        "the toolstack's own nodes are the toolstack's to remove"
    );
    assert_eq!(bench.store.tree.owned(GUEST), 0);
    bench.check();
}

#[test]
fn domain_0_stays() {
    let mut bench = Bench::new();
    bench.store.release(DomId::DOM0);
    assert!(bench.store.is_open(bench.dom0));
    assert!(bench.read(bench.dom0, "/tool").is_ok());
}
