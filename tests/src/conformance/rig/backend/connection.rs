//! The backend's side of connected rings: raw entries out, any answer in.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use blkif_proto::{Abi, Entry, GrantRef, Response, Segment, Status, keys};
use ringbuf::{BackRing, Field, Index, Mapped, RingMem as _};
use xen_platform::{
    Access, BackWorld, CopyOp, DomId, EventChannels as _, Mapper, Mapping as _, Port, grant::CopyEnd,
};

use super::{
    patience,
    wire::{Taken, op, segment_at},
    work::on_disk,
};
use crate::{conformance::rig::slowed, must, world::wait_until};

/// Guest pages that the rig maps.
pub type Mapping<W> = <<W as BackWorld>::Mapper as Mapper>::Mapping;
type RingPages<W> = <<W as BackWorld>::Mapper as Mapper>::RingPages;

/// Rings that a frontend has lent, and the disk behind them.
pub struct Connection<W: BackWorld> {
    /// What the frontend wrote, relative to its directory.
    pub keys: BTreeMap<String, String>,
    /// Its rings.
    pub queues: Vec<BackQueue<W>>,
    /// Sectors that were written.
    pub disk: BTreeMap<u64, Vec<u8>>,
    abi: Abi,
    guest: DomId,
    mapper: W::Mapper,
}

/// A ring and its event channel, without any of a driver's manners.
pub struct BackQueue<W: BackWorld> {
    /// The ring.
    pub ring: BackRing<Mapped<RingPages<W>>>,
    /// Its event channel.
    pub events: W::Events,
    port: Port,
    /// Entries before those of the clause: indices are told from here.
    before: u32,
}

impl<W: BackWorld> Connection<W> {
    /// Maps what the keys tell of, and binds the ports.
    pub(super) fn join(world: &W, guest: DomId, keys: BTreeMap<String, String>, abi: Abi) -> Result<Self> {
        let mut mapper = world.mapper()?;
        let number = |key: &str| -> Result<Option<u32>> {
            keys.get(key).map(|value| value.parse().with_context(|| format!("{key} = {value}"))).transpose()
        };
        let count = number(keys::MULTI_QUEUE_NUM_QUEUES)?;
        let prefixes: Vec<String> = match count {
            None => vec![String::new()],
            Some(count) => (0..count).map(|n| format!("queue-{n}/")).collect(),
        };
        let mut queues = Vec::new();
        for prefix in prefixes {
            let refs = ring_refs(&number, &prefix)?;
            let pages = mapper.map_ring(guest, &refs).with_context(|| format!("mapping {refs:?}"))?;
            let ring = BackRing::attach(Mapped::new(pages, abi.entry_size())?)?;
            let mut events = world.events()?;
            let remote = number(&format!("{prefix}event-channel"))?.context("no event-channel")?;
            let port = events.bind_interdomain(guest, Port(remote))?;
            queues.push(BackQueue { ring, events, port, before: 0 });
        }
        Ok(Self { keys, queues, disk: BTreeMap::new(), abi, guest, mapper })
    }

    /// The first queue.
    pub fn queue(&mut self) -> &mut BackQueue<W> {
        &mut self.queues[0]
    }

    /// The next request of the first queue.
    pub fn take(&mut self) -> Result<Taken> {
        self.take_within(0, patience())?.with_context(|| format!("no request within {:?}", patience()))
    }

    /// The next requests of the first queue.
    pub fn take_all(&mut self, count: usize) -> Result<Vec<Taken>> {
        (0..count).map(|n| self.take().with_context(|| format!("request {n} of {count}"))).collect()
    }

    /// The next request, or `None` when `time` has passed.
    pub fn take_within(&mut self, queue: usize, time: Duration) -> Result<Option<Taken>> {
        let deadline = Instant::now() + time;
        while self.queues[queue].ring.available()? == 0 {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(slowed(Duration::from_micros(100)));
        }
        let blocks = self.has_blocks();
        let ring = &mut self.queues[queue].ring;
        let mut head: Entry = [0; _];
        ring.read(0, &mut head)?;
        let stride = match head[0] {
            op::READ..=op::FLUSH if blocks => 1 + usize::from(head[1]).saturating_sub(11).div_ceil(14),
            _ => 1,
        };
        let (stride, mut entries) = (u32::try_from(stride)?, vec![head]);
        for ahead in 1..stride {
            let mut block = [0; _];
            ring.read(ahead, &mut block).context("a request that was published in part")?;
            entries.push(block);
        }
        ring.consume(stride)?;
        let mut taken = Taken::parse(queue, entries, self.abi);
        if taken.indirect {
            let head = &taken.entries[0];
            let mut left = usize::from(u16::from_le_bytes([head[2], head[3]]));
            for gref in taken.descriptors.clone() {
                let page = self.page(gref)?;
                taken.segments.extend(page.chunks(8).take(left).map(segment_at));
                left = left.saturating_sub(512);
            }
        }
        Ok(Some(taken))
    }

    /// Errors when the frontend publishes anything within `time`.
    pub fn silence(&mut self, time: Duration) -> Result<()> {
        match self.take_within(0, slowed(time))? {
            None => Ok(()),
            Some(taken) => bail!("a request that should not have come: {taken:?}"),
        }
    }

    /// Does what a request asks for.
    pub fn perform(&mut self, taken: &Taken) -> Result<()> {
        let mut sector = taken.sector;
        for segment in &taken.segments {
            for n in 0..u64::from(segment.sectors()) {
                let part =
                    Segment::part(segment.gref, segment.first_sect + u8::try_from(n)?, 1).context("part")?;
                if taken.op == op::READ {
                    let bytes = self.disk.get(&sector).cloned().unwrap_or_else(|| on_disk(sector, 512));
                    self.fill(part, &bytes)?;
                } else {
                    let bytes = self.data(part)?;
                    self.disk.insert(sector, bytes);
                }
                sector += 1;
            }
        }
        Ok(())
    }

    /// Puts an answer into the ring, unseen by the frontend.
    pub fn respond(&mut self, taken: &Taken, response: Response) -> Result<()> {
        let bytes = response.emit();
        self.queues[taken.queue].ring.respond(&bytes[..self.abi.response_size()], taken.stride())?;
        Ok(())
    }

    /// Answers, and rings the bell whether that is wanted or not.
    pub fn answer(&mut self, taken: &Taken, status: Status) -> Result<()> {
        self.reply(taken, taken.answer(status))
    }

    /// Answers with this, and rings the bell.
    pub fn reply(&mut self, taken: &Taken, response: Response) -> Result<()> {
        self.respond(taken, response)?;
        self.queues[taken.queue].publish()
    }

    /// Does and answers one request.
    pub fn serve(&mut self, taken: &Taken) -> Result<()> {
        self.perform(taken)?;
        self.answer(taken, Status::OKAY)
    }

    /// Does and answers everything that is there; the bell rings where it is asked for.
    pub fn serve_now(&mut self) -> Result<()> {
        for queue in 0..self.queues.len() {
            while let Some(taken) = self.take_within(queue, Duration::ZERO)? {
                self.perform(&taken)?;
                self.respond(&taken, taken.answer(Status::OKAY))?;
            }
            let queue = &mut self.queues[queue];
            if queue.ring.publish().is_needed() {
                queue.ring_bell()?;
            }
        }
        Ok(())
    }

    /// What was served so far is not the clause's: a kernel looks at a new disk before anybody else does.
    pub(super) fn begin(&mut self) {
        for queue in &mut self.queues {
            queue.before = queue.ring.consumed().get();
        }
    }

    /// The bytes of a segment.
    pub fn data(&mut self, segment: Segment) -> Result<Vec<u8>> {
        let mut bytes = vec![0; segment.bytes()];
        let offset = u32::try_from(segment.offset())?;
        let local = CopyEnd::Into(&mut bytes);
        self.copy(CopyOp { from: self.guest, gref: segment.gref, offset, local, status: Ok(()) })?;
        Ok(bytes)
    }

    /// Writes into a segment.
    pub fn fill(&mut self, segment: Segment, bytes: &[u8]) -> Result<()> {
        let offset = u32::try_from(segment.offset())?;
        let local = CopyEnd::From(bytes);
        self.copy(CopyOp { from: self.guest, gref: segment.gref, offset, local, status: Ok(()) })
    }

    /// A whole page.
    pub fn page(&mut self, gref: GrantRef) -> Result<Vec<u8>> {
        self.data(Segment::page(gref))
    }

    /// Maps a page.
    pub fn map(&mut self, gref: GrantRef, access: Access) -> Result<Mapping<W>> {
        let mut mapping = self.mapper.mapping();
        self.mapper.map(self.guest, &[gref], access, &mut mapping)?;
        Ok(mapping)
    }

    /// Errors unless the page is lent for `access` and no more (`None`: not at all).
    pub fn must_be_lent(&mut self, gref: GrantRef, access: Option<Access>) -> Result<()> {
        let mut may = |wanted| self.map(gref, wanted).map(|mut mapping| mapping.clear()).is_ok();
        let (reads, writes) = (may(Access::Read), may(Access::ReadWrite));
        let wanted = (access.is_some(), access == Some(Access::ReadWrite));
        must!(
            (reads, writes) == wanted,
            "grant {gref} can be read: {reads}, written: {writes}; not {access:?}"
        );
        Ok(())
    }

    fn copy(&mut self, op: CopyOp<'_>) -> Result<()> {
        let mut ops = [op];
        self.mapper.copy(&mut ops)?;
        let [CopyOp { gref, status, .. }] = ops;
        status.with_context(|| format!("copying grant {gref}"))
    }

    /// The connection has segment blocks: the frontend says so.
    fn has_blocks(&self) -> bool {
        let value = self.keys.get(keys::MAX_REQUEST_SEGMENTS).and_then(|value| value.parse::<u32>().ok());
        value.is_some_and(|segments| segments > 11)
    }
}

impl<W: BackWorld> BackQueue<W> {
    /// Shows the frontend what was answered, and rings the bell.
    pub fn publish(&mut self) -> Result<()> {
        let _ = self.ring.publish();
        self.ring_bell()
    }

    /// Rings the bell.
    pub fn ring_bell(&mut self) -> Result<()> {
        Ok(self.events.notify(self.port)?)
    }

    /// True when the frontend rings within `time`.
    pub fn rings_within(&mut self, time: Duration) -> Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let _ = self.events.wait(Some(left))?;
            if let Some(port) = self.events.take_pending() {
                self.events.unmask(port)?;
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Forgets events that came so far; binding leaves one.
    pub fn forget_events(&mut self) -> Result<()> {
        while self.rings_within(Duration::from_millis(5))? {}
        Ok(())
    }

    /// One of the four shared indices.
    pub fn index(&self, field: Field) -> u32 {
        self.ring.mem().load(field).get().wrapping_sub(self.before)
    }

    /// Overwrites a shared index.
    pub fn set_index(&mut self, field: Field, value: u32) {
        self.ring.mem().store(field, Index::new(value.wrapping_add(self.before)));
    }

    /// Overwrites a slot with bytes of our own.
    pub fn scribble(&mut self, slot: u32, bytes: &[u8]) {
        self.ring.mem().write_slot(Index::new(slot.wrapping_add(self.before)), bytes);
    }

    /// Waits until the frontend has made `field` show `value`.
    pub fn wait_index(&mut self, field: Field, value: u32) -> Result<()> {
        wait_until(&format!("{field:?} to be {value}"), patience(), || {
            Ok((self.index(field) == value).then_some(()))
        })
        .with_context(|| format!("it is {}", self.index(field)))
    }
}

/// The references of one ring, in whichever dialect the frontend speaks.
fn ring_refs(number: &impl Fn(&str) -> Result<Option<u32>>, prefix: &str) -> Result<Vec<GrantRef>> {
    let order = number(keys::RING_PAGE_ORDER)?.map(|order| 1 << order);
    let (pages, of_2010) = match (order.or(number(keys::NUM_RING_PAGES)?), number(keys::RING_PAGES)?) {
        (Some(pages), _) => (pages, false),
        (None, pages) => (pages.unwrap_or(1), true),
    };
    let key = |n: u32| match n {
        0 if of_2010 => format!("{prefix}ring-ref"),
        n => format!("{prefix}ring-ref{n}"),
    };
    (0..pages).map(|n| number(&key(n))?.map(GrantRef).with_context(|| format!("no {}", key(n)))).collect()
}
