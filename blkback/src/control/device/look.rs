//! What a device's task sees when it looks: the nodes of toolstack, script and guest.

use std::io;

use blkif_proto::{
    keys::{self, FrontendRecord, Hotplug, ToolstackBackend},
    xenbus::State,
};

use super::{
    super::{
        inbox::Message,
        vbd::{Script, Seen},
    },
    Device,
};

/// The directory is gone.
const DELETED: Seen =
    Seen { own: None, online: false, frontend: State::Unknown, script: Script::None, renewed: false };

impl Device {
    /// Reads the nodes. `None` when the toolstack is not done with them.
    pub(super) async fn look(&mut self) -> io::Result<Option<Seen>> {
        let store = self.context.store.clone();
        let state = format!("{}/{}", self.dir, keys::STATE);
        let Some(own) = store.read(&state).await? else { return Ok(Some(DELETED)) };
        let own = State::of_node(Some(own));
        let record = match store.record(&self.dir, |lookup| ToolstackBackend::parse(lookup)).await? {
            Ok(record) => record,
            Err(_) if store.read(&state).await?.is_none() => return Ok(Some(DELETED)),
            Err(error) => {
                // Half made, or badly: if it stays so, this tells why nothing happens.
                self.blame(&error.to_string()).await?;
                return Ok(None);
            }
        };
        let alone = self.context.config.is_driver_domain();
        if self.vbd.is_new() && own == State::Closed && !record.online && !alone {
            // A task before this one has closed it, and the toolstack is about to delete it.
            return Ok(None);
        }
        if self.vbd.is_new() && self.blamed.is_some() {
            self.absolve().await?;
        }
        let path = format!("{}/{}", record.frontend, keys::STATE);
        if self.frontend.as_ref().is_none_or(|(watched, _)| *watched != path) {
            let handle = self.handle.clone();
            let watch = store.watch(&path, move |_| handle.look()).await?;
            self.frontend = Some((path.clone(), watch));
        }
        let frontend = State::of_node(store.read(&path).await?);
        let script = match (&record.script, &record.hotplug) {
            (None, _) if !alone => Script::None,
            (_, Hotplug::Connected) => Script::Done,
            (_, Hotplug::Opening) => Script::Ours,
            _ if alone => Script::Ours,
            (_, Hotplug::Waiting) => Script::Running,
            (_, Hotplug::Failed(_)) => Script::Failed,
        };
        let online = record.online;
        let renewed = frontend == State::Initialised && self.is_renewed(&record, &path).await?;
        if let Some(name) = &record.dev {
            self.handle.set_name(name);
        }
        self.record = Some(record);
        self.compare_medium();
        // A rewritten `params` means a new size, or a new medium of which at least the size is new.
        self.handle.send(Message::Measure);
        Ok(Some(Seen { own: Some(own), online, frontend, script, renewed }))
    }

    /// True when a frontend at 3 names other rings than those it was connected with. Watches merge: a guest that crashes and is
    /// quickly back at 3 may look as if it had never left. At 4 it announces nothing, and its keys mean nothing: so its `state`,
    /// which is at `path`, must be 3 after the keys were read, as it was before.
    async fn is_renewed(&self, record: &ToolstackBackend, path: &str) -> io::Result<bool> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let offered = self.offered;
        let parse = |lookup: &mut dyn FnMut(&str) -> Option<String>| FrontendRecord::parse(lookup, &offered);
        // Keys that make no sense are not those of a guest that has just announced itself.
        let now = self.context.store.record(&record.frontend, parse).await?;
        let others = now.is_ok_and(|now| now != connection.frontend);
        Ok(others && State::of_node(self.context.store.read(path).await?) == State::Initialised)
    }
}
