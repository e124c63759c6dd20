//! The block driver of a guest's own kernel as the frontend under test, on real Xen.
//!
//! A program in the guest, `xenclauses stock`, gives the disk to the driver, uses it, and takes it away again. It is told to over the
//! guest's console, and tells there what comes of it:
//!
//! ```text
//!   launch ──▶ start        the driver's module has the job's parameters, the driver is bound to the disk
//!   open   ──▶ ready        the kernel has looked for partitions
//!   begin  ──▶ work         done 0, done 1 I/O error, …, read DIGEST
//!   end    ──▶ stop         the driver is unbound
//! ```

mod console;
mod driver;

use anyhow::Result;
use xen_platform::{Change, DomId, Store as _, StoreClient};

use self::console::Console;
pub(super) use self::driver::Driver;
use super::{TARGET, job::Job};
use crate::world::{
    Disk, Vbd,
    toolstack::{make_frontend, make_nodes},
};

/// What Linux says of every disk.
const USUAL: [&str; 2] = ["persistent grants: ", "Setting capacity to "];

/// A guest that leaves new disks to whoever binds them to a driver, and one such disk.
pub struct Guest {
    domain: DomId,
    disk: Disk,
    /// A driver had the disk already, and Linux does not take a disk twice.
    used: bool,
    /// From where on this guest's console is the clause's.
    console: Console,
}

/// The guest cannot be used for further clauses.
#[derive(Debug, thiserror::Error)]
#[error("the guest is of no further use: {0}")]
pub struct UsedUp(String);

impl Guest {
    /// The guest with a disk of that index, which it must not have had before: 0 is xvda.
    pub fn new(store: &mut StoreClient, domain: DomId, index: u8) -> Result<Self> {
        let disk = Disk { index, ..Disk::new(TARGET) };
        Ok(Self { domain, disk, used: false, console: Console::open(store, domain)? })
    }

    pub(super) fn make_disk(&self, store: &mut StoreClient) -> Result<Vbd> {
        make_nodes(store, self.domain, &self.disk)
    }

    /// Gives the disk to the guest's driver. Errors: [`UsedUp`].
    pub(super) fn launch(&mut self, store: &mut StoreClient, vbd: &Vbd, job: Job) -> Result<Driver> {
        let mut driver = Driver::new(Console::open(store, self.domain)?, vbd, self.disk.name(), job)?;
        if self.used {
            store.apply(&[Change::Remove(&vbd.frontend)])?;
            driver.wait_gone()?;
            make_frontend(store, vbd)?;
        }
        self.used = true;
        driver.bind()?;
        Ok(driver)
    }

    /// What the guest's kernel had to say, for messages.
    pub(super) fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        // What cannot be read any more is not worth an error of its own.
        while let Ok(Some(line)) = self.console.next() {
            let told = line.of_the_kernel().filter(|words| !USUAL.iter().any(|usual| words.contains(usual)));
            words.extend(told.map(str::to_owned));
        }
        words.split_off(words.len().saturating_sub(3)).join("; ")
    }
}
