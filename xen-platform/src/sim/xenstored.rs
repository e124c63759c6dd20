//! Serves a store on a Unix socket in xenstored's wire protocol: to our own programs, and to clients written for real Xen.
//!
//! One thread serves all. It never blocks on a client: who does not take its replies is not read from until it does, and
//! whose events wait has them merged ([`event_queue`](crate::event_queue)); so each client costs bounded memory. Bytes
//! that are no message end the client that sent them, and nobody else.
//!
//! A client is domain 0, privileged, as on xenstored's own socket, unless its first message says otherwise
//! ([`Kind::ACT_AS`]).

mod client;

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
    },
};

use crate::fake::store::{SharedStore, WakerId};
use client::Client;

#[cfg(doc)]
use crate::wire::Kind;

/// Clients served at a time; more are turned away.
pub const CLIENTS_MAX: usize = 512;

const LISTENER: u64 = 0;
const BELL: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Xenstored {
    store: SharedStore,
    waker: WakerId,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Bell {
    event: EventFd,
    stop: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        // Can only fail because the counter is full, which wakes the server just as well.
        let _ = self.event.write(1);
    }
}

/// Serves `store` on `listener` in a thread of its own. Errors: no descriptor or thread to be had.
pub fn serve(listener: UnixListener, store: SharedStore) -> io::Result<Xenstored> {
    listener.set_nonblocking(true)?;
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let bell = Arc::new(Bell { event, stop: AtomicBool::new(false) });
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    epoll.add(&bell.event, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
    let server = Server {
        listener,
        epoll,
        bell: bell.clone(),
        store: store.clone(),
        clients: BTreeMap::new(),
        next: FIRST_CLIENT,
    };
    let thread = thread::Builder::new().name("xenstored".into()).spawn(move || server.run())?;
    let waker = store.add_waker({
        let bell = bell.clone();
        move || bell.ring()
    });
    Ok(Xenstored { store, waker, bell, thread: Some(thread) })
}

impl Xenstored {
    /// Stops serving: all clients are disconnected. The socket's file stays.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Xenstored {
    fn drop(&mut self) {
        self.store.remove_waker(self.waker);
        self.bell.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Server {
    listener: UnixListener,
    epoll: Epoll,
    bell: Arc<Bell>,
    store: SharedStore,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

impl Server {
    fn run(mut self) {
        let mut ready = [EpollEvent::empty(); 64];
        // Looked at after the bell was read and before the next wait: the ring that came with it may just have been taken.
        while !self.bell.stop.load(Ordering::Acquire) {
            let count = match self.epoll.wait(&mut ready, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in ready.iter().take(count) {
                match event.data() {
                    LISTENER => self.accept(),
                    // Fails only when another turn has emptied it already.
                    BELL => _ = self.bell.event.read(),
                    client => self.advance(client, !(event.events() & !EpollFlags::EPOLLOUT).is_empty()),
                }
            }
            self.spread();
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let room = self.clients.len() < CLIENTS_MAX;
                    let watched = room
                        && stream.set_nonblocking(true).is_ok()
                        && self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, self.next)).is_ok();
                    if watched {
                        self.clients.insert(self.next, Client::new(stream));
                        self.next += 1;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of descriptors, most likely: the listener stays ready, so do not spin on it.
                Err(_) => return thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Lets one client go on as far as it can, and no further than one buffer.
    fn advance(&mut self, token: u64, readable: bool) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let interest = client.advance(&self.store, readable);
        let watched = interest.is_some_and(|interest| {
            let mut event = EpollEvent::new(interest, token);
            self.epoll.modify(client.as_fd(), &mut event).is_ok()
        });
        if !watched && let Some(client) = self.clients.remove(&token) {
            client.close(&self.store);
        }
    }

    /// Hands out events that came from other clients, and closes those whose domain is gone.
    fn spread(&mut self) {
        let concerned: Vec<u64> = self.store.with(|store| {
            self.clients.iter().filter(|(_, client)| client.is_due(store)).map(|(token, _)| *token).collect()
        });
        for token in concerned {
            self.advance(token, false);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (_, client) in core::mem::take(&mut self.clients) {
            client.close(&self.store);
        }
    }
}

#[cfg(test)]
mod tests;
