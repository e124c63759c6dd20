//! What came of one clause with one peer: a line of a result file.
//!
//! ```text
//!   clause <tab> abi <tab> holds | differs | n/a | not run <tab> observation
//! ```

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error, Result, bail};
use blkif_proto::Abi;

/// Whether a peer keeps a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It does.
    Holds,
    /// It does something else.
    Differs,
    /// It does not offer what the rule is about.
    NotApplicable,
    /// Nobody tried.
    NotRun,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Holds, Self::Differs, Self::NotApplicable, Self::NotRun];

    /// As it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Differs => "differs",
            Self::NotApplicable => "n/a",
            Self::NotRun => "not run",
        }
    }
}

/// One clause, in one ABI, with one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The clause's name.
    pub(crate) clause: String,
    /// The layout that was spoken.
    pub(crate) abi: Abi,
    /// What came of it.
    pub(crate) verdict: Verdict,
    /// What was seen, for all but `holds`; no tabs and line ends.
    pub(crate) observation: String,
}

impl Outcome {
    /// With an observation, which is made to fit a line.
    pub(crate) fn new(clause: &str, abi: Abi, verdict: Verdict, observation: &str) -> Self {
        let words: Vec<&str> = observation.split_whitespace().collect();
        Self { clause: clause.to_owned(), abi, verdict, observation: words.join(" ") }
    }

    /// What a check returned: an error is a difference, told down to its cause.
    pub(crate) fn of(clause: &str, abi: Abi, checked: Result<(), Error>) -> Self {
        match checked {
            Ok(()) => Self::new(clause, abi, Verdict::Holds, ""),
            Err(error) => Self::new(clause, abi, Verdict::Differs, &format!("{error:#}")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clause, abi, verdict, observation } = self;
        write!(f, "{clause}\t{}\t{}\t{observation}", abi.as_protocol(), verdict.as_str())
    }
}

impl FromStr for Outcome {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let [clause, abi, verdict, observation] = line.splitn(4, '\t').collect::<Vec<_>>()[..] else {
            bail!("not a clause, an ABI, a verdict and an observation: {line:?}");
        };
        let abi = Abi::from_protocol(abi).with_context(|| format!("no such ABI: {abi}"))?;
        let verdict = Verdict::ALL.into_iter().find(|each| each.as_str() == verdict);
        let verdict = verdict.with_context(|| format!("no verdict: {line:?}"))?;
        Ok(Self { clause: clause.to_owned(), abi, verdict, observation: observation.to_owned() })
    }
}

#[cfg(test)]
mod tests;
