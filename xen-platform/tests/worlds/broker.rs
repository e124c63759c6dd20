//! Joining a simulated world, and failing to.

use xen_platform::{
    DomId, FrontWorld, Store,
    sim::{self, Broker, SimError, Toolstack, World, broker_socket, parse_spec, xenstored_socket},
};

#[test]
fn a_missing_world_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere");
    let error = World::connect(&missing, DomId(1)).unwrap_err();
    assert_eq!(error, SimError::NoDirectory(missing.clone()));
    assert!(error.to_string().contains(missing.to_str().unwrap()));
    assert_eq!(World::connect(dir.path(), DomId(1)).unwrap_err(), SimError::NoBroker(dir.path().into()));
    assert_eq!(Toolstack::connect(dir.path()).unwrap_err(), SimError::NoBroker(dir.path().into()));
    let long = dir.path().join("x".repeat(120));
    assert_eq!(World::connect(&long, DomId(1)).unwrap_err(), SimError::LongPath(broker_socket(&long)));
}

#[test]
fn a_broker_cleans_up_and_its_world_ends() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/world");
    let broker = Broker::start(&dir).unwrap();
    assert!(broker_socket(&dir).exists() && xenstored_socket(&dir).exists());
    let toolstack = Toolstack::connect(&dir).unwrap();
    let guest = toolstack.create_domain(16).unwrap();
    let world = World::connect(&dir, guest).unwrap();
    let _store = world.store().unwrap();
    drop(broker);
    assert!(!dir.exists(), "the directory that it made");
    assert!(matches!(toolstack.list(), Err(SimError::System { .. })));
    assert!(FrontWorld::events(&world).is_ok_and(|mut events| {
        xen_platform::EventChannels::alloc_unbound(&mut events, DomId::DOM0).is_err()
    }));
}

#[test]
fn a_directory_that_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    drop(Broker::start(dir.path()).unwrap());
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn one_broker_a_directory_and_dead_ones_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path()).unwrap();
    assert_eq!(Broker::start(dir.path()).unwrap_err(), SimError::Occupied(dir.path().into()));
    assert!(Toolstack::connect(dir.path()).is_ok(), "the running one is not disturbed");
    drop(broker);
    // What a killed broker leaves: sockets that nobody serves.
    for path in [broker_socket(dir.path()), xenstored_socket(dir.path())] {
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    }
    drop(Broker::start(dir.path()).unwrap());
}

#[test]
fn domains_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = Broker::start(dir.path()).unwrap();
    let toolstack = Toolstack::connect(dir.path()).unwrap();
    assert_eq!(toolstack.list().unwrap(), [DomId::DOM0]);
    let guests: Vec<DomId> = (0..600).map(|_| toolstack.create_domain(1).unwrap()).collect();
    let mut all = vec![DomId::DOM0];
    all.extend(&guests);
    assert_eq!(toolstack.list().unwrap(), all, "more than fit one answer");
    toolstack.destroy_domain(guests[0]).unwrap();
    assert_eq!(toolstack.destroy_domain(guests[0]), Err(SimError::NoDomain(guests[0])));
    assert_eq!(toolstack.destroy_domain(DomId::DOM0), Err(SimError::NoDomain(DomId::DOM0)));
    assert!(!toolstack.list().unwrap().contains(&guests[0]));
    assert_eq!(toolstack.create_domain(0), Err(SimError::Exhausted));
    assert_eq!(toolstack.create_domain(u32::MAX), Err(SimError::Exhausted));
}

#[test]
fn xenstore_knows_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = Broker::start(dir.path()).unwrap();
    let toolstack = Toolstack::connect(dir.path()).unwrap();
    let mut dom0 = World::connect(dir.path(), DomId::DOM0).unwrap().store().unwrap();
    dom0.watch("@introduceDomain", "in").unwrap();
    dom0.watch("@releaseDomain", "out").unwrap();
    while dom0.next_event().unwrap().is_some() {}
    let mut next = || {
        assert!(dom0.wait(Some(std::time::Duration::from_secs(10))).unwrap());
        dom0.next_event().unwrap().unwrap().token
    };
    let guest = toolstack.create_domain(1).unwrap();
    assert_eq!(next(), "in");
    assert!(World::connect(dir.path(), guest).unwrap().store().is_ok());
    toolstack.destroy_domain(guest).unwrap();
    assert_eq!(next(), "out");
    assert!(World::connect(dir.path(), guest).unwrap().store().is_err());
}

#[test]
fn names_of_worlds() {
    assert_eq!(parse_spec("sim:/run/x").unwrap(), std::path::Path::new("/run/x"));
    for bad in ["linux", "sim:", "sim", "", "SIM:/x"] {
        assert_eq!(parse_spec(bad), Err(SimError::Spec(bad.into())));
    }
}

#[test]
fn garbage_ends_in_a_refusal_and_nothing_else() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
    };
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().unwrap();
    let _broker = Broker::start(dir.path()).unwrap();
    let dial = || {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let fd = socket(kind.0, kind.1, kind.2, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(&broker_socket(dir.path())).unwrap()).unwrap();
        fd
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let ask = |fd: &std::os::fd::OwnedFd, bytes: &[u8]| {
        send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
        let mut answer = [0; 64];
        let count = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        answer[..count].to_vec()
    };
    // Refused: garbled; another version, told ours; then nothing more is said.
    for garbage in [&b"x"[..], b"hello", &[0xFF; 100], &words(&[9, 1, 1])] {
        let fd = dial();
        assert_eq!(ask(&fd, garbage), words(&[7, 1]));
        assert_eq!(recv(fd.as_raw_fd(), &mut [0; 8], MsgFlags::empty()).unwrap(), 0);
    }
    assert_eq!(ask(&dial(), &words(&[1, 999, 0])), words(&[7, 2, 1]));
    // After a proper greeting, a bad question is refused and the next one answered.
    let fd = dial();
    assert_eq!(ask(&fd, &words(&[1, 1, 0])), words(&[1]));
    assert_eq!(ask(&fd, &words(&[7, 5, u32::MAX])), words(&[1]));
    assert_eq!(ask(&fd, &words(&[200])), words(&[7, 1]));
    assert_eq!(ask(&fd, &words(&[10, 77])), words(&[1]));
    assert_eq!(ask(&fd, &words(&[2, 4])), words(&[2, 1]));
    assert_eq!(sim::Toolstack::connect(dir.path()).unwrap().list().unwrap().len(), 2);
}
