use std::{os::unix::net::UnixListener, thread, time::Instant};

use super::*;
use crate::{
    Change, Store,
    fake::SharedStore,
    sim::xenstored::{self, Xenstored},
    wire::{Permission, Rights},
};

fn served() -> (Xenstored, SharedStore, tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let store = SharedStore::default();
    let server = xenstored::serve(UnixListener::bind(&path).unwrap(), store.clone()).unwrap();
    (server, store, dir, path)
}

/// What every implementation of `Store` must do.
fn contract(store: &mut impl Store, other: &mut impl Store) {
    assert_eq!(store.read("/c/a"), Err(StoreError::NoEntry("/c/a".into())));
    assert_eq!(
        store.apply(&[Change::Require("/c"), Change::Write("/c/a", "1")]),
        Err(StoreError::NoEntry("/c".into()))
    );
    store
        .apply(&[Change::Write("/c/a", "1"), Change::Write("/c/b", ""), Change::Remove("/c/none/x")])
        .unwrap();
    assert_eq!(store.read("/c/a").as_deref(), Ok(&b"1"[..]));
    let mut names = store.list("/c").unwrap();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(store.read("/c/"), Err(StoreError::Invalid("/c/".into())));

    store.watch("/c", "token").unwrap();
    let event = |path: &str| Some(WatchEvent { path: path.into(), token: "token".into() });
    assert_eq!(store.wait(Some(Duration::from_secs(10))), Ok(true));
    assert_eq!(store.next_event(), Ok(event("/c")));
    assert_eq!(store.next_event(), Ok(None));
    let start = Instant::now();
    assert_eq!(store.wait(Some(Duration::from_millis(30))), Ok(false));
    assert!(start.elapsed() >= Duration::from_millis(30));
    other.apply(&[Change::Write("/c/a", "2"), Change::Remove("/c/b")]).unwrap();
    assert_eq!(store.wait(None), Ok(true));
    assert_eq!(store.next_event(), Ok(event("/c/a")));
    assert_eq!(store.wait(None), Ok(true));
    assert_eq!(store.next_event(), Ok(event("/c/b")));
    store.unwatch("/c", "token").unwrap();
    other.apply(&[Change::Remove("/c")]).unwrap();
    assert_eq!(store.wait(Some(Duration::ZERO)), Ok(false));
    assert_eq!(store.unwatch("/c", "token"), Err(StoreError::NoEntry("/c".into())));
}

#[test]
fn over_the_socket() {
    let (_server, _, _dir, path) = served();
    contract(&mut StoreClient::connect(&path).unwrap(), &mut StoreClient::connect(&path).unwrap());
}

#[test]
fn within_the_process() {
    let store = SharedStore::default();
    contract(&mut store.connect(DomId::DOM0).unwrap(), &mut store.connect(DomId::DOM0).unwrap());
}

#[test]
fn across_both() {
    let (_server, store, _dir, path) = served();
    contract(&mut StoreClient::connect(&path).unwrap(), &mut store.connect(DomId::DOM0).unwrap());
    contract(&mut store.connect(DomId::DOM0).unwrap(), &mut StoreClient::connect(&path).unwrap());
}

#[test]
fn a_toolstack_makes_a_guests_directory() {
    let (_server, store, _dir, path) = served();
    let guest = DomId(3);
    assert_eq!(
        StoreClient::connect_as(&path, guest).err(),
        Some(StoreError::NoEntry("domain 3".into())),
        "not introduced yet"
    );
    let mut tools = StoreClient::connect(&path).unwrap();
    tools.introduce(guest).unwrap();
    assert_eq!(tools.is_introduced(guest), Ok(true));
    let entries = [Permission::new(guest, Rights::None), Permission::new(DomId::DOM0, Rights::Read)];
    let dir = "/local/domain/3/device/vbd/51712";
    tools
        .transact(|tx| {
            tx.mkdir(dir)?;
            tx.set_permissions(dir, &entries)?;
            tx.write(&format!("{dir}/state"), "1")
        })
        .unwrap();
    assert_eq!(tools.permissions(dir).as_deref(), Ok(&entries[..]));

    for client in [
        &mut StoreClient::connect_as(&path, guest).unwrap() as &mut dyn Store,
        &mut store.connect(guest).unwrap(),
    ] {
        client
            .apply(&[Change::Require(dir), Change::Write("/local/domain/3/device/vbd/51712/state", "3")])
            .unwrap();
        let elsewhere = client.apply(&[Change::Write("/local/domain/0/x", "1")]);
        assert_eq!(elsewhere, Err(StoreError::Denied("/local/domain/0/x".into())));
    }
}

#[test]
fn a_released_domains_connections_are_gone() {
    let (_server, store, _dir, path) = served();
    store.introduce(DomId(3));
    let mut far = StoreClient::connect_as(&path, DomId(3)).unwrap();
    let mut near = store.connect(DomId(3)).unwrap();
    let waiting = thread::spawn(move || far.wait(None));
    thread::sleep(Duration::from_millis(20));
    store.release(DomId(3));
    assert_eq!(waiting.join().unwrap(), Err(StoreError::Disconnected));
    assert_eq!(near.wait(None), Err(StoreError::Disconnected));
    assert_eq!(near.next_event(), Err(StoreError::Disconnected));
    assert_eq!(near.read("/"), Err(StoreError::Disconnected));
}

#[test]
fn the_end_of_the_server_is_noticed() {
    let (server, _, _dir, path) = served();
    let mut client = StoreClient::connect(&path).unwrap();
    client.read("/").unwrap();
    server.stop();
    assert_eq!(client.wait(None), Err(StoreError::Disconnected));
    assert_eq!(client.read("/"), Err(StoreError::Disconnected));
    assert_eq!(client.next_event(), Err(StoreError::Disconnected));
    let gone = StoreClient::connect(path.with_extension("nope")).err().unwrap();
    assert!(gone.to_string().contains("socket.nope"), "{gone}");
}

/// A server that speaks nonsense.
fn lied_to(nonsense: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(nonsense).unwrap();
    let mut client = StoreClient::over(ours);
    let outcome = client.read("/");
    assert!(client.read("/").is_err(), "stays broken");
    outcome
}

#[test]
fn a_lying_server_is_not_believed() {
    let message = |kind: Kind, payload: &[u8]| {
        let mut bytes = Vec::new();
        Message { kind, request: 1, transaction: 0, payload: payload.into() }.encode(&mut bytes);
        bytes
    };
    assert!(matches!(lied_to(&[0xff; 16]), Err(StoreError::Other(_))));
    assert!(matches!(lied_to(&message(Kind::WATCH_EVENT, b"/a")), Err(StoreError::Other(_))));
    let mut unasked = StoreClient::over({
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&message(Kind::READ, b"")).unwrap();
        drop(theirs);
        ours
    });
    assert!(matches!(unasked.next_event(), Err(StoreError::Other(_))));
}

#[test]
fn every_counter_step_survives_contention() {
    let (_server, store, _dir, path) = served();
    const STEPS: usize = 50;
    let count = |mut add: Box<dyn FnMut() + Send>| thread::spawn(move || (0..STEPS).for_each(|_| add()));
    fn step<T: Transport>(session: &mut Session<T>) {
        session
            .transact(|tx| {
                let value: usize = match tx.read("/counter") {
                    Ok(value) => String::from_utf8(value).unwrap().parse().unwrap(),
                    Err(_) => 0,
                };
                tx.write("/counter", (value + 1).to_string())
            })
            .unwrap();
    }
    let threads: Vec<_> = (0..2)
        .flat_map(|_| {
            let (mut far, mut near) =
                (StoreClient::connect(&path).unwrap(), store.connect(DomId::DOM0).unwrap());
            [count(Box::new(move || step(&mut far))), count(Box::new(move || step(&mut near)))]
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let value = store.connect(DomId::DOM0).unwrap().read("/counter").unwrap();
    assert_eq!(value, (4 * STEPS).to_string().into_bytes());
}
