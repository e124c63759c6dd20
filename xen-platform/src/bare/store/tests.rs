//! Over a ring at whose other end a thread plays the daemon.

use std::thread;

use super::*;
use crate::{
    Change, FrontWorld as _, PAGE_SIZE, SharedMem, Store as _,
    bare::tests::{Bed, STORE_PAGE, STORE_PORT, pend, world},
};

/// The daemon's end.
struct Daemon {
    page: SharedMem<'static>,
    requests: ByteRing,
    replies: ByteRing,
    shared_info: SharedMem<'static>,
    decoder: Decoder,
}

impl Daemon {
    fn of(bed: &Bed) -> Self {
        let page = bed.memory.part(STORE_PAGE * PAGE_SIZE, PAGE_SIZE).unwrap();
        Self {
            page,
            requests: ByteRing::new(page, abi::store::REQUESTS).unwrap(),
            replies: ByteRing::new(page, abi::store::REPLIES).unwrap(),
            shared_info: bed.shared_info,
            decoder: Decoder::default(),
        }
    }

    fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let mut chunk = [0; 100];
            let count = self.requests.read(&mut chunk).unwrap();
            self.decoder.push(&chunk[..count]);
            pend(self.shared_info, STORE_PORT);
        }
    }

    fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = self.replies.write(rest).unwrap();
            rest = &rest[count..];
            pend(self.shared_info, STORE_PORT);
        }
    }

    /// Answers the next request, which must be of `kind`, and returns its payload.
    fn answer(&mut self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let request = self.next();
        assert_eq!(request.kind, kind);
        self.send(&request.reply(payload.to_vec()));
        request.payload
    }

    fn answer_nothing(&mut self, kind: Kind) {
        self.send(&Message { kind, request: 0, transaction: 0, payload: Vec::new() });
    }

    fn fire(&mut self, path: &str, token: &str) {
        let event = WatchEvent { path: path.into(), token: token.into() };
        self.send(&Message::event(&event).unwrap());
    }
}

#[test]
fn messages_larger_than_the_ring_go_both_ways() {
    let bed = world();
    let mut daemon = Daemon::of(&bed);
    let daemon = thread::spawn(move || {
        daemon.answer(Kind::READ, &[b'v'; 4096]);
        daemon.answer(Kind::TRANSACTION_START, b"7\0");
        let written = daemon.answer(Kind::WRITE, b"OK\0");
        daemon.answer(Kind::TRANSACTION_END, b"OK\0");
        written
    });
    let mut store = bed.world.store().unwrap();
    assert_eq!(store.read("data").unwrap(), [b'v'; 4096]);
    let value = "x".repeat(4000);
    store.apply(&[Change::Write("data/key", &value)]).unwrap();
    assert_eq!(daemon.join().unwrap(), ["data/key\0".as_bytes(), value.as_bytes()].concat());
}

#[test]
fn events_go_to_whoever_watches() {
    let bed = world();
    let mut daemon = Daemon::of(&bed);
    let daemon = thread::spawn(move || {
        let tokens = [daemon.answer(Kind::WATCH, b"OK\0"), daemon.answer(Kind::WATCH, b"OK\0")];
        assert_eq!(tokens, [b"a\x000/t\0", b"a\x001/t\0"]);
        for (path, token) in [("a/1", "1/t"), ("a/2", "0/t"), ("a/3", "1/t"), ("a/4", "9/t"), ("a/5", "t")] {
            daemon.fire(path, token);
        }
        daemon.answer(Kind::READ, b"");
        let ended = [daemon.answer(Kind::UNWATCH, b"OK\0"), daemon.answer(Kind::UNWATCH, b"OK\0")];
        assert_eq!(ended, [b"a\x001/t\0", b"a\x000/t\0"]);
    });
    let (mut first, mut second) = (bed.world.store().unwrap(), bed.world.store().unwrap());
    first.watch("a", "t").unwrap();
    second.watch("a", "t").unwrap();
    // Events on the way to a reply wait.
    second.read("b").unwrap();
    let event = |path: &str| Some(WatchEvent { path: path.into(), token: "t".into() });
    assert!(first.wait(None).unwrap());
    assert_eq!([first.next_event().unwrap(), first.next_event().unwrap()], [event("a/2"), None]);
    assert_eq!(second.next_event().unwrap(), event("a/1"));
    assert_eq!([second.next_event().unwrap(), second.next_event().unwrap()], [event("a/3"), None]);
    second.unwatch("a", "t").unwrap();
    // The other one's ends with it.
    drop(first);
    daemon.join().unwrap();
}

#[test]
fn a_place_that_is_vacant_is_taken_again() {
    let bed = world();
    let stores = [bed.world.store().unwrap(), bed.world.store().unwrap()];
    let number = |store: &StoreClient| store.transport().number;
    assert_eq!(stores.each_ref().map(number), [0, 1]);
    drop(stores);
    assert_eq!(number(&bed.world.store().unwrap()), 0);
}

#[test]
fn waiting_ends_in_time() {
    let bed = world();
    let mut store = bed.world.store().unwrap();
    assert!(!store.wait(Some(Duration::from_millis(2))).unwrap());
    assert!(!store.wait(Some(Duration::ZERO)).unwrap());
}

#[test]
fn a_silent_daemon_is_given_up() {
    let bed = world();
    // Time flies.
    let scale = bed.shared_info.part(abi::shared_info::TSC_SHIFT, 1).unwrap();
    scale.write(&[15]);
    let mut store = bed.world.store().unwrap();
    assert_eq!(store.read("a"), Err(StoreError::Other("no reply within 30 s".into())));
    assert_eq!(store.read("a"), Err(StoreError::Disconnected));
}

#[test]
fn a_daemon_that_breaks_the_protocol_is_given_up() {
    type Harm = fn(&mut Daemon);
    let harms: [(&str, Harm); 4] = [
        ("reply to nothing", |daemon| daemon.answer_nothing(Kind::READ)),
        ("malformed watch event", |daemon| daemon.answer_nothing(Kind::WATCH_EVENT)),
        ("xenstore message of 4294967295 bytes, at most 4096 are allowed", |daemon| {
            daemon.replies.write(&[0xFF; wire::HEADER_SIZE]).map(drop).unwrap();
        }),
        ("the ring's indices are corrupt", |daemon| {
            let producer = daemon.page.word32(abi::store::REPLIES.producer).unwrap();
            producer.store(1025, core::sync::atomic::Ordering::SeqCst);
        }),
    ];
    for (told, harm) in harms {
        let bed = world();
        let mut daemon = Daemon::of(&bed);
        harm(&mut daemon);
        let mut store = bed.world.store().unwrap();
        assert_eq!(store.next_event(), Err(StoreError::Other(told.into())));
        assert_eq!(store.next_event(), Err(StoreError::Disconnected));
    }
}
