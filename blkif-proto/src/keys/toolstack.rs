//! What the toolstack writes when it makes a device, and the hotplug script after it.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};

use super::{
    BACKEND, BACKEND_ID, BOOTABLE, DEV, DEVICE_TYPE, DIRECT_IO_SAFE, DISCARD_ENABLE, FRONTEND, FRONTEND_ID,
    HOTPLUG_ERROR, HOTPLUG_STATUS, MODE, ONLINE, PARAMS, PHYSICAL_DEVICE, PHYSICAL_DEVICE_PATH, REMOVABLE,
    SCRIPT, TRUSTED, TYPE, VIRTUAL_DEVICE, VIRTUAL_DEVICE_EXT,
    read::{Reader, required, unexpected},
};
use crate::RecordError;

/// What the guest is told the device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceType {
    /// `disk`.
    #[default]
    Disk,
    /// `cdrom`.
    Cdrom,
}

impl DeviceType {
    /// The key's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            DeviceType::Disk => "disk",
            DeviceType::Cdrom => "cdrom",
        }
    }

    fn parse<V: AsRef<[u8]>>(keys: &mut Reader<impl FnMut(&str) -> Option<V>>) -> Result<Self, RecordError> {
        match keys.text(DEVICE_TYPE)?.as_deref() {
            None | Some("disk") => Ok(DeviceType::Disk),
            Some("cdrom") => Ok(DeviceType::Cdrom),
            Some(other) => Err(unexpected(DEVICE_TYPE, other, "disk or cdrom")),
        }
    }
}

/// How far the hotplug script is. A backend whose kind has a script stays in state 2 until it is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hotplug {
    /// It has not said anything.
    #[default]
    Waiting,
    /// `opening`, a word of our own script: the backend is to open the image, and to write what the script would have.
    Opening,
    /// `connected`.
    Connected,
    /// `error`, `busy` or another word, with the contents of `hotplug-error`.
    Failed(String),
}

/// The backend's directory, as the toolstack and the hotplug script have filled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolstackBackend {
    /// The frontend's directory.
    pub frontend: String,
    /// The frontend's domain.
    pub frontend_id: u16,
    /// The device is to exist; 0 or absent when it is to go for good.
    pub online: bool,
    /// What to serve, see [`target`](Self::target); absent for a drive without medium.
    pub params: Option<String>,
    /// Kind of backend that the toolstack had in mind: `phy`, `qdisk`, `vbd3`.
    pub kind: Option<String>,
    /// The guest may write: the mode has a `w`.
    pub writable: bool,
    /// Other guests may write to the same image: the mode has a `!`, as Xen's block script knows it.
    pub shared: bool,
    /// Disk or CD.
    pub device_type: DeviceType,
    /// The medium can be taken out.
    pub removable: bool,
    /// Discard may be offered if the storage can; absent means yes.
    pub discard_enable: bool,
    /// The storage has no use for a guest's page after it has completed the write.
    pub direct_io_safe: bool,
    /// Name of the disk in the guest.
    pub dev: Option<String>,
    /// Path of the hotplug script.
    pub script: Option<String>,
    /// What the script has found out.
    pub hotplug: Hotplug,
    /// The block device's `major:minor` in hexadecimal, from the script.
    pub physical_device: Option<String>,
    /// The block device's path, from the script.
    pub physical_device_path: Option<String>,
}

/// What `params` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The format before the colon: `aio` for raw, `qcow`, `qcow2`, `vhd`, `qed`, `raw`. None with `phy`.
    pub format: Option<&'a str>,
    /// The rest.
    pub path: &'a str,
}

impl ToolstackBackend {
    /// Reads the backend's directory. The toolstack is trusted; the checks find its mistakes, and half-made directories.
    pub fn parse<V: AsRef<[u8]>>(lookup: impl FnMut(&str) -> Option<V>) -> Result<Self, RecordError> {
        let mut keys = Reader(lookup);
        let hotplug = match keys.text(HOTPLUG_STATUS)?.as_deref() {
            None => Hotplug::Waiting,
            Some("opening") => Hotplug::Opening,
            Some("connected") => Hotplug::Connected,
            Some(word) => Hotplug::Failed(keys.text(HOTPLUG_ERROR)?.unwrap_or_else(|| word.to_owned())),
        };
        let mode = required(MODE, keys.text(MODE)?)?;
        Ok(Self {
            frontend: required(FRONTEND, keys.text(FRONTEND)?)?,
            frontend_id: domain(FRONTEND_ID, &mut keys)?,
            online: keys.flag(ONLINE)?,
            params: keys.text(PARAMS)?,
            kind: keys.text(TYPE)?,
            writable: mode.contains('w'),
            shared: mode.contains('!'),
            device_type: DeviceType::parse(&mut keys)?,
            removable: keys.flag(REMOVABLE)?,
            discard_enable: keys.maybe_flag(DISCARD_ENABLE)?.unwrap_or(true),
            direct_io_safe: keys.flag(DIRECT_IO_SAFE)?,
            dev: keys.text(DEV)?,
            script: keys.text(SCRIPT)?,
            hotplug,
            physical_device: keys.text(PHYSICAL_DEVICE)?,
            physical_device_path: keys.text(PHYSICAL_DEVICE_PATH)?,
        })
    }

    /// Writes the keys, for whoever plays toolstack; not those of the hotplug script.
    pub fn emit(&self, mut put: impl FnMut(&str, &str)) {
        let digit = |flag| if flag { "1" } else { "0" };
        put(FRONTEND, &self.frontend);
        put(FRONTEND_ID, &self.frontend_id.to_string());
        put(ONLINE, digit(self.online));
        put(REMOVABLE, digit(self.removable));
        put(BOOTABLE, "1");
        let access = if self.writable { "w" } else { "r" };
        put(MODE, &(access.to_owned() + if self.shared { "!" } else { "" }));
        put(DEVICE_TYPE, self.device_type.as_str());
        put(DISCARD_ENABLE, digit(self.discard_enable));
        if self.direct_io_safe {
            put(DIRECT_IO_SAFE, "1");
        }
        put(PARAMS, self.params.as_deref().unwrap_or(""));
        for (key, value) in [(TYPE, &self.kind), (DEV, &self.dev), (SCRIPT, &self.script)] {
            if let Some(value) = value {
                put(key, value);
            }
        }
    }

    /// What to serve: a path as it stands for `phy`, `<format>:<path>` for the other kinds. `None` without a medium.
    pub fn target(&self) -> Option<Target<'_>> {
        const FORMATS: [&str; 6] = ["aio", "raw", "qcow", "qcow2", "vhd", "qed"];
        let params = self.params.as_deref()?;
        match params.split_once(':') {
            Some((format, path)) if self.kind.as_deref() != Some("phy") && FORMATS.contains(&format) => {
                Some(Target { format: Some(format), path })
            }
            _ => Some(Target { format: None, path: params }),
        }
    }
}

/// The frontend's directory, as the toolstack has made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolstackFrontend {
    /// The backend's directory.
    pub backend: String,
    /// The backend's domain.
    pub backend_id: u16,
    /// The device's number (Xen's `xen-vbd-interface(7)`).
    pub virtual_device: u32,
    /// Disk or CD.
    pub device_type: DeviceType,
    /// The backend may see whole pages; absent means yes.
    pub trusted: bool,
}

impl ToolstackFrontend {
    /// Reads the frontend's directory.
    pub fn parse<V: AsRef<[u8]>>(lookup: impl FnMut(&str) -> Option<V>) -> Result<Self, RecordError> {
        let mut keys = Reader(lookup);
        let virtual_device = match keys.number32(VIRTUAL_DEVICE)? {
            None => keys.number32(VIRTUAL_DEVICE_EXT)?,
            found => found,
        };
        Ok(Self {
            backend: required(BACKEND, keys.text(BACKEND)?)?,
            backend_id: domain(BACKEND_ID, &mut keys)?,
            virtual_device: required(VIRTUAL_DEVICE, virtual_device)?,
            device_type: DeviceType::parse(&mut keys)?,
            trusted: keys.maybe_flag(TRUSTED)?.unwrap_or(true),
        })
    }

    /// Writes the keys, for whoever plays toolstack.
    pub fn emit(&self, mut put: impl FnMut(&str, &str)) {
        put(BACKEND, &self.backend);
        put(BACKEND_ID, &self.backend_id.to_string());
        put(VIRTUAL_DEVICE, &self.virtual_device.to_string());
        put(DEVICE_TYPE, self.device_type.as_str());
        put(TRUSTED, if self.trusted { "1" } else { "0" });
    }
}

/// A domain's number, below Xen's `DOMID_FIRST_RESERVED`.
fn domain<V: AsRef<[u8]>>(
    key: &str,
    keys: &mut Reader<impl FnMut(&str) -> Option<V>>,
) -> Result<u16, RecordError> {
    let number = required(key, keys.within(key, 0, 0x7FEF)?)?;
    u16::try_from(number).map_err(|_| super::read::out_of_range(key, number.into(), 0, 0x7FEF))
}

#[cfg(test)]
mod tests;
