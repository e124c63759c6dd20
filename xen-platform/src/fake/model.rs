//! What the hypervisor knows: domains, the processes in them, and who holds what.
//!
//! Both worlds use it: [`Machine`](super::Machine) keeps one behind a lock, and the broker of [`sim`](crate::sim) is a
//! machine that answers on a socket.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Leaks,
    events::{ChannelId, EventTable, Owner},
    faults::Luck,
    guest::{Guest, GuestInfo},
    runs::{Run, Runs},
    table::SLOTS,
};
use crate::{DomId, EventError, GrantError};

/// The first number that is not a guest's (Xen's `DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u16 = 0x7FF0;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) events: EventTable,
    pub(crate) luck: Luck,
    domains: BTreeMap<DomId, Domain>,
    /// Destroyed, but some process may still have pages of theirs mapped.
    dying: Vec<Arc<Guest>>,
    processes: BTreeMap<Owner, Process>,
    last_dom: u16,
    last_owner: Owner,
}

#[derive(Debug)]
struct Domain {
    /// Domain 0 has no memory to lend.
    guest: Option<Arc<Guest>>,
    free: Runs,
    /// Pages whose lender is gone while somebody still maps them.
    orphans: Vec<Run>,
}

#[derive(Debug)]
struct Process {
    dom: DomId,
    slot: Option<u32>,
    maps: Vec<Arc<Guest>>,
    reserved: Runs,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        let dom0 = Domain { guest: None, free: Runs::default(), orphans: Vec::new() };
        Self {
            events: EventTable::default(),
            luck: Luck::new(seed),
            domains: BTreeMap::from([(DomId::DOM0, dom0)]),
            dying: Vec::new(),
            processes: BTreeMap::new(),
            last_dom: 0,
            last_owner: 0,
        }
    }

    /// A new guest. Numbers are not used again before all others were, as Xen's toolstacks do.
    pub(crate) fn create_domain(&mut self, pages: u32) -> Result<DomId, GrantError> {
        self.bury();
        let after =
            (1..FIRST_RESERVED).map(|n| (self.last_dom + n - 1) % (FIRST_RESERVED - 1) + 1).map(DomId);
        let dom = after.into_iter().find(|dom| !self.domains.contains_key(dom));
        let dom = dom.ok_or(GrantError::Exhausted)?;
        let salt = u32::try_from(self.luck.next() >> 32).unwrap_or(0);
        let guest = Guest::create(GuestInfo { dom, pages, salt })?;
        let domain = Domain { guest: Some(Arc::new(guest)), free: Runs::all(pages), orphans: Vec::new() };
        self.domains.insert(dom, domain);
        self.last_dom = dom.0;
        Ok(dom)
    }

    /// Ends a guest; names the channels of which nothing is left.
    pub(crate) fn destroy_domain(&mut self, dom: DomId) -> Result<Vec<ChannelId>, GrantError> {
        self.bury();
        let guest = self.guest(dom)?;
        guest.table().set_dying();
        self.domains.remove(&dom);
        self.dying.push(guest);
        let ends = self.events.ends_where(Some(dom), None);
        Ok(ends.into_iter().filter_map(|end| self.events.close(end)).collect())
    }

    pub(crate) fn domains(&self) -> Vec<DomId> {
        self.domains.keys().copied().collect()
    }

    pub(crate) fn is_alive(&self, dom: DomId) -> bool {
        self.domains.contains_key(&dom)
    }

    /// A new process inside a domain, whether that is alive or not.
    pub(crate) fn start_process(&mut self, dom: DomId) -> Owner {
        self.last_owner += 1;
        let process = Process { dom, slot: None, maps: Vec::new(), reserved: Runs::default() };
        self.processes.insert(self.last_owner, process);
        self.last_owner
    }

    /// Takes back all that a process had; names the channels of which nothing is left.
    pub(crate) fn end_process(&mut self, owner: Owner) -> Vec<ChannelId> {
        let Some(process) = self.processes.remove(&owner) else { return Vec::new() };
        if let Some(slot) = process.slot {
            process.maps.iter().for_each(|guest| guest.table().clear_slot(slot));
        }
        if let Some(domain) = self.domains.get_mut(&process.dom) {
            process.reserved.iter().for_each(|run| domain.take_back(run));
        }
        let ends = self.events.ends_where(None, Some(owner));
        ends.into_iter().filter_map(|end| self.events.close(end)).collect()
    }

    /// Memory and table of a domain that is alive.
    pub(crate) fn guest(&self, dom: DomId) -> Result<Arc<Guest>, GrantError> {
        let domain = self.domains.get(&dom).ok_or(GrantError::NoDomain(dom))?;
        domain.guest.clone().ok_or(GrantError::NoDomain(dom))
    }

    /// As [`guest`](Self::guest), for a process that is going to map its pages, which from then on has a slot.
    pub(crate) fn guest_to_map(&mut self, owner: Owner, dom: DomId) -> Result<(Arc<Guest>, u32), GrantError> {
        let guest = self.guest(dom)?;
        let free = (0..SLOTS).find(|slot| self.processes.values().all(|other| other.slot != Some(*slot)));
        let process = self.processes.get_mut(&owner).ok_or(GrantError::NoDomain(dom))?;
        let slot = process.slot.or(free).ok_or(GrantError::Exhausted)?;
        process.slot = Some(slot);
        // Guests that are gone are kept only while this process may have pages of theirs mapped.
        process.maps.retain(|guest| guest.table().is_alive() || Arc::strong_count(guest) > 1);
        if !process.maps.iter().any(|known| Arc::ptr_eq(known, &guest)) {
            guest.table().open_slot(slot);
            process.maps.push(guest.clone());
        }
        Ok((guest, slot))
    }

    /// Pages of a process's domain, for it alone.
    pub(crate) fn reserve(&mut self, owner: Owner, pages: u32) -> Result<Run, GrantError> {
        let process = self.processes.get_mut(&owner).ok_or(GrantError::NoDomain(DomId::DOM0))?;
        let domain = self.domains.get_mut(&process.dom).ok_or(GrantError::NoDomain(process.dom))?;
        let run = domain.take(pages).ok_or(GrantError::Exhausted)?;
        process.reserved.put(run);
        Ok(run)
    }

    /// Takes pages back that a process reserved; what it did not reserve stays as it is.
    pub(crate) fn unreserve(&mut self, owner: Owner, run: Run) {
        let Some(process) = self.processes.get_mut(&owner) else { return };
        if !process.reserved.remove(run) {
            return;
        }
        if let Some(domain) = self.domains.get_mut(&process.dom) {
            domain.take_back(run);
        }
    }

    /// Fails when the domain of an event channel's end, or of its process, is not there.
    pub(crate) fn admit(&self, owner: Owner, remote: DomId) -> Result<DomId, EventError> {
        let dom = self.processes.get(&owner).ok_or(EventError::NoDomain(DomId::DOM0))?.dom;
        let missing = [dom, remote].into_iter().find(|dom| !self.is_alive(*dom));
        missing.map_or(Ok(dom), |dom| Err(EventError::NoDomain(dom)))
    }

    pub(crate) fn leaks(&mut self) -> Leaks {
        self.bury();
        let mut leaks = Leaks { ports: self.events.len() as u64, ..Leaks::default() };
        let alive = self.domains.values().filter_map(|domain| domain.guest.as_ref());
        for guest in alive.chain(&self.dying) {
            let (mapped, granted) = guest.table().usage();
            leaks.mapped += mapped;
            leaks.granted += granted;
        }
        let reserved = |process: &Process| u64::from(process.reserved.len());
        leaks.pages += self.processes.values().map(reserved).sum::<u64>();
        let orphans = self.domains.values().flat_map(|domain| &domain.orphans);
        leaks.pages += orphans.map(|run| u64::from(run.count)).sum::<u64>();
        leaks
    }

    /// Forgets destroyed domains that nobody maps any more.
    fn bury(&mut self) {
        self.dying.retain(|guest| guest.table().usage().0 > 0);
    }
}

impl Domain {
    fn take(&mut self, pages: u32) -> Option<Run> {
        if let Some(run) = self.free.take(pages) {
            return Some(run);
        }
        for run in core::mem::take(&mut self.orphans) {
            self.take_back(run);
        }
        self.free.take(pages)
    }

    /// Pages without a lender: free, once nobody maps them.
    fn take_back(&mut self, run: Run) {
        match &self.guest {
            Some(guest) if guest.reclaim(run) => self.free.put(run),
            _ => self.orphans.push(run),
        }
    }
}
