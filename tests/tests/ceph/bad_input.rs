//! What cannot be served, and what is said of it.

use std::time::{Duration, Instant};

use blkback::storage::ImageOptions;
use nix::sys::signal::Signal;
use tests::{
    ceph::{Auth, Cluster},
    conformance::rig::{Raw, noise},
    world::wait_until,
};

use crate::bed::{PATIENCE, connected, open, refusal, world};

fn why(cluster: &Cluster, text: &str) -> String {
    let refused = open(cluster, text, &ImageOptions::default()).unwrap_err().to_string();
    println!("{refused}");
    refused
}

#[test]
fn what_is_not_there_and_who_is_not_let_in_is_told() {
    let mut cluster = Cluster::start(Auth::Cephx).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    let keyring = |name: &str, key: &str| {
        let path = cluster.dir().join(name);
        std::fs::write(&path, format!("[client.admin]\n\tkey = {key}\n[client.none]\n\tkey = {key}\n"))
            .unwrap();
        path.display().to_string()
    };
    let wrong = keyring("wrong", "AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==");
    let nonsense = keyring("nonsense", "nonsense");
    for (text, words) in [
        ("none/img".to_owned(), "pool none: No such file"),
        ("rbd/none".into(), "cannot open it: No such file"),
        ("rbd/img@none".into(), "cannot open it: No such file"),
        ("rbd/none/img".into(), "cannot open it: No such file"),
        ("rbd/img:id=nobody".into(), "does not accept client.nobody: its key is missing or wrong"),
        (format!("rbd/img:keyring={wrong}"), "does not accept client.admin: its key"),
        (format!("rbd/img:id=none:keyring={wrong}"), "does not accept client.none: its key"),
        (format!("rbd/img:keyring={nonsense}"), "client.admin"),
        (format!("rbd/img:conf={wrong}.conf"), "wrong.conf: No such file"),
        ("rbd/img:conf=/etc/shadow".into(), "/etc/shadow is not among `credentials`"),
    ] {
        let said = why(&cluster, &text);
        assert!(said.contains(words), "{text}: {said}");
    }

    // The same through XenStore, where other disks go on.
    let mut world = world(&cluster);
    let (_guest, mut disk) = connected(&mut world, "rbd:rbd/img");
    for (text, words) in [
        ("rbd:none/img", "cannot serve image rbd:none/img: pool none: No such file"),
        ("rbd:img", "what is wanted is rbd:POOL"),
        ("rbd:rbd/img:rbd_cache=true", "no option \"rbd_cache\""),
        ("rbd:rbd/img:conf=/etc/shadow", "not among `credentials`"),
    ] {
        let said = refusal(&mut world, text);
        assert!(said.contains(words), "{text}: {said}");
        disk.works().unwrap();
    }

    // Nobody answers: five seconds, and a little for each question.
    cluster.stop_mon().unwrap();
    let begin = Instant::now();
    let said = refusal(&mut world, "rbd:rbd/other");
    assert!(said.contains("no monitor of the cluster has answered within 5 s"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    disk.works().unwrap();
}

/// OSDs that are away when a disk is attached are an error after a while; later they are waited for.
#[test]
fn nobody_waits_for_ever_to_attach() {
    let mut cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    cluster.stop_osd(Signal::SIGKILL).unwrap();
    let begin = Instant::now();
    let said = why(&cluster, "rbd/img");
    assert!(said.contains("the cluster has not answered within 5 s"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
}

#[test]
fn a_pool_that_is_full_is_an_error_to_the_guest() {
    let cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "64", "rbd/img"]).unwrap();
    let mut world = world(&cluster);
    let (_guest, mut disk) = connected(&mut world, "rbd:rbd/img");
    let bytes = noise(1, 4 << 20);
    disk.write(0, &bytes).unwrap();
    let full_at = |ratio: &str| {
        for limit in ["set-nearfull-ratio", "set-backfillfull-ratio", "set-full-ratio"] {
            cluster.ceph(&["osd", limit, ratio]).unwrap();
        }
    };
    full_at("0.0001");
    let full = || Ok(cluster.ceph(&["osd", "dump"])?.contains("flags hashpspool,full").then_some(()));
    wait_until("a full pool", PATIENCE, full).unwrap();
    let page = disk.segments(1, 7).unwrap();
    disk.error(&Raw::write(1, 65536, &page)).unwrap();
    let said = world.backend_words();
    assert!(said.contains("No space left on device"), "{said}");
    assert!(disk.read(0, bytes.len()).unwrap() == bytes);
    full_at("0.95");
    wait_until("room", PATIENCE, || {
        let written = disk.ask(&Raw::write(2, 65536, &page))?;
        Ok((written == blkif_proto::Status::OKAY).then_some(()))
    })
    .unwrap();
    world.stop().unwrap();
}
