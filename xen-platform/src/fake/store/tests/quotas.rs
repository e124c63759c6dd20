use super::*;

#[test]
fn a_guest_owns_a_thousand_nodes_and_no_more() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    let mut made = 0;
    // Few names in one node, lest its own limit be met first.
    let refused = loop {
        match bench.write(guest, &format!("data/{}/{}", made / 50, made % 50), "") {
            Ok(()) => made += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno::Nospc);
    assert_eq!(bench.store.tree.owned(GUEST), Quota::DEFAULT.nodes);
    bench.remove(guest, "data/0").unwrap();
    bench.write(guest, "data/again", "").unwrap();
    let dom0 = bench.dom0;
    for node in 0..2000 {
        bench.write(dom0, &format!("/mine/{node}"), "").unwrap();
    }
    bench.check();
}

#[test]
fn transactions_cannot_evade_the_count_of_nodes() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    // Apart, so that the two do not conflict.
    bench.mkdir(guest, "data/one").unwrap();
    bench.mkdir(guest, "data/two").unwrap();
    let (first, second) = (bench.begin(guest).unwrap(), bench.begin(guest).unwrap());
    for (tx, name) in [(first, "one"), (second, "two")] {
        for node in 0..600 {
            let outcome = bench.write_in(guest, tx, &format!("data/{name}/{}/{}", node / 40, node % 40), "");
            assert_eq!(outcome, Ok(()), "{name} {node}");
        }
    }
    bench.end(guest, first, "T").unwrap();
    assert_eq!(bench.end(guest, second, "T"), Err(Errno::Nospc));
    assert!(bench.store.tree.owned(GUEST) <= Quota::DEFAULT.nodes);
    bench.check();
}

#[test]
fn a_node_has_a_limited_size() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    assert_eq!(bench.write(guest, "data/x", &"v".repeat(2048)), Ok(()));
    assert_eq!(bench.write(guest, "data/x", &"v".repeat(2049)), Err(Errno::Nospc));
    assert_eq!(bench.write(guest, "data/y", &"v".repeat(2049)), Err(Errno::Nospc));
    let mut named = 0;
    while bench.write(guest, &format!("data/{named:0>99}"), "") == Ok(()) {
        named += 1;
    }
    assert_eq!(named, 20, "names count too: 2 bytes of x, then 100 each");
    let dom0 = bench.dom0;
    assert_eq!(bench.write(dom0, "/x", &"v".repeat(4000)), Ok(()));
    bench.check();
}

#[test]
fn watches_transactions_permissions_and_paths_are_limited() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    for watch in 0..128 {
        assert_eq!(bench.watch(guest, "data", &format!("{watch}")), Ok(()));
    }
    assert_eq!(bench.ask(guest, 0, Kind::WATCH, b"data\0x\0"), Err(Errno::TooBig));
    for _ in 0..10 {
        bench.begin(guest).unwrap();
    }
    assert_eq!(bench.begin(guest), Err(Errno::Nospc));
    assert_eq!(bench.chmod(guest, "data", "n5 r1 r2 r3 r4"), Ok(()));
    assert_eq!(bench.chmod(guest, "data", "n5 r1 r2 r3 r4 r6"), Err(Errno::Nospc));
    bench.write(bench.dom0, "/open", "").unwrap();
    bench.chmod(bench.dom0, "/open", "b0").unwrap();
    assert_eq!(bench.write(guest, &format!("/open/{}", "p".repeat(2042)), ""), Ok(()));
    assert_eq!(bench.write(guest, &format!("/open/{}", "q".repeat(2043)), ""), Err(Errno::Inval));
}

#[test]
fn a_transaction_touches_a_limited_number_of_nodes() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    let tx = bench.begin(guest).unwrap();
    let touched = (0..).take_while(|node| {
        let payload = wire::strings(&[format!("data/nope{node}")]);
        bench.ask(guest, tx, Kind::READ, &payload) == Err(Errno::Noent)
    });
    assert!((1000..=1024).contains(&touched.count()));
    let dom0 = bench.dom0;
    let tx = bench.begin(dom0).unwrap();
    for node in 0..3000 {
        bench.write_in(dom0, tx, &format!("/many/{node}"), "").unwrap();
    }
    bench.end(dom0, tx, "T").unwrap();
}
