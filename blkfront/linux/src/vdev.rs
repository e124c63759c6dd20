//! Names of virtual disks: `51712`, `0xca00`, `xvda`, `hdc`, `sdb1`, `d5p2`, or a full XenStore path.
//!
//! The numbers are those of Xen's `xen-vbd-interface(7)`: `major << 8 | disk << shift | partition` for the old names, and
//! `1 << 28 | disk << 8 | partition` for disks above the sixteenth.

use std::{fmt, str::FromStr};

/// What `--device` named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// A virtual device number: the name of the node below the guest's `device/vbd`.
    Number(u32),
    /// The full XenStore path of the frontend's directory.
    Path(String),
}

impl Device {
    /// The frontend's XenStore directory, seen from guest `domain`.
    pub(crate) fn path(&self, domain: u16) -> String {
        match self {
            Device::Number(number) => format!("/local/domain/{domain}/device/vbd/{number}"),
            Device::Path(path) => path.clone(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Number(number) => number.fmt(f),
            Device::Path(path) => path.fmt(f),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let path = text.trim_end_matches('/');
            return match path.is_empty() || path.contains("//") {
                true => Err(format!("'{text}' is not a XenStore path")),
                false => Ok(Device::Path(path.into())),
            };
        }
        let number = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok().or_else(|| named(text)),
        };
        number
            .map(Device::Number)
            .ok_or_else(|| format!("'{text}' is not a virtual disk, such as 51712, xvda, or a XenStore path"))
    }
}

/// How one old name packs its disk and partition.
struct Family {
    prefix: &'static str,
    major: u32,
    shift: u32,
}

const FAMILIES: [Family; 3] = [
    Family { prefix: "xvd", major: 202, shift: 4 },
    Family { prefix: "sd", major: 8, shift: 4 },
    Family { prefix: "hd", major: 3, shift: 6 },
];

/// The second pair of IDE disks (`hdc`, `hdd`) has a major of its own.
const IDE1_MAJOR: u32 = 22;

fn named(text: &str) -> Option<u32> {
    if let Some(rest) = text.strip_prefix('d') {
        let (disk, partition) = rest.split_once('p').unwrap_or((rest, "0"));
        return extended(disk.parse().ok()?, partition.parse().ok()?, true);
    }
    let family = FAMILIES.iter().find(|family| text.starts_with(family.prefix))?;
    let rest = text.get(family.prefix.len()..)?;
    let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
    let (letters, digits) = rest.split_at(letters);
    let disk = letter_index(letters)?;
    let partition: u32 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    match (family.prefix, disk) {
        ("hd", 0..=1) if partition < 64 => Some(family.major << 8 | disk << family.shift | partition),
        ("hd", 2..=3) if partition < 64 => Some(IDE1_MAJOR << 8 | (disk - 2) << family.shift | partition),
        ("hd", _) => None,
        ("sd", 16..) => None,
        (_, 0..=15) if partition < 16 => Some(family.major << 8 | disk << family.shift | partition),
        ("xvd", _) => extended(disk, partition, false),
        _ => None,
    }
}

/// The number of a disk whose name carries no family. `prefer_xvd`: the first sixteen keep their `xvd` numbers.
fn extended(disk: u32, partition: u32, prefer_xvd: bool) -> Option<u32> {
    match (disk, partition) {
        (0..=15, 0..=15) if prefer_xvd => Some(202 << 8 | disk << 4 | partition),
        (0..0x10_0000, 0..=255) => Some(1 << 28 | disk << 8 | partition),
        _ => None,
    }
}

/// `a` is 0, `z` 25, `aa` 26, and so on.
fn letter_index(letters: &str) -> Option<u32> {
    if letters.is_empty() || letters.len() > 4 {
        return None;
    }
    let count = letters.bytes().fold(0, |sum, letter| sum * 26 + u32::from(letter - b'a') + 1);
    Some(count - 1)
}

#[cfg(test)]
mod tests;
