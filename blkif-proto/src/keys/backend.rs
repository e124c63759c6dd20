//! What a backend publishes.

use alloc::{format, string::ToString, vec::Vec};

use super::{
    DISCARD_ALIGNMENT, DISCARD_GRANULARITY, DISCARD_SECURE, FEATURE_BARRIER, FEATURE_DISCARD,
    FEATURE_FLUSH_CACHE, FEATURE_MAX_INDIRECT_SEGMENTS, FEATURE_PERSISTENT, INFO, MAX_QUEUES,
    MAX_REQUEST_SEGMENTS, MAX_REQUEST_SIZE, MAX_REQUESTS, MAX_RING_PAGE_ORDER, MAX_RING_PAGES,
    MULTI_QUEUE_MAX_QUEUES, ORIGINAL_REQUEST_BYTES, ORIGINAL_SEGMENTS, PHYSICAL_SECTOR_SIZE, RequestMaxima,
    RingDialect, SECTOR_SIZE, SECTORS,
    read::{Reader, out_of_range, required, unexpected},
    ring::MAX_RING_PAGES_OFFERED,
};
use crate::{Capacity, Discard, Operations, PAGE_SIZE, RecordError, indirect, segment_block};

bitflags::bitflags! {
    /// What kind of disk it is (`VDISK_*` in Xen's public header `io/blkif.h`). Unknown bits survive.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct DiskInfo: u32 {
        /// A CD-ROM drive.
        const CDROM = 1;
        /// Removable media.
        const REMOVABLE = 2;
        /// Writes are refused.
        const READ_ONLY = 4;
    }
}

/// What a backend is able to do. Published whole before state 2, because NetBSD reads it only once, and again before state
/// 4, because Linux does then. QEMU publishes it only after state 2: a frontend reads it again when it connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFeatures {
    /// Pages of the largest ring, 1 to 32.
    pub max_ring_pages: u32,
    /// How a frontend says how many pages it uses. `emit` writes the keys of all dialects.
    pub dialect: RingDialect,
    /// Most queues.
    pub max_queues: u32,
    /// Segments of the largest indirect request; 11 or fewer mean that there is no such thing.
    pub max_indirect_segments: u16,
    /// The segment-block extension, if it is offered.
    pub request_maxima: Option<RequestMaxima>,
    /// Grants may stay mapped.
    pub persistent: bool,
    /// Operations beyond read and write.
    pub operations: Operations,
}

impl BackendFeatures {
    /// Nothing but the original protocol.
    pub const ORIGINAL: BackendFeatures = BackendFeatures {
        max_ring_pages: 1,
        dialect: RingDialect::Order,
        max_queues: 1,
        max_indirect_segments: 0,
        request_maxima: None,
        persistent: false,
        operations: Operations { flush: false, barrier: false, discard: None },
    };

    const KEYS: [&'static str; 14] = [
        MAX_RING_PAGE_ORDER,
        MAX_RING_PAGES,
        MULTI_QUEUE_MAX_QUEUES,
        FEATURE_MAX_INDIRECT_SEGMENTS,
        MAX_REQUESTS,
        MAX_REQUEST_SEGMENTS,
        MAX_REQUEST_SIZE,
        FEATURE_PERSISTENT,
        FEATURE_FLUSH_CACHE,
        FEATURE_BARRIER,
        FEATURE_DISCARD,
        DISCARD_GRANULARITY,
        DISCARD_ALIGNMENT,
        DISCARD_SECURE,
    ];

    /// Reads what a backend offers, for a frontend. Numbers beyond what any frontend here uses are brought down to that;
    /// values that are no numbers are errors.
    pub fn parse<V: AsRef<[u8]>>(lookup: impl FnMut(&str) -> Option<V>) -> Result<Self, RecordError> {
        let mut keys = Reader(lookup);
        let order = keys.clamped(MAX_RING_PAGE_ORDER, 0, MAX_RING_PAGES_OFFERED.ilog2())?;
        let pages = keys.clamped(MAX_RING_PAGES, 1, MAX_RING_PAGES_OFFERED)?;
        let request_maxima = parse_maxima(&mut keys)?;
        let (dialect, max_ring_pages) = match (order, pages, request_maxima) {
            (Some(order), _, _) => (RingDialect::Order, 1 << order),
            (None, Some(pages), Some(_)) => (RingDialect::Pages2010, pages),
            (None, Some(pages), None) => (RingDialect::NumPages, 1 << pages.ilog2()),
            (None, None, _) => (RingDialect::Order, 1),
        };
        #[expect(clippy::cast_possible_truncation, reason = "4096")]
        let indirect = keys.clamped(FEATURE_MAX_INDIRECT_SEGMENTS, 0, indirect::MAX_SEGMENTS as u32)?;
        Ok(Self {
            max_ring_pages,
            dialect,
            max_queues: keys.clamped(MULTI_QUEUE_MAX_QUEUES, 1, MAX_QUEUES)?.unwrap_or(1),
            max_indirect_segments: indirect.and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
            request_maxima,
            persistent: keys.flag(FEATURE_PERSISTENT)?,
            operations: Operations {
                flush: keys.flag(FEATURE_FLUSH_CACHE)?,
                barrier: keys.flag(FEATURE_BARRIER)?,
                discard: parse_discard(&mut keys)?,
            },
        })
    }

    /// Writes the keys of everything that is offered.
    pub fn emit(&self, mut put: impl FnMut(&str, &str)) {
        if self.max_ring_pages > 1 {
            let order = self.max_ring_pages.ilog2();
            put(MAX_RING_PAGE_ORDER, &order.to_string());
            put(MAX_RING_PAGES, &(1u32 << order).to_string());
        }
        if self.max_queues > 1 {
            put(MULTI_QUEUE_MAX_QUEUES, &self.max_queues.to_string());
        }
        if self.max_indirect_segments > ORIGINAL_SEGMENTS {
            put(FEATURE_MAX_INDIRECT_SEGMENTS, &self.max_indirect_segments.to_string());
        }
        if let Some(maxima) = self.request_maxima {
            maxima.emit(&mut put);
        }
        let Operations { flush, barrier, discard } = self.operations;
        let secure = discard.is_some_and(|discard| discard.secure);
        for (key, offered) in [
            (FEATURE_PERSISTENT, self.persistent),
            (FEATURE_FLUSH_CACHE, flush),
            (FEATURE_BARRIER, barrier),
            (FEATURE_DISCARD, discard.is_some()),
            (DISCARD_SECURE, secure),
        ] {
            if offered {
                put(key, "1");
            }
        }
        if let Some(Discard { granularity, alignment, .. }) = discard {
            if granularity != 0 {
                put(DISCARD_GRANULARITY, &granularity.to_string());
            }
            put(DISCARD_ALIGNMENT, &alignment.to_string());
        }
    }

    /// Which of the names `present` in the backend's directory are feature keys that this record does not write: what an
    /// earlier backend, or this one with other settings, has left.
    pub fn stale<'a>(&self, present: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let mut written = Vec::new();
        self.emit(|key, _| written.extend(Self::KEYS.iter().find(|known| **known == key)));
        present.into_iter().filter(|name| Self::KEYS.contains(name) && !written.contains(name)).collect()
    }

    /// As one side of a negotiation.
    pub fn capacity(&self) -> Capacity {
        let maxima = self.request_maxima;
        Capacity {
            ring_pages: self.max_ring_pages,
            queues: self.max_queues,
            persistent: self.persistent,
            indirect_segments: self.max_indirect_segments,
            ..Capacity::ORIGINAL.with_maxima(maxima)
        }
    }
}

/// What the disk is. Published before state 4, and when the disk has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendDisk {
    /// Capacity in 512-byte units, whatever `sector_size` is; a multiple of it, less than 2^63 bytes. 0 is a removable disk's that
    /// has no medium.
    pub sectors: u64,
    /// Logical sector in bytes, a power of two from 512 to 4096.
    pub sector_size: u32,
    /// Physical sector in bytes, a multiple of `sector_size`.
    pub physical_sector_size: u32,
    /// Kind of disk.
    pub info: DiskInfo,
}

impl BackendDisk {
    /// Reads what a backend says of its disk, for a frontend.
    pub fn parse<V: AsRef<[u8]>>(lookup: impl FnMut(&str) -> Option<V>) -> Result<Self, RecordError> {
        const LARGEST: u64 = i64::MAX.unsigned_abs() / crate::SECTOR_SIZE as u64;
        #[expect(clippy::cast_possible_truncation, reason = "512 and 4096")]
        const SIZES: (u32, u32) = (crate::SECTOR_SIZE as u32, PAGE_SIZE as u32);
        let mut keys = Reader(lookup);

        let sector_size = required(SECTOR_SIZE, keys.within(SECTOR_SIZE, SIZES.0, SIZES.1)?)?;
        if !sector_size.is_power_of_two() {
            return Err(unexpected(SECTOR_SIZE, &sector_size.to_string(), "a power of two"));
        }
        let sectors = required(SECTORS, keys.number(SECTORS)?)?;
        let info = DiskInfo::from_bits_retain(required(INFO, keys.number32(INFO)?)?);
        let least = u64::from(!info.intersects(DiskInfo::CDROM | DiskInfo::REMOVABLE));
        if !(least..=LARGEST).contains(&sectors) {
            return Err(out_of_range(SECTORS, sectors, least, LARGEST));
        }
        if !sectors.is_multiple_of(u64::from(sector_size / SIZES.0)) {
            return Err(unexpected(
                SECTORS,
                &sectors.to_string(),
                "a multiple of sector-size, in units of 512 bytes",
            ));
        }
        let physical_sector_size = keys.number32(PHYSICAL_SECTOR_SIZE)?.unwrap_or(sector_size);
        if physical_sector_size == 0 || !physical_sector_size.is_multiple_of(sector_size) {
            let value = physical_sector_size.to_string();
            return Err(unexpected(PHYSICAL_SECTOR_SIZE, &value, "a multiple of sector-size"));
        }
        Ok(Self { sectors, sector_size, physical_sector_size, info })
    }

    /// Writes all keys.
    pub fn emit(&self, mut put: impl FnMut(&str, &str)) {
        put(SECTORS, &format!("{}", self.sectors));
        put(SECTOR_SIZE, &format!("{}", self.sector_size));
        put(PHYSICAL_SECTOR_SIZE, &format!("{}", self.physical_sector_size));
        put(INFO, &format!("{}", self.info.bits()));
    }
}

fn parse_maxima<V: AsRef<[u8]>>(
    keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
) -> Result<Option<RequestMaxima>, RecordError> {
    #[expect(clippy::cast_possible_truncation, reason = "255, and less than 2^20")]
    const LARGEST: (u32, u32) =
        (segment_block::MAX_SEGMENTS as u32, (segment_block::MAX_SEGMENTS * PAGE_SIZE) as u32);
    let segments = keys.clamped(MAX_REQUEST_SEGMENTS, ORIGINAL_SEGMENTS.into(), LARGEST.0)?;
    let requests = keys.clamped(MAX_REQUESTS, 1, u32::MAX)?;
    let bytes = keys.clamped(MAX_REQUEST_SIZE, ORIGINAL_REQUEST_BYTES, LARGEST.1)?;
    let segments = segments.and_then(|n| u16::try_from(n).ok());
    Ok(segments.map(|segments| RequestMaxima::with_defaults(requests, segments, bytes)))
}

fn parse_discard<V: AsRef<[u8]>>(
    keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
) -> Result<Option<Discard>, RecordError> {
    let discard = Discard {
        granularity: keys.number32(DISCARD_GRANULARITY)?.unwrap_or(0),
        alignment: keys.number32(DISCARD_ALIGNMENT)?.unwrap_or(0),
        secure: keys.flag(DISCARD_SECURE)?,
    };
    Ok(keys.flag(FEATURE_DISCARD)?.then_some(discard))
}

#[cfg(test)]
mod tests;
