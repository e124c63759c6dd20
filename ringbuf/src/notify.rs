//! The verdict of a publish.

/// Whether the peer asked to hear of what was just published.
///
/// Dropping a needed notification is how two ends fall asleep on each other: check it, and notify at most once per
/// batch.
#[must_use = "if the notification is needed and not sent, the peer may sleep forever"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    needed: bool,
}

impl Notify {
    pub(crate) const NO: Self = Self { needed: false };

    #[inline]
    pub(crate) const fn when(needed: bool) -> Self {
        Self { needed }
    }

    /// True if the event channel must be signalled.
    #[inline]
    #[must_use]
    pub const fn is_needed(self) -> bool {
        self.needed
    }
}
