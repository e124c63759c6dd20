//! Stage two: memory for the data. How it reaches the guest's pages is the queue's [`Reach`]; nothing after this stage and
//! before [`release`](Worker::release) differs by it.

use blkif_proto::{GrantRef, PAGE_SIZE};
use xen_platform::{Access, BackWorld, Clock as _, CopyOp, GrantError, Mapper, Mapping, grant::CopyEnd};

use super::{
    hold::fare,
    inflight::{Failure, InFlight, Place, Ticket},
    queue::{MappingOf, Queue, Reach},
    worker::Worker,
};
use crate::{stats::Grants, storage::Storage};

/// Room that is used again for every batch.
#[derive(Default)]
pub(super) struct Scratch {
    refs: Vec<GrantRef>,
    descriptors: Vec<u8>,
    copies: Vec<CopyOp<'static>>,
    /// Which ticket each copy is for.
    owners: Vec<usize>,
    failed: Vec<(usize, GrantError)>,
}

/// What a batch of copies is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leg {
    /// Descriptor pages of indirect requests into private memory.
    Descriptors,
    /// Data to be written into private memory.
    In,
    /// Data that was read out to the guest.
    Out,
}

impl<W: BackWorld, S: Storage<InFlight<MappingOf<W>>>> Worker<W, S> {
    /// Gives every admitted request its memory, and moves it on.
    pub(super) fn map(&mut self) {
        if self.admitted.is_empty() {
            return;
        }
        let mut tickets = std::mem::take(&mut self.admitted);
        if self.tracing.is_some() {
            let now = self.clock.now();
            tickets.iter_mut().for_each(|ticket| ticket.data.times.admitted = now);
        }
        if tickets.iter().any(|ticket| ticket.data.indirect.is_some()) {
            self.fetch_segments(&mut tickets);
        }
        let mut copies = false;
        for ticket in &mut tickets {
            let data = &mut ticket.data;
            if data.outcome.is_err() || data.segments.is_empty() {
                continue;
            }
            let Some(Some(queue)) = self.queues.get_mut(data.queue) else { continue };
            if let Err(failure) = provide(queue, &mut self.mapper, &mut self.scratch, data) {
                data.fail(failure);
            }
            copies |= data.is_copied() && data.op.reads_guest();
        }
        if copies {
            copy(&mut self.mapper, &mut self.scratch, &mut tickets, Leg::In);
        }
        for ticket in tickets.drain(..) {
            let list = if ticket.data.outcome.is_ok() { &mut self.ready } else { &mut self.finished };
            list.push(ticket);
        }
        self.admitted = tickets;
    }

    /// Reads the segments of indirect requests out of the guest's descriptor pages, each page once.
    fn fetch_segments(&mut self, tickets: &mut [Ticket<MappingOf<W>>]) {
        let mut copies = false;
        for ticket in tickets.iter_mut() {
            let data = &mut ticket.data;
            let (Some(indirect), Some(Some(queue))) = (data.indirect, self.queues.get_mut(data.queue)) else {
                continue;
            };
            if queue.reach == Reach::Copy {
                copies = true;
                queue.stats.grants.copied.add(indirect.pages().len() as u64);
                if !data.buffer.reserve(indirect.descriptor_bytes()) {
                    data.fail(Failure::Memory(indirect.descriptor_bytes()));
                }
                continue;
            }
            let fetched = fetch(queue, &mut self.mapper, &mut self.scratch.descriptors, data);
            match fetched {
                Ok(()) => parse_descriptors(queue, &self.scratch.descriptors, data),
                Err(error) => data.fail(Failure::Grant(error)),
            }
        }
        if copies {
            copy(&mut self.mapper, &mut self.scratch, tickets, Leg::Descriptors);
            for ticket in tickets {
                let data = &mut ticket.data;
                let Some(Some(queue)) = self.queues.get(data.queue) else { continue };
                let Some(indirect) = data.indirect.filter(|_| data.outcome.is_ok()) else { continue };
                let descriptors = &mut self.scratch.descriptors;
                descriptors.clear();
                descriptors.extend_from_slice(data.buffer.bytes(indirect.descriptor_bytes()));
                parse_descriptors(queue, descriptors, data);
            }
        }
    }

    /// Gives a request's pages back: unmaps what was mapped for it, before any answer.
    pub(super) fn release(&mut self, ticket: &mut Ticket<MappingOf<W>>) {
        let data = &mut ticket.data;
        if !data.mapping.is_empty() {
            data.mapping.clear();
        }
        if !data.leases.is_empty()
            && let Some(Some(queue)) = self.queues.get_mut(data.queue)
        {
            data.leases.drain(..).for_each(|lease| queue.cache.give_back(lease));
            queue.stats.persistent_pages.set(queue.cache.len() as u64);
        }
        data.place = Place::Nowhere;
    }
}

/// Memory for one request.
fn provide<W: BackWorld>(
    queue: &mut Queue<W>,
    mapper: &mut W::Mapper,
    scratch: &mut Scratch,
    data: &mut InFlight<MappingOf<W>>,
) -> Result<(), Failure> {
    if queue.reach == Reach::Direct {
        let access = if data.op.reads_guest() { Access::Read } else { Access::ReadWrite };
        scratch.refs.clear();
        scratch.refs.extend(data.segments.iter().map(|segment| segment.gref));
        mapper.map(queue.dom, &scratch.refs, access, &mut data.mapping)?;
        queue.stats.grants.mapped.add(data.segments.len() as u64);
        data.place = Place::Mapped;
        return Ok(());
    }
    let leased = queue.reach.keeps_pages() && lease(queue, mapper, data)?;
    let Grants { copied, persistent, .. } = &queue.stats.grants;
    (if leased { persistent } else { copied }).add(data.segments.len() as u64);
    if leased && queue.reach == Reach::DirectPersistent {
        data.place = Place::Leased;
        return Ok(());
    }
    if !data.buffer.reserve(data.bytes) {
        return Err(Failure::Memory(data.bytes));
    }
    data.place = Place::Buffer;
    if leased && data.op.reads_guest() {
        move_leased(data, true);
    }
    Ok(())
}

/// Takes all pages of a request on loan. False when there is no room to keep them: they are to be copied.
fn lease<W: BackWorld>(
    queue: &mut Queue<W>,
    mapper: &mut W::Mapper,
    data: &mut InFlight<MappingOf<W>>,
) -> Result<bool, GrantError> {
    for segment in &data.segments {
        match queue.cache.lease(mapper, queue.dom, segment.gref) {
            Ok(lease) => data.leases.push(lease),
            Err(GrantError::Exhausted) => {
                data.leases.drain(..).for_each(|lease| queue.cache.give_back(lease));
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Copies between the private pages and the leased ones: `inwards` from the guest, else to it.
pub(super) fn move_leased<M: Mapping>(data: &mut InFlight<M>, inwards: bool) {
    let mut rest = data.buffer.bytes_mut(data.bytes);
    for (segment, lease) in data.segments.iter().zip(&data.leases) {
        let Some((part, tail)) = std::mem::take(&mut rest).split_at_mut_checked(segment.bytes()) else {
            return;
        };
        if let Some(page) = lease.part(segment) {
            _ = if inwards { page.read(part) } else { page.write(part) };
        }
        rest = tail;
    }
}

/// Reads descriptor pages by mapping them.
fn fetch<W: BackWorld>(
    queue: &mut Queue<W>,
    mapper: &mut W::Mapper,
    descriptors: &mut Vec<u8>,
    data: &mut InFlight<MappingOf<W>>,
) -> Result<(), GrantError> {
    let Some(indirect) = data.indirect else { return Ok(()) };
    descriptors.clear();
    descriptors.resize(indirect.descriptor_bytes(), 0);
    for (gref, part) in indirect.pages().iter().zip(descriptors.chunks_mut(4096)) {
        if queue.reach.keeps_pages() {
            match queue.cache.lease(mapper, queue.dom, *gref) {
                Ok(lease) => {
                    lease.page().map(|page| page.read(part));
                    queue.cache.give_back(lease);
                    queue.stats.grants.persistent.add(1);
                    continue;
                }
                Err(GrantError::Exhausted) => {}
                Err(error) => return Err(error),
            }
        }
        // Frontends without persistent grants may have granted these read-only.
        mapper.map(queue.dom, &[*gref], Access::Read, &mut data.mapping)?;
        queue.stats.grants.mapped.add(1);
        data.mapping.page(0).map(|page| page.read(part));
        data.mapping.clear();
    }
    Ok(())
}

fn parse_descriptors<W: BackWorld>(queue: &Queue<W>, descriptors: &[u8], data: &mut InFlight<MappingOf<W>>) {
    let Some(indirect) = data.indirect.take() else { return };
    if let Some(tap) = queue.ring.mem().tap() {
        tap.aside(indirect.id, descriptors);
    }
    match indirect.with_descriptors(descriptors, &queue.limits) {
        Ok(request) => {
            data.fill(&request);
            if let Some(gate) = queue.gate.as_ref().filter(|gate| gate.is_on()) {
                let (kind, bytes) = fare(data);
                gate.refund(kind, (usize::from(indirect.segments) * PAGE_SIZE).saturating_sub(bytes));
            }
        }
        Err(error) => data.fail(Failure::Refused(error)),
    }
}

/// One batch of grant copies for all tickets that have something to copy on this leg.
pub(super) fn copy<P: Mapper>(
    mapper: &mut P,
    scratch: &mut Scratch,
    tickets: &mut [Ticket<P::Mapping>],
    leg: Leg,
) {
    let mut copies: Vec<CopyOp<'_>> = std::mem::take(&mut scratch.copies);
    scratch.owners.clear();
    scratch.failed.clear();
    for (owner, ticket) in tickets.iter_mut().enumerate() {
        list(&mut ticket.data, leg, &mut copies);
        scratch.owners.resize(copies.len(), owner);
    }
    if !copies.is_empty() {
        let batch = mapper.copy(&mut copies);
        for (copy, owner) in copies.iter().zip(&scratch.owners) {
            if let Err(error) = batch.and(copy.status) {
                scratch.failed.push((*owner, error));
            }
        }
    }
    scratch.copies = emptied(copies);
    for (owner, error) in &scratch.failed {
        if let Some(ticket) = tickets.get_mut(*owner) {
            ticket.data.fail(Failure::Grant(*error));
        }
    }
}

/// The copies of one ticket on this leg.
fn list<'a, M: Mapping>(data: &'a mut InFlight<M>, leg: Leg, copies: &mut Vec<CopyOp<'a>>) {
    if data.outcome.is_err() {
        return;
    }
    let from = data.dom;
    let mut push = |gref, offset: usize, local| {
        // Offsets lie within a page.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        copies.push(CopyOp { from, gref, offset, local, status: Ok(()) });
    };
    if leg == Leg::Descriptors {
        let Some(indirect) = &data.indirect else { return };
        let bytes = data.buffer.bytes_mut(indirect.descriptor_bytes());
        for (gref, part) in indirect.pages().iter().zip(bytes.chunks_mut(4096)) {
            push(*gref, 0, CopyEnd::Into(part));
        }
        return;
    }
    let wanted = data.op.reads_guest() == (leg == Leg::In);
    if !data.is_copied() || !wanted {
        return;
    }
    let mut rest = data.buffer.bytes_mut(data.bytes);
    for segment in &data.segments {
        let Some((part, tail)) = rest.split_at_mut_checked(segment.bytes()) else { return };
        let local = if leg == Leg::In { CopyEnd::Into(part) } else { CopyEnd::From(part) };
        push(segment.gref, segment.offset(), local);
        rest = tail;
    }
}

/// The same allocation, empty, free of the borrows that were in it.
fn emptied(mut copies: Vec<CopyOp<'_>>) -> Vec<CopyOp<'static>> {
    copies.clear();
    // Collected in place: the allocation is kept.
    copies.into_iter().map_while(|_| None).collect()
}
