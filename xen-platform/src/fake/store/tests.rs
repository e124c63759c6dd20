//! The store as a client sees it, request by request, and its inner bookkeeping after random ones.

use super::{tree::Node, *};
use crate::wire::{self, Errno, Kind};

mod domains;
mod listing;
mod permissions;
mod quotas;
mod requests;
mod serial;
mod transactions;
mod watches;

const GUEST: DomId = DomId(5);
const OTHER: DomId = DomId(6);

type Reply = Result<Vec<u8>, Errno>;

/// A store with two guests, as a toolstack would prepare it: each owns `/local/domain/<id>/data`, and reads its own directory.
struct Bench {
    store: XenStore,
    dom0: ConnId,
}

impl Bench {
    fn new() -> Self {
        let mut store = XenStore::default();
        let dom0 = store.connect(DomId::DOM0).unwrap();
        let mut bench = Self { store, dom0 };
        for guest in [GUEST, OTHER] {
            bench.store.introduce(guest);
            let home = format!("/local/domain/{guest}");
            bench.write(dom0, &home, "").unwrap();
            bench.chmod(dom0, &home, &format!("n0 r{guest}")).unwrap();
            bench.write(dom0, &format!("{home}/data"), "").unwrap();
            bench.chmod(dom0, &format!("{home}/data"), &format!("n{guest}")).unwrap();
        }
        bench
    }

    fn connect(&mut self, domain: DomId) -> ConnId {
        self.store.connect(domain).unwrap()
    }

    fn ask(&mut self, id: ConnId, transaction: u32, kind: Kind, payload: &[u8]) -> Reply {
        let request = Message { kind, request: 9, transaction, payload: payload.into() };
        let reply = self.store.handle(id, &request).unwrap();
        assert_eq!((reply.request, reply.transaction), (9, transaction));
        assert!(reply.payload.len() <= wire::PAYLOAD_MAX);
        if reply.kind == Kind::ERROR {
            let word = wire::split(&reply.payload).next().unwrap().unwrap();
            return Err(Errno::parse(word).unwrap());
        }
        assert_eq!(reply.kind, kind);
        Ok(reply.payload)
    }

    fn read(&mut self, id: ConnId, path: &str) -> Result<String, Errno> {
        let value = self.ask(id, 0, Kind::READ, &wire::strings(&[path]))?;
        Ok(String::from_utf8(value).unwrap())
    }

    fn write(&mut self, id: ConnId, path: &str, value: &str) -> Result<(), Errno> {
        self.write_in(id, 0, path, value)
    }

    fn write_in(&mut self, id: ConnId, transaction: u32, path: &str, value: &str) -> Result<(), Errno> {
        let payload = [path.as_bytes(), &[0], value.as_bytes()].concat();
        self.ask(id, transaction, Kind::WRITE, &payload).map(|reply| assert_eq!(reply, b"OK\0"))
    }

    fn mkdir(&mut self, id: ConnId, path: &str) -> Result<(), Errno> {
        self.ask(id, 0, Kind::MKDIR, &wire::strings(&[path])).map(drop)
    }

    fn remove(&mut self, id: ConnId, path: &str) -> Result<(), Errno> {
        self.ask(id, 0, Kind::RM, &wire::strings(&[path])).map(drop)
    }

    fn list(&mut self, id: ConnId, path: &str) -> Result<Vec<String>, Errno> {
        let names = self.ask(id, 0, Kind::DIRECTORY, &wire::strings(&[path]))?;
        Ok(wire::split(&names).map(|name| name.unwrap().to_owned()).collect())
    }

    /// Permissions as `n0 r5`.
    fn chmod(&mut self, id: ConnId, path: &str, entries: &str) -> Result<(), Errno> {
        let parts: Vec<_> = core::iter::once(path).chain(entries.split(' ')).collect();
        self.ask(id, 0, Kind::SET_PERMS, &wire::strings(&parts)).map(drop)
    }

    fn perms(&mut self, id: ConnId, path: &str) -> Result<String, Errno> {
        let entries = self.ask(id, 0, Kind::GET_PERMS, &wire::strings(&[path]))?;
        Ok(wire::split(&entries).map(Option::unwrap).collect::<Vec<_>>().join(" "))
    }

    fn begin(&mut self, id: ConnId) -> Result<u32, Errno> {
        let reply = self.ask(id, 0, Kind::TRANSACTION_START, b"\0")?;
        Ok(wire::split(&reply).next().unwrap().unwrap().parse().unwrap())
    }

    fn end(&mut self, id: ConnId, transaction: u32, verdict: &str) -> Result<(), Errno> {
        self.ask(id, transaction, Kind::TRANSACTION_END, &wire::strings(&[verdict])).map(drop)
    }

    /// Sets a watch and takes its first event.
    fn watch(&mut self, id: ConnId, path: &str, token: &str) -> Result<(), Errno> {
        self.ask(id, 0, Kind::WATCH, &wire::strings(&[path, token]))?;
        assert_eq!(self.events(id).last().map(String::as_str), Some(format!("{path} {token}").as_str()));
        Ok(())
    }

    /// Takes all waiting events, as `path token`.
    fn events(&mut self, id: ConnId) -> Vec<String> {
        core::iter::from_fn(|| self.store.next_event(id))
            .map(|event| format!("{} {}", event.path, event.token))
            .collect()
    }

    /// Every node has its parent, every parent lists it, and owners' counts are right.
    fn check(&self) {
        let mut owned = BTreeMap::new();
        for (path, node) in self.store.tree.iter() {
            *owned.entry(node.permissions.owner()).or_insert(0) += 1;
            if let Some(parent) = path.parent() {
                let above: &Node = self.store.tree.get(parent.as_str()).expect("an orphan");
                assert!(above.children.contains(path.name()), "{path} is not listed");
            }
            for name in &node.children {
                assert!(self.store.tree.get(path.child(name).as_str()).is_some(), "{path} lists {name}");
            }
        }
        for domain in [DomId::DOM0, GUEST, OTHER] {
            assert_eq!(self.store.tree.owned(domain), owned.get(&domain).copied().unwrap_or(0), "{domain}");
        }
    }
}
