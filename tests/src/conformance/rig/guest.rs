//! The scripted frontend: a guest that does exactly what a clause tells it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use blkif_proto::{
    Abi, Agreement, Entry, GrantRef, Limits, Op, Request, Response, Segment, SegmentMode, Segments, indirect,
    keys::{self, BackendDisk, BackendFeatures, FrontendRecord, QueueRecord, RequestMaxima, RingDialect},
    xenbus::State,
};
use xen_platform::{Access, Change, EventChannels as _, FrontWorld, Lender, Pages, Store, StoreError};

use super::queue::RawQueue;
use crate::world::{Vbd, wait_until};

/// How the scripted frontend connects.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Queues.
    pub queues: u32,
    /// Pages of each ring.
    pub ring_pages: u32,
    /// How the number of pages is told.
    pub dialect: RingDialect,
    /// Whether to promise persistent grants.
    pub persistent: bool,
    /// The way of large requests.
    pub mode: SegmentMode,
    /// Keys to write differently (`Some`) or not at all (`None`), relative to the frontend's directory.
    pub edits: Vec<(String, Option<String>)>,
    /// The state to announce with the keys.
    pub state: State,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            queues: 1,
            ring_pages: 1,
            dialect: RingDialect::Order,
            persistent: false,
            mode: SegmentMode::Direct,
            edits: Vec::new(),
            state: State::Initialised,
        }
    }
}

impl Wish {
    /// Writes `key` as `value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.edits.push((key.to_owned(), Some(value.to_owned())));
        self
    }

    /// Leaves `key` out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.edits.push((key.to_owned(), None));
        self
    }
}

/// A guest with one disk.
pub struct Guest<W: FrontWorld> {
    /// The guest's view of the world.
    pub world: W,
    /// The guest's own connection to XenStore.
    pub store: W::Store,
    /// The disk's place in XenStore.
    pub vbd: Vbd,
    /// The layout to speak.
    pub abi: Abi,
}

/// Rings that the backend serves.
pub struct Connection<W: FrontWorld> {
    /// The queues.
    pub queues: Vec<RawQueue<W::Events>>,
    /// Lends the guest's pages to the backend.
    pub lender: W::Lender,
    /// What requests may be.
    pub limits: Limits,
    /// What the backend says of the disk.
    pub disk: BackendDisk,
}

impl<W: FrontWorld> Guest<W> {
    /// What the backend offers now.
    pub fn offers(&mut self) -> Result<BackendFeatures> {
        let dir = self.vbd.backend.clone();
        Ok(BackendFeatures::parse(|key| self.read(&format!("{dir}/{key}")).ok().flatten())?)
    }

    /// What the backend says of the disk now.
    pub fn disk(&mut self) -> Result<BackendDisk> {
        let dir = self.vbd.backend.clone();
        Ok(BackendDisk::parse(|key| self.read(&format!("{dir}/{key}")).ok().flatten())?)
    }

    /// A node of the backend's directory.
    pub fn backend_key(&mut self, key: &str) -> Result<Option<String>> {
        self.read(&format!("{}/{key}", self.vbd.backend))
    }

    /// A node's value; `None` when there is none.
    pub fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.store.read(path) {
            Ok(value) => Ok(Some(String::from_utf8(value)?)),
            Err(StoreError::NoEntry(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a node of the frontend's directory.
    pub fn write(&mut self, key: &str, value: &str) -> Result<()> {
        let path = format!("{}/{key}", self.vbd.frontend);
        Ok(self.store.apply(&[Change::Write(&path, value)])?)
    }

    /// Announces a state.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        self.write(keys::STATE, state.as_str())
    }

    /// The backend's state.
    pub fn backend_state(&mut self) -> Result<State> {
        Ok(State::of_node(self.backend_key(keys::STATE)?))
    }

    /// Waits until the backend shows `wanted`.
    pub fn wait_backend(&mut self, wanted: State) -> Result<()> {
        let mut seen = State::Unknown;
        wait_until(&format!("the backend to be {wanted}"), Duration::from_secs(5), || {
            seen = self.backend_state()?;
            Ok((seen == wanted).then_some(()))
        })
        .with_context(|| format!("it is {seen}"))
    }

    /// Errors when the backend leaves `state` within `time`.
    pub fn stays(&mut self, state: State, time: Duration) -> Result<()> {
        let mut left = None;
        let outcome = wait_until("a change", time, || {
            left = Some(self.backend_state()?).filter(|seen| *seen != state);
            Ok(left.map(|_| ()))
        });
        match (outcome, left) {
            (Ok(()), Some(seen)) => bail!("the backend went from {state} to {seen}"),
            _ => Ok(()),
        }
    }

    /// Connects: publishes rings, waits for the backend, announces Connected.
    pub fn connect(&mut self, wish: &Wish) -> Result<Connection<W>> {
        self.wait_backend(State::InitWait)?;
        let mut connection = self.publish(wish)?;
        self.wait_backend(State::Connected)?;
        self.set_state(State::Connected)?;
        self.learn(wish, &mut connection)?;
        Ok(connection)
    }

    /// Publishes rings and the wish's state, and waits for nothing. The limits are those of the offers of this moment.
    pub fn publish(&mut self, wish: &Wish) -> Result<Connection<W>> {
        let mut lender = self.world.lender(xen_platform::DomId::DOM0)?;
        let mut queues = Vec::new();
        let mut records = Vec::new();
        for _ in 0..wish.queues {
            let mut events = self.world.events()?;
            let port = events.alloc_unbound(xen_platform::DomId::DOM0)?;
            let mut pages = lender.alloc(wish.ring_pages as usize)?;
            lender.lend(&mut pages, Access::ReadWrite)?;
            records.push(QueueRecord { ring_refs: pages.grants().to_vec(), event_channel: port.0 });
            queues.push(RawQueue::new(pages, self.abi.entry_size(), events, port)?);
        }
        let request_maxima = match (wish.mode, self.offers()?.request_maxima) {
            (SegmentMode::Blocks, Some(offered)) => {
                let most = u16::try_from(blkif_proto::segment_block::max_segments(self.abi))?;
                Some(RequestMaxima { segments: offered.segments.min(most), ..offered })
            }
            (SegmentMode::Blocks, None) => bail!("the backend does not offer segment blocks"),
            _ => None,
        };
        let record = FrontendRecord {
            abi: self.abi,
            dialect: wish.dialect,
            queues: records,
            persistent: wish.persistent,
            request_maxima,
        };
        self.write_record(&record, wish)?;
        let disk = BackendDisk {
            sectors: 0,
            sector_size: 512,
            physical_sector_size: 512,
            info: keys::DiskInfo::empty(),
        };
        let mut connection = Connection { queues, lender, limits: limits_of(self, wish, &disk)?, disk };
        connection.limits.mode = wish.mode;
        Ok(connection)
    }

    /// Reads what the backend tells once it is connected.
    pub fn learn(&mut self, wish: &Wish, connection: &mut Connection<W>) -> Result<()> {
        connection.disk = self.disk()?;
        connection.limits = limits_of(self, wish, &connection.disk)?;
        Ok(())
    }

    /// Closes as an orderly driver does.
    pub fn close(&mut self) -> Result<()> {
        self.set_state(State::Closing)?;
        self.wait_backend(State::Closing)?;
        self.set_state(State::Closed)?;
        self.wait_backend(State::Closed)
    }

    fn write_record(&mut self, record: &FrontendRecord, wish: &Wish) -> Result<()> {
        let dir = self.vbd.frontend.clone();
        let present = self.store.list(&dir)?;
        let stale: Vec<String> =
            record.stale(present.iter().map(String::as_str)).into_iter().map(String::from).collect();
        let mut nodes = Vec::new();
        record.emit(|key, value| nodes.push((key.to_owned(), value.to_owned())));
        for (key, value) in &wish.edits {
            nodes.retain(|(known, _)| known != key);
            nodes.extend(value.clone().map(|value| (key.clone(), value)));
        }
        nodes.push((keys::STATE.to_owned(), wish.state.as_str().to_owned()));
        let stale: Vec<String> = stale.iter().map(|key| format!("{dir}/{key}")).collect();
        let nodes: Vec<(String, String)> =
            nodes.into_iter().map(|(key, value)| (format!("{dir}/{key}"), value)).collect();
        let mut changes: Vec<Change<'_>> = stale.iter().map(|path| Change::Remove(path)).collect();
        changes.extend(nodes.iter().map(|(path, value)| Change::Write(path, value)));
        Ok(self.store.apply(&changes)?)
    }
}

fn limits_of<W: FrontWorld>(guest: &mut Guest<W>, wish: &Wish, disk: &BackendDisk) -> Result<Limits> {
    let offers = guest.offers()?;
    let own = blkif_proto::Capacity {
        ring_pages: wish.ring_pages,
        queues: wish.queues,
        persistent: wish.persistent,
        block_segments: 255,
        request_bytes: u32::MAX,
        requests: u32::MAX,
        indirect_segments: 4096,
    };
    let agreement = Agreement::between(&own.only(wish.mode), &offers.capacity(), guest.abi);
    Ok(agreement.limits(disk, offers.operations))
}

impl<W: FrontWorld> Connection<W> {
    /// The first queue.
    pub fn queue(&mut self) -> &mut RawQueue<W::Events> {
        &mut self.queues[0]
    }

    /// Pages filled with `byte` and lent.
    pub fn pages(&mut self, count: usize, byte: u8, access: Access) -> Result<Pages> {
        let mut pages = self.lender.alloc(count)?;
        pages.mem().write(&vec![byte; pages.mem().len()]);
        self.lender.lend(&mut pages, access)?;
        Ok(pages)
    }

    /// Whole-page segments over lent pages.
    pub fn segments(pages: &Pages) -> Vec<Segment> {
        pages.grants().iter().map(|gref| Segment::page(*gref)).collect()
    }

    /// A request as entries, in the connection's mode; an indirect one needs [`indirect`](Self::indirect).
    pub fn request(&self, id: u64, op: Op, sector: u64, segments: &[Segment]) -> Result<Vec<Entry>> {
        let request = Request { id, op, sector, segments: Segments::from(segments) };
        let mut entries = vec![[0; _]; request.entries() as usize];
        request.emit(&self.limits, &mut entries)?;
        Ok(entries)
    }

    /// An indirect request, and the descriptor pages it needs lent until it is answered.
    pub fn indirect(&mut self, id: u64, op: Op, sector: u64, segments: &[Segment]) -> Result<(Entry, Pages)> {
        let mut bytes = vec![0; indirect::bytes_for(segments.len())];
        indirect::encode(Segments::from(segments), &mut bytes).context("descriptors")?;
        let mut pages = self.lender.alloc(indirect::pages_for(segments.len()))?;
        pages.mem().write(&bytes);
        self.lender.lend(&mut pages, Access::Read)?;
        let request = Request { id, op, sector, segments: Segments::from(segments) };
        let mut entry = [0; _];
        let grefs: Vec<GrantRef> = pages.grants().to_vec();
        request.emit_indirect(&self.limits, &grefs, &mut entry)?;
        Ok((entry, pages))
    }

    /// Sends one request of whole pages on the first queue and waits for its answer.
    pub fn transfer(&mut self, id: u64, op: Op, sector: u64, pages: &Pages) -> Result<Response> {
        let segments = Self::segments(pages);
        let entries = self.request(id, op, sector, &segments)?;
        self.queue().send(&entries)?;
        let answer = self.queue().raw_answer(u32::try_from(entries.len())?)?;
        Ok(Response::parse(&answer))
    }
}
