//! How long a backend is given: to do what it must, and to do what it must not.

use std::{sync::OnceLock, time::Duration};

/// How fast a world is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After this long a peer that has not answered never will.
    pub patience: Duration,
    /// After this long a peer that has kept still keeps still.
    pub silence: Duration,
}

/// With both ends on this machine.
const HERE: Pace = Pace { patience: Duration::from_secs(5), silence: Duration::from_millis(40) };
static TOLD: OnceLock<Pace> = OnceLock::new();

impl Pace {
    /// From now on, and once for all, this is how fast this process's world is.
    pub fn set(self) {
        _ = TOLD.set(self);
    }

    fn get() -> Self {
        *TOLD.get().unwrap_or(&HERE)
    }
}

/// As long in this world as `time` is with both ends on this machine.
pub fn slowed(time: Duration) -> Duration {
    time.mul_f64(silence().div_duration_f64(HERE.silence))
}

/// [`Pace::patience`] of this world.
pub fn patience() -> Duration {
    Pace::get().patience
}

/// [`Pace::silence`] of this world.
pub fn silence() -> Duration {
    Pace::get().silence
}
