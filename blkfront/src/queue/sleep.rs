//! When there is nothing to do: look a while, arm, sleep. And the callback form of the same.

use alloc::boxed::Box;
use core::time::Duration;

use xen_platform::{Clock, EventChannels, FrontWorld};

use super::{Queue, reap::corrupt};
use crate::{Completion, DeviceError, Io, IoError, Rejected};

/// Events can be lost with the backend that should have sent them: nobody sleeps longer than this without a look.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl<W: FrontWorld> Queue<W> {
    /// Asks for an event at the next response. True when responses are there already: [`finish`](Self::finish) before sleeping.
    /// False also lets an event through that came while responses were being taken.
    ///
    /// A queue whose owner never arms gets no events.
    pub fn arm(&mut self) -> Result<bool, DeviceError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(ring) = &mut self.link.parts.ring else { return Ok(false) };
        match ring.arm().map_err(corrupt) {
            Ok(ready) if ready || !self.ended.is_empty() => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(self.fail(error)),
        }
        match self.masked.take() {
            Some(port) => {
                let unmasked = self.link.parts.events.unmask(port);
                unmasked.map(|()| false).map_err(|error| self.fail(DeviceError::Event(error)))
            }
            None => Ok(false),
        }
    }

    /// Publishes, arms, and sleeps until a response is there or `timeout` has passed (`None`: for ever). True when one is there;
    /// false early when nothing is in flight, or when the backend is gone ([`is_stale`](Self::is_stale)).
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, DeviceError> {
        self.publish()?;
        let end = timeout.map(|timeout| self.link.clock.now().saturating_add(timeout));
        loop {
            if self.arm()? {
                return Ok(true);
            }
            let left = end.map(|end| end.saturating_sub(self.link.clock.now()));
            if self.in_flight() == 0 || self.is_stale() || left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let slice = left.map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP));
            let slept = self.link.parts.events.wait(Some(slice));
            if slept.map_err(|error| self.fail(DeviceError::Event(error)))? && self.take_event() {
                if self.has_response()? {
                    return Ok(true);
                }
                self.stats.spurious += 1;
            }
        }
    }

    /// Like [`wait`](Self::wait), but looks at the ring for up to `spin` before it arms and sleeps. The time adapts: it grows
    /// towards `spin` while looking pays and shrinks while it does not. With several I/Os in flight it does not look when answers lately came
    /// further apart than a sleep takes: the processor may be wanted for them, and several may come during a sleep.
    pub fn wait_polling(&mut self, spin: Duration, timeout: Option<Duration>) -> Result<bool, DeviceError> {
        self.publish()?;
        if self.in_flight() == 0 {
            return Ok(false);
        }
        let mut spinner = self.spinner;
        let clock = self.link.clock.clone();
        let mut spin = timeout.map_or(spin, |timeout| spin.min(timeout));
        if !spinner.is_cheaper(self.stats.completed, clock.now()) && self.in_flight() > 1 {
            spin = Duration::ZERO;
        }
        let found = spinner.spin(spin, &clock, || self.has_response());
        self.spinner = spinner;
        if found? { Ok(true) } else { self.wait(timeout) }
    }

    /// Submits one [`Io`], waits for it and gives it back. Other completions on the way go to `others`. When the backend is gone
    /// all work in flight ends as [`IoError::Cancelled`]; when it answers nothing for [`Config::timeout`](crate::Config::timeout),
    /// the queue fails with [`DeviceError::Silent`].
    #[expect(clippy::result_large_err, reason = "a rejected I/O comes back whole, buffer included")]
    pub fn execute(&mut self, io: Io, others: &mut impl FnMut(Completion)) -> Result<Completion, Rejected> {
        let ticket = self.submit(io)?;
        let mut ours = None;
        // Whatever goes wrong with the queue, `finish` gives everything back.
        let _ = self.publish();
        loop {
            let mut sort = |completion: Completion| {
                if completion.ticket == ticket { ours = Some(completion) } else { others(completion) }
            };
            let _ = self.finish(&mut sort);
            if self.is_stale() {
                self.cancel(IoError::Cancelled, &mut sort);
            }
            if let Some(completion) = ours {
                return Ok(completion);
            }
            let patience = self.link.patience;
            if self.wait(Some(patience)) == Ok(false) && !self.is_stale() {
                self.fail(DeviceError::Silent { seconds: patience.as_secs() });
            }
        }
    }

    /// Sets what [`dispatch`](Self::dispatch) calls for each completion. It starts disabled.
    pub fn set_callback(&mut self, callback: impl FnMut(Completion) + Send + 'static) {
        self.callback = Some(Box::new(callback));
        self.callback_enabled = false;
    }

    /// Lets [`dispatch`](Self::dispatch) run the callback, and asks for events. True when responses are there already: call
    /// [`dispatch`](Self::dispatch).
    pub fn enable_callback(&mut self) -> Result<bool, DeviceError> {
        self.callback_enabled = true;
        self.arm()
    }

    /// Keeps [`dispatch`](Self::dispatch) from running the callback; responses wait in the ring.
    pub fn disable_callback(&mut self) {
        self.callback_enabled = false;
    }

    /// To be called when the event channel has fired: takes the event, runs the callback for every completion and asks for the next
    /// event. Returns how many [`Io`]s completed; 0 while the callback is disabled or not set.
    pub fn dispatch(&mut self) -> Result<usize, DeviceError> {
        let fired = self.take_event();
        if !self.callback_enabled {
            return Ok(0);
        }
        let Some(mut callback) = self.callback.take() else { return Ok(0) };
        let mut completed = 0;
        let ended = loop {
            match self.finish(&mut callback) {
                Ok(some) => completed += some,
                Err(error) => break Err(error),
            }
            match self.arm() {
                Ok(true) => {}
                Ok(false) => break Ok(completed),
                Err(error) => break self.finish(&mut callback).and(Err(error)),
            }
        };
        self.callback = Some(callback);
        self.stats.spurious += u64::from(fired && completed == 0);
        ended
    }

    /// Takes what is pending on the queue's event channel; true when that was our port.
    fn take_event(&mut self) -> bool {
        let parts = &mut self.link.parts;
        let mut ours = false;
        while let Some(port) = parts.events.take_pending() {
            // Only ever our port: the handle has no other.
            ours |= port == parts.port;
            self.masked = Some(port);
        }
        self.stats.events += u64::from(ours);
        if ours && let Some(tap) = parts.tap() {
            tap.signalled();
        }
        ours
    }

    #[inline]
    fn has_response(&mut self) -> Result<bool, DeviceError> {
        let Some(ring) = &mut self.link.parts.ring else { return Ok(false) };
        match ring.peek(&mut []) {
            Ok(ready) => Ok(ready || !self.ended.is_empty()),
            Err(error) => Err(self.fail(corrupt(error))),
        }
    }
}
