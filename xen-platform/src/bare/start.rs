//! What Xen hands to a guest when it starts, and how its memory lies: 64-bit PV or PVH.

pub(super) mod pv;
pub(super) mod pvh;

use alloc::string::String;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{
    abi::{self, start_info},
    hypercall::{self, Errno},
};
use crate::{PAGE_SIZE, Port, SharedMem};

/// What Xen told a guest. Made by [`Start::pv`] or [`Start::pvh`], depending on how it was entered.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    memory: Memory,
    line: SharedMem<'static>,
    console: Option<Daemon>,
    store: Option<Daemon>,
}

/// A daemon of the control domain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemon {
    /// The page shared with it.
    pub(super) page: SharedMem<'static>,
    port: PortSource,
}

/// Where Xen says which port rings at a daemon: that is another one whenever the guest was saved and restored.
#[derive(Clone, Copy, Debug)]
enum PortSource {
    /// In `start_info`.
    StartInfo(&'static AtomicU32),
    /// In a parameter of the guest.
    Parameter(u32),
}

impl Daemon {
    /// The port that rings there; 0, which is nobody's, if Xen does not say.
    pub(super) fn port(&self) -> Port {
        Port(match self.port {
            PortSource::StartInfo(word) => word.load(Ordering::Relaxed),
            PortSource::Parameter(index) => {
                hypercall::parameter(index).ok().and_then(|port| u32::try_from(port).ok()).unwrap_or(0)
            }
        })
    }
}

impl Start {
    /// The command line: `extra` in the guest's configuration.
    pub fn command_line(&self) -> String {
        let mut bytes = [0; start_info::COMMAND_LINE_BYTES];
        let count = self.line.read(&mut bytes);
        let line = bytes.get(..count).and_then(|bytes| bytes.split(|byte| *byte == 0).next());
        String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
    }

    pub(super) fn console(&self) -> Option<Daemon> {
        self.console
    }

    pub(super) fn store(&self) -> Option<Daemon> {
        self.store
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

/// How pages of the guest are named to Xen, and how Xen's come into its memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory {
    /// By the machine's frames; the guest maps what Xen names.
    Pv(pv::Memory),
    /// By the guest's own frames, which are addresses; Xen puts pages where the guest wants them.
    Pvh,
}

impl Memory {
    /// The frame of the page at an address, as a grant names it. `None`: there is no such page.
    pub(super) fn frame(&self, address: usize) -> Option<u64> {
        match self {
            Self::Pv(memory) => memory.frame(address),
            Self::Pvh => Some((address / PAGE_SIZE) as u64),
        }
    }

    /// Puts the page shared with the hypervisor where `page` was.
    pub(super) fn map_shared_info(&self, page: SharedMem<'static>) -> Result<(), Errno> {
        match self {
            Self::Pv(memory) => hypercall::remap(page, memory.shared_info()),
            Self::Pvh => hypercall::add_to_physmap(abi::XENMAPSPACE_SHARED_INFO, 0, page),
        }
    }

    /// Puts the grant table where `pages` were, and makes it as large as they are. `frames` is room for as many words.
    pub(super) fn map_grant_table(&self, pages: SharedMem<'static>, frames: &mut [u64]) -> Result<(), Errno> {
        if let Self::Pv(_) = self {
            hypercall::set_up_grant_table(frames)?;
        }
        for (index, frame) in frames.iter().enumerate() {
            let page = pages.part(index * PAGE_SIZE, PAGE_SIZE).ok_or(Errno(abi::EINVAL))?;
            match self {
                Self::Pv(_) => hypercall::remap(page, *frame)?,
                Self::Pvh => hypercall::add_to_physmap(abi::XENMAPSPACE_GRANT_TABLE, index as u64, page)?,
            }
        }
        Ok(())
    }
}

fn word(page: SharedMem<'static>, at: usize) -> Option<u64> {
    Some(page.word64(at)?.load(Ordering::Relaxed))
}
