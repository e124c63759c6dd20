//! What the real end does otherwise than the recorded one.

use std::fmt;

use blkif_proto::{Response, Status, xenbus::State};

/// The first thing that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A request is answered, but not so.
    Answer {
        /// Which.
        request: String,
        /// As recorded.
        recorded: Response,
        /// By the real end.
        found: Response,
    },
    /// A request is not answered.
    Silence {
        /// Which.
        request: String,
    },
    /// Something is answered that was not asked.
    Extra {
        /// The answer.
        found: Response,
    },
    /// The device has another state.
    State {
        /// As recorded.
        recorded: State,
        /// Of the real end.
        found: State,
        /// What it says for a reason.
        reason: Option<String>,
    },
    /// A request differs, or is missing.
    Request {
        /// As recorded.
        recorded: String,
        /// What the real end puts into the ring.
        found: Option<String>,
    },
    /// An application is told another outcome.
    Outcome {
        /// Of what.
        request: String,
        /// What the recorded answer means.
        recorded: Status,
        /// What it is told; none: nothing.
        found: Option<String>,
    },
    /// The real end gives up.
    Broken {
        /// Why.
        reason: String,
    },
}

impl Difference {
    /// What makes two differences the same bug: the kind, and what is told, but not of which request.
    pub fn way(&self) -> String {
        match self {
            Self::Answer { recorded, found, .. } if recorded.op == found.op => {
                format!("answer to {} {} {}", recorded.op, recorded.status, found.status)
            }
            Self::Answer { recorded, found, .. } => format!("answer {} {}", recorded.op, found.op),
            Self::Silence { .. } => "silence".into(),
            Self::Extra { .. } => "extra".into(),
            Self::State { recorded, found, .. } => format!("state {recorded} {found}"),
            Self::Request { found, .. } => format!("request {}", found.is_some()),
            Self::Outcome { recorded, found, .. } => format!("outcome {recorded} {found:?}"),
            Self::Broken { .. } => "broken".into(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { request, recorded, found } if recorded.op == found.op => {
                write!(f, "{request}: the answer is {}, recorded was {}", found.status, recorded.status)
            }
            Self::Answer { request, recorded, found } => {
                write!(f, "{request}: the answer names operation {}, recorded was {}", found.op, recorded.op)
            }
            Self::Silence { request } => write!(f, "{request}: there is no answer"),
            Self::Extra { found } => write!(f, "an answer to nothing that was asked: {found:?}"),
            Self::State { recorded, found, reason } => {
                write!(f, "the state is {found}, recorded was {recorded}")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, "; the reason given: {reason}"))
            }
            Self::Request { recorded, found: Some(found) } => {
                write!(f, "the request is {found}, recorded was {recorded}")
            }
            Self::Request { recorded, found: None } => {
                write!(f, "there is no request; recorded was {recorded}")
            }
            Self::Outcome { request, recorded, found } => {
                let found = found.as_deref().unwrap_or("nothing");
                write!(f, "{request}: the application is told {found}, where the answer was {recorded}")
            }
            Self::Broken { reason } => write!(f, "it gives up: {reason}"),
        }
    }
}
