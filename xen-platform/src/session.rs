//! A XenStore client over anything that carries wire messages: one meaning of [`Store`] for the model in this process, a Unix
//! socket and the ring of a bare guest.

use alloc::{borrow::ToOwned, format, string::String, vec, vec::Vec};
use core::time::Duration;

use crate::{
    Change, DomId, Store, StoreError, WatchEvent,
    wire::{self, Errno, Kind, Message, Permission},
};

/// How often a transaction is tried before [`StoreError::Conflict`] is the answer.
const TRIES: usize = 100;
/// How often a directory that changes while it is listed in parts is listed anew.
const LISTINGS: usize = 100;

/// Carries one connection's messages.
///
/// Implementer: answers requests in order; merges waiting events rather than hoarding them
/// ([`EventQueue`](crate::event_queue::EventQueue)). Caller: payloads are at most [`wire::PAYLOAD_MAX`] bytes.
pub trait Transport {
    /// Sends a request and waits for its reply; events that arrive meanwhile are kept for [`next_event`](Self::next_event).
    /// Errors: only those of the transport itself.
    fn call(&mut self, request: Message) -> Result<Message, StoreError>;
    /// The next watch event that has arrived. Never blocks.
    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError>;
    /// Blocks until an event is there or `timeout` has passed (`None`: for ever). True when one is there.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError>;
    /// A watch was set: its path stands for all its events, should too many wait.
    fn watched(&mut self, path: &str, token: &str);
    /// A watch ended.
    fn unwatched(&mut self, path: &str, token: &str);
}

/// A connection to XenStore. Besides [`Store`], it has what a toolstack needs: permissions, free-form transactions and
/// domain introduction.
#[derive(Debug)]
pub struct Session<T> {
    transport: T,
    requests: u32,
}

impl<T: Transport> Session<T> {
    /// A session over a fresh connection.
    pub fn new(transport: T) -> Self {
        Self { transport, requests: 0 }
    }

    /// What carries the messages.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Runs `steps` in a transaction, again from the start when it met a conflict. An error of `steps` aborts it.
    pub fn transact<R>(
        &mut self,
        mut steps: impl FnMut(&mut Transaction<'_, T>) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        for _ in 0..TRIES {
            let id = self.call(0, Kind::TRANSACTION_START, &[""], "transaction")?;
            let id = text(&id).and_then(|id| id.parse().ok()).filter(|id| *id != 0);
            let id =
                id.ok_or_else(|| StoreError::Other("reply to a transaction start without an id".into()))?;
            let outcome = steps(&mut Transaction { session: self, id });
            let verdict = if outcome.is_ok() { "T" } else { "F" };
            match (self.call(id, Kind::TRANSACTION_END, &[verdict], "transaction"), outcome) {
                (Err(StoreError::Conflict), Ok(_)) => {}
                (Err(error), Ok(_)) => return Err(error),
                (_, outcome) => return outcome,
            }
        }
        Err(StoreError::Conflict)
    }

    /// The permissions of a node: owner first.
    pub fn permissions(&mut self, path: &str) -> Result<Vec<Permission>, StoreError> {
        let reply = self.call(0, Kind::GET_PERMS, &[path], path)?;
        let entries =
            wire::split(&reply).map(|entry| entry.and_then(Permission::parse)).collect::<Option<_>>();
        entries.ok_or_else(|| StoreError::Other(format!("malformed permissions of {path}")))
    }

    /// Tells the store that a domain exists (`INTRODUCE`); fires `@introduceDomain`. Privileged.
    pub fn introduce(&mut self, domain: DomId) -> Result<(), StoreError> {
        let id = format!("{domain}");
        self.call(0, Kind::INTRODUCE, &[&id, "1", "1"], &id).map(drop)
    }

    /// Tells the store that a domain is gone (`RELEASE`): its nodes and connections go too; fires `@releaseDomain`. Privileged.
    pub fn release(&mut self, domain: DomId) -> Result<(), StoreError> {
        let id = format!("{domain}");
        self.call(0, Kind::RELEASE, &[&id], &id).map(drop)
    }

    /// Whether a domain has been introduced and not released.
    pub fn is_introduced(&mut self, domain: DomId) -> Result<bool, StoreError> {
        let id = format!("{domain}");
        Ok(self.call(0, Kind::IS_DOMAIN_INTRODUCED, &[&id], &id)? == b"T\0")
    }

    /// One request whose payload is NUL-terminated strings. `about` names it in errors.
    pub(crate) fn call(
        &mut self,
        tx: u32,
        kind: Kind,
        parts: &[&str],
        about: &str,
    ) -> Result<Vec<u8>, StoreError> {
        self.call_bytes(tx, kind, wire::strings(parts), about)
    }

    fn call_bytes(
        &mut self,
        tx: u32,
        kind: Kind,
        payload: Vec<u8>,
        about: &str,
    ) -> Result<Vec<u8>, StoreError> {
        if payload.len() > wire::PAYLOAD_MAX {
            return Err(StoreError::Invalid(about.to_owned()));
        }
        self.requests = self.requests.wrapping_add(1);
        let request = Message { kind, request: self.requests, transaction: tx, payload };
        let reply = self.transport.call(request)?;
        if reply.request != self.requests {
            return Err(StoreError::Other(format!(
                "reply to request {}, not {}",
                reply.request, self.requests
            )));
        }
        match reply.kind {
            Kind::ERROR => Err(refused(&reply.payload, about)),
            answered if answered == kind => Ok(reply.payload),
            other => {
                Err(StoreError::Other(format!("reply of type {} to a request of type {}", other.0, kind.0)))
            }
        }
    }

    fn list_in(&mut self, tx: u32, path: &str) -> Result<Vec<String>, StoreError> {
        match self.call(tx, Kind::DIRECTORY, &[path], path) {
            Err(StoreError::Other(word)) if word == Errno::TooBig.word() => self.list_parts(tx, path),
            Ok(names) => self.names(&names, path),
            Err(error) => Err(error),
        }
    }

    /// A directory whose names exceed one message comes in parts; when its generation changes between two, all starts anew.
    fn list_parts(&mut self, tx: u32, path: &str) -> Result<Vec<String>, StoreError> {
        let malformed = || StoreError::Other(format!("malformed directory part of {path}"));
        for _ in 0..LISTINGS {
            let (mut names, mut generation) = (Vec::new(), None);
            loop {
                let offset = format!("{}", names.len());
                let part = self.call(tx, Kind::DIRECTORY_PART, &[path, &offset], path)?;
                let end = part.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
                let (now, rest) = part.split_at(end + 1);
                if *generation.get_or_insert_with(|| now.to_vec()) != now {
                    break;
                }
                let last = rest == [0] || rest.ends_with(&[0, 0]);
                if rest.is_empty() {
                    return Err(malformed());
                }
                names.extend_from_slice(if last { &rest[..rest.len() - 1] } else { rest });
                if last {
                    return self.names(&names, path);
                }
            }
        }
        Err(StoreError::Conflict)
    }

    fn names(&self, payload: &[u8], path: &str) -> Result<Vec<String>, StoreError> {
        let names = wire::split(payload).map(|name| name.map(String::from)).collect::<Option<_>>();
        names.ok_or_else(|| StoreError::Other(format!("malformed directory {path}")))
    }

    fn write_in(&mut self, tx: u32, path: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut payload = wire::strings(&[path]);
        payload.extend_from_slice(value);
        self.call_bytes(tx, Kind::WRITE, payload, path).map(drop)
    }

    fn remove_in(&mut self, tx: u32, path: &str) -> Result<(), StoreError> {
        match self.call(tx, Kind::RM, &[path], path) {
            Err(StoreError::NoEntry(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl<T: Transport> Store for Session<T> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.call(0, Kind::READ, &[path], path)
    }

    fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        self.list_in(0, path)
    }

    fn apply(&mut self, changes: &[Change<'_>]) -> Result<(), StoreError> {
        self.transact(|transaction| {
            changes.iter().try_for_each(|change| match *change {
                Change::Require(path) => transaction.read(path).map(drop),
                Change::Write(path, value) => transaction.write(path, value),
                Change::Remove(path) => transaction.remove(path),
            })
        })
    }

    fn watch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.transport.watched(path, token);
        let outcome = self.call(0, Kind::WATCH, &[path, token], path);
        match outcome {
            Ok(_) => Ok(()),
            Err(StoreError::Other(word)) if word == Errno::Exist.word() => Err(StoreError::Other(word)),
            Err(error) => {
                self.transport.unwatched(path, token);
                // Too many watches is E2BIG here, and only here means a quota.
                let quota = error == StoreError::Other(Errno::TooBig.word().into());
                Err(if quota { StoreError::Quota(path.to_owned()) } else { error })
            }
        }
    }

    fn unwatch(&mut self, path: &str, token: &str) -> Result<(), StoreError> {
        self.call(0, Kind::UNWATCH, &[path, token], path)?;
        self.transport.unwatched(path, token);
        Ok(())
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        self.transport.next_event()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        self.transport.wait(timeout)
    }
}

/// The steps of one transaction; see [`Session::transact`].
#[derive(Debug)]
pub struct Transaction<'a, T> {
    session: &'a mut Session<T>,
    id: u32,
}

impl<T: Transport> Transaction<'_, T> {
    /// The value of a node.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.session.call(self.id, Kind::READ, &[path], path)
    }

    /// The names of a node's children.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, StoreError> {
        self.session.list_in(self.id, path)
    }

    /// Writes a node, making its parents.
    pub fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), StoreError> {
        self.session.write_in(self.id, path, value.as_ref())
    }

    /// Makes a node, and its parents, unless it is there.
    pub fn mkdir(&mut self, path: &str) -> Result<(), StoreError> {
        self.session.call(self.id, Kind::MKDIR, &[path], path).map(drop)
    }

    /// Removes a node and what is below it; a missing one is fine.
    pub fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        self.session.remove_in(self.id, path)
    }

    /// Sets a node's permissions: owner first, at least one.
    pub fn set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        let entries: Vec<_> = permissions.iter().map(|entry| entry.emit()).collect();
        let mut parts = vec![path];
        parts.extend(entries.iter().map(String::as_str));
        self.session.call(self.id, Kind::SET_PERMS, &parts, path).map(drop)
    }
}

/// What an error reply means for a caller that asked about `about`.
fn refused(payload: &[u8], about: &str) -> StoreError {
    let word = text(payload).unwrap_or("malformed error reply");
    match Errno::parse(word) {
        Some(Errno::Noent) => StoreError::NoEntry(about.to_owned()),
        Some(Errno::Acces | Errno::Perm) => StoreError::Denied(about.to_owned()),
        Some(Errno::Again) => StoreError::Conflict,
        Some(Errno::Nospc) => StoreError::Quota(about.to_owned()),
        Some(Errno::Inval) => StoreError::Invalid(about.to_owned()),
        _ if word == "EQUOTA" => StoreError::Quota(about.to_owned()),
        _ => StoreError::Other(word.to_owned()),
    }
}

fn text(payload: &[u8]) -> Option<&str> {
    wire::split(payload).next()?
}

#[cfg(test)]
mod tests;
