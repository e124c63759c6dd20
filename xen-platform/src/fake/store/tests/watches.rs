use super::*;

#[test]
fn a_watch_fires_when_set_and_for_all_below() {
    let mut bench = Bench::new();
    let (dom0, watcher) = (bench.dom0, bench.connect(DomId::DOM0));
    bench.ask(watcher, 0, Kind::WATCH, b"/a\0t\0").unwrap();
    assert_eq!(bench.events(watcher), ["/a t"], "though nothing is there yet");
    bench.write(dom0, "/a/b/c", "1").unwrap();
    bench.write(dom0, "/ab", "1").unwrap();
    bench.mkdir(dom0, "/a").unwrap();
    bench.chmod(dom0, "/a", "r0").unwrap();
    assert_eq!(bench.events(watcher), ["/a/b/c t", "/a t"], "in order; what is there already was not made");
}

#[test]
fn rewriting_the_same_value_fires() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.write(dom0, "/state", "4").unwrap();
    bench.watch(dom0, "/state", "t").unwrap();
    bench.write(dom0, "/state", "4").unwrap();
    assert_eq!(bench.events(dom0), ["/state t"], "how a backend announces a new size");
}

#[test]
fn a_removed_ancestor_is_told_under_the_watched_path() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.write(dom0, "/a/b/state", "1").unwrap();
    for (path, token) in [("/a/b/state", "state"), ("/a/b", "dir"), ("/", "root"), ("/a/b/none", "none")] {
        bench.watch(dom0, path, token).unwrap();
    }
    bench.remove(dom0, "/a").unwrap();
    let mut events = bench.events(dom0);
    events.sort();
    assert_eq!(events, ["/a root", "/a/b dir", "/a/b/state state"]);
}

#[test]
fn a_transaction_fires_once_for_each_node_when_it_commits() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.watch(dom0, "/a", "t").unwrap();
    let tx = bench.begin(dom0).unwrap();
    for value in ["1", "2", "3"] {
        bench.write_in(dom0, tx, "/a/z", value).unwrap();
    }
    bench.write_in(dom0, tx, "/a/b", "").unwrap();
    bench.write_in(dom0, tx, "/a/gone", "").unwrap();
    bench.ask(dom0, tx, Kind::RM, b"/a/gone\0").unwrap();
    assert_eq!(bench.events(dom0), [""; 0]);
    bench.end(dom0, tx, "T").unwrap();
    assert_eq!(bench.events(dom0), ["/a/z t", "/a/b t", "/a/gone t"], "in the order of the changes");
}

#[test]
fn relative_watches_get_relative_paths() {
    let mut bench = Bench::new();
    let guest = bench.connect(GUEST);
    bench.watch(guest, "data", "rel").unwrap();
    bench.watch(guest, "/local/domain/5/data", "abs").unwrap();
    bench.write(guest, "data/x", "").unwrap();
    assert_eq!(bench.events(guest), ["data/x rel", "/local/domain/5/data/x abs"]);
}

#[test]
fn guests_hear_only_of_what_they_may_read() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let guest = bench.connect(GUEST);
    bench.watch(guest, "/x", "t").unwrap();
    bench.write(dom0, "/x/secret", "1").unwrap();
    assert_eq!(bench.events(guest), [""; 0]);
    bench.chmod(dom0, "/x/secret", "n0 r5").unwrap();
    assert_eq!(bench.events(guest), ["/x/secret t"], "becomes readable");
    bench.chmod(dom0, "/x/secret", "n0").unwrap();
    assert_eq!(bench.events(guest), ["/x/secret t"], "was readable until now");
    bench.write(dom0, "/x/secret", "2").unwrap();
    bench.remove(dom0, "/x").unwrap();
    assert_eq!(bench.events(guest), [""; 0]);
}

#[test]
fn a_watch_is_known_by_path_and_token() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    bench.watch(dom0, "/a", "t").unwrap();
    assert_eq!(bench.ask(dom0, 0, Kind::WATCH, b"/a\0t\0"), Err(Errno::Exist));
    bench.watch(dom0, "/a", "u").unwrap();
    bench.write(dom0, "/a", "").unwrap();
    assert_eq!(bench.ask(dom0, 0, Kind::UNWATCH, b"/a\0t\0").unwrap(), b"OK\0");
    assert_eq!(bench.events(dom0), ["/a u"], "waiting events of an ended watch are dropped");
    assert_eq!(bench.ask(dom0, 0, Kind::UNWATCH, b"/a\0t\0"), Err(Errno::Noent));
    bench.ask(dom0, 0, Kind::RESET_WATCHES, b"\0").unwrap();
    bench.write(dom0, "/a", "").unwrap();
    assert_eq!(bench.events(dom0), [""; 0]);
}

#[test]
fn an_event_too_long_for_a_message_names_the_watched_path() {
    let mut bench = Bench::new();
    let dom0 = bench.dom0;
    let token = "t".repeat(4000);
    bench.watch(dom0, "/a", &token).unwrap();
    bench.write(dom0, &format!("/a/{}", "x".repeat(200)), "").unwrap();
    assert_eq!(bench.events(dom0), [format!("/a {token}")]);
}

#[test]
fn a_flood_costs_bounded_memory_and_loses_nothing() {
    let mut bench = Bench::new();
    let (guest, watcher) = (bench.connect(GUEST), bench.connect(DomId::DOM0));
    bench.watch(watcher, "/local/domain/5", "t").unwrap();
    for round in 0..20 {
        for node in 0..900 {
            let path = format!("data/{}/{:0>90}", node / 20, node % 20 + round * 20);
            bench.write(guest, &path, "1").unwrap();
        }
        bench.remove(guest, "data").unwrap();
        bench.write(bench.dom0, "/local/domain/5/data", "").unwrap();
        bench.chmod(bench.dom0, "/local/domain/5/data", "n5").unwrap();
    }
    assert!(bench.store.event_bytes(watcher) < 70_000);
    assert!(bench.events(watcher).contains(&"/local/domain/5 t".to_owned()));
}
