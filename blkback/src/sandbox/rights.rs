//! Who the daemon is, and what that lets it do: another user, no capabilities, and no way back to either.

use std::{fs, io, os::unix::fs::chown, path::Path};

use caps::CapSet;
use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, User, geteuid, setgroups, setresgid, setresuid},
};

/// The user that the daemon becomes if it is started by root, no other is configured, and there is one of this name.
pub const USUAL_USER: &str = "blkback";

/// A user without rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// The user that is configured, or the usual one. None: there is none to become, or this process may not. Errors: there is no
    /// such user; it is root; only root may become it.
    pub fn find(configured: Option<&str>) -> io::Result<Option<Self>> {
        if configured.is_none() && !geteuid().is_root() {
            return Ok(None);
        }
        let name = configured.unwrap_or(USUAL_USER);
        let Some(user) = User::from_name(name)? else {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {name}"));
            return configured.map_or(Ok(None), |_| Err(missing()));
        };
        let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("user {name}: {why}")));
        if user.uid.is_root() {
            return refuse("that is root");
        }
        if user.uid == geteuid() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            return refuse("only root can become another user");
        }
        Ok(Some(Self { name: user.name, uid: user.uid, gid: user.gid }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it a folder with the files in it.
    pub(super) fn give(&self, folder: &Path) -> io::Result<()> {
        let give = |path: &Path| chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()));
        give(folder)?;
        fs::read_dir(folder)?.try_for_each(|entry| give(&entry?.path()))
    }

    fn become_it(&self) -> Result<(), Errno> {
        setgroups(&[])?;
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)
    }
}

/// Gives up all capabilities of this thread and of those it starts, becomes `who`, and lets nothing that is executed ever have more.
pub(super) fn drop_all(who: Option<&Identity>) -> io::Result<()> {
    let clear = |set| caps::clear(None, set).map_err(io::Error::other);
    // Those that could come back need one to be given up; a process without any has nothing to give up.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        clear(CapSet::Bounding)?;
    }
    if let Some(who) = who {
        who.become_it()?;
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        clear(set)?;
    }
    Ok(prctl::set_no_new_privs()?)
}
