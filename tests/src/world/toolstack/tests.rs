use xen_platform::{
    StoreClient,
    sim::{Broker, xenstored_socket},
};

use super::*;

/// A world without backend and frontend.
fn empty() -> (Broker, Toolstack, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path()).unwrap();
    let toolstack = Toolstack::connect(dir.path()).unwrap();
    (broker, toolstack, dir)
}

#[test]
fn devices_are_named_and_numbered_as_in_the_manual_page() {
    let disk = |index| Disk { index, ..Disk::new("x") };
    assert_eq!((disk(0).name(), disk(0).number()), ("xvda".into(), 51712));
    assert_eq!((disk(1).name(), disk(1).number()), ("xvdb".into(), 51728));
    assert_eq!((disk(16).name(), disk(16).number()), ("xvdq".into(), 268_439_552));
    assert_eq!(disk(26).name(), "xvdaa");
}

#[test]
fn each_end_owns_its_directory_and_reads_the_others() {
    let (_broker, mut toolstack, dir) = empty();
    let guest = toolstack.create_guest(16).unwrap();
    let stranger = toolstack.create_guest(16).unwrap();
    let vbd = toolstack.make_nodes(guest, &Disk::new("/images/one.img")).unwrap();

    let mut own = StoreClient::connect_as(xenstored_socket(dir.path()), guest).unwrap();
    assert_eq!(own.read(&format!("{}/params", vbd.backend)).unwrap(), b"/images/one.img");
    let write =
        |store: &mut StoreClient, path: String| store.apply(&[xen_platform::Change::Write(&path, "3")]);
    write(&mut own, format!("{}/state", vbd.frontend)).unwrap();
    assert!(matches!(write(&mut own, format!("{}/state", vbd.backend)), Err(StoreError::Denied(_))));

    let mut other = StoreClient::connect_as(xenstored_socket(dir.path()), stranger).unwrap();
    assert!(matches!(other.read(&format!("{}/params", vbd.backend)), Err(StoreError::Denied(_))));
    assert!(matches!(other.read(&format!("{}/state", vbd.frontend)), Err(StoreError::Denied(_))));
}

#[test]
fn the_nodes_are_those_of_libxl() {
    let (_broker, mut toolstack, _dir) = empty();
    let guest = toolstack.create_guest(16).unwrap();
    let vbd =
        toolstack.make_nodes(guest, &Disk { kind: Kind::Tap, writable: false, ..Disk::new("/i") }).unwrap();
    let mut value = |path: String| toolstack.read(&path).unwrap().unwrap_or_default();
    assert_eq!(vbd.backend, "/local/domain/0/backend/vbd3/1/51712");
    for (key, expected) in [
        ("state", "1"),
        ("online", "1"),
        ("mode", "r"),
        ("params", "aio:/i"),
        ("type", "vbd3"),
        ("dev", "xvda"),
    ] {
        assert_eq!(value(format!("{}/{key}", vbd.backend)), expected, "{key}");
    }
    assert_eq!(value(format!("{}/frontend", vbd.backend)), vbd.frontend);
    assert_eq!(value(format!("{}/backend", vbd.frontend)), vbd.backend);
    assert_eq!(value(format!("{}/virtual-device", vbd.frontend)), "51712");
}

#[test]
fn removal_asks_the_backend_and_leaves_no_node() {
    let (_broker, mut toolstack, dir) = empty();
    let guest = toolstack.create_guest(16).unwrap();
    let vbd = toolstack.make_nodes(guest, &Disk::new("/i")).unwrap();
    toolstack.ask_to_close(&vbd).unwrap();
    assert_eq!(toolstack.backend_state(&vbd).unwrap(), State::Closing);
    assert_eq!(toolstack.read(&format!("{}/online", vbd.backend)).unwrap().as_deref(), Some("0"));
    // A backend that answers, at once.
    let mut backend = StoreClient::connect(xenstored_socket(dir.path())).unwrap();
    backend.transact(|t| t.write(&format!("{}/state", vbd.backend), "6")).unwrap();
    toolstack.delete_nodes(&vbd).unwrap();
    assert_eq!(toolstack.frontend_state(&vbd).unwrap(), State::Unknown);
    assert!(matches!(
        toolstack.store().list(&format!("/local/domain/0/backend/vbd/{guest}")),
        Err(StoreError::NoEntry(_))
    ));
    toolstack.destroy_guest(guest, &[]).unwrap();
    assert_eq!(toolstack.read(&format!("/local/domain/{guest}/name")).unwrap(), None);
}
