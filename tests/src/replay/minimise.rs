//! Makes a script that differs smaller: delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002). What is left out and leaves the difference the same was of no matter.

use std::collections::HashSet;

use anyhow::{Result, bail};
use blkif_observe::recording::End;

use super::{Difference, Script, Step, script::state_of};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Minimised {
    /// The smaller script, none of whose units can be left out.
    pub script: Script,
    /// How it differs.
    pub difference: Difference,
    /// How often a script was played.
    pub plays: usize,
}

/// The smallest script that can be found that differs in the [same way](Difference::way) when `play` plays it to the real `end`.
/// Errors: it does not differ, or cannot be played.
pub fn minimise(
    script: &Script,
    end: End,
    mut play: impl FnMut(&Script) -> Result<Option<Difference>>,
) -> Result<Minimised> {
    let Some(mut difference) = play(script)? else {
        bail!("it does as recorded: there is nothing to look for")
    };
    let (way, mut plays) = (difference.way(), 1);
    let mut differs = |script: &Script| -> Result<bool> {
        plays += 1;
        // As it will be read, once it is written down.
        let found = play(&Script::of(&script.record(), &script.device))?;
        let same = found.filter(|found| found.way() == way);
        if let Some(same) = same {
            difference = same;
            return Ok(true);
        }
        Ok(false)
    };
    // What comes after the difference goes first, and with it what the real end is held to there.
    let (mut enough, mut too_few) = (script.steps.len(), 0);
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        if differs(&script.until(middle))? { enough = middle } else { too_few = middle }
    }
    let script = &script.until(enough);
    let mut kept = units(script, end);
    let mut parts = 2;
    while !kept.is_empty() {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for at in (0..kept.len()).step_by(size) {
            let rest: Vec<Unit> = [&kept[..at], &kept[(at + size).min(kept.len())..]].concat();
            if differs(&without(script, end, &rest))? {
                smaller = Some(rest);
                break;
            }
        }
        match smaller {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    Ok(Minimised { script: without(script, end, &kept), difference, plays })
}

/// What is left out as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    /// A request with its answer.
    Request(usize),
    /// The step of this place; of nodes, the state that they come before.
    Step(usize),
}

/// All that the peer of `end` does; what the end itself did is what it is held to.
fn units(script: &Script, end: End) -> Vec<Unit> {
    let mut units: Vec<Unit> = (0..script.steps.len()).filter_map(|place| unit(script, place, end)).collect();
    let mut seen = HashSet::new();
    units.retain(|unit| seen.insert(*unit));
    units
}

fn unit(script: &Script, place: usize, end: End) -> Option<Unit> {
    let steps = script.steps.get(place..)?;
    match steps.first()? {
        Step::Request { number, .. } | Step::Answer { to: Some(number), .. } => Some(Unit::Request(*number)),
        Step::Answer { to: None, .. } => (end == End::Frontend).then_some(Unit::Step(place)),
        Step::Node { of: by, .. } if *by != end => {
            // Without one of them the others, and all requests after them, may mean something else.
            let mut nodes = steps.iter().take_while(|step| matches!(step, Step::Node { .. }));
            let state = nodes.position(|step| state_of(step).is_some_and(|(of, _)| of == *by));
            Some(Unit::Step(place + state.unwrap_or(0)))
        }
        Step::Signal { by, .. } => (*by != end).then_some(Unit::Step(place)),
        // What is honest goes with the requests; an answer is to what was published.
        Step::Publish { by, beyond, .. } => (*by != end && *beyond != 0).then_some(Unit::Step(place)),
        Step::Node { .. } => None,
    }
}

/// The script with no other units than these.
fn without(script: &Script, end: End, kept: &[Unit]) -> Script {
    let kept: HashSet<Unit> = kept.iter().copied().collect();
    let stays =
        |(place, _): &(usize, &Step)| unit(script, *place, end).is_none_or(|unit| kept.contains(&unit));
    let steps = script.steps.iter().enumerate().filter(stays).map(|(_, step)| step.clone()).collect();
    Script { steps, ..script.clone() }.without_empty_publications()
}
