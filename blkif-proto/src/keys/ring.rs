//! The three ways in which frontends say how many pages their rings have.

use alloc::{format, string::String, vec::Vec};

use super::{
    MAX_REQUEST_SEGMENTS, MAX_REQUEST_SIZE, MAX_REQUESTS, NUM_RING_PAGES, ORIGINAL_REQUEST_BYTES,
    ORIGINAL_REQUESTS, RING_PAGE_ORDER, RING_PAGES, RING_REF,
    read::{Reader, required, unexpected},
};
use crate::{GrantRef, RecordError};

/// Pages of the largest ring that anyone has offered: order 5, FreeBSD's backend.
pub const MAX_RING_PAGES_OFFERED: u32 = 32;

/// Who taught the ends to share a ring of several pages. A ring of one page looks the same in all: `ring-ref`, and none of
/// the keys below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RingDialect {
    /// Citrix and today's drivers: `max-ring-page-order`, `ring-page-order`, `ring-ref0` and on.
    #[default]
    Order,
    /// Red Hat and Amazon: `max-ring-pages`, `num-ring-pages`, `ring-ref0` and on; powers of two only.
    NumPages,
    /// FreeBSD of 2010: `max-ring-pages`, `ring-pages`, `ring-ref`, `ring-ref1` and on; any number of pages.
    Pages2010,
}

/// The segment-block extension's three maxima, offered by a backend or chosen by a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestMaxima {
    /// `max-requests`: requests under way at once.
    pub requests: u32,
    /// `max-request-segments`: segments of a request.
    pub segments: u16,
    /// `max-request-size`: bytes of a request.
    pub bytes: u32,
}

impl RequestMaxima {
    pub(super) fn emit(&self, put: &mut impl FnMut(&str, &str)) {
        put(MAX_REQUESTS, &format!("{}", self.requests));
        put(MAX_REQUEST_SEGMENTS, &format!("{}", self.segments));
        put(MAX_REQUEST_SIZE, &format!("{}", self.bytes));
    }

    /// What is not written has its value from before the extension.
    pub(super) fn with_defaults(requests: Option<u32>, segments: u16, bytes: Option<u32>) -> Self {
        let (requests, bytes) =
            (requests.unwrap_or(ORIGINAL_REQUESTS), bytes.unwrap_or(ORIGINAL_REQUEST_BYTES));
        Self { requests, segments, bytes }
    }
}

/// How a frontend has laid out its rings' references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RingShape {
    pub(super) dialect: RingDialect,
    pub(super) pages: u32,
    /// A key says how many, be it only one.
    told: bool,
}

impl RingShape {
    /// How many pages the frontend says its rings have, of at most `max`.
    pub(super) fn parse<V: AsRef<[u8]>>(
        keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
        max: u32,
    ) -> Result<RingShape, RecordError> {
        let told = |dialect, pages| Ok(RingShape { dialect, pages, told: true });
        if let Some(order) = keys.within(RING_PAGE_ORDER, 0, max.max(1).ilog2())? {
            return told(RingDialect::Order, 1 << order);
        }
        if let Some(pages) = keys.within(NUM_RING_PAGES, 1, max)? {
            if !pages.is_power_of_two() {
                return Err(unexpected(NUM_RING_PAGES, &format!("{pages}"), "a power of two"));
            }
            return told(RingDialect::NumPages, pages);
        }
        match keys.within(RING_PAGES, 1, max)? {
            Some(pages) => told(RingDialect::Pages2010, pages),
            None => Ok(RingShape { dialect: RingDialect::Order, pages: 1, told: false }),
        }
    }

    /// The references in the directory that `prefix` names (empty, or a queue's with its slash).
    pub(super) fn references<V: AsRef<[u8]>>(
        self,
        keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
        prefix: &str,
    ) -> Result<Vec<GrantRef>, RecordError> {
        if self.pages > 1 {
            return (0..self.pages)
                .map(|page| {
                    let key = reference_key(prefix, self.dialect, page, self.pages);
                    let value = keys.number32(&key)?;
                    required(&key, value).map(GrantRef)
                })
                .collect();
        }
        // One page: `ring-ref`. Where a key says "one page", Linux and QEMU look for `ring-ref0`, FreeBSD and tapback for
        // `ring-ref`; without such a key, a `ring-ref0` is an earlier driver's.
        let key = format!("{prefix}{RING_REF}");
        let mut value = keys.number32(&key)?;
        if value.is_none() && self.told && self.dialect != RingDialect::Pages2010 {
            value = keys.number32(&format!("{prefix}{RING_REF}0"))?;
        }
        Ok(Vec::from([GrantRef(required(&key, value)?)]))
    }
}

/// Writes how many pages there are; nothing for a ring of one page.
pub(super) fn emit_pages(dialect: RingDialect, pages: usize, put: &mut impl FnMut(&str, &str)) {
    if pages <= 1 {
        return;
    }
    match dialect {
        RingDialect::Order => put(RING_PAGE_ORDER, &format!("{}", pages.ilog2())),
        RingDialect::NumPages => put(NUM_RING_PAGES, &format!("{pages}")),
        RingDialect::Pages2010 => put(RING_PAGES, &format!("{pages}")),
    }
}

/// Writes a ring's references.
pub(super) fn emit_references(
    dialect: RingDialect,
    references: &[GrantRef],
    prefix: &str,
    put: &mut impl FnMut(&str, &str),
) {
    let pages = u32::try_from(references.len()).unwrap_or(u32::MAX);
    for (page, reference) in (0..).zip(references) {
        put(&reference_key(prefix, dialect, page, pages), &format!("{reference}"));
    }
}

fn reference_key(prefix: &str, dialect: RingDialect, page: u32, pages: u32) -> String {
    match (dialect, page) {
        _ if pages == 1 => format!("{prefix}{RING_REF}"),
        (RingDialect::Pages2010, 0) => format!("{prefix}{RING_REF}"),
        (_, page) => format!("{prefix}{RING_REF}{page}"),
    }
}
