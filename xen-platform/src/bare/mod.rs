//! Real Xen without an operating system under us: a guest's first and only program, by hypercalls. 64-bit PV and PVH on x86.
//!
//! | file | what |
//! |---|---|
//! | `hypercall` | the calls; `abi` has the numbers and layouts that `xen-sys` lacks |
//! | `start` | what Xen hands over at the start, [`Start`] |
//! | `area` | pages that an image sets aside, [`Area`] |
//! | `shared_info` | pending and masked events, and the time |
//! | `event` | [`Events`]: nobody is interrupted, waiting is a poll |
//! | `grant`, `pool` | [`Lender`]: the grant table, and the pages that are lent |
//! | `store`, `byte_ring` | [`StoreClient`]: XenStore's ring |
//! | `console` | [`Console`] |
//! | `suspend` | [`World::suspend`]: saved and restored by the tool stack; [`Control`]: what it asks for |
//!
//! Who boots does three things: [`install`] the hypercall page (PVH: [`enable_hypercalls`]), look at the [`Start`], and make a
//! [`World`] of it and of the pages set aside. `no_std` with `alloc`; one processor, whose upcalls stay masked.

mod abi;
mod area;
mod byte_ring;
mod console;
mod event;
mod grant;
mod hypercall;
mod pool;
mod shared_info;
mod start;
mod store;
mod suspend;

use alloc::{rc::Rc, sync::Arc, vec};
use core::{
    cell::RefCell,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use xen_sys as xen;

pub use abi::layout;
pub use area::Area;
pub use console::Console;
pub use event::Events;
pub use grant::Lender;
pub use hypercall::{crash_on_triple_fault, enable_hypercalls, install};
pub use start::Start;
pub use store::{Client, StoreClient};
pub use suspend::{Control, Request};

use crate::{DomId, EventError, FrontWorld, GrantError, PAGE_SIZE, SharedMem, StoreError};
use grant::GrantTable;
use hypercall::Errno;
use pool::Pool;
use shared_info::SharedInfo;
use start::Memory;
use store::Connection;

/// The Xen that this guest boots on.
#[derive(Clone, Debug)]
pub struct World {
    machine: Arc<Machine>,
    store: Rc<RefCell<Connection>>,
}

/// What all handles of the guest share.
#[derive(Debug)]
struct Machine {
    shared: SharedInfo,
    grants: GrantTable,
    memory: Memory,
    pool: Pool,
    /// How often the guest was restored.
    lives: AtomicU32,
}

impl Machine {
    fn life(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }
}

/// Pages of the image for a [`World`] to use. All page aligned, zeroed, and nobody else's from now on.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// One page, in whose place the hypervisor's shared page is mapped.
    pub shared_info: SharedMem<'static>,
    /// Pages in whose place the grant table is mapped; each holds 512 references. Xen gives at most 64 to a guest by default.
    pub grant_table: SharedMem<'static>,
    /// What can be lent: rings, descriptors, buffers. Each page takes a reference; 8 more are the tool stack's.
    pub pool: SharedMem<'static>,
}

/// Why a guest has no world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Something that Xen should have named at the start is not there.
    #[error("Xen names no {0}")]
    Missing(&'static str),
    /// The pages set aside do not fit their use.
    #[error("pages set aside for the {0} are too few or not aligned")]
    Pages(&'static str),
    /// A hypercall failed (its errno, positive).
    #[error("{what}: error {errno}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Xen's answer.
        errno: i32,
    },
}

impl World {
    /// Takes the guest over: maps the shared page and the grant table, and finds XenStore. Once for each boot. Errors: see
    /// [`BootError`].
    pub fn new(start: &Start, reserved: Reserved) -> Result<Self, BootError> {
        let page = reserved.shared_info;
        if page.len() != PAGE_SIZE || !is_aligned(page) {
            return Err(BootError::Pages("shared page"));
        }
        let memory = start.memory();
        map_shared_info(memory, page)?;
        let shared = SharedInfo::new(page);
        let pool = Pool::new(reserved.pool).ok_or(BootError::Pages("pool"))?;
        let grants = grant_table(memory, reserved.grant_table, pool.len())?;
        let store = Connection::new(start, shared).ok_or(BootError::Missing("XenStore"))?;
        let machine = Arc::new(Machine { shared, grants, memory, pool, lives: AtomicU32::new(0) });
        Ok(Self { machine, store: Rc::new(RefCell::new(store)) })
    }
}

fn grant_table(memory: Memory, pages: SharedMem<'static>, lent: usize) -> Result<GrantTable, BootError> {
    let table = GrantTable::new(pages);
    if !is_aligned(pages) || !pages.len().is_multiple_of(PAGE_SIZE) || table.len() < grant::references(lent) {
        return Err(BootError::Pages("grant table"));
    }
    map_grant_table(memory, table)?;
    Ok(table)
}

fn map_grant_table(memory: Memory, table: GrantTable) -> Result<(), BootError> {
    let mut frames = vec![0; table.pages().len() / PAGE_SIZE];
    let mapped = memory.map_grant_table(table.pages(), &mut frames);
    mapped.map_err(refused("setting the grant table up"))
}

fn map_shared_info(memory: Memory, page: SharedMem<'static>) -> Result<(), BootError> {
    memory.map_shared_info(page).map_err(refused("mapping the shared page"))
}

fn is_aligned(pages: SharedMem<'static>) -> bool {
    pages.as_ptr().addr().is_multiple_of(PAGE_SIZE)
}

fn refused(what: &'static str) -> impl Fn(Errno) -> BootError {
    move |errno| BootError::Refused { what, errno: errno.0 }
}

impl FrontWorld for World {
    type Lender = Lender;
    type Events = Events;
    type Store = StoreClient;
    type Clock = Clock;

    fn lender(&self, to: DomId) -> Result<Lender, GrantError> {
        Ok(Lender::new(self.machine.clone(), to))
    }

    fn events(&self) -> Result<Events, EventError> {
        Ok(Events::new(self.machine.clone()))
    }

    fn store(&self) -> Result<StoreClient, StoreError> {
        Ok(StoreClient::new(Client::new(self.store.clone())))
    }

    fn clock(&self) -> Clock {
        Clock(self.machine.shared)
    }
}

/// Xen's system time.
#[derive(Clone, Copy, Debug)]
pub struct Clock(SharedInfo);

impl crate::Clock for Clock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

/// How a guest ends, in the words of `xl`'s `on_poweroff` and `on_crash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has done what it was for (`SHUTDOWN_poweroff`).
    PowerOff,
    /// It cannot go on (`SHUTDOWN_crash`).
    Crash,
}

/// Ends this guest.
pub fn shut_down(reason: Reason) -> ! {
    let reason = match reason {
        Reason::PowerOff => xen::SHUTDOWN_poweroff,
        Reason::Crash => xen::SHUTDOWN_crash,
    };
    loop {
        let _ = hypercall::shut_down(reason);
        hypercall::yield_now();
    }
}

#[cfg(test)]
pub(in crate::bare) mod tests;
