//! Clients that misbehave, and those beside them who must not notice.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Instant,
};

use proptest::prelude::*;

use super::*;
use crate::{
    Change, DomId, Store, StoreClient,
    wire::{self, Decoder, Kind, Message},
};

struct Served {
    _server: Xenstored,
    store: SharedStore,
    dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SharedStore::default();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        Self { _server: serve(listener, store.clone()).unwrap(), store, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    }

    /// The server still serves: within a moment, a new client gets an answer.
    fn check(&self) {
        let start = Instant::now();
        let mut client = StoreClient::connect(self.path()).unwrap();
        client.apply(&[Change::Write("/alive", "1")]).unwrap();
        assert_eq!(client.read("/alive").as_deref(), Ok(&b"1"[..]));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

fn bytes(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Message { kind, request: 1, transaction: 0, payload: payload.into() }.encode(&mut bytes);
    bytes
}

fn reply(stream: &mut UnixStream) -> Message {
    let mut decoder = Decoder::default();
    loop {
        if let Some(message) = decoder.next_message().unwrap() {
            return message;
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        decoder.push(&byte);
    }
}

/// The server closed the connection; what it had sent before is skipped.
fn is_closed(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn an_oversized_message_ends_its_sender_only() {
    let served = Served::new();
    let mut bystander = StoreClient::connect(served.path()).unwrap();
    let mut bad = served.raw();
    bad.write_all(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0]).unwrap();
    assert!(is_closed(&mut bad));
    assert!(bystander.read("/").is_ok());
}

#[test]
fn a_message_may_come_byte_by_byte_or_many_at_once() {
    let served = Served::new();
    let mut slow = served.raw();
    for byte in bytes(Kind::READ, b"/tool\0") {
        slow.write_all(&[byte]).unwrap();
    }
    assert_eq!(reply(&mut slow).kind, Kind::READ);
    let mut eager = served.raw();
    eager.write_all(&bytes(Kind::READ, b"/tool\0").repeat(1000)).unwrap();
    for _ in 0..1000 {
        assert_eq!(reply(&mut eager).kind, Kind::READ);
    }
}

#[test]
fn half_a_message_and_gone() {
    let served = Served::new();
    for cut in [1, 15, 16, 20] {
        let mut bad = served.raw();
        bad.write_all(&bytes(Kind::WRITE, b"/half\0value")[..cut]).unwrap();
    }
    let mut transaction = served.raw();
    transaction.write_all(&bytes(Kind::TRANSACTION_START, b"\0")).unwrap();
    assert_eq!(reply(&mut transaction).kind, Kind::TRANSACTION_START);
    drop(transaction);
    served.check();
    assert!(StoreClient::connect(served.path()).unwrap().read("/half").is_err());
}

#[test]
fn who_takes_no_replies_is_read_no_further() {
    let served = Served::new();
    served.store.connect(DomId::DOM0).unwrap().apply(&[Change::Write("/x", &"v".repeat(4000))]).unwrap();
    let mut bad = served.raw();
    let requests = bytes(Kind::READ, b"/x\0").repeat(100);
    let mut sent = 0usize;
    while sent < 64 << 20 {
        match bad.write(&requests) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < 8 << 20, "held back after {sent} bytes, which is what sockets hold");
    served.check();
    // It goes on as soon as it reads.
    bad.set_nonblocking(false).unwrap();
    for _ in 0..1000 {
        assert_eq!(reply(&mut bad).payload.len(), 4000);
    }
}

#[test]
fn thousands_of_unread_events_cost_little_and_disturb_nobody() {
    let served = Served::new();
    served.store.introduce(DomId(1));
    let mut tools = StoreClient::connect(served.path()).unwrap();
    let mut sleeper = served.raw();
    sleeper.write_all(&bytes(Kind::WATCH, b"/flood\0t\0")).unwrap();
    assert_eq!(reply(&mut sleeper).kind, Kind::WATCH);
    for round in 0..200 {
        let path = |node| format!("/flood/{round}/{node:0>120}");
        tools.transact(|tx| (0..100).try_for_each(|node| tx.write(&path(node), "x"))).unwrap();
    }
    tools.apply(&[Change::Write("/flood/last", "x")]).unwrap();
    served.check();
    let mut decoder = Decoder::default();
    let (mut events, mut last) = (Vec::new(), None);
    while last.as_deref() != Some("/flood/last") && last.as_deref() != Some("/flood") || events.len() < 2 {
        let mut chunk = [0; 4096];
        let count = sleeper.read(&mut chunk).unwrap();
        decoder.push(&chunk[..count]);
        while let Some(message) = decoder.next_message().unwrap() {
            last = message.as_event().map(|event| event.path);
            events.push(message);
        }
    }
    assert!(events.len() < 10_000, "{} of 20000 came", events.len());
}

#[test]
fn only_the_first_message_says_for_whom_one_acts() {
    let served = Served::new();
    served.store.introduce(DomId(1));
    let mut guest = served.raw();
    for payload in [&b"9\0"[..], b"x\0", b"", b"70000\0"] {
        guest.write_all(&bytes(Kind::ACT_AS, payload)).unwrap();
        assert_eq!(reply(&mut guest).kind, Kind::ERROR, "{payload:?}");
    }
    guest.write_all(&bytes(Kind::ACT_AS, b"1\0")).unwrap();
    assert_eq!(reply(&mut guest).payload, b"OK\0");
    guest.write_all(&bytes(Kind::ACT_AS, b"0\0")).unwrap();
    assert_eq!(reply(&mut guest).payload, b"ENOSYS\0");
    guest.write_all(&bytes(Kind::READ, b"/tool\0")).unwrap();
    assert_eq!(reply(&mut guest).payload, b"EACCES\0");
    let mut dom0 = served.raw();
    dom0.write_all(&bytes(Kind::READ, b"/tool\0")).unwrap();
    assert_eq!(reply(&mut dom0).payload, b"");
    dom0.write_all(&bytes(Kind::ACT_AS, b"1\0")).unwrap();
    assert_eq!(reply(&mut dom0).payload, b"ENOSYS\0");
}

#[test]
fn events_of_this_process_reach_the_socket() {
    let served = Served::new();
    let mut client = StoreClient::connect(served.path()).unwrap();
    client.watch("@introduceDomain", "t").unwrap();
    assert!(client.next_event().is_ok());
    served.store.introduce(DomId(4));
    assert_eq!(client.wait(Some(Duration::from_secs(10))), Ok(true));
}

#[test]
fn too_many_clients_are_turned_away_until_some_leave() {
    let served = Served::new();
    let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| served.raw()).collect();
    clients.last_mut().unwrap().write_all(&bytes(Kind::READ, b"/\0")).unwrap();
    assert_eq!(reply(clients.last_mut().unwrap()).kind, Kind::READ);
    assert!(is_closed(&mut served.raw()));
    drop(clients);
    let start = Instant::now();
    while StoreClient::connect(served.path()).unwrap().read("/").is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_its_senders_problem(
        messages in prop::collection::vec(
            (0u32..30, 0u32..3, 0u32..5000, prop::collection::vec(any::<u8>(), 0..60)), 1..30),
    ) {
        let served = Served::new();
        let mut bystander = StoreClient::connect(served.path()).unwrap();
        bystander.apply(&[Change::Write("/bystander", "1")]).unwrap();
        let mut bad = served.raw();
        for (kind, tx, len, payload) in messages {
            let mut message: Vec<u8> = [kind, 1, tx, len].iter().flat_map(|word| word.to_le_bytes()).collect();
            message.extend(payload);
            if bad.write_all(&message).is_err() { break }
        }
        let value = bystander.read("/bystander");
        prop_assert_eq!(value.as_deref(), Ok(&b"1"[..]));
        served.check();
    }
}

#[test]
fn stopping_frees_the_store_of_all_clients() {
    let served = Served::new();
    let mut client = StoreClient::connect(served.path()).unwrap();
    client.watch("/", "t").unwrap();
    let Served { _server: server, store, dir: _dir } = served;
    server.stop();
    assert!(client.read("/").is_err());
    let probe = Message { kind: Kind::READ, request: 1, transaction: 0, payload: wire::strings(&["/"]) };
    let open = store.with(|store| {
        let id = store.connect(DomId::DOM0).unwrap();
        store.handle(id, &probe).is_some()
    });
    assert!(open, "the store itself lives on");
}
