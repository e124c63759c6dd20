//! What wakes a thread that sleeps until there is something for it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

/// A descriptor that is readable when something has come for its one listener. It costs a system call only if the listener sleeps.
#[derive(Debug)]
pub(super) struct Bell {
    bell: EventFd,
    asleep: AtomicBool,
    /// How often it was rung, or is about to be, and was not read.
    owed: AtomicU64,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { bell, asleep: AtomicBool::new(false), owed: AtomicU64::new(0) })
    }

    /// The same descriptor, to be waited for elsewhere.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.bell.as_fd().try_clone_to_owned()
    }

    /// Tells the listener that something has come, after it was put where the listener looks. Not to be called with a lock that it needs
    /// held: it may be awake before this returns.
    pub(super) fn ring(&self) {
        if self.asleep.swap(false, SeqCst) {
            // It is never full: the listener reads it before it sleeps again.
            _ = self.bell.write(1);
        }
    }

    /// The listener is about to wait for the descriptor. False if there `is_something` already: it need not.
    pub(super) fn lie_down(&self, is_something: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, SeqCst);
        // Whoever brings something from here on finds it asleep.
        let stays = !is_something();
        if !stays {
            self.get_up();
        }
        stays
    }

    /// The listener is awake, because the bell has rung or for another reason.
    pub(super) fn get_up(&self) {
        let rung = !self.asleep.swap(false, SeqCst);
        let mut owed = self.owed.load(Relaxed) + u64::from(rung);
        if owed > 0 {
            // Whoever rings may not have come to it yet: that is read another time.
            owed -= match self.bell.read() {
                Ok(rings) => rings.min(owed),
                Err(Errno::EAGAIN) => 0,
                Err(_) => owed,
            };
            self.owed.store(owed, Relaxed);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        thread,
        time::Duration,
    };

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(bell: &Bell, time: Duration) -> bool {
        let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(time.as_millis()).unwrap()).unwrap() == 1
    }

    #[test]
    fn it_rings_once_and_only_for_a_listener_that_sleeps() {
        let bell = Bell::new().unwrap();
        bell.ring();
        assert!(!rings(&bell, Duration::ZERO), "it was awake");
        assert!(bell.lie_down(|| false));
        bell.ring();
        bell.ring();
        assert!(rings(&bell, Duration::ZERO));
        bell.get_up();
        assert!(!rings(&bell, Duration::ZERO));
        assert!(!bell.lie_down(|| true));
        bell.ring();
        assert!(!rings(&bell, Duration::ZERO), "it did not sleep");
    }

    #[test]
    fn a_ring_that_comes_late_is_read_all_the_same() {
        let bell = Bell::new().unwrap();
        assert!(bell.lie_down(|| false));
        // The first half of a ring.
        assert!(bell.asleep.swap(false, SeqCst));
        bell.get_up();
        assert!(bell.lie_down(|| false));
        bell.bell.write(1).unwrap();
        assert!(rings(&bell, Duration::ZERO));
        bell.get_up();
        assert!(!rings(&bell, Duration::ZERO));
        assert!(bell.lie_down(|| false));
        bell.ring();
        assert!(rings(&bell, Duration::ZERO));
    }

    /// The listener has looked, and does not sleep yet.
    #[test]
    fn what_comes_after_the_last_look_rings() {
        let bell = Bell::new().unwrap();
        let look = || {
            bell.ring();
            false
        };
        assert!(bell.lie_down(look));
        assert!(rings(&bell, Duration::ZERO));
    }

    /// Nothing that came is left lying while the listener sleeps.
    #[test]
    fn no_wake_up_is_lost() {
        const EACH: u32 = 20_000;
        let (bell, pile) = (Arc::new(Bell::new().unwrap()), Arc::new(Mutex::new(0)));
        let bring = || {
            let (bell, pile) = (Arc::clone(&bell), Arc::clone(&pile));
            thread::spawn(move || {
                for _ in 0..EACH {
                    *pile.lock().unwrap() += 1;
                    bell.ring();
                }
            })
        };
        let bringers = [bring(), bring()];
        let mut found = 0;
        while found < 2 * EACH {
            found += std::mem::take(&mut *pile.lock().unwrap());
            if found < 2 * EACH && bell.lie_down(|| *pile.lock().unwrap() > 0) {
                assert!(rings(&bell, Duration::from_secs(20)), "asleep at {found}");
                bell.get_up();
            }
        }
        bringers.into_iter().for_each(|bringer| bringer.join().unwrap());
        bell.get_up();
        assert!(!rings(&bell, Duration::ZERO));
    }
}
