//! Directories to read records from, and what no record may choke on.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Discard, Operations};

/// A directory; look-ups fail the test when a key is asked for twice.
pub(super) struct Dir(pub(super) BTreeMap<String, String>);

impl Dir {
    pub(super) fn of(pairs: &[(&str, &str)]) -> Dir {
        Dir(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    pub(super) fn emitted(emit: impl FnOnce(&mut dyn FnMut(&str, &str))) -> Dir {
        let mut map = BTreeMap::new();
        emit(&mut |key, value| {
            let before = map.insert(key.to_owned(), value.to_owned());
            assert_eq!(before, None, "{key} is written twice");
        });
        Dir(map)
    }

    pub(super) fn with(mut self, key: &str, value: &str) -> Dir {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(super) fn get<'a>(&'a self) -> impl FnMut(&str) -> Option<&'a str> {
        let mut asked = Vec::new();
        move |key| {
            assert!(!asked.contains(&key.to_owned()), "{key} is read twice");
            asked.push(key.to_owned());
            self.0.get(key).map(String::as_str)
        }
    }

    pub(super) fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

pub(super) const ALL: BackendFeatures = BackendFeatures {
    max_ring_pages: 32,
    dialect: RingDialect::Order,
    max_queues: 8,
    max_indirect_segments: 256,
    request_maxima: Some(RequestMaxima { requests: 256, segments: 255, bytes: 1_044_480 }),
    persistent: true,
    operations: Operations {
        flush: true,
        barrier: true,
        discard: Some(Discard { granularity: 4096, alignment: 512, secure: true }),
    },
};

pub(super) const GARBAGE: [&str; 12] = [
    "-1",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "0x10",
    "1e3",
    "many",
    "1.0",
    "18446744073709551616",
    "\u{661}",
    "99999999999",
];

proptest! {
    #[test]
    fn no_directory_panics(values in vec(("[a-z-]{1,12}|ring-ref[0-9]{0,2}|ring-page-order|multi-queue-num-queues", any::<String>()), 0..8)) {
        let dir = Dir(values.into_iter().collect());
        let _ = FrontendRecord::parse(dir.get(), &ALL);
        let _ = BackendFeatures::parse(dir.get());
        let _ = BackendDisk::parse(dir.get());
        let _ = ToolstackBackend::parse(dir.get());
        let _ = ToolstackFrontend::parse(dir.get());
    }
}
