//! Ceph RBD: a real cluster, the pair before it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use blkback::storage::{
    Engine, Image, ImageError, ImageOptions, contract,
    rbd::{Ceph, Clusters, Name},
};
use tests::ceph::{Auth, Cluster};

fn open(cluster: &Cluster, text: &str, options: &ImageOptions) -> Result<Image, ImageError> {
    let ceph = Ceph { conf: cluster.conf(), timeout_s: 5, ..Ceph::default() };
    let credentials = vec![cluster.dir().to_owned()];
    Clusters { ceph: Some(ceph), credentials, records: None }.open(&Name::parse(text).unwrap(), options)
}

#[test]
fn images_and_snapshots_pass_the_suite_of_all_storages() {
    let cluster = Cluster::start(Auth::None).unwrap();
    cluster.rbd(&["create", "--size", "16", "rbd/img"]).unwrap();
    let image = Arc::new(open(&cluster, "rbd/img", &ImageOptions::default()).unwrap());
    eprintln!("{image:?}");
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
    drop(image);
    blkback::storage::rbd::wait_until_closed(std::time::Duration::from_secs(20));
    cluster.rbd(&["snap", "create", "rbd/img@before"]).unwrap();
    let image = Arc::new(open(&cluster, "rbd/img@before", &ImageOptions::default()).unwrap());
    contract::check(&mut Engine::new().unwrap(), &image, true).unwrap();
}
