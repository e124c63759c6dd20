//! What Xen hands to a 64-bit PV guest when it starts, and how its memory lies.
//!
//! Unsafe stands here because all of that comes as bare addresses. What makes it sound: who calls [`Start::new`] vouches for
//! the first; the others lead to pages that the domain builder has mapped one after the other from the image's base on, which
//! are looked at through [`SharedMem`] only.
#![expect(unsafe_code, reason = "addresses that Xen hands over; see the module documentation")]

use alloc::{string::String, vec};
use core::{ptr::NonNull, sync::atomic::Ordering};

use super::abi::start_info;
use crate::{PAGE_SIZE, Port, SharedMem};

/// The page `start_info`, and the guest's memory by it.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    info: SharedMem<'static>,
    memory: Memory,
}

/// Pages as Xen numbers them. The page at the image's base is the guest's number 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    base: usize,
    /// The machine's number of each page of the guest.
    frames: SharedMem<'static>,
}

impl Start {
    /// Looks at what register RSI pointed to at the entry. `None`: that is no 64-bit PV guest's `start_info`.
    ///
    /// # Safety
    /// `info` is that address, and `base` is what the image's ELF note `VIRT_BASE` says. The domain builder's page tables are
    /// in use, and nobody makes references to those pages.
    pub unsafe fn new(info: NonNull<u8>, base: usize) -> Option<Self> {
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
        Some(Self { info, memory: Memory { base, frames } })
    }

    /// The command line: `extra` in the guest's configuration.
    pub fn command_line(&self) -> String {
        let mut bytes = vec![0; start_info::COMMAND_LINE_BYTES];
        if let Some(line) = self.info.part(start_info::COMMAND_LINE, bytes.len()) {
            line.read(&mut bytes);
        }
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }

    /// Pages of memory that the guest has.
    pub fn pages(&self) -> usize {
        self.memory.frames.len() / size_of::<u64>()
    }

    /// The machine frame of `shared_info`.
    pub(super) fn shared_info(&self) -> Option<u64> {
        Some(word(self.info, start_info::SHARED_INFO)? / PAGE_SIZE as u64)
    }

    /// The console's page and port.
    pub(super) fn console(&self) -> Option<(SharedMem<'static>, Port)> {
        self.daemon(start_info::CONSOLE_FRAME, start_info::CONSOLE_PORT)
    }

    /// XenStore's page and port.
    pub(super) fn store(&self) -> Option<(SharedMem<'static>, Port)> {
        self.daemon(start_info::STORE_FRAME, start_info::STORE_PORT)
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory
    }

    fn daemon(&self, frame: usize, port: usize) -> Option<(SharedMem<'static>, Port)> {
        let page = self.memory.page(word(self.info, frame)?)?;
        Some((page, Port(self.info.word32(port)?.load(Ordering::Relaxed))))
    }
}

impl Memory {
    /// The machine's number of the page at an address of the image. `None`: there is no such page.
    pub(super) fn frame(&self, address: usize) -> Option<u64> {
        let number = address.checked_sub(self.base)? / PAGE_SIZE;
        word(self.frames, number.checked_mul(size_of::<u64>())?)
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

fn word(page: SharedMem<'static>, at: usize) -> Option<u64> {
    Some(page.word64(at)?.load(Ordering::Relaxed))
}

#[cfg(test)]
pub(in crate::bare) mod tests;
