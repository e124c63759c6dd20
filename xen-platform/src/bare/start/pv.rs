//! The start of a 64-bit PV guest: `start_info`, and page tables that the domain builder has made.
//!
//! Unsafe stands here because all of that comes as bare addresses. What makes it sound: who calls [`Start::pv`] vouches for
//! the first; the others lead to pages that the domain builder has mapped one after the other from the image's base on, which
//! are looked at through [`SharedMem`] only.
#![expect(unsafe_code, reason = "addresses that Xen hands over; see the module documentation")]

use core::ptr::NonNull;

use super::{Daemon, PortSource, Start, start_info, word};
use crate::{PAGE_SIZE, SharedMem};

/// Pages as Xen numbers them. The page at the image's base is the guest's number 0.
#[derive(Clone, Copy, Debug)]
pub(in crate::bare) struct Memory {
    base: usize,
    /// The machine's number of each page of the guest.
    frames: SharedMem<'static>,
    shared_info: u64,
}

impl Start {
    /// Looks at what register RSI pointed to at the entry. `None`: that is no 64-bit PV guest's `start_info`.
    ///
    /// # Safety
    /// `info` is that address, and `base` is what the image's ELF note `VIRT_BASE` says. The domain builder's page tables are
    /// in use, and nobody makes references to those pages.
    pub unsafe fn pv(info: NonNull<u8>, base: usize) -> Option<Self> {
        // SAFETY: the caller's; the builder maps the page for good.
        let info = unsafe { SharedMem::new(info, PAGE_SIZE) };
        let mut magic = [0; start_info::MAGIC.len()];
        info.read(&mut magic);
        if magic != start_info::MAGIC {
            return None;
        }
        let list = NonNull::new(word(info, start_info::FRAME_LIST)? as *mut u8)?;
        let pages = usize::try_from(word(info, start_info::PAGES)?).ok()?;
        // SAFETY: the builder maps the list, a word for each page, for good.
        let frames = unsafe { SharedMem::new(list, pages.checked_mul(size_of::<u64>())?) };
        let shared_info = word(info, start_info::SHARED_INFO)? / PAGE_SIZE as u64;
        let memory = Memory { base, frames, shared_info };
        Some(Self {
            memory: super::Memory::Pv(memory),
            line: info.part(start_info::COMMAND_LINE, start_info::COMMAND_LINE_BYTES)?,
            console: memory.daemon(info, start_info::CONSOLE_FRAME, start_info::CONSOLE_PORT),
            store: memory.daemon(info, start_info::STORE_FRAME, start_info::STORE_PORT),
        })
    }
}

impl Memory {
    /// The machine's number of the page at an address of the image. `None`: there is no such page.
    pub(super) fn frame(&self, address: usize) -> Option<u64> {
        let number = address.checked_sub(self.base)? / PAGE_SIZE;
        word(self.frames, number.checked_mul(size_of::<u64>())?)
    }

    /// The machine frame of the page shared with the hypervisor.
    pub(super) fn shared_info(&self) -> u64 {
        self.shared_info
    }

    fn daemon(&self, info: SharedMem<'static>, frame: usize, port: usize) -> Option<Daemon> {
        let page = self.page(word(info, frame)?)?;
        Some(Daemon { page, port: PortSource::StartInfo(info.word32(port)?) })
    }

    /// The page with machine number `frame`, one of those that the builder has mapped.
    fn page(&self, frame: u64) -> Option<SharedMem<'static>> {
        let pages = self.frames.len() / size_of::<u64>();
        let number = (0..pages).find(|number| word(self.frames, number * size_of::<u64>()) == Some(frame))?;
        let base = NonNull::new(self.base.checked_add(number.checked_mul(PAGE_SIZE)?)? as *mut u8)?;
        // SAFETY: only asked for the pages that the builder put behind the image, console's and XenStore's, which it has mapped
        // for good at their number's place; nothing of the image lies in them.
        Some(unsafe { SharedMem::new(base, PAGE_SIZE) })
    }
}

#[cfg(test)]
pub(in crate::bare) mod tests;
