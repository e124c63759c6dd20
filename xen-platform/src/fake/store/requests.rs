//! From a request's bytes to the store's answer (docs/misc/xenstore.txt names the payloads).

use super::{
    ConnId, XenStore,
    nodes::Nodes,
    path::NodePath,
    perms::{Need, Permissions},
    transaction::Draft,
    tree::Node,
};
use crate::{
    DomId,
    wire::{self, Errno, Kind, Message, PAYLOAD_MAX, Permission},
};

const OK: &[u8] = b"OK\0";

impl XenStore {
    /// The payload of the reply. Refused requests change nothing.
    pub(super) fn answer(&mut self, id: ConnId, request: &Message) -> Result<Vec<u8>, Errno> {
        let connection = self.connections.get_mut(&id).ok_or(Errno::Io)?;
        if request.payload.len() > PAYLOAD_MAX {
            return Err(Errno::TooBig);
        }
        if !connection.knows(request.transaction) {
            return Err(Errno::Noent);
        }
        match request.kind {
            Kind::TRANSACTION_START if request.transaction != 0 => Err(Errno::Busy),
            Kind::TRANSACTION_START => Ok(wire::strings(&[connection.begin(&self.quota)?.to_string()])),
            Kind::TRANSACTION_END => self.end(id, request),
            Kind::WATCH | Kind::UNWATCH => {
                let [path, token] = arguments(&request.payload)?;
                if request.kind == Kind::WATCH {
                    connection.watch(path, token, &self.quota)?;
                    self.stirred = true;
                } else {
                    connection.unwatch(path, token)?;
                }
                Ok(OK.into())
            }
            Kind::RESET_WATCHES => {
                connection.reset();
                Ok(OK.into())
            }
            Kind::INTRODUCE | Kind::RELEASE | Kind::RESUME | Kind::SET_TARGET => self.domain(id, request),
            Kind::GET_DOMAIN_PATH => {
                let [domain] = arguments(&request.payload)?;
                let domain = wire::parse_domain(domain).ok_or(Errno::Inval)?;
                Ok(wire::strings(&[NodePath::of_domain(domain).as_str()]))
            }
            Kind::IS_DOMAIN_INTRODUCED => {
                let [domain] = arguments(&request.payload)?;
                let domain = wire::parse_domain(domain).ok_or(Errno::Inval)?;
                Ok(wire::strings(&[if self.is_introduced(domain) { "T" } else { "F" }]))
            }
            _ => self.node(id, request),
        }
    }

    /// A request about nodes, within its transaction or at once.
    fn node(&mut self, id: ConnId, request: &Message) -> Result<Vec<u8>, Errno> {
        let connection = self.connections.get_mut(&id).ok_or(Errno::Io)?;
        let (actor, base) = (connection.actor, connection.base.clone());
        let mut draft = connection.take_draft(request.transaction)?;
        let nodes = Nodes { tree: &self.tree, draft: &mut draft, actor, quota: &self.quota };
        let answer = operate(nodes, &base, request);
        if request.transaction != 0 {
            connection.keep_draft(request.transaction, draft);
        } else if answer.is_ok() {
            self.commit(id, draft)?;
        }
        answer
    }

    fn end(&mut self, id: ConnId, request: &Message) -> Result<Vec<u8>, Errno> {
        let [verdict] = arguments(&request.payload)?;
        let connection = self.connections.get_mut(&id).ok_or(Errno::Io)?;
        if request.transaction == 0 {
            return Err(Errno::Inval);
        }
        match verdict {
            "T" => {
                let draft = connection.take_draft(request.transaction)?;
                self.commit(id, draft)?;
            }
            "F" => drop(connection.take_draft(request.transaction)?),
            _ => return Err(Errno::Inval),
        }
        Ok(OK.into())
    }

    fn commit(&mut self, id: ConnId, draft: Draft) -> Result<(), Errno> {
        let actor = self.connections.get(&id).ok_or(Errno::Io)?.actor;
        let fired = draft.commit(&mut self.tree, &actor, &self.quota)?;
        self.tell(&fired);
        Ok(())
    }

    /// What only the control domain may ask.
    fn domain(&mut self, id: ConnId, request: &Message) -> Result<Vec<u8>, Errno> {
        if !self.connections.get(&id).is_some_and(|connection| connection.actor.privileged()) {
            return Err(Errno::Acces);
        }
        let mut arguments = wire::split(&request.payload).map(|text| text.ok_or(Errno::Inval));
        let mut domain = || wire::parse_domain(arguments.next().ok_or(Errno::Inval)??).ok_or(Errno::Inval);
        let first = domain()?;
        if first == DomId::DOM0 {
            return Err(Errno::Inval);
        }
        if request.kind != Kind::INTRODUCE && !self.is_introduced(first) {
            return Err(Errno::Noent);
        }
        match request.kind {
            // A frame and a port follow; there is no ring here to find by them.
            Kind::INTRODUCE => drop(self.introduce(first)),
            Kind::RELEASE => self.release(first),
            Kind::SET_TARGET => {
                let target = domain()?;
                if !self.is_introduced(target) {
                    return Err(Errno::Noent);
                }
                for connection in self.connections.values_mut().filter(|each| each.actor.domain == first) {
                    connection.actor.target = Some(target);
                }
            }
            _ => {}
        }
        Ok(OK.into())
    }
}

fn operate(mut nodes: Nodes<'_>, base: &NodePath, request: &Message) -> Result<Vec<u8>, Errno> {
    let payload = request.payload.as_slice();
    match request.kind {
        Kind::READ => Ok(nodes.node(&path(payload, base)?, Need::Read)?.value.clone()),
        Kind::DIRECTORY => {
            let names = names(nodes.node(&path(payload, base)?, Need::Read)?);
            if names.len() > PAYLOAD_MAX { Err(Errno::TooBig) } else { Ok(names) }
        }
        Kind::DIRECTORY_PART => {
            let [path, offset] = arguments(payload)?;
            let offset = offset.parse().map_err(|_| Errno::Inval)?;
            part(nodes.node(&NodePath::parse(path, base)?, Need::Read)?, offset)
        }
        Kind::GET_PERMS => {
            let node = nodes.node(&path(payload, base)?, Need::Read)?;
            let entries: Vec<_> = node.permissions.entries().map(Permission::emit).collect();
            Ok(wire::strings(&entries))
        }
        Kind::WRITE => {
            let (path, value) = head(payload)?;
            nodes.write(&NodePath::parse(path, base)?, value)?;
            Ok(OK.into())
        }
        Kind::SET_PERMS => {
            let (path, entries) = head(payload)?;
            let entries =
                wire::split(entries).map(|entry| entry.and_then(Permission::parse).ok_or(Errno::Inval));
            let permissions = Permissions::new(entries.collect::<Result<Vec<_>, _>>()?)?;
            nodes.set_permissions(&NodePath::parse(path, base)?, permissions)?;
            Ok(OK.into())
        }
        Kind::MKDIR => {
            nodes.mkdir(&path(payload, base)?)?;
            Ok(OK.into())
        }
        Kind::RM => {
            nodes.remove(&path(payload, base)?)?;
            Ok(OK.into())
        }
        _ => Err(Errno::Nosys),
    }
}

/// A node's children, each name with its NUL.
fn names(node: &Node) -> Vec<u8> {
    wire::strings(&node.children.iter().collect::<Vec<_>>())
}

/// Generation and as many whole names from `offset` on as fit; an empty name after the last one.
fn part(node: &Node, offset: usize) -> Result<Vec<u8>, Errno> {
    let mut reply = wire::strings(&[node.generation.to_string()]);
    let names = names(node);
    let rest = names.get(offset..).unwrap_or_default();
    let room = PAYLOAD_MAX - reply.len() - 1;
    let fitting = match rest.get(..room) {
        Some(head) => head.iter().rposition(|byte| *byte == 0).map_or(0, |last| last + 1),
        None => rest.len(),
    };
    let (now, later) = rest.split_at(fitting);
    reply.extend_from_slice(now);
    if later.is_empty() {
        reply.push(0);
    }
    Ok(reply)
}

/// Exactly `N` NUL-terminated strings.
fn arguments<const N: usize>(payload: &[u8]) -> Result<[&str; N], Errno> {
    let strings: Vec<_> = wire::split(payload).take(N + 1).collect::<Option<_>>().ok_or(Errno::Inval)?;
    strings.try_into().map_err(|_| Errno::Inval)
}

fn path(payload: &[u8], base: &NodePath) -> Result<NodePath, Errno> {
    let [path] = arguments(payload)?;
    NodePath::parse(path, base)
}

/// A path with its NUL, and what follows.
fn head(payload: &[u8]) -> Result<(&str, &[u8]), Errno> {
    let end = payload.iter().position(|byte| *byte == 0).ok_or(Errno::Inval)?;
    let (path, rest) = payload.split_at(end);
    Ok((core::str::from_utf8(path).map_err(|_| Errno::Inval)?, rest.get(1..).unwrap_or_default()))
}
