//! What libxl does around a disk: domains, device nodes with their permissions, the hotplug script's word, removal.
//!
//! The order and the keys follow libxl (docs/PROTOCOL.md sections 4.1, 4.2 and 7.1), so that a backend which works here
//! finds the same world under `xl`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use blkif_proto::{
    keys::{self, DeviceType, Hotplug, ToolstackBackend, ToolstackFrontend},
    xenbus::State,
};
use xen_platform::{
    DomId, Store as _, StoreClient, StoreError,
    session::{Transaction, Transport},
    sim,
    wire::{Permission, Rights},
};

use super::process::wait_until;

/// How long libxl waits for a backend to come or to go.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The backend kinds under which libxl files disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `vbd`, xl's backendtype `phy`: `params` is the target verbatim; a hotplug script runs.
    #[default]
    Phy,
    /// `qdisk`: `params` is `aio:TARGET`; no script.
    Qdisk,
    /// `vbd3`, xl's backendtype `tap` since Xen 4.19: `params` is `aio:TARGET`; a hotplug script runs.
    Tap,
}

impl Kind {
    /// The folder below `backend/`.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Phy => "vbd",
            Kind::Qdisk => "qdisk",
            Kind::Tap => "vbd3",
        }
    }

    /// The value of the key `type`.
    fn type_key(self) -> &'static str {
        match self {
            Kind::Phy => "phy",
            Kind::Qdisk => "qdisk",
            Kind::Tap => "vbd3",
        }
    }

    fn script(self) -> Option<&'static str> {
        match self {
            Kind::Phy => Some("/etc/xen/scripts/block"),
            Kind::Tap => Some("/etc/xen/scripts/block-tap"),
            Kind::Qdisk => None,
        }
    }
}

/// A disk line of a guest's configuration.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What to serve, in the backend's words: an image's path, or the name of a storage such as `null:1G`.
    pub target: String,
    /// Its place among the guest's disks: 0 is xvda.
    pub index: u8,
    /// The guest may write.
    pub writable: bool,
    /// Discard may be offered.
    pub discard: bool,
    /// It is a CD drive.
    pub cdrom: bool,
    /// How libxl files it.
    pub kind: Kind,
}

impl Disk {
    /// The guest's first disk, writable, filed as `phy`.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), index: 0, writable: true, discard: true, cdrom: false, kind: Kind::Phy }
    }

    /// The name in the guest: `xvda`.
    pub fn name(&self) -> String {
        let letter = |n: u8| char::from(b'a' + n % 26);
        match self.index {
            n @ 0..26 => format!("xvd{}", letter(n)),
            n => format!("xvd{}{}", letter(n / 26 - 1), letter(n)),
        }
    }

    /// The device's number (`xen-vbd-interface(7)`).
    pub fn number(&self) -> u32 {
        match self.index {
            n @ 0..16 => 202 << 8 | u32::from(n) << 4,
            n => 1 << 28 | u32::from(n) << 8,
        }
    }
}

/// A disk that was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vbd {
    /// The guest.
    pub guest: DomId,
    /// The device's number.
    pub number: u32,
    /// The frontend's directory.
    pub frontend: String,
    /// The backend's directory.
    pub backend: String,
    /// It is a CD drive.
    pub cdrom: bool,
}

impl Vbd {
    fn new(guest: DomId, disk: &Disk) -> Self {
        let number = disk.number();
        Self {
            guest,
            number,
            cdrom: disk.cdrom,
            frontend: format!("/local/domain/{guest}/device/vbd/{number}"),
            backend: format!("/local/domain/0/backend/{}/{guest}/{number}", disk.kind.folder()),
        }
    }

    fn device_type(&self) -> DeviceType {
        if self.cdrom { DeviceType::Cdrom } else { DeviceType::Disk }
    }

    /// Where libxl keeps its own copy.
    fn copy(&self) -> String {
        format!("/libxl/{}/device/vbd/{}", self.guest, self.number)
    }
}

/// A toolstack in one simulated world, domain 0's.
#[derive(Debug)]
pub struct Toolstack {
    machine: sim::Toolstack,
    store: StoreClient,
}

impl Toolstack {
    /// Joins the world in `dir`.
    pub fn connect(dir: &Path) -> Result<Self> {
        let mut store = StoreClient::connect(sim::xenstored_socket(dir))?;
        store.transact(|t| t.write("/local/domain/0/domid", "0"))?;
        Ok(Self { machine: sim::Toolstack::connect(dir)?, store })
    }

    /// The toolstack's connection to XenStore, as domain 0.
    pub fn store(&mut self) -> &mut StoreClient {
        &mut self.store
    }

    /// Makes a guest with `pages` pages of memory and its XenStore home.
    pub fn create_guest(&mut self, pages: u32) -> Result<DomId> {
        let guest = self.machine.create_domain(pages)?;
        let home = format!("/local/domain/{guest}");
        self.store.transact(|t| {
            make(t, &home, DomId::DOM0, guest)?;
            t.write(&format!("{home}/domid"), guest.to_string())?;
            t.write(&format!("{home}/name"), format!("guest-{guest}"))?;
            make(t, &format!("{home}/device"), DomId::DOM0, guest)
        })?;
        Ok(guest)
    }

    /// Destroys a guest as `xl destroy` does: its disks by force, its nodes, the domain.
    pub fn destroy_guest(&mut self, guest: DomId, disks: &[Vbd]) -> Result<()> {
        self.machine.destroy_domain(guest)?;
        for vbd in disks {
            self.force_detach(vbd)?;
        }
        self.store.transact(|t| {
            t.remove(&format!("/libxl/{guest}"))?;
            t.remove(&format!("/local/domain/{guest}"))
        })?;
        Ok(())
    }

    /// Attaches a disk: makes its nodes, waits for the backend to wait (state 2), and says what the hotplug script says.
    pub fn attach(&mut self, guest: DomId, disk: &Disk) -> Result<Vbd> {
        let vbd = self.make_nodes(guest, disk)?;
        if disk.kind.script().is_some() {
            self.wait_backend(&vbd, "wait for its frontend", |state| state == State::InitWait)?;
            self.run_script(&vbd, disk)?;
        }
        Ok(vbd)
    }

    /// The nodes alone, see [`make_nodes`].
    pub fn make_nodes(&mut self, guest: DomId, disk: &Disk) -> Result<Vbd> {
        make_nodes(&mut self.store, guest, disk)
    }

    /// Says what the hotplug script `block` says when it has found its device.
    pub fn run_script(&mut self, vbd: &Vbd, disk: &Disk) -> Result<()> {
        let node = |key| format!("{}/{key}", vbd.backend);
        self.store.transact(|t| {
            t.write(&node(keys::PHYSICAL_DEVICE_PATH), &disk.target)?;
            t.write(&node(keys::HOTPLUG_STATUS), "connected")
        })?;
        Ok(())
    }

    /// Detaches a disk as `xl block-detach` does: says goodbye, waits for the backend to close, deletes the nodes.
    pub fn detach(&mut self, vbd: &Vbd) -> Result<()> {
        self.ask_to_close(vbd)?;
        self.wait_backend(vbd, "close", |state| state == State::Closed)?;
        self.delete_nodes(vbd)
    }

    /// Detaches a disk as `xl destroy` does: the frontend's directory goes first.
    pub fn force_detach(&mut self, vbd: &Vbd) -> Result<()> {
        self.store.transact(|t| t.remove(&vbd.frontend))?;
        self.detach(vbd)
    }

    /// First half of a detach: `online` 0 and state 5 in one transaction.
    pub fn ask_to_close(&mut self, vbd: &Vbd) -> Result<()> {
        let node = |key| format!("{}/{key}", vbd.backend);
        self.store.transact(|t| {
            t.write(&node(keys::ONLINE), "0")?;
            t.write(&node(keys::STATE), State::Closing.as_str())
        })?;
        Ok(())
    }

    /// Last part of a detach, see [`delete_nodes`].
    pub fn delete_nodes(&mut self, vbd: &Vbd) -> Result<()> {
        delete_nodes(&mut self.store, vbd)
    }

    /// Waits until the backend's state is as `wanted`, as long as libxl would. `what` it is to do goes into the message.
    pub fn wait_backend(&mut self, vbd: &Vbd, what: &str, wanted: impl Fn(State) -> bool) -> Result<State> {
        let mut seen = State::Unknown;
        let outcome = wait_until(&format!("the backend of {} to {what}", vbd.backend), PATIENCE, || {
            seen = self.backend_state(vbd)?;
            Ok(wanted(seen).then_some(seen))
        });
        outcome.with_context(|| {
            let reason = self.read(&format!("{}/{}", vbd.backend, keys::ERROR)).ok().flatten();
            format!(
                "the backend is {seen}{}",
                reason.map_or(String::new(), |text| format!(" and says: {text}"))
            )
        })
    }

    /// The backend's state; Unknown when there is no such node.
    pub fn backend_state(&mut self, vbd: &Vbd) -> Result<State> {
        self.state(&vbd.backend)
    }

    /// The frontend's state; Unknown when there is no such node.
    pub fn frontend_state(&mut self, vbd: &Vbd) -> Result<State> {
        self.state(&vbd.frontend)
    }

    /// The value of a node as text; `None` when it does not exist.
    pub fn read(&mut self, path: &str) -> Result<Option<String>> {
        match self.store.read(path) {
            Ok(value) => Ok(Some(String::from_utf8(value).with_context(|| format!("{path} is not UTF-8"))?)),
            Err(StoreError::NoEntry(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn state(&mut self, dir: &str) -> Result<State> {
        Ok(State::of_node(self.read(&format!("{dir}/{}", keys::STATE))?))
    }
}

/// The nodes of a disk, in one transaction, as libxl writes them.
pub fn make_nodes(store: &mut StoreClient, guest: DomId, disk: &Disk) -> Result<Vbd> {
    let vbd = Vbd::new(guest, disk);
    let params = match disk.kind {
        Kind::Phy => disk.target.clone(),
        Kind::Qdisk | Kind::Tap => format!("aio:{}", disk.target),
    };
    let backend = ToolstackBackend {
        frontend: vbd.frontend.clone(),
        frontend_id: guest.0,
        online: true,
        params: Some(params),
        kind: Some(disk.kind.type_key().to_owned()),
        writable: disk.writable,
        shared: false,
        device_type: vbd.device_type(),
        removable: true,
        discard_enable: disk.discard,
        direct_io_safe: false,
        dev: Some(disk.name()),
        script: disk.kind.script().map(str::to_owned),
        hotplug: Hotplug::Waiting,
        physical_device: None,
        physical_device_path: None,
    };
    let backend = gather(initialising(), |put| backend.emit(put));
    store.transact(|t| {
        // Owned by the one who writes there, readable by the other end.
        fill_frontend(t, &vbd)?;
        fill(t, &vbd.backend, &backend, DomId::DOM0, guest)?;
        fill(t, &vbd.copy(), &backend, DomId::DOM0, DomId::DOM0)
    })?;
    Ok(vbd)
}

/// The frontend's directory alone, as when the disk came.
pub fn make_frontend(store: &mut StoreClient, vbd: &Vbd) -> Result<()> {
    Ok(store.transact(|t| fill_frontend(t, vbd))?)
}

/// Both directories of a disk and libxl's copy go.
pub fn delete_nodes(store: &mut StoreClient, vbd: &Vbd) -> Result<()> {
    store.transact(|t| {
        t.remove(&vbd.frontend)?;
        t.remove(&vbd.copy())?;
        t.remove(&vbd.backend)?;
        // The guest's folder below the kind, once it is empty.
        let Some((folder, _)) = vbd.backend.rsplit_once('/') else { return Ok(()) };
        if t.list(folder).is_ok_and(|names| names.is_empty()) { t.remove(folder) } else { Ok(()) }
    })?;
    Ok(())
}

fn fill_frontend<T: Transport>(t: &mut Transaction<'_, T>, vbd: &Vbd) -> Result<(), StoreError> {
    let record = ToolstackFrontend {
        backend: vbd.backend.clone(),
        backend_id: DomId::DOM0.0,
        virtual_device: vbd.number,
        device_type: vbd.device_type(),
        trusted: true,
    };
    let keys = gather(initialising(), |put| record.emit(put));
    fill(t, &vbd.frontend, &keys, vbd.guest, DomId::DOM0)
}

fn initialising() -> (String, String) {
    (keys::STATE.to_owned(), State::Initialising.as_str().to_owned())
}

type Keys = Vec<(String, String)>;

fn gather(first: (String, String), emit: impl FnOnce(&mut dyn FnMut(&str, &str))) -> Keys {
    let mut keys = vec![first];
    emit(&mut |key, value| keys.push((key.to_owned(), value.to_owned())));
    keys
}

fn make<T: Transport>(
    t: &mut Transaction<'_, T>,
    path: &str,
    owner: DomId,
    reader: DomId,
) -> Result<(), StoreError> {
    t.mkdir(path)?;
    t.set_permissions(path, &[Permission::new(owner, Rights::None), Permission::new(reader, Rights::Read)])
}

/// A fresh directory with keys; what is made in a directory inherits its permissions.
fn fill<T: Transport>(
    t: &mut Transaction<'_, T>,
    path: &str,
    keys: &Keys,
    owner: DomId,
    reader: DomId,
) -> Result<(), StoreError> {
    t.remove(path)?;
    make(t, path, owner, reader)?;
    keys.iter().try_for_each(|(key, value)| t.write(&format!("{path}/{key}"), value))
}

#[cfg(test)]
mod tests;
