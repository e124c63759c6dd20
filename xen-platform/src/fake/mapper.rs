//! The backend's view of granted pages, in both simulated worlds.

use std::{collections::BTreeMap, sync::Arc};

use blkif_proto::GrantRef;
use smallvec::SmallVec;

use super::{guest::Guest, hypervisor::Hypervisor, pages::RingPages};
use crate::{Access, CopyOp, DomId, GrantError, PAGE_SIZE, SharedMem, grant::CopyEnd};

/// Maps and copies pages that were granted to this process's domain. Made by
/// [`BackWorld::mapper`](crate::BackWorld::mapper).
pub struct Mapper {
    hypervisor: Arc<dyn Hypervisor>,
    guests: BTreeMap<DomId, Source>,
}

/// A domain whose pages this process maps.
#[derive(Clone, Debug)]
struct Source {
    guest: Arc<Guest>,
    slot: u32,
}

/// Granted pages that are mapped; the holder that [`Mapper::map`](crate::Mapper::map) fills.
pub struct Mapping {
    hypervisor: Arc<dyn Hypervisor>,
    // One page of one domain is what a persistent grant is: it stays inside, so that thousands of them cost few cache lines.
    sources: SmallVec<[Source; 1]>,
    pages: SmallVec<[Held; 1]>,
}

/// One page that is mapped.
#[derive(Clone, Copy, Debug)]
struct Held {
    gref: GrantRef,
    page: u32,
    source: u32,
    access: Access,
}

impl core::fmt::Debug for Mapper {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mapper({} domains)", self.guests.len())
    }
}

impl core::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(&self.pages).finish()
    }
}

impl Mapper {
    pub(crate) fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, guests: BTreeMap::new() }
    }

    /// Fails where this process may not map now, or is not meant to succeed.
    fn admit(&self, from: DomId) -> Result<(), GrantError> {
        if self.hypervisor.is_crashed() {
            return Err(GrantError::NoDomain(from));
        }
        if self.hypervisor.refuses(from) { Err(GrantError::Exhausted) } else { Ok(()) }
    }

    /// The domain's memory, asked of the hypervisor once.
    fn source(&mut self, from: DomId) -> Result<&Source, GrantError> {
        let known = self.guests.get(&from).is_some_and(|source| source.guest.table().is_alive());
        if !known {
            // Domains come and go; this is the moment to forget those that went.
            self.guests.retain(|_, source| source.guest.table().is_alive());
            let (guest, slot) = self.hypervisor.guest_to_map(from)?;
            self.guests.insert(from, Source { guest, slot });
        }
        self.guests.get(&from).ok_or(GrantError::NoDomain(from))
    }

    fn copy_one(&mut self, op: &mut CopyOp<'_>) -> Result<(), GrantError> {
        let by = self.hypervisor.dom();
        let CopyOp { from, gref, offset, local, .. } = op;
        let (access, bytes) = match local {
            CopyEnd::Into(bytes) => (Access::Read, bytes.len()),
            CopyEnd::From(bytes) => (Access::ReadWrite, bytes.len()),
        };
        let range = || GrantError::BadRange {
            gref: *gref,
            offset: *offset,
            len: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        let start = usize::try_from(*offset).map_err(|_| range())?;
        if start.checked_add(bytes).is_none_or(|end| end > PAGE_SIZE) {
            return Err(range());
        }
        let source = self.source(*from)?;
        let page = source.guest.table().hold(source.slot, *gref, by, access)?;
        let part = source.guest.page(page, access).and_then(|page| page.part(start, bytes));
        let copied = match (part, local) {
            (Some(part), CopyEnd::Into(bytes)) => part.read(bytes),
            (Some(part), CopyEnd::From(bytes)) => part.write(bytes),
            (None, _) => 0,
        };
        source.guest.table().let_go(source.slot, *gref);
        if copied == bytes { Ok(()) } else { Err(range()) }
    }
}

impl crate::Mapper for Mapper {
    type Mapping = Mapping;
    type RingPages = RingPages;

    fn mapping(&self) -> Mapping {
        Mapping { hypervisor: self.hypervisor.clone(), sources: SmallVec::new(), pages: SmallVec::new() }
    }

    fn map(
        &mut self,
        from: DomId,
        refs: &[GrantRef],
        access: Access,
        into: &mut Mapping,
    ) -> Result<(), GrantError> {
        self.admit(from)?;
        let by = self.hypervisor.dom();
        let source = self.source(from)?;
        into.add(source, by, refs, access)
    }

    fn map_ring(&mut self, from: DomId, refs: &[GrantRef]) -> Result<RingPages, GrantError> {
        let mut held = crate::Mapper::mapping(self);
        crate::Mapper::map(self, from, refs, Access::ReadWrite, &mut held)?;
        let pages: Vec<u32> = held.pages.iter().map(|held| held.page).collect();
        let source = held.sources.first().ok_or(GrantError::NoDomain(from))?;
        Ok(RingPages::new(source.guest.gather(&pages)?, held))
    }

    fn copy(&mut self, ops: &mut [CopyOp<'_>]) -> Result<(), GrantError> {
        if let Some(first) = ops.first() {
            self.admit(first.from)?;
        }
        for op in ops {
            op.status = self.copy_one(op);
        }
        Ok(())
    }
}

impl Mapping {
    fn add(
        &mut self,
        source: &Source,
        by: DomId,
        refs: &[GrantRef],
        access: Access,
    ) -> Result<(), GrantError> {
        let index = self.index(source);
        let before = self.pages.len();
        for gref in refs {
            match source.guest.table().hold(source.slot, *gref, by, access) {
                Ok(page) => self.pages.push(Held { gref: *gref, page, source: index, access }),
                Err(error) => {
                    self.let_go(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// The place of `source` among the sources; nearly always there is just one.
    fn index(&mut self, source: &Source) -> u32 {
        let known = self.sources.iter().position(|other| Arc::ptr_eq(&other.guest, &source.guest));
        let index = known.unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Unmaps all pages from `keep` on.
    fn let_go(&mut self, keep: usize) {
        // A killed process has had its counts cleared by the hypervisor.
        let counted = !self.hypervisor.is_crashed();
        for held in self.pages.drain(keep..).filter(|_| counted) {
            if let Some(source) = self.sources.get(held.source as usize) {
                source.guest.table().let_go(source.slot, held.gref);
            }
        }
    }
}

impl crate::Mapping for Mapping {
    fn len(&self) -> usize {
        self.pages.len()
    }

    fn page(&self, index: usize) -> Option<SharedMem<'_>> {
        let held = self.pages.get(index)?;
        self.sources.get(held.source as usize)?.guest.page(held.page, held.access)
    }

    fn clear(&mut self) {
        self.let_go(0);
        self.sources.retain(|source| source.guest.table().is_alive());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.let_go(0);
    }
}
