//! One thread: a queue of the disk and some of the clients, in one loop.
//!
//! A turn takes completions, hears the clients, submits, publishes once, and sends the answers. Only a turn that found
//! nothing to do sleeps, after looking at the ring for a while if something is under way.

use std::{
    os::fd::AsFd as _,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use blkfront::{Capabilities, Completion, Queue};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tracing::{debug, info};

use super::{
    client::Client,
    conversation::Said,
    export::Export,
    jobs::{Answer, Jobs, Owner, promised},
    mailbox::Mailbox,
    wire::REPLY_BYTES,
};
use crate::connect::World;

/// Clients of one worker; more are hung up on.
const MOST_CLIENTS: usize = 64;
/// How long clients may take to fetch their last answers when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// The longest sleep.
const LOOK: Duration = Duration::from_millis(500);

/// What an epoll event is about; clients follow after these.
const RING: u64 = 0;
const MAIL: u64 = 1;
const CLIENTS: u64 = 2;

/// A queue and its clients.
pub(super) struct Worker<'a, W: World> {
    queue: &'a mut Queue<W>,
    export: &'a Export,
    mailbox: &'a Mailbox,
    poll: Duration,
    epoll: Epoll,
    jobs: Jobs,
    clients: Vec<Option<Client>>,
    generation: u64,
    /// Scratch, so that nothing is allocated in a turn.
    completions: Vec<Completion>,
    /// The last time there was something to do.
    active: Instant,
    /// Set once the server stops: when the last clients are hung up on.
    farewell: Option<Instant>,
}

impl<'a, W: World> Worker<'a, W> {
    pub(super) fn new(
        queue: &'a mut Queue<W>,
        export: &'a Export,
        disk: Capabilities,
        mailbox: &'a Mailbox,
        poll: Duration,
    ) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll descriptor")?;
        epoll.add(queue.events().as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, RING))?;
        epoll.add(mailbox, EpollEvent::new(EpollFlags::EPOLLIN, MAIL))?;
        let completions = Vec::with_capacity(queue.depth());
        Ok(Self {
            queue,
            export,
            mailbox,
            poll,
            epoll,
            jobs: Jobs::new(disk),
            clients: Vec::new(),
            generation: 0,
            completions,
            active: Instant::now(),
            farewell: None,
        })
    }

    /// Serves until the mailbox says stop and everything is answered. Errors: the connection to the backend is unusable.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        loop {
            let mut busy = self.reap()? > 0;
            for index in 0..self.clients.len() {
                busy |= self.hear(index);
            }
            self.submit();
            self.queue.publish()?;
            self.send();
            self.part();
            if self.farewell.is_some()
                && self.clients.iter().all(Option::is_none)
                && self.queue.in_flight() == 0
            {
                return Ok(());
            }
            self.wait(busy)?;
        }
    }

    fn reap(&mut self) -> anyhow::Result<usize> {
        let completions = &mut self.completions;
        let count = self.queue.finish(&mut |completion| completions.push(completion))?;
        let Self { queue, jobs, clients, .. } = self;
        for completion in self.completions.drain(..) {
            jobs.complete(queue, completion, &mut |answer| deliver(clients, answer));
        }
        Ok(count)
    }

    /// Takes in what a client says until there is no more of it, or enough is under way. True if it said anything.
    fn hear(&mut self, index: usize) -> bool {
        let Self { queue, export, jobs, clients, .. } = self;
        let Some(client) = clients.get_mut(index).and_then(Option::as_mut) else { return false };
        let mut heard = false;
        while !client.ending && !client.broken && !client.busy() {
            if let (Some(number), Some(bytes)) = (client.receiving, client.talk.payload()) {
                let Some(room) = jobs.room(queue, bytes) else { break };
                jobs.write(queue, number, room, client.talk.take_payload());
                client.receiving = client.talk.in_payload().then_some(number);
                heard = true;
                continue;
            }
            let mut out = Vec::new();
            let said = client.talk.next(export, &mut out);
            if !out.is_empty() {
                client.promised += out.len();
                client.answer(out);
            }
            match said {
                Ok(Said::Nothing) => {
                    if !client.readable || !client.receive() {
                        break;
                    }
                }
                Ok(Said::Wants { cookie, job }) => {
                    let owner = Owner { client: index, generation: client.generation, cookie };
                    client.jobs += 1;
                    client.promised += promised(&job);
                    let number = jobs.begin(owner, job);
                    client.receiving = client.talk.in_payload().then_some(number);
                }
                Ok(Said::Refused { cookie, error }) => {
                    client.promised += REPLY_BYTES;
                    client.answer(jobs.refusal(cookie, error));
                }
                Ok(Said::Goodbye) => client.ending = true,
                Err(error) => {
                    info!("hanging up on a client: {error}");
                    client.broken = true;
                }
            }
            heard = true;
        }
        heard
    }

    fn submit(&mut self) {
        let Self { queue, jobs, clients, .. } = self;
        jobs.submit(queue, &mut |answer| deliver(clients, answer));
    }

    fn send(&mut self) {
        let Self { jobs, clients, .. } = self;
        for client in clients.iter_mut().flatten() {
            client.send(|bytes| jobs.recycle(bytes));
        }
    }

    /// Parts with the clients that are done, or beyond help.
    fn part(&mut self) {
        let late = self.farewell.is_some_and(|deadline| Instant::now() >= deadline);
        for index in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { continue };
            if client.ending
                && let Some(number) = client.receiving.take()
            {
                self.jobs.abandon(number, &mut |_| client.jobs -= 1);
            }
            if !(client.broken || late || (client.ending && client.settled())) {
                continue;
            }
            let receiving = client.receiving;
            // Dropping the socket takes it out of the epoll set.
            self.clients[index] = None;
            debug!("client {index} is gone");
            if let Some(number) = receiving {
                self.jobs.abandon(number, &mut |_| ());
            }
        }
    }

    fn wait(&mut self, busy: bool) -> anyhow::Result<()> {
        if busy {
            self.active = Instant::now();
        }
        let spin = busy || (self.queue.in_flight() > 0 && self.active.elapsed() < self.poll);
        if !spin && self.queue.arm()? {
            return Ok(());
        }
        let timeout = if spin {
            EpollTimeout::ZERO
        } else {
            EpollTimeout::try_from(LOOK).unwrap_or(EpollTimeout::ZERO)
        };
        let mut events = [EpollEvent::empty(); 64];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context("waiting for clients and the ring"),
        };
        for event in &events[..count] {
            match event.data() {
                // Without a callback this only takes the event; the next turn takes the responses.
                RING => _ = self.queue.dispatch()?,
                MAIL => self.fetch_mail(),
                client => {
                    let index = usize::try_from(client - CLIENTS).unwrap_or(usize::MAX);
                    if let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) {
                        client.readable = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn fetch_mail(&mut self) {
        for stream in self.mailbox.take() {
            if let Err(error) = self.welcome(stream) {
                info!("refusing a client: {error:#}");
            }
        }
        if self.mailbox.stopped() && self.farewell.is_none() {
            self.farewell = Some(Instant::now() + FAREWELL);
            self.clients.iter_mut().flatten().for_each(|client| client.ending = true);
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let free = self.clients.iter().position(Option::is_none);
        let index = free.unwrap_or(self.clients.len());
        anyhow::ensure!(index < MOST_CLIENTS && self.farewell.is_none(), "there are enough of them");
        self.generation += 1;
        let client = Client::new(stream, self.generation)?;
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(&client, EpollEvent::new(edges, CLIENTS + index as u64))?;
        match self.clients.get_mut(index) {
            Some(slot) => *slot = Some(client),
            None => self.clients.push(Some(client)),
        }
        Ok(())
    }
}

/// Puts an answer in its client's line, if that client is still there.
fn deliver(clients: &mut [Option<Client>], answer: Answer) {
    let Answer { owner, bytes, promised } = answer;
    let client = clients.get_mut(owner.client).and_then(Option::as_mut);
    if let Some(client) = client.filter(|client| client.generation == owner.generation) {
        client.jobs = client.jobs.saturating_sub(1);
        client.promised = client.promised.saturating_sub(promised - bytes.len());
        client.answer(bytes);
    }
}
