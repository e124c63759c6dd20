//! Free pages, kept as runs.

/// A set of numbers as sorted, disjoint, non-touching runs; hands out the lowest run that fits.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<Run>);

/// `count` numbers from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Run {
    /// The numbers of the run.
    pub(crate) fn numbers(self) -> core::ops::Range<u32> {
        self.first..self.first + self.count
    }
}

impl Runs {
    /// The numbers 0 to `count` - 1.
    pub(crate) fn all(count: u32) -> Self {
        let mut runs = Self::default();
        runs.put(Run { first: 0, count });
        runs
    }

    /// Takes `count` numbers in a row, the lowest there are.
    pub(crate) fn take(&mut self, count: u32) -> Option<Run> {
        let at = self.0.iter().position(|run| run.count >= count && count > 0)?;
        let run = self.0.get_mut(at)?;
        let taken = Run { first: run.first, count };
        run.first += count;
        run.count -= count;
        if run.count == 0 {
            self.0.remove(at);
        }
        Some(taken)
    }

    /// Adds a run whose numbers are not in the set.
    pub(crate) fn put(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        let at = self.0.partition_point(|other| other.first < run.first);
        debug_assert!(at == 0 || self.0[at - 1].numbers().end <= run.first, "{run:?} is free already");
        self.0.insert(at, run);
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Removes a run; false, and nothing is changed, unless all its numbers are in the set.
    pub(crate) fn remove(&mut self, run: Run) -> bool {
        let Some(end) = run.first.checked_add(run.count) else { return false };
        let holds = |other: &Run| other.first <= run.first && end <= other.numbers().end;
        let Some(at) = self.0.iter().position(holds) else { return false };
        let whole = self.0.remove(at);
        self.put(Run { first: whole.first, count: run.first - whole.first });
        self.put(Run { first: end, count: whole.numbers().end - end });
        true
    }

    /// How many numbers are in the set.
    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|run| run.count).sum()
    }

    /// The runs of the set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        self.0.iter().copied()
    }

    /// Joins run `at` with the next one where they touch.
    fn join(&mut self, at: usize) {
        if let (Some(a), Some(b)) = (self.0.get(at).copied(), self.0.get(at + 1).copied())
            && a.numbers().end == b.first
        {
            self.0[at].count += b.count;
            self.0.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests;
