//! The toolstack's side: domains come and go.

use std::path::Path;

use super::{
    SimError,
    client::Connection,
    message::{Answer, Ask},
};
use crate::DomId;

/// A toolstack's connection to a world's broker.
#[derive(Debug)]
pub struct Toolstack {
    connection: Connection,
}

impl Toolstack {
    /// Joins the world in `dir`. Errors: as [`World::connect`](super::World::connect).
    pub fn connect(dir: impl AsRef<Path>) -> Result<Self, SimError> {
        Ok(Self { connection: Connection::new(dir.as_ref(), DomId::DOM0)? })
    }

    /// Makes a guest with `pages` pages of 4096 bytes (1 to 2^22), which cost nothing until they are touched, and introduces
    /// it to XenStore. Errors: [`SimError::Exhausted`] for an impossible size or when no domain number is left.
    pub fn create_domain(&self, pages: u32) -> Result<DomId, SimError> {
        match self.connection.call(Ask::CreateDomain { pages })? {
            (Answer::Domain(dom), _) => Ok(dom),
            _ => Err(SimError::Garbled),
        }
    }

    /// Destroys a guest: its ports close, XenStore forgets it, nothing of it can be mapped any more. Its processes are not
    /// killed, but whatever they do fails. Errors: [`SimError::NoDomain`], also for domain 0.
    pub fn destroy_domain(&self, dom: DomId) -> Result<(), SimError> {
        self.connection.call(Ask::DestroyDomain { dom })?;
        Ok(())
    }

    /// The domains that are alive, domain 0 first.
    pub fn list(&self) -> Result<Vec<DomId>, SimError> {
        let mut all = Vec::new();
        loop {
            let ask = Ask::ListDomains { after: all.last().copied() };
            let (Answer::Domains(some, last), _) = self.connection.call(ask)? else {
                return Err(SimError::Garbled);
            };
            let none = some.is_empty();
            all.extend(some);
            if last || none {
                return Ok(all);
            }
        }
    }
}
