//! Named steps of a request's way, at which a build for tests can be told to die: `--die-at published:17` is the seventeenth time
//! that answers have just been published.
//!
//! Between two steps there are few instructions, which a kill at a random time hits once in thousands. Builds without debug
//! assertions know nothing of this.

use std::{fmt, str::FromStr};

macro_rules! steps {
    ($($name:ident $word:literal $what:literal)+) => {
        /// A step, on whose far side the process dies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $(#[doc = $what] $name,)+
        }

        impl Step {
            /// All of them.
            pub const ALL: &[Step] = &[$(Step::$name),+];

            fn word(self) -> &'static str {
                match self {
                    $(Step::$name => $word,)+
                }
            }
        }
    };
}

steps! {
    Noted "noted" "A request was read and noted in the log."
    Committed "committed" "The log's requests count."
    Submitted "submitted" "The storage was given requests."
    Reaped "reaped" "Finished operations were taken from the storage."
    Answered "answered" "The log says that a request is answered."
    Written "written" "The answer is in the ring's slot."
    Published "published" "The guest can see answers."
    Forgotten "forgotten" "The log has forgotten what was published."
    Notified "notified" "The guest was notified."
    TakenOver "taken-over" "A killed daemon's log was read."
    Bound "bound" "The event channel was bound."
    Told "told" "What a killed daemon had done is in the ring."
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Step::ALL
            .iter()
            .copied()
            .find(|step| step.word() == word)
            .ok_or_else(|| format!("no step is called '{word}'"))
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use nix::sys::signal::{Signal, raise};

    use super::Step;

    static ARMED: OnceLock<(Step, AtomicU32)> = OnceLock::new();

    /// The process dies when it has reached `step` for the `count`-th time. Only the first order counts.
    pub fn die_at(step: Step, count: u32) {
        ARMED.get_or_init(|| (step, AtomicU32::new(count)));
    }

    /// Called at each step.
    pub(crate) fn reached(step: Step) {
        if let Some((at, left)) = ARMED.get()
            && *at == step
            && left.fetch_sub(1, Relaxed) == 1
        {
            _ = raise(Signal::SIGKILL);
        }
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    /// Called at each step.
    #[inline(always)]
    pub(crate) fn reached(_: super::Step) {}
}

#[cfg(debug_assertions)]
pub use armed::die_at;
pub(crate) use armed::reached;
