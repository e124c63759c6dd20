use alloc::{collections::VecDeque, string::ToString};

use super::*;
use crate::wire::strings;

/// Answers from a script, and keeps what was asked.
#[derive(Default)]
struct Script {
    replies: VecDeque<(Kind, Vec<u8>)>,
    asked: Vec<(Kind, u32, Vec<u8>)>,
    skew: u32,
}

impl Transport for Script {
    fn call(&mut self, request: Message) -> Result<Message, StoreError> {
        let (kind, payload) = self.replies.pop_front().ok_or(StoreError::Disconnected)?;
        let reply = Message { kind, request: request.request + self.skew, ..request.reply(payload) };
        self.asked.push((request.kind, request.transaction, request.payload));
        Ok(reply)
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        Ok(None)
    }

    fn wait(&mut self, _timeout: Option<Duration>) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn watched(&mut self, _path: &str, _token: &str) {}

    fn unwatched(&mut self, _path: &str, _token: &str) {}
}

fn session(replies: &[(Kind, &[u8])]) -> Session<Script> {
    let replies = replies.iter().map(|(kind, payload)| (*kind, payload.to_vec())).collect();
    Session::new(Script { replies, ..Script::default() })
}

const STARTED: (Kind, &[u8]) = (Kind::TRANSACTION_START, b"7\0");
const ENDED: (Kind, &[u8]) = (Kind::TRANSACTION_END, b"OK\0");
const AGAIN: (Kind, &[u8]) = (Kind::ERROR, b"EAGAIN\0");

#[test]
fn errno_words_become_errors() {
    for (word, error) in [
        ("ENOENT", StoreError::NoEntry("/a".into())),
        ("EACCES", StoreError::Denied("/a".into())),
        ("EPERM", StoreError::Denied("/a".into())),
        ("EINVAL", StoreError::Invalid("/a".into())),
        ("ENOSPC", StoreError::Quota("/a".into())),
        ("EQUOTA", StoreError::Quota("/a".into())),
        ("EAGAIN", StoreError::Conflict),
        ("ENOSYS", StoreError::Other("ENOSYS".into())),
        ("EWHAT", StoreError::Other("EWHAT".into())),
    ] {
        let mut session = session(&[(Kind::ERROR, &strings(&[word]))]);
        assert_eq!(session.read("/a"), Err(error), "{word}");
    }
}

#[test]
fn one_watch_too_many_is_a_quota() {
    let mut session = session(&[(Kind::ERROR, b"E2BIG\0")]);
    assert_eq!(session.watch("/a", "t"), Err(StoreError::Quota("/a".into())));
}

#[test]
fn a_conflict_runs_all_steps_again_in_a_new_transaction() {
    let write = (Kind::WRITE, &b"OK\0"[..]);
    let mut session = session(&[STARTED, write, AGAIN, STARTED, write, ENDED]);
    session.apply(&[Change::Write("/a", "1")]).unwrap();
    let asked = &session.transport.asked;
    assert_eq!(asked[0], (Kind::TRANSACTION_START, 0, b"\0".to_vec()));
    assert_eq!(asked[4], (Kind::WRITE, 7, b"/a\x001".to_vec()));
    assert_eq!(asked[5], (Kind::TRANSACTION_END, 7, b"T\0".to_vec()));
}

#[test]
fn endless_conflicts_end() {
    let mut session = session(&[STARTED, AGAIN].repeat(TRIES));
    assert_eq!(session.apply(&[]), Err(StoreError::Conflict));
    assert_eq!(session.transport.asked.len(), 2 * TRIES);
}

#[test]
fn a_missing_required_node_aborts() {
    let mut session = session(&[STARTED, (Kind::ERROR, b"ENOENT\0"), ENDED]);
    let outcome = session.apply(&[Change::Require("/gone"), Change::Write("/gone/x", "1")]);
    assert_eq!(outcome, Err(StoreError::NoEntry("/gone".into())));
    assert_eq!(session.transport.asked.last().unwrap(), &(Kind::TRANSACTION_END, 7, b"F\0".to_vec()));
}

#[test]
fn removing_what_is_missing_is_fine() {
    let mut session = session(&[STARTED, (Kind::ERROR, b"ENOENT\0"), ENDED]);
    session.apply(&[Change::Remove("/gone/x")]).unwrap();
}

#[test]
fn a_long_list_is_fetched_in_parts_anew_when_it_changes() {
    let part = Kind::DIRECTORY_PART;
    let mut session = session(&[
        (Kind::ERROR, b"E2BIG\0"),
        (part, b"1\0a\0b\0"),
        (part, b"2\0c\0\0"),
        (part, b"2\0a\0"),
        (part, b"2\0bb\0\0"),
    ]);
    assert_eq!(session.list("/d"), Ok(vec!["a".to_string(), "bb".to_string()]));
    let offsets: Vec<_> = session.transport.asked[1..].iter().map(|(_, _, payload)| payload[3]).collect();
    assert_eq!(offsets, b"0402");
}

#[test]
fn malformed_replies_are_errors() {
    let other = |outcome: Result<Vec<String>, StoreError>| matches!(outcome, Err(StoreError::Other(_)));
    let part = Kind::DIRECTORY_PART;
    for reply in [&b""[..], b"1", b"1\0", b"\xff\0"] {
        let outcome = session(&[(Kind::ERROR, b"E2BIG\0"), (part, reply)]).list("/d");
        assert!(other(outcome) || reply == b"\xff\0", "{reply:?}");
    }
    assert!(other(session(&[(Kind::DIRECTORY, b"\xff\0")]).list("/d")));
    assert!(other(session(&[(Kind::READ, b"x")]).list("/d")), "another request's type");
    assert!(other(session(&[(Kind::ERROR, b"\xff\0")]).list("/d")));
    for id in [&b"x\0"[..], b"0\0", b"", b"7"] {
        let outcome = session(&[(Kind::TRANSACTION_START, id)]).apply(&[]);
        assert!(matches!(outcome, Err(StoreError::Other(_))), "{id:?}");
    }
    assert!(matches!(session(&[(Kind::GET_PERMS, b"x\0")]).permissions("/"), Err(StoreError::Other(_))));
    let mut skewed = session(&[(Kind::READ, b"")]);
    skewed.transport.skew = 1;
    assert!(matches!(skewed.read("/"), Err(StoreError::Other(_))));
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let mut session = session(&[]);
    let long = "x".repeat(wire::PAYLOAD_MAX);
    assert_eq!(session.read(&long), Err(StoreError::Invalid(long.clone())));
    assert!(session.transport.asked.is_empty());
}
