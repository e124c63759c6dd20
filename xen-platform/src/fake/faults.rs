//! What goes wrong on purpose, and the record of what did.

use super::events::End;
use crate::{DomId, Port};

/// How often each fault strikes, in thousandths of the operations it can strike. All zero (the default): nothing goes wrong.
/// The same seed and the same operations in the same order give the same faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A notification never arrives.
    pub lost_events: u16,
    /// A notification arrives a few operations later, or when somebody waits.
    pub late_events: u16,
    /// With a notification, another port that nobody notified fires too.
    pub spurious_events: u16,
    /// A map or a batch of copies is refused with [`GrantError::Exhausted`](crate::GrantError::Exhausted).
    pub refused_maps: u16,
    /// The domain that is destroyed, and after how many operations (notifications, maps, copies) of the whole machine.
    pub dies: Option<(DomId, u64)>,
}

/// One fault that struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The event for this end was dropped.
    Lost(DomId, Port),
    /// The event for this end was held back.
    Late(DomId, Port),
    /// This end fired by itself.
    Spurious(DomId, Port),
    /// A map or copy of pages of this domain was refused.
    Refused(DomId),
    /// This domain was destroyed.
    Died(DomId),
}

/// Chance, reproducible: decides when faults strike, and remembers that they did.
#[derive(Debug)]
pub(crate) struct Luck {
    state: u64,
    faults: Faults,
    operations: u64,
    late: Vec<(u64, End)>,
    struck: Vec<Fault>,
}

/// What becomes of one notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Now,
    Never,
    Later,
}

impl Luck {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, faults: Faults::default(), operations: 0, late: Vec::new(), struck: Vec::new() }
    }

    pub(crate) fn set(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(crate) fn struck(&self) -> &[Fault] {
        &self.struck
    }

    /// Counts one operation; names the domain whose time has come.
    pub(crate) fn step(&mut self) -> Option<DomId> {
        self.operations += 1;
        let (dom, _) = self.faults.dies.filter(|(_, after)| *after <= self.operations)?;
        self.faults.dies = None;
        self.struck.push(Fault::Died(dom));
        Some(dom)
    }

    /// Decides how a notification of `end` is delivered.
    pub(crate) fn delivery(&mut self, end: End) -> Delivery {
        if self.strikes(self.faults.lost_events) {
            self.struck.push(Fault::Lost(end.0, end.1));
            Delivery::Never
        } else if self.strikes(self.faults.late_events) {
            self.struck.push(Fault::Late(end.0, end.1));
            let due = self.operations + 1 + self.below(8);
            self.late.push((due, end));
            Delivery::Later
        } else {
            Delivery::Now
        }
    }

    /// Decides which of `ends` open ends fires by itself.
    pub(crate) fn spurious(&mut self, ends: usize) -> Option<usize> {
        let strikes = ends > 0 && self.strikes(self.faults.spurious_events);
        strikes.then(|| usize::try_from(self.below(ends as u64)).unwrap_or(0))
    }

    /// Records which end fired by itself.
    pub(crate) fn fired(&mut self, end: End) {
        self.struck.push(Fault::Spurious(end.0, end.1));
    }

    /// Decides whether a map of pages of `from` is refused.
    pub(crate) fn refuses(&mut self, from: DomId) -> bool {
        let refused = self.strikes(self.faults.refused_maps);
        if refused {
            self.struck.push(Fault::Refused(from));
        }
        refused
    }

    /// Ends whose late event is due; all of them when `waiting`.
    pub(crate) fn due(&mut self, waiting: bool) -> Vec<End> {
        let now = self.operations;
        let due = |late: &mut (u64, End)| waiting || late.0 <= now;
        self.late.extract_if(.., due).map(|(_, end)| end).collect()
    }

    /// The next number (the splitmix64 generator).
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn strikes(&mut self, thousandths: u16) -> bool {
        thousandths > 0 && self.below(1000) < u64::from(thousandths)
    }
}

#[cfg(test)]
mod tests;
