//! What a frontend publishes.

use alloc::{format, string::ToString, vec::Vec};

use super::{
    BackendFeatures, EVENT_CHANNEL, FEATURE_PERSISTENT, MAX_REQUEST_SEGMENTS, MAX_REQUEST_SIZE, MAX_REQUESTS,
    MULTI_QUEUE_NUM_QUEUES, NUM_RING_PAGES, PROTOCOL, QUEUE_PREFIX, RING_PAGE_ORDER, RING_PAGES, RING_REF,
    RequestMaxima, RingDialect, queue_dir,
    read::{Reader, required, unexpected},
    ring::{RingShape, emit_pages, emit_references},
};
use crate::{Abi, Agreement, Capacity, GrantRef, RecordError, SegmentMode, indirect, segment_block};

/// One queue's ring and event channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// The ring's pages, in order; as many for every queue.
    pub ring_refs: Vec<GrantRef>,
    /// The frontend's unbound port.
    pub event_channel: u32,
}

/// All that a frontend tells its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRecord {
    /// Layout of the ring entries.
    pub abi: Abi,
    /// How the number of ring pages is told.
    pub dialect: RingDialect,
    /// The rings, one or more. One alone lies at the top of the directory, several in `queue-N`.
    pub queues: Vec<QueueRecord>,
    /// The frontend will use its grants again, and grants all of them writable.
    pub persistent: bool,
    /// The segment-block extension, if the backend offered it and the frontend uses it.
    pub request_maxima: Option<RequestMaxima>,
}

impl FrontendRecord {
    /// What a frontend tells after it came to `agreement` with a backend of that `dialect`.
    pub fn new(agreement: &Agreement, dialect: RingDialect, queues: Vec<QueueRecord>) -> Self {
        let request_maxima = (agreement.mode == SegmentMode::Blocks).then_some(RequestMaxima {
            requests: agreement.max_requests,
            segments: agreement.max_segments,
            bytes: agreement.max_request_bytes,
        });
        Self { abi: agreement.abi, dialect, queues, persistent: agreement.persistent, request_maxima }
    }

    /// Reads what a frontend has chosen, for a backend that published `offered`. More than was offered is refused: the
    /// frontend would use it.
    pub fn parse<V: AsRef<[u8]>>(
        lookup: impl FnMut(&str) -> Option<V>,
        offered: &BackendFeatures,
    ) -> Result<Self, RecordError> {
        let mut keys = Reader(lookup);
        let abi = match keys.text(PROTOCOL)? {
            None => Abi::DEFAULT_BACKEND,
            Some(name) => Abi::from_protocol(&name)
                .ok_or_else(|| unexpected(PROTOCOL, &name, "x86_32-abi, x86_64-abi or arm-abi"))?,
        };
        let persistent = keys.flag(FEATURE_PERSISTENT)?;
        let request_maxima = match offered.request_maxima {
            Some(offered) => parse_maxima(&mut keys, &offered, abi)?,
            // FreeBSD of 2010 writes its own maxima whatever the backend is.
            None => None,
        };
        let shape = RingShape::parse(&mut keys, offered.max_ring_pages)?;
        let count = keys.within(MULTI_QUEUE_NUM_QUEUES, 1, offered.max_queues.max(1))?.unwrap_or(1);
        let mut queue = |prefix: &str| {
            let ring_refs = shape.references(&mut keys, prefix)?;
            let key = format!("{prefix}{EVENT_CHANNEL}");
            let event_channel = keys.number32(&key)?;
            Ok(QueueRecord { ring_refs, event_channel: required(&key, event_channel)? })
        };
        let queues = match count {
            1 => Vec::from([queue("")?]),
            count => {
                (0..count as usize).map(|n| queue(&format!("{}/", queue_dir(n)))).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { abi, dialect: shape.dialect, queues, persistent, request_maxima })
    }

    /// Writes all keys. Delete what is [`stale`](Self::stale) in the same transaction.
    pub fn emit(&self, mut put: impl FnMut(&str, &str)) {
        put(PROTOCOL, self.abi.as_protocol());
        put(FEATURE_PERSISTENT, if self.persistent { "1" } else { "0" });
        if let Some(maxima) = self.request_maxima {
            maxima.emit(&mut put);
        }
        emit_pages(self.dialect, self.ring_pages(), &mut put);
        let several = self.queues.len() > 1;
        if several {
            put(MULTI_QUEUE_NUM_QUEUES, &self.queues.len().to_string());
        }
        for (n, queue) in self.queues.iter().enumerate() {
            let prefix = if several { format!("{}/", queue_dir(n)) } else { "".into() };
            emit_references(self.dialect, &queue.ring_refs, &prefix, &mut put);
            put(&format!("{prefix}{EVENT_CHANNEL}"), &queue.event_channel.to_string());
        }
    }

    /// Which of the names `present` at the top of the frontend's directory belong to a connection and are not written by
    /// this record: an earlier driver's, which would mislead the backend. Queue directories are always among them, to be
    /// deleted before the record is written.
    pub fn stale<'a>(&self, present: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut written = Vec::new();
        self.emit(|key, _| written.push(key.to_string()));
        present
            .into_iter()
            .filter(|name| is_connection_key(name) && !written.iter().any(|key| key == name))
            .collect()
    }

    /// Pages of each ring.
    pub fn ring_pages(&self) -> usize {
        self.queues.first().map_or(0, |queue| queue.ring_refs.len())
    }

    /// As one side of a negotiation. A frontend does not say what indirect requests it makes.
    pub fn capacity(&self) -> Capacity {
        #[expect(clippy::cast_possible_truncation, reason = "4096")]
        let indirect_segments = indirect::MAX_SEGMENTS as u16;
        Capacity {
            ring_pages: u32::try_from(self.ring_pages()).unwrap_or(u32::MAX),
            queues: u32::try_from(self.queues.len()).unwrap_or(u32::MAX),
            persistent: self.persistent,
            indirect_segments,
            ..Capacity::ORIGINAL.with_maxima(self.request_maxima)
        }
    }
}

/// True for the names at the top of a frontend's directory that tell of a connection, in any dialect; a frontend that goes
/// away deletes them, and one that comes deletes those it does not write.
pub fn is_connection_key(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        PROTOCOL,
        FEATURE_PERSISTENT,
        RING_PAGE_ORDER,
        NUM_RING_PAGES,
        RING_PAGES,
        MAX_REQUESTS,
        MAX_REQUEST_SEGMENTS,
        MAX_REQUEST_SIZE,
        MULTI_QUEUE_NUM_QUEUES,
    ];
    let numbered =
        |prefix| name.strip_prefix(prefix).is_some_and(|rest: &str| rest.bytes().all(|b| b.is_ascii_digit()));
    NAMES.contains(&name) || name == EVENT_CHANNEL || numbered(RING_REF) || numbered(QUEUE_PREFIX)
}

fn parse_maxima<V: AsRef<[u8]>>(
    keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
    offered: &RequestMaxima,
    abi: Abi,
) -> Result<Option<RequestMaxima>, RecordError> {
    let fits = u16::try_from(segment_block::max_segments(abi)).unwrap_or(u16::MAX).min(offered.segments);
    let segments = keys.within(MAX_REQUEST_SEGMENTS, 1, fits.into())?;
    let requests = keys.within(MAX_REQUESTS, 1, offered.requests)?;
    let bytes = keys.within(MAX_REQUEST_SIZE, 1, offered.bytes)?;
    let segments = segments.and_then(|n| u16::try_from(n).ok());
    Ok(segments.map(|segments| RequestMaxima::with_defaults(requests, segments, bytes)))
}

#[cfg(test)]
mod tests;
