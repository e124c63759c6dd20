//! What the configuration says of measuring.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::Deserialize;

use super::{Config, check::is_plain};
use crate::stats::Watch;

/// Where counters are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// The place; absent: nowhere, and stages are not timed.
    pub listen: Option<Listen>,
    /// Who else may connect to a Unix socket, by the name of a group; absent: nobody but root and the daemon's user.
    pub group: Option<String>,
}

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// `unix:/path`
    Unix(PathBuf),
    /// `127.0.0.1:9180`, `[::1]:9180`
    Tcp(SocketAddr),
}

/// A text that is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place to listen at, such as unix:/run/blkback/metrics.sock or 127.0.0.1:9180")]
pub struct NoPlace(String);

impl FromStr for Listen {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no_place = || NoPlace(text.to_owned());
        match text.strip_prefix("unix:").map(PathBuf::from) {
            Some(path) if is_plain(&path) => Ok(Self::Unix(path)),
            Some(_) => Err(no_place()),
            None => text.parse().map(Self::Tcp).map_err(|_| no_place()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = NoPlace;

    fn try_from(text: String) -> Result<Self, NoPlace> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Config {
    /// What workers measure.
    pub fn watch(&self) -> Watch {
        let slow = Some(Duration::from_millis(self.daemon.slow_ms)).filter(|slow| !slow.is_zero());
        Watch { timed: self.metrics.listen.is_some() || slow.is_some(), slow }
    }
}
