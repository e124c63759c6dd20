//! XenStore through the ring that the tool stack sets up: one connection, shared by everyone in this guest who wants one.
//!
//! The daemon at the other end takes all of us for one client. So each transport's watches get a mark of its own in front of
//! their tokens, by which their events find the way back.

use alloc::{
    format,
    rc::Rc,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{cell::RefCell, time::Duration};

use super::{
    Start, abi,
    byte_ring::{ByteRing, Corrupt},
    event::Doorbell,
    shared_info::SharedInfo,
};
use crate::{
    StoreError, WatchEvent,
    event_queue::EventQueue,
    session::{Session, Transport},
    wire::{self, Decoder, Kind, Message},
};

/// How long a reply may take. The daemon serves one request after the other; this is far more than any takes.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// A [`Store`](crate::Store) over the guest's ring.
pub type StoreClient = Session<Client>;

/// The ring and all who use it.
#[derive(Debug)]
pub(super) struct Connection {
    requests: ByteRing,
    replies: ByteRing,
    bell: Doorbell,
    decoder: Decoder,
    /// Waiting events of each client; `None` where there was one.
    clients: Vec<Option<EventQueue>>,
    /// The daemon broke the protocol, or fell silent: what still comes cannot be told apart.
    lost: bool,
}

impl Connection {
    /// The connection that Xen names at the start. `None`: it names none.
    pub(super) fn new(start: &Start, shared: SharedInfo) -> Option<Self> {
        let daemon = start.store()?;
        Some(Self {
            requests: ByteRing::new(daemon.page, abi::store::REQUESTS)?,
            replies: ByteRing::new(daemon.page, abi::store::REPLIES)?,
            bell: Doorbell::new(shared, daemon),
            decoder: Decoder::default(),
            clients: Vec::new(),
            lost: false,
        })
    }

    /// Begins anew with a daemon that knows nothing of us: sets all watches again, each of which fires for that.
    pub(super) fn resume(&mut self) -> Result<(), StoreError> {
        self.bell.resume();
        self.decoder = Decoder::default();
        self.lost = false;
        let mut watches = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            let all = client.iter().flat_map(EventQueue::watches);
            watches.extend(all.map(|(path, token)| marked(&wire::strings(&[path, token]), number)));
        }
        for payload in watches {
            // One that is refused is of a place that we have lost, like this domain's earlier directory.
            self.call(&Message { kind: Kind::WATCH, request: 0, transaction: 0, payload })?;
        }
        Ok(())
    }

    /// Sends a request and waits for its reply.
    fn call(&mut self, request: &Message) -> Result<Message, StoreError> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let mut unsent = &bytes[..];
        let end = self.bell.shared.now().saturating_add(REPLY_LIMIT);
        loop {
            self.bell.silence();
            let sent = self.io(|this| this.requests.write(unsent))?;
            unsent = unsent.get(sent..).unwrap_or_default();
            if sent > 0 {
                self.bell.ring();
            }
            let received = self.receive()?;
            if let Some(reply) = self.next_reply()? {
                return Ok(reply);
            }
            if sent == 0 && !received && !self.sleep(Some(end))? {
                let silent = format!("no reply within {} s", REPLY_LIMIT.as_secs());
                return Err(self.broken(silent));
            }
        }
    }

    /// Hands out the events that have arrived; no reply is due.
    fn gather(&mut self) -> Result<(), StoreError> {
        loop {
            self.bell.silence();
            let received = self.receive()?;
            if self.next_reply()?.is_some() {
                return Err(self.broken("reply to nothing".into()));
            }
            if !received {
                return Ok(());
            }
        }
    }

    /// Waits for an event of client `number`. True when there is one.
    fn wait(&mut self, number: usize, timeout: Option<Duration>) -> Result<bool, StoreError> {
        let end = timeout.map(|timeout| self.bell.shared.now().saturating_add(timeout));
        loop {
            self.gather()?;
            if self.events(number).is_some_and(|events| !events.is_empty()) {
                return Ok(true);
            }
            if !self.sleep(end)? {
                return Ok(false);
            }
        }
    }

    /// Sleeps until the bell rings. False once `end` has passed.
    fn sleep(&mut self, end: Option<Duration>) -> Result<bool, StoreError> {
        let left = end.map(|end| end.saturating_sub(self.bell.shared.now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        match self.bell.wait(left) {
            Ok(()) => Ok(true),
            Err(errno) => Err(self.broken(format!("cannot wait: error {}", errno.0))),
        }
    }

    /// Takes what the ring holds. False when that is nothing.
    fn receive(&mut self) -> Result<bool, StoreError> {
        let mut chunk = [0; 1024];
        let count = self.io(|this| this.replies.read(&mut chunk))?;
        self.decoder.push(chunk.get(..count).unwrap_or_default());
        if count > 0 {
            self.bell.ring();
        }
        Ok(count > 0)
    }

    /// The next reply among what was taken; events on the way go to their clients.
    fn next_reply(&mut self) -> Result<Option<Message>, StoreError> {
        loop {
            let message = match self.decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(oversized) => return Err(self.broken(oversized.to_string())),
            };
            if message.kind != Kind::WATCH_EVENT {
                return Ok(Some(message));
            }
            match message.as_event() {
                Some(event) => self.deliver(event),
                None => return Err(self.broken("malformed watch event".into())),
            }
        }
    }

    /// Events of clients that are gone are too.
    fn deliver(&mut self, event: WatchEvent) {
        let Some((number, token)) = unmarked(&event.token) else { return };
        let event = WatchEvent { token: token.into(), path: event.path };
        if let Some(events) = self.events(number) {
            events.push(event);
        }
    }

    fn events(&mut self, number: usize) -> Option<&mut EventQueue> {
        self.clients.get_mut(number)?.as_mut()
    }

    fn io(&mut self, work: impl FnOnce(&mut Self) -> Result<usize, Corrupt>) -> Result<usize, StoreError> {
        if self.lost {
            return Err(StoreError::Disconnected);
        }
        let count = work(self).map_err(|Corrupt| self.broken("the ring's indices are corrupt".into()))?;
        Ok(count)
    }

    fn broken(&mut self, what: String) -> StoreError {
        self.lost = true;
        StoreError::Other(what)
    }
}

/// One user of the guest's connection; the watches that it leaves end with it.
#[derive(Debug)]
pub struct Client {
    connection: Rc<RefCell<Connection>>,
    number: usize,
    watches: Vec<(String, String)>,
}

impl Client {
    pub(super) fn new(connection: Rc<RefCell<Connection>>) -> Self {
        let mut all = connection.borrow_mut();
        let vacant = all.clients.iter().position(Option::is_none);
        let number = vacant.unwrap_or(all.clients.len());
        match all.clients.get_mut(number) {
            Some(place) => *place = Some(EventQueue::default()),
            None => all.clients.push(Some(EventQueue::default())),
        }
        drop(all);
        Self { connection, number, watches: Vec::new() }
    }
}

impl Transport for Client {
    fn call(&mut self, mut request: Message) -> Result<Message, StoreError> {
        if [Kind::WATCH, Kind::UNWATCH].contains(&request.kind) {
            request.payload = marked(&request.payload, self.number);
            if request.payload.len() > wire::PAYLOAD_MAX {
                return Err(StoreError::Invalid("a watch whose token is too long".into()));
            }
        }
        self.connection.borrow_mut().call(&request)
    }

    fn next_event(&mut self) -> Result<Option<WatchEvent>, StoreError> {
        let mut connection = self.connection.borrow_mut();
        connection.gather()?;
        Ok(connection.events(self.number).and_then(EventQueue::pop))
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, StoreError> {
        self.connection.borrow_mut().wait(self.number, timeout)
    }

    fn watched(&mut self, path: &str, token: &str) {
        self.watches.push((path.into(), token.into()));
        if let Some(events) = self.connection.borrow_mut().events(self.number) {
            events.watch(path, token);
        }
    }

    fn unwatched(&mut self, path: &str, token: &str) {
        self.watches.retain(|watch| (&*watch.0, &*watch.1) != (path, token));
        if let Some(events) = self.connection.borrow_mut().events(self.number) {
            events.unwatch(path, token);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for (path, token) in core::mem::take(&mut self.watches) {
            let payload = wire::strings(&[&path, &token]);
            // A watch that went with its node is as good as ended.
            let _ = self.call(Message { kind: Kind::UNWATCH, request: 0, transaction: 0, payload });
        }
        if let Some(place) = self.connection.borrow_mut().clients.get_mut(self.number) {
            *place = None;
        }
    }
}

/// The payload of a watch, path and token, with the client's mark before the token.
fn marked(payload: &[u8], number: usize) -> Vec<u8> {
    let token = payload.iter().position(|byte| *byte == 0).map_or(payload.len(), |end| end + 1);
    let (path, token) = payload.split_at(token);
    [path, format!("{number}/").as_bytes(), token].concat()
}

/// The client and its own token.
fn unmarked(token: &str) -> Option<(usize, &str)> {
    let (number, token) = token.split_once('/')?;
    Some((number.parse().ok()?, token))
}

#[cfg(test)]
mod tests;
