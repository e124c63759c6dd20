//! XenStore's wire protocol: what crosses the socket, the device and the ring alike (Xen public header `io/xs_wire.h`).
//!
//! A message is a header of four little-endian words (type, request, transaction, length) and a payload of at most 4096
//! bytes. Replies repeat the request's first three words; a watch event comes unasked with type 15. [`Decoder`] cuts a byte
//! stream into messages wherever the transport happened to split it.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{DomId, WatchEvent};

/// Bytes of a message header.
pub const HEADER_SIZE: usize = 16;
/// Most payload bytes of a message, both ways (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// Most bytes of an absolute path (`XENSTORE_ABS_PATH_MAX`).
pub const ABS_PATH_MAX: usize = 3072;
/// Most bytes of a path relative to the domain's own directory (`XENSTORE_REL_PATH_MAX`).
pub const REL_PATH_MAX: usize = 2048;

/// What a message asks or answers (`enum xsd_sockmsg_type`); unknown numbers are values too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u32);

#[expect(
    missing_docs,
    reason = "the names are those of xs_wire.h; docs/misc/xenstore.txt says what each does"
)]
impl Kind {
    pub const CONTROL: Kind = Kind(0);
    pub const DIRECTORY: Kind = Kind(1);
    pub const READ: Kind = Kind(2);
    pub const GET_PERMS: Kind = Kind(3);
    pub const WATCH: Kind = Kind(4);
    pub const UNWATCH: Kind = Kind(5);
    pub const TRANSACTION_START: Kind = Kind(6);
    pub const TRANSACTION_END: Kind = Kind(7);
    pub const INTRODUCE: Kind = Kind(8);
    pub const RELEASE: Kind = Kind(9);
    pub const GET_DOMAIN_PATH: Kind = Kind(10);
    pub const WRITE: Kind = Kind(11);
    pub const MKDIR: Kind = Kind(12);
    pub const RM: Kind = Kind(13);
    pub const SET_PERMS: Kind = Kind(14);
    pub const WATCH_EVENT: Kind = Kind(15);
    pub const ERROR: Kind = Kind(16);
    pub const IS_DOMAIN_INTRODUCED: Kind = Kind(17);
    pub const RESUME: Kind = Kind(18);
    pub const SET_TARGET: Kind = Kind(19);
    pub const RESET_WATCHES: Kind = Kind(21);
    pub const DIRECTORY_PART: Kind = Kind(22);
}

impl Kind {
    /// Ours, of the simulator's socket only: as its first message a client says for which domain it acts (payload: decimal
    /// domain id and NUL). Far outside the range that Xen uses; a real xenstored answers `ENOSYS`.
    pub const ACT_AS: Kind = Kind(0x626C_6B01);
}

/// One message, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it asks or answers.
    pub kind: Kind,
    /// The client's name for the request; 0 in watch events.
    pub request: u32,
    /// The transaction it belongs to, 0 for none; 0 in watch events.
    pub transaction: u32,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The reply to this request with `payload`, which the caller keeps within [`PAYLOAD_MAX`].
    pub fn reply(&self, payload: Vec<u8>) -> Message {
        Message { kind: self.kind, request: self.request, transaction: self.transaction, payload }
    }

    /// The refusal of this request: the errno's name and a NUL.
    pub fn refusal(&self, errno: Errno) -> Message {
        Message { kind: Kind::ERROR, ..self.reply(strings(&[errno.word()])) }
    }

    /// A watch event: path and token, each with a NUL. `None` when they do not fit into one message.
    pub fn event(event: &WatchEvent) -> Option<Message> {
        let payload = strings(&[&event.path, &event.token]);
        (payload.len() <= PAYLOAD_MAX).then_some(Message {
            kind: Kind::WATCH_EVENT,
            request: 0,
            transaction: 0,
            payload,
        })
    }

    /// Path and token of a watch event; `None` when the payload is not two UTF-8 strings.
    pub fn as_event(&self) -> Option<WatchEvent> {
        let mut parts = split(&self.payload);
        let event = WatchEvent { path: parts.next()??.into(), token: parts.next()??.into() };
        parts.next().is_none().then_some(event)
    }

    /// Appends header and payload to `out`. A payload over [`PAYLOAD_MAX`] would be refused by any peer; callers check.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.payload.len() <= PAYLOAD_MAX);
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        for word in [self.kind.0, self.request, self.transaction, len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.payload);
    }
}

/// A message announced more than [`PAYLOAD_MAX`] payload bytes: the stream cannot be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("xenstore message of {0} bytes, at most {PAYLOAD_MAX} are allowed")]
pub struct Oversized(pub u32);

/// Cuts a byte stream into messages. Holds at most one incomplete message more than what was pushed and not yet taken.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, `None` when more bytes are needed. Errors: see [`Oversized`]; they stay.
    pub fn next_message(&mut self) -> Result<Option<Message>, Oversized> {
        let Some((header, rest)) =
            self.bytes.get(self.taken..).and_then(<[u8]>::split_first_chunk::<HEADER_SIZE>)
        else {
            return Ok(None);
        };
        let (words, _) = header.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        let (kind, request, transaction, len) = (Kind(word()), word(), word(), word());
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        if size > PAYLOAD_MAX {
            return Err(Oversized(len));
        }
        let Some(payload) = rest.get(..size) else { return Ok(None) };
        let message = Message { kind, request, transaction, payload: payload.to_vec() };
        self.taken += HEADER_SIZE + size;
        Ok(Some(message))
    }

    /// Bytes held that no message was made of yet.
    pub fn buffered(&self) -> usize {
        self.bytes.len() - self.taken
    }
}

/// The payload of strings, each followed by a NUL.
pub fn strings<S: AsRef<[u8]>>(parts: &[S]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(parts.iter().map(|part| part.as_ref().len() + 1).sum());
    for part in parts {
        payload.extend_from_slice(part.as_ref());
        payload.push(0);
    }
    payload
}

/// The NUL-terminated strings of a payload; an item is `None` where one is not UTF-8 or lacks its NUL.
pub fn split(payload: &[u8]) -> impl Iterator<Item = Option<&str>> {
    payload.split_inclusive(|byte| *byte == 0).map(|part| core::str::from_utf8(part.strip_suffix(&[0])?).ok())
}

/// Why the store refuses a request: the errno words of `xs_wire.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of errno(3)")]
pub enum Errno {
    Inval,
    Acces,
    Exist,
    Isdir,
    Noent,
    Nomem,
    Nospc,
    Io,
    Notempty,
    Nosys,
    Rofs,
    Busy,
    Again,
    Isconn,
    TooBig,
    Perm,
}

impl Errno {
    const WORDS: [(Errno, &'static str); 16] = [
        (Errno::Inval, "EINVAL"),
        (Errno::Acces, "EACCES"),
        (Errno::Exist, "EEXIST"),
        (Errno::Isdir, "EISDIR"),
        (Errno::Noent, "ENOENT"),
        (Errno::Nomem, "ENOMEM"),
        (Errno::Nospc, "ENOSPC"),
        (Errno::Io, "EIO"),
        (Errno::Notempty, "ENOTEMPTY"),
        (Errno::Nosys, "ENOSYS"),
        (Errno::Rofs, "EROFS"),
        (Errno::Busy, "EBUSY"),
        (Errno::Again, "EAGAIN"),
        (Errno::Isconn, "EISCONN"),
        (Errno::TooBig, "E2BIG"),
        (Errno::Perm, "EPERM"),
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(errno, _)| *errno == self).map_or("EIO", |(_, word)| word)
    }

    /// The errno of a word; `None` for words that `xs_wire.h` does not list.
    pub fn parse(word: &str) -> Option<Errno> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(errno, _)| *errno)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a node's permission entry lets a domain do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rights {
    /// `n`: nothing.
    None,
    /// `r`: read.
    Read,
    /// `w`: write.
    Write,
    /// `b`: read and write.
    Both,
}

/// One permission entry of a node. The first of a node names its owner (who may do everything) and what all domains
/// without an entry of their own may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Whom it concerns.
    pub domain: DomId,
    /// What that domain may do (in the first entry: everybody else).
    pub rights: Rights,
}

impl Permission {
    /// An entry.
    pub const fn new(domain: DomId, rights: Rights) -> Self {
        Self { domain, rights }
    }

    /// From its text on the wire, such as `r5`; `None` when it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let rights = match text.bytes().next()? {
            b'n' => Rights::None,
            b'r' => Rights::Read,
            b'w' => Rights::Write,
            b'b' => Rights::Both,
            _ => return None,
        };
        Some(Self { domain: parse_domain(text.get(1..)?)?, rights })
    }

    /// The text on the wire.
    pub fn emit(self) -> String {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        alloc::format!("{letter}{}", self.domain)
    }
}

/// A domain id in decimal, without sign or blanks.
pub fn parse_domain(text: &str) -> Option<DomId> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok().map(DomId))?
}

#[cfg(test)]
mod tests;
