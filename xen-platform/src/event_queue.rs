//! Watch events that wait to be taken, merged so that a reader who is slow, or a writer who is wild, costs bounded memory.
//!
//! The protocol lets events be merged and be spurious (docs/misc/xenstore.txt, `WATCH`), which is the way out of XSA-349: equal
//! events wait once, and past a bound all events of one token become a single one for the watched path itself. A watcher
//! that gets the watched path looks at everything below it, so nothing is ever lost.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};

use crate::WatchEvent;

/// Bytes of waiting events from which on a token's events are collapsed into one.
pub const COLLAPSE_BYTES: usize = 64 * 1024;

/// The waiting events of one connection, in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct EventQueue {
    watched: BTreeMap<String, BTreeSet<String>>,
    order: BTreeMap<u64, WatchEvent>,
    /// token → path → place in `order`.
    places: BTreeMap<String, BTreeMap<String, u64>>,
    next: u64,
    bytes: usize,
}

impl EventQueue {
    /// Tells the queue of a watch, whose path stands for all its events once there are too many.
    pub fn watch(&mut self, path: &str, token: &str) {
        self.watched.entry(token.into()).or_default().insert(path.into());
    }

    /// Every watch it was told of: path and token.
    pub fn watches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.watched.iter().flat_map(|(token, paths)| paths.iter().map(|path| (&**path, &**token)))
    }

    /// A watch ended; with the last one of its token its waiting events go too.
    pub fn unwatch(&mut self, path: &str, token: &str) {
        let Some(paths) = self.watched.get_mut(token) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.watched.remove(token);
            self.forget(token);
        }
    }

    /// Adds an event. Memory stays below [`COLLAPSE_BYTES`] plus one event for each watch.
    pub fn push(&mut self, event: WatchEvent) {
        if self.bytes + size(&event) <= COLLAPSE_BYTES {
            self.insert(event);
            return;
        }
        let Some(paths) = self.watched.get(&event.token).cloned() else { return };
        self.forget(&event.token);
        for path in paths {
            self.insert(WatchEvent { path, token: event.token.clone() });
        }
    }

    /// The event that waits longest.
    pub fn pop(&mut self) -> Option<WatchEvent> {
        let (_, event) = self.order.pop_first()?;
        self.bytes -= size(&event);
        if let Some(places) = self.places.get_mut(&event.token) {
            places.remove(&event.path);
            if places.is_empty() {
                self.places.remove(&event.token);
            }
        }
        Some(event)
    }

    /// True when no event waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Number of waiting events.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Bytes of paths and tokens that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, event: WatchEvent) {
        let places = self.places.entry(event.token.clone()).or_default();
        if places.contains_key(&event.path) {
            return;
        }
        places.insert(event.path.clone(), self.next);
        self.bytes += size(&event);
        self.order.insert(self.next, event);
        self.next += 1;
    }

    fn forget(&mut self, token: &str) {
        for (_, place) in self.places.remove(token).unwrap_or_default() {
            if let Some(event) = self.order.remove(&place) {
                self.bytes -= size(&event);
            }
        }
    }
}

fn size(event: &WatchEvent) -> usize {
    event.path.len() + event.token.len()
}

#[cfg(test)]
mod tests;
