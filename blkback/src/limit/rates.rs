//! What is allowed in a second, as the configuration and the administrator say it.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::control::disk;

/// Limits. None: there is no such limit. Those for all requests and those for reads or writes hold at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Rates {
    /// Operations per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Reads per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<u64>,
    /// Writes, flushes and discards per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<u64>,
    /// Bytes per second, read and written. In a text they may be a number or a size such as `"100M"`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "size")]
    pub bytes: Option<u64>,
    /// Bytes read per second.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "size")]
    pub read_bytes: Option<u64>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "size")]
    pub write_bytes: Option<u64>,
    /// How long a disk that has been idle may do as it likes, in milliseconds of its rates: 100 if absent. A burst makes up for a pause
    /// of that length, no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_ms: Option<u64>,
}

/// A burst, if nothing else is said.
const BURST_MS: u64 = 100;
/// The shortest burst: pauses of a thread are made up for by it. And the longest.
const BURSTS_MS: std::ops::RangeInclusive<u64> = 10..=60_000;
/// The most operations per second: one takes a nanosecond then, and nothing less is counted.
const MOST_OPERATIONS: u64 = 1_000_000_000;
/// The most bytes per second: a sector takes half a nanosecond.
const MOST_BYTES: u64 = 1 << 40;

impl Rates {
    /// True when nothing is limited.
    pub fn is_none(&self) -> bool {
        self.operations().iter().chain(&self.volumes()).all(|(_, rate)| rate.is_none())
    }

    /// What an idle disk may do at once is what flows in during this time.
    pub fn burst(&self) -> Duration {
        Duration::from_millis(self.burst_ms.unwrap_or(BURST_MS))
    }

    /// Errors: the key whose value is none, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let (operations, volumes) = (self.operations(), self.volumes());
        let most = operations.map(|rate| (rate, MOST_OPERATIONS)).into_iter();
        for ((key, rate), most) in most.chain(volumes.map(|rate| (rate, MOST_BYTES))) {
            match rate {
                Some(0) => {
                    return Err((key, "0 would let nothing pass; leave it out for no limit".into()));
                }
                Some(rate) if rate > most => return Err((key, format!("{rate} is more than {most}"))),
                _ => {}
            }
        }
        match self.burst_ms {
            Some(burst) if !BURSTS_MS.contains(&burst) => {
                Err(("burst-ms", format!("{burst} is not from {} to {}", BURSTS_MS.start(), BURSTS_MS.end())))
            }
            _ => Ok(()),
        }
    }

    fn operations(&self) -> [(&'static str, Option<u64>); 3] {
        [("iops", self.iops), ("read-iops", self.read_iops), ("write-iops", self.write_iops)]
    }

    fn volumes(&self) -> [(&'static str, Option<u64>); 3] {
        [("bytes", self.bytes), ("read-bytes", self.read_bytes), ("write-bytes", self.write_bytes)]
    }
}

/// A number of bytes, or a text such as `100M`.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "bytes per second: a number, or a size such as \"100M\"")]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(from)? {
        Size::Number(bytes) => Ok(Some(bytes)),
        Size::Text(text) => {
            let unreadable = || D::Error::custom(format!("{text:?} is no size: digits, and K, M, G or T"));
            disk::bytes(&text).map(Some).ok_or_else(unreadable)
        }
    }
}
