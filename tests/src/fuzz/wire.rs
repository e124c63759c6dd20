//! XenStore's protocol, whoever is at the other end.

use core::time::Duration;

use arbitrary::Arbitrary;
use xen_platform::{
    Change, DomId, Store as _, StoreError, WatchEvent,
    fake::store::{Quota, XenStore},
    session::{Session, Transport},
    wire::{Decoder, Kind, Message, PAYLOAD_MAX, Permission, split},
};

#[derive(Debug, Arbitrary)]
enum Script<'a> {
    /// A stream, cut where it may be.
    Stream { bytes: &'a [u8], cuts: u8 },
    /// A server that answers with anything.
    Server { answers: Vec<Answer<'a>> },
    /// Clients that ask for anything.
    Client { asks: Vec<Ask<'a>> },
}

#[derive(Debug, Arbitrary)]
struct Answer<'a> {
    /// Of another kind than the question.
    kind: Option<u8>,
    /// To another question.
    stranger: bool,
    gone: bool,
    payload: Text<'a>,
}

#[derive(Debug, Arbitrary)]
struct Ask<'a> {
    guest: bool,
    kind: u8,
    transaction: u8,
    payload: Vec<Text<'a>>,
    closed: bool,
}

#[derive(Debug, Arbitrary)]
enum Text<'a> {
    Word(u8),
    Number(u32),
    Bytes(&'a [u8]),
}

const WORDS: [&str; 17] = [
    "/local/domain/1/device/vbd/51712",
    "/local/domain/1/device/vbd/51712/state",
    "/local/domain/0/backend/vbd/1/51712",
    "device/vbd",
    "/",
    "@releaseDomain",
    "token",
    "n0",
    "b1",
    "r65535",
    "T",
    "F",
    "OK",
    "ENOENT",
    "EAGAIN",
    "E2BIG",
    "",
];

impl Text<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = match self {
            Text::Word(word) => WORDS[usize::from(*word) % WORDS.len()].into(),
            Text::Number(number) => number.to_string().into(),
            Text::Bytes(bytes) => return bytes[..bytes.len().min(PAYLOAD_MAX)].to_vec(),
        };
        bytes.push(0);
        bytes
    }
}

/// Streams are cut the same however they come; sessions outlive servers that lie; the store outlives its clients.
pub fn wire(data: &[u8]) {
    match super::script::<Script<'_>>(data) {
        Some(Script::Stream { bytes, cuts }) => stream(bytes, usize::from(cuts).max(1)),
        Some(Script::Server { answers }) => session(answers),
        Some(Script::Client { asks }) => clients(&asks),
        None => {}
    }
}

fn stream(bytes: &[u8], cut: usize) {
    let mut whole = Decoder::default();
    whole.push(bytes);
    let mut parts = Decoder::default();
    let (mut messages, mut oversized) = (Vec::new(), false);
    for part in bytes.chunks(cut) {
        parts.push(part);
        loop {
            match parts.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => {
                    oversized = true;
                    break;
                }
            }
        }
        assert!(oversized || parts.buffered() < 16 + PAYLOAD_MAX, "bytes pile up");
    }
    for message in messages {
        assert_eq!(whole.next_message(), Ok(Some(message.clone())));
        let mut again = Vec::new();
        message.encode(&mut again);
        let mut decoder = Decoder::default();
        decoder.push(&again);
        assert_eq!(decoder.next_message(), Ok(Some(message.clone())));
        if let Some(event) = message.as_event() {
            assert!(Message::event(&event).is_some());
        }
        split(&message.payload).flatten().filter_map(Permission::parse).for_each(|permission| {
            assert_eq!(Permission::parse(&permission.emit()), Some(permission));
        });
    }
    assert_eq!(whole.next_message().is_err(), oversized);
}

/// Answers with what it was given, and then is gone.
struct Liar<'a>(Vec<Answer<'a>>);

impl Transport for Liar<'_> {
    fn call(&mut self, request: Message) -> Result<Message, StoreError> {
        assert!(request.payload.len() <= PAYLOAD_MAX);
        let answer = self.0.pop().filter(|answer| !answer.gone).ok_or(StoreError::Disconnected)?;
        let reply = request.reply(answer.payload.bytes());
        let kind = answer.kind.map_or(reply.kind, |kind| Kind(u32::from(kind)));
        Ok(Message { kind, request: reply.request.wrapping_add(answer.stranger.into()), ..reply })
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        Ok(None)
    }

    fn wait(&mut self, _: Option<Duration>) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn watched(&mut self, _: &str, _: &str) {}

    fn unwatched(&mut self, _: &str, _: &str) {}
}

fn session(answers: Vec<Answer<'_>>) {
    let mut session = Session::new(Liar(answers));
    for _ in 0..4 {
        _ = session.read("a");
        _ = session.list("a/b");
        _ = session.apply(&[Change::Require("a"), Change::Write("b", "1"), Change::Remove("c")]);
        _ = session.watch("a", "token");
        _ = session.permissions("a");
        _ = session.is_introduced(DomId(1));
        _ = session.unwatch("a", "token");
    }
}

fn clients(asks: &[Ask<'_>]) {
    let mut store = XenStore::new(Quota::default());
    store.introduce(DomId(1));
    let connect = |store: &mut XenStore| [DomId::DOM0, DomId(1)].map(|domain| store.connect(domain));
    let mut ends = connect(&mut store);
    for ask in asks.iter().take(200) {
        let end = &mut ends[usize::from(ask.guest)];
        let Some(id) = *end else { continue };
        let mut payload: Vec<u8> = ask.payload.iter().take(6).flat_map(Text::bytes).collect();
        payload.truncate(PAYLOAD_MAX);
        let kind = Kind(u32::from(ask.kind % 24));
        let message = Message { kind, request: 7, transaction: u32::from(ask.transaction % 4), payload };
        if let Some(reply) = store.handle(id, &message) {
            assert!(reply.payload.len() <= PAYLOAD_MAX, "{reply:?}");
            assert_eq!((reply.request, reply.transaction), (message.request, message.transaction));
        }
        while let Some(event) = store.next_event(id) {
            assert!(Message::event(&event).is_some());
        }
        if ask.closed || !store.is_open(id) {
            store.disconnect(id);
            *end = store.connect(DomId(u16::from(ask.guest)));
        }
    }
    // Whoever else there is has a store that works.
    let other = store.connect(DomId::DOM0).unwrap();
    let mut payload = b"/tool/probe\0".to_vec();
    payload.push(b'1');
    let write = Message { kind: Kind::WRITE, request: 1, transaction: 0, payload };
    let reply = store.handle(other, &write).unwrap();
    assert_eq!(reply.kind, Kind::WRITE, "{reply:?}");
}
