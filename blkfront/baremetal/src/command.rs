//! What the guest is told to do.
//!
//! | command | does |
//! |---|---|
//! | `info` (if there is none) | tells what the disk is and what was negotiated |
//! | `verify` | writes patterns in every shape that requests have, and reads them back |
//! | `panic` | shows what becomes of a guest that cannot go on |
//!
//! | option | means |
//! |---|---|
//! | `device=51712` | the number of the disk; else the first one there is |
//! | `queues=2`, `ring-pages=4`, `max-segments=64` | at most so many |
//! | `segments=auto` | how large requests are carried: `auto`, `direct`, `blocks`, `indirect` |
//! | `persistent=yes` | whether pages stay lent: `yes`, `no` |
//! | `extents=24` | how many places of the disk `verify` writes |
//! | `timeout=30` | seconds that a backend may take to answer |

use alloc::{borrow::ToOwned as _, string::String};
use core::{str::FromStr, time::Duration};

use blkfront::{Config, SegmentChoice};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `info`.
    Info,
    /// `verify`.
    Verify,
    /// `panic`.
    Panic,
}

/// A command with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to do.
    pub command: Command,
    /// With which disk.
    pub device: Option<u32>,
    /// How to connect.
    pub config: Config,
    /// The command line says how to connect.
    pub chosen: bool,
    /// How many places to write.
    pub extents: u32,
}

/// A word of the command line that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is '{0}' on the command line?")]
pub struct OrderError(pub String);

impl Order {
    /// What a command line says. Errors: the first word that makes no sense.
    pub fn parse(line: &str) -> Result<Self, OrderError> {
        let (command, device) = (Command::Info, None);
        let mut order = Self { command, device, config: Config::default(), chosen: false, extents: 24 };
        for (index, word) in line.split_ascii_whitespace().enumerate() {
            let understood = match word.split_once('=') {
                Some((name, value)) => order.option(name, value),
                None if index == 0 => order.command(word),
                None => None,
            };
            understood.ok_or_else(|| OrderError(word.to_owned()))?;
        }
        Ok(order)
    }

    fn command(&mut self, word: &str) -> Option<()> {
        self.command = match word {
            "info" => Command::Info,
            "verify" => Command::Verify,
            "panic" => Command::Panic,
            _ => return None,
        };
        Some(())
    }

    fn option(&mut self, name: &str, value: &str) -> Option<()> {
        let config = &mut self.config;
        match name {
            "device" => self.device = Some(number(value)?),
            "extents" => self.extents = number(value)?,
            "timeout" => config.timeout = Duration::from_secs(number(value)?),
            "queues" => config.queues = number(value)?,
            "ring-pages" => config.ring_pages = number(value)?,
            "max-segments" => config.max_segments = number(value)?,
            "segments" => config.segments = segments(value)?,
            "persistent" => config.persistent = yes_or_no(value)?,
            _ => return None,
        }
        self.chosen |= !["device", "extents", "timeout"].contains(&name);
        Some(())
    }
}

/// A number of at least 1.
fn number<T: FromStr + PartialOrd + From<u8>>(value: &str) -> Option<T> {
    value.parse().ok().filter(|number| *number >= T::from(1))
}

fn segments(value: &str) -> Option<SegmentChoice> {
    Some(match value {
        "auto" => SegmentChoice::Auto,
        "direct" => SegmentChoice::Direct,
        "blocks" => SegmentChoice::Blocks,
        "indirect" => SegmentChoice::Indirect,
        _ => return None,
    })
}

fn yes_or_no(value: &str) -> Option<bool> {
    match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}
