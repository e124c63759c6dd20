//! The three ways in which compilers lay out a ring entry, and how peers name them.

use crate::{PAGE_SIZE, wire::MAX_ENTRY_SIZE};

/// Bytes of the shared ring's header, in front of the entries (Xen public header `io/ring.h`).
const RING_HEADER: usize = 64;

/// Layout of ring entries, as the frontend's `protocol` key names it (Xen public header `io/protocols.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// `x86_32-abi`: 64-bit members aligned to 4 bytes, entries of 108 bytes.
    X86_32,
    /// `x86_64-abi`: entries of 112 bytes.
    X86_64,
    /// `arm-abi`, 32 and 64 bit: the layout of `x86_64-abi` under another name.
    Arm,
}

impl Abi {
    /// Every ABI.
    pub const ALL: [Abi; 3] = [Abi::X86_32, Abi::X86_64, Abi::Arm];

    /// What a frontend built for this machine speaks, and must always write down.
    pub const NATIVE: Abi = if cfg!(target_arch = "x86") {
        Abi::X86_32
    } else if cfg!(target_arch = "x86_64") {
        Abi::X86_64
    } else {
        Abi::Arm
    };

    /// What a backend assumes when the frontend names no ABI: `x86_32-abi` on x86, as Linux, QEMU and tapback do (the public
    /// header says "native", which would be wrong for the guests that rely on it), and the native one elsewhere.
    pub const DEFAULT_BACKEND: Abi =
        if cfg!(any(target_arch = "x86", target_arch = "x86_64")) { Abi::X86_32 } else { Abi::Arm };

    /// The ABI of a `protocol` value, `None` for a name that no specification has.
    pub fn from_protocol(name: &str) -> Option<Abi> {
        Abi::ALL.into_iter().find(|abi| abi.as_protocol() == name)
    }

    /// The value of the `protocol` key.
    pub const fn as_protocol(self) -> &'static str {
        match self {
            Abi::X86_32 => "x86_32-abi",
            Abi::X86_64 => "x86_64-abi",
            Abi::Arm => "arm-abi",
        }
    }

    /// Bytes of a ring entry, which requests and responses share.
    pub const fn entry_size(self) -> usize {
        match self {
            Abi::X86_32 => 108,
            Abi::X86_64 | Abi::Arm => MAX_ENTRY_SIZE,
        }
    }

    /// Bytes of a response, padding included.
    pub const fn response_size(self) -> usize {
        match self {
            Abi::X86_32 => 12,
            Abi::X86_64 | Abi::Arm => 16,
        }
    }

    /// Entries of a ring over `pages` pages: the largest power of two that fits behind the header, 0 for no pages
    /// (`__RING_SIZE` in Xen's public header `io/ring.h`).
    pub const fn ring_entries(self, pages: u32) -> u32 {
        let fit =
            (pages as u64 * PAGE_SIZE as u64).saturating_sub(RING_HEADER as u64) / self.entry_size() as u64;
        match fit {
            0 => 0,
            1..=0xFFFF_FFFF => 1 << fit.ilog2(),
            _ => 1 << 31,
        }
    }
}

#[cfg(test)]
mod tests;
