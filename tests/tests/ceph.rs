//! Ceph RBD: a real cluster, the pair before it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tests::ceph::{Auth, Cluster};

#[test]
fn a_cluster_starts() {
    let begin = std::time::Instant::now();
    let mut cluster = Cluster::start(Auth::Cephx).unwrap();
    eprintln!("{:?}", begin.elapsed());
    cluster.rbd(&["create", "--size", "64", "rbd/img"]).unwrap();
    cluster.stop_osd(nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.start_osd().unwrap();
    eprintln!("{:?}", begin.elapsed());
    eprintln!("{}", cluster.rbd(&["info", "rbd/img"]).unwrap());
}
