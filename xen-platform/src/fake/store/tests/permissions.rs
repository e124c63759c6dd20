use super::*;

/// The two directories of a disk as libxl makes them, and its read-only copy.
fn disk() -> (Bench, ConnId, &'static str, &'static str) {
    let (front, back) = ("/local/domain/5/device/vbd/51712", "/local/domain/0/backend/vbd/5/51712");
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.mkdir(dom0, front).unwrap();
    bench.chmod(dom0, front, "n5 r0").unwrap();
    bench.mkdir(dom0, back).unwrap();
    bench.chmod(dom0, back, "n0 r5").unwrap();
    for (path, value) in [(front, back), (back, front)] {
        bench.write(dom0, &format!("{path}/state"), "1").unwrap();
        bench.write(dom0, &format!("{path}/peer"), value).unwrap();
    }
    let guest = bench.connect(GUEST);
    (bench, guest, front, back)
}

#[test]
fn a_guest_writes_its_frontend_and_reads_its_backend() {
    let (mut bench, guest, front, back) = disk();
    assert_eq!(bench.perms(guest, &format!("{front}/state")).as_deref(), Ok("n5 r0"), "inherited");
    bench.write(guest, &format!("{front}/state"), "3").unwrap();
    bench.write(guest, &format!("{front}/ring-ref"), "8").unwrap();
    bench.write(guest, &format!("{front}/queue-0/ring-ref"), "8").unwrap();
    assert_eq!(bench.read(guest, &format!("{back}/state")).as_deref(), Ok("1"));
    assert_eq!(bench.write(guest, &format!("{back}/state"), "4"), Err(Errno::Acces));
    assert_eq!(bench.write(guest, &format!("{back}/new"), "4"), Err(Errno::Acces));
    assert_eq!(bench.remove(guest, back), Err(Errno::Acces));
    assert_eq!(bench.chmod(guest, back, "b5"), Err(Errno::Acces));
    bench.check();
}

#[test]
fn other_guests_see_nothing_not_even_what_is_missing() {
    let (mut bench, _, front, back) = disk();
    let other = bench.connect(OTHER);
    for path in [front, back] {
        assert_eq!(bench.read(other, &format!("{path}/state")), Err(Errno::Acces));
        assert_eq!(bench.read(other, &format!("{path}/nope")), Err(Errno::Acces));
        assert_eq!(bench.list(other, path), Err(Errno::Acces));
        assert_eq!(bench.write(other, &format!("{path}/state"), "6"), Err(Errno::Acces));
        assert_eq!(bench.perms(other, path), Err(Errno::Acces));
    }
}

#[test]
fn a_guest_opens_its_nodes_to_others_but_cannot_give_them_away() {
    let mut bench = Bench::new();
    let (guest, other) = (bench.connect(GUEST), bench.connect(OTHER));
    bench.write(guest, "data/x", "1").unwrap();
    let x = "/local/domain/5/data/x";
    assert_eq!(bench.read(other, x), Err(Errno::Acces));
    bench.chmod(guest, x, "n5 r6").unwrap();
    assert_eq!(bench.read(other, x).as_deref(), Ok("1"));
    assert_eq!(bench.write(other, x, "2"), Err(Errno::Acces));
    bench.chmod(guest, x, "b5").unwrap();
    bench.write(other, x, "2").unwrap();
    assert_eq!(bench.perms(guest, x).as_deref(), Ok("b5"), "writing does not change the owner");
    assert_eq!(bench.chmod(guest, x, "n6"), Err(Errno::Perm));
    assert_eq!(bench.chmod(other, x, "n6"), Err(Errno::Acces));
    bench.write(other, &format!("{x}/below"), "").unwrap();
    assert_eq!(bench.perms(bench.dom0, &format!("{x}/below")).as_deref(), Ok("b6"), "the maker owns");
    bench.check();
}

#[test]
fn guests_do_not_manage_domains() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    for (kind, payload) in [
        (Kind::INTRODUCE, &b"9\x001\x001\0"[..]),
        (Kind::RELEASE, b"6\0"),
        (Kind::SET_TARGET, b"5\x006\0"),
        (Kind::RESUME, b"6\0"),
    ] {
        assert_eq!(bench.ask(guest, 0, kind, payload), Err(Errno::Acces));
    }
    assert!(bench.store.is_introduced(OTHER));
}

#[test]
fn a_device_model_has_its_targets_rights() {
    let mut bench = Bench::new();
    let (guest, model) = (bench.connect(GUEST), bench.connect(OTHER));
    bench.write(guest, "data/x", "1").unwrap();
    bench.ask(bench.dom0, 0, Kind::SET_TARGET, b"6\x005\0").unwrap();
    assert_eq!(bench.read(model, "/local/domain/5/data/x").as_deref(), Ok("1"));
    bench.store.release(GUEST);
    bench.store.introduce(GUEST);
    bench.write(bench.dom0, "/private", "").unwrap();
    bench.chmod(bench.dom0, "/private", "n5").unwrap();
    assert_eq!(
        bench.read(model, "/private"),
        Err(Errno::Acces),
        "the number's next bearer is not the target"
    );
}
