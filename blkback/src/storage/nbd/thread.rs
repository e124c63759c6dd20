//! A disk's thread: sends requests, takes answers, and connects again.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::{error, info, warn};

use super::{
    Patience,
    connect::{Connection, Failure, Place, see_off, timeout},
    driver::Shared,
    work::Work,
};
use crate::storage::{Action, Geometry, Job};

/// How often it is looked whether an answer is overdue.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Answers that are taken before their jobs go home.
const ANSWERS_AT_A_TIME: usize = 16;
/// How soon a connection is tried for again, at first and at the longest.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

pub(super) struct Thread {
    name: String,
    place: Place,
    shared: Arc<Shared>,
    geometry: Geometry,
    patience: Patience,
    /// What is not on a connection, in order.
    waiting: VecDeque<Work>,
    arrived: Vec<Job>,
    /// Jobs that have come so far.
    count: u64,
}

impl Thread {
    pub(super) fn new(
        name: String,
        place: Place,
        shared: Arc<Shared>,
        geometry: Geometry,
        patience: Patience,
    ) -> Self {
        let (waiting, arrived) = (VecDeque::new(), Vec::new());
        Self { name, place, shared, geometry, patience, waiting, arrived, count: 0 }
    }

    /// Serves until nobody has the disk any more.
    pub(super) fn run(mut self, mut connection: Connection) {
        while let Some(why) = self.serve(&mut connection) {
            let since = Instant::now();
            self.lose(connection, &why, since);
            let Some(again) = self.connect_again(since) else { return };
            connection = again;
        }
    }

    /// Serves on a connection until it is of no more use. Why not; none when it is not needed any more.
    fn serve(&mut self, connection: &mut Connection) -> Option<String> {
        self.give_up(Instant::now());
        connection.session.limit(connection.facts.payload(&self.geometry));
        let mut looked = Instant::now();
        loop {
            if !self.take_in(None) {
                return None;
            }
            let session = &mut connection.session;
            while session.has_room()
                && let Some(mut work) = self.waiting.pop_front()
            {
                work.again(Instant::now());
                session.start(work);
            }
            session.finished(Work::finish);
            if let Some(why) = session.over() {
                return Some(why.to_owned());
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if session.is_overdue(looked, self.patience.timeout) {
                    return Some("the server does not answer in time".into());
                }
            }
            if !session.has_room() || self.waiting.is_empty() {
                self.wait(connection);
            }
        }
    }

    /// Sleeps until there is something to do, and lets the session do its part.
    fn wait(&self, Connection { session, socket, .. }: &mut Connection) {
        if !self.shared.lie_down() {
            return;
        }
        let time = if session.is_idle() { PollTimeout::NONE } else { timeout(LOOK_EVERY) };
        let mut fds = [
            PollFd::new(socket.as_fd(), session.events()),
            PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN),
        ];
        // What fails here is found out by the session.
        _ = poll(&mut fds, time);
        let of_socket = fds[0].revents().unwrap_or(PollFlags::empty());
        self.shared.bell.get_up();
        let mut ready = of_socket;
        // All that has come is taken before anybody is told of any of it: workers, and guests, are woken once.
        for _ in 0..ANSWERS_AT_A_TIME {
            if ready.is_empty() {
                break;
            }
            session.proceed(ready);
            ready = now_ready(socket, session.events());
        }
    }

    /// Takes in what the workers want, to be done by `until`. False when nobody wants anything any more.
    fn take_in(&mut self, until: Option<Instant>) -> bool {
        let wanted = self.shared.take(&mut self.arrived);
        let bytes = self.shared.bytes.load(Relaxed);
        for job in self.arrived.drain(..) {
            let mut work = Work::new(job, self.count);
            self.count += 1;
            work.until = until;
            match work.job.action() {
                Action::Discard { .. } if self.geometry.discard.is_none() => work.fail(Errno::EOPNOTSUPP),
                Action::Discard { secure: true, .. } => work.fail(Errno::EOPNOTSUPP),
                Action::Flush if !self.geometry.flush => work.fail(Errno::EOPNOTSUPP),
                _ if !work.fits(bytes) => work.fail(Errno::EIO),
                _ => self.waiting.push_back(work),
            }
        }
        wanted
    }

    /// Takes back what was under way on a connection, and sees to it that the server does nothing of it later.
    fn lose(&mut self, connection: Connection, why: &str, now: Instant) {
        let Connection { session, socket, .. } = connection;
        let mut works = session.close();
        warn!(image = self.name, why, under_way = works.len(), "the connection is lost: trying for another");
        let settled = works.is_empty() || see_off(&socket, self.patience.settle);
        if !settled {
            warn!(
                image = self.name,
                "the server has not closed the old connection: what it still does of it may come late"
            );
        }
        works.extend(self.waiting.drain(..));
        for work in &mut works {
            work.until.get_or_insert(now + self.patience.reconnect);
        }
        self.waiting = works.into();
    }

    /// Tries for a connection until there is one, and lets fail what takes too long. None: it is not needed any more.
    fn connect_again(&mut self, since: Instant) -> Option<Connection> {
        let [mut pause, longest] = RETRY;
        let until = since + self.patience.reconnect;
        let mut told = String::new();
        loop {
            // Also at first: a server may do nothing but close connections.
            if !self.pause(pause, until) {
                return None;
            }
            pause = (pause * 2).min(longest);
            match self.connect() {
                Ok(connection) => {
                    let again = self.waiting.len();
                    info!(image = self.name, after = ?since.elapsed(), again, "connected again");
                    return Some(connection);
                }
                Err(why) if why != told => {
                    warn!(image = self.name, why, "no connection");
                    told = why;
                }
                Err(_) => {}
            }
        }
    }

    /// A connection to the disk that there was.
    fn connect(&self) -> Result<Connection, String> {
        let connection =
            self.place.connect().map_err(|(Failure::Passing(why) | Failure::Lasting(why))| why)?;
        let (facts, bytes) = (&connection.facts, self.shared.bytes.load(Relaxed));
        if let Some(why) = facts.betrays(&self.geometry, bytes) {
            return Err(why);
        }
        if facts.bytes != bytes {
            info!(image = self.name, bytes = facts.bytes, "the export has grown");
            self.shared.bytes.store(facts.bytes, Relaxed);
        }
        Ok(connection)
    }

    /// Lets all fail of which the time is over.
    fn give_up(&mut self, now: Instant) {
        let over = |work: &Work| work.until.is_some_and(|until| until <= now);
        let mut failed = 0;
        for work in std::mem::take(&mut self.waiting) {
            if over(&work) {
                failed += 1;
                work.fail(Errno::EIO);
            } else {
                self.waiting.push_back(work);
            }
        }
        if failed > 0 {
            error!(image = self.name, failed, "the server is away for too long");
        }
    }

    /// Does nothing for `time` but take in what is to be done by `until`, and let fail what was to be done by now. False when nobody wants
    /// anything any more.
    fn pause(&mut self, time: Duration, until: Instant) -> bool {
        let ends = Instant::now() + time;
        loop {
            let wanted = self.take_in(Some(until));
            let now = Instant::now();
            self.give_up(now);
            if !wanted || ends <= now {
                return wanted;
            }
            let next = self.waiting.iter().filter_map(|work| work.until).fold(ends, Instant::min);
            if self.shared.lie_down() {
                let mut fds = [PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN)];
                _ = poll(&mut fds, timeout(next - now));
                self.shared.bell.get_up();
            }
        }
    }
}

fn now_ready(socket: &OwnedFd, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(socket.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(1..) => fds.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty()),
        _ => PollFlags::empty(),
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.end();
    }
}
