//! What is said on the control socket.
//!
//! ```json
//! {"version":1,"command":"resize","disk":"1/xvda","bytes":1073741824}
//! {"version":1,"ok":{"done":"1/51712"}}
//! {"version":1,"error":{"kind":"no-such-disk","text":"there is no disk 1/xvda"}}
//! ```
//!
//! Later versions may add commands, and keys to answers; what is there keeps its meaning for as long as the version is the same.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::limit::Rates;

/// The version of all this.
pub const VERSION: u32 = 1;

/// Bytes of a line at most, its end included.
pub const LINE: usize = 64 << 10;

/// Most requests of a trace: their answer is a line too.
pub const TRACED: usize = 3000;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`], as the client knows it.
    pub version: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// All disks, in short. Answered by [`Answer::Disks`].
    List,
    /// One disk at length. Answered by [`Answer::Disk`].
    Show {
        /// Which.
        disk: DiskName,
    },
    /// What disks have carried so far. Answered by [`Answer::Stats`].
    Stats {
        /// Which; all if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<DiskName>,
    },
    /// Limits a disk, in place of all limits that it had besides its group's. Answered by [`Answer::Limits`], those that are in force then.
    Limit {
        /// Which.
        disk: DiskName,
        /// The limits; nothing is changed without, and an empty object lifts all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<Rates>,
    },
    /// The same for a group of disks, which share the limits.
    LimitGroup {
        /// Its name in the configuration.
        group: String,
        /// The limits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<Rates>,
    },
    /// Makes a disk larger or smaller. Answered by [`Answer::Done`] when the guest has been told.
    Resize {
        /// Which.
        disk: DiskName,
        /// The new size in bytes.
        bytes: u64,
    },
    /// Takes the medium out of a removable disk. Answered by [`Answer::Done`] when nobody uses it any more.
    Eject {
        /// Which.
        disk: DiskName,
    },
    /// Puts a medium into a removable disk, in place of what is there. Answered by [`Answer::Done`] when it is served.
    Insert {
        /// Which.
        disk: DiskName,
        /// What, as `target=` names it: a path, or `qcow2:PATH`, an NBD URI, and so on.
        image: String,
    },
    /// Takes nothing new from a guest, and finishes what was taken. Answered by [`Answer::Done`] when nothing is under way: what the image
    /// holds stays as it is until [`Command::Release`]. The guest's requests wait.
    Drain {
        /// Which.
        disk: DiskName,
    },
    /// Traces requests. Answered by [`Answer::Trace`] when there are so many or so much time has passed, whatever is first. A trace that
    /// somebody else has under way ends.
    Trace {
        /// Of which disk; of all if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<DiskName>,
        /// Up to [`TRACED`].
        requests: usize,
        /// Up to 60.
        seconds: u64,
    },
    /// Ends a [`Command::Drain`].
    Release {
        /// Which.
        disk: DiskName,
    },
}

impl Command {
    /// True for what changes nothing.
    pub fn only_looks(&self) -> bool {
        match self {
            Command::List | Command::Show { .. } | Command::Stats { .. } => true,
            Command::Limit { limits, .. } | Command::LimitGroup { limits, .. } => limits.is_none(),
            _ => false,
        }
    }

    /// The one disk it is about.
    pub fn disk(&self) -> Option<&DiskName> {
        match self {
            Command::List | Command::LimitGroup { .. } => None,
            Command::Stats { disk } | Command::Trace { disk, .. } => disk.as_ref(),
            Command::Show { disk }
            | Command::Limit { disk, .. }
            | Command::Resize { disk, .. }
            | Command::Eject { disk }
            | Command::Insert { disk, .. }
            | Command::Drain { disk }
            | Command::Release { disk } => Some(disk),
        }
    }
}

/// A disk, as people name it: the guest's number, a slash, and the disk's name in the guest (`xvda`) or its number (`51712`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DiskName {
    /// The guest.
    pub domain: u16,
    /// The disk.
    pub disk: String,
}

/// A text that names no disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no disk: a guest's number, a slash, and a disk's name or number")]
pub struct NoName(String);

impl FromStr for DiskName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let no_name = || NoName(text.to_owned());
        let (domain, disk) = text.split_once('/').ok_or_else(no_name)?;
        let domain = domain.parse().map_err(|_| no_name())?;
        let plain = !disk.is_empty() && disk.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain { Ok(Self { domain, disk: disk.to_owned() }) } else { Err(no_name()) }
    }
}

impl TryFrom<String> for DiskName {
    type Error = NoName;

    fn try_from(text: String) -> Result<Self, NoName> {
        text.parse()
    }
}

impl From<DiskName> for String {
    fn from(name: DiskName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.disk)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`], as the daemon knows it.
    pub version: u32,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Well.
    Ok(Answer),
    /// Not.
    Error(Failure),
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// All disks, by guest and number.
    Disks(Vec<Disk>),
    /// One disk.
    Disk(Box<Disk>),
    /// What each has carried.
    Stats(Vec<DiskStats>),
    /// The limits in force.
    Limits(Rates),
    /// A trace: the contents of a file for <https://ui.perfetto.dev>.
    Trace(serde_json::Value),
    /// It is done, to this disk.
    Done(String),
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// The guest.
    pub domain: u16,
    /// The disk's number.
    pub device: u32,
    /// Its name in the guest, if the toolstack gave it one.
    pub name: Option<String>,
    /// The directory below `backend/` that it stands in.
    pub kind: String,
    /// The backend's state, as a word.
    pub state: String,
    /// What is served; none for an empty drive, or a disk that is not open.
    pub image: Option<String>,
    /// Size in bytes.
    pub bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Its medium can be changed.
    pub removable: bool,
    /// Nothing is taken from the guest.
    pub drained: bool,
    /// What went wrong last.
    pub error: Option<String>,
    /// What was agreed on with the guest, while it is connected.
    pub connection: Option<Terms>,
}

/// What backend and frontend agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Terms {
    /// The layout of requests.
    pub abi: String,
    /// Queues.
    pub queues: u32,
    /// Pages of each ring.
    pub ring_pages: u32,
    /// Segments of the largest request.
    pub segments: u32,
    /// How large requests come.
    pub mode: String,
    /// The guest's pages may stay mapped.
    pub persistent: bool,
    /// How data moves.
    pub strategy: String,
}

/// What a disk has carried since its guest connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskStats {
    /// The guest.
    pub domain: u16,
    /// The disk's number.
    pub device: u32,
    /// Its name in the guest.
    pub name: Option<String>,
    /// Each queue's counters by name, in the order of the queues.
    pub queues: Vec<std::collections::BTreeMap<String, u64>>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people.
    pub text: String,
}

impl Failure {
    /// A failure.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request makes no sense.
    Malformed,
    /// The request is of a version that this daemon does not know.
    Version,
    /// Not for this user.
    Forbidden,
    /// No such disk.
    NoSuchDisk,
    /// The disk is not in a state for that.
    NotNow,
    /// This disk, or what it is made of, cannot do that.
    Unsupported,
    /// It was tried, and failed.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let request = Request {
            version: 1,
            command: Command::Resize { disk: "1/xvda".parse().unwrap(), bytes: 1 << 30 },
        };
        let line = r#"{"version":1,"command":"resize","disk":"1/xvda","bytes":1073741824}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        let reply = |outcome| serde_json::to_string(&Reply { version: 1, outcome }).unwrap();
        let done = Outcome::Ok(Answer::Done("1/51712".into()));
        assert_eq!(reply(done), r#"{"version":1,"ok":{"done":"1/51712"}}"#);
        let failure = Failure::new(FailureKind::NoSuchDisk, "there is no disk 1/xvda");
        let line = r#"{"version":1,"error":{"kind":"no-such-disk","text":"there is no disk 1/xvda"}}"#;
        assert_eq!(reply(Outcome::Error(failure.clone())), line);
        assert_eq!(serde_json::from_str::<Reply>(line).unwrap().outcome, Outcome::Error(failure));
    }

    #[test]
    fn names_of_disks() {
        let name = |text: &str| text.parse::<DiskName>().map(|name| name.to_string());
        assert_eq!(name("1/xvda"), Ok("1/xvda".into()));
        assert_eq!(name("1/51712"), Ok("1/51712".into()));
        for bad in ["", "1", "1/", "x/xvda", "-1/xvda", "65536/xvda", "1/../x", "1/xvda/", "1/xv da"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
