//! How a cluster is reached, and what of its configuration is not up to it.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{
    Ceph, Name,
    ffi::{Cluster, Functions},
};

/// Settings that no configuration changes: a client is a guest in our process.
const SETTINGS: [(&str, &str); 10] = [
    // What a guest has been told to be written must outlast this process.
    ("rbd_cache", "false"),
    ("rbd_persistent_cache_mode", "disabled"),
    // A job's memory stays as it is until the library has finished it.
    ("rbd_disable_zero_copy_writes", "false"),
    // No code that the sandbox would not let in, no files, no sockets to listen at, no words on our standard error.
    ("rbd_plugins", ""),
    ("rbd_parent_cache_enabled", "false"),
    ("admin_socket", ""),
    ("log_to_file", "false"),
    ("log_file", ""),
    ("log_to_stderr", "false"),
    ("err_to_stderr", "false"),
];

/// While a disk is attached or let go, in seconds; 0 is for ever.
const OSD_PATIENCE: &str = "rados_osd_op_timeout";

/// Why there is no connection, for people.
#[derive(Debug)]
pub(super) enum NoConnection {
    /// Nobody has answered.
    Away(String),
    /// There will be none.
    Refused(String),
}

impl From<String> for NoConnection {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

/// Connects to the image's cluster; what is asked of it from now on is answered or fails within the time configured.
pub(super) fn connect(
    functions: &'static Functions,
    name: &Name,
    ceph: &Ceph,
    credentials: &[PathBuf],
) -> Result<Cluster, NoConnection> {
    let id = name.id.as_deref().unwrap_or(&ceph.id);
    let conf = name.conf.as_ref().unwrap_or(&ceph.conf);
    for path in [Some(conf), name.keyring.as_ref()].into_iter().flatten() {
        within(path, credentials)?;
    }
    let seconds = ceph.timeout_s.to_string();
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| format!("{what}: {}", errno.desc())
    };
    let cluster = Cluster::new(functions, id).map_err(failed("no client"))?;
    // With the addresses of monitors there is no need of one.
    match cluster.read_conf(&conf.to_string_lossy()) {
        Err(Errno::ENOENT) if name.mon_host.is_some() && name.conf.is_none() => {}
        read => read.map_err(failed(&format!("configuration {}", conf.display())))?,
    }
    let keyring = name.keyring.as_ref().map(|path| path.to_string_lossy());
    let chosen = [("mon_host", name.mon_host.as_deref()), ("keyring", keyring.as_deref())];
    let chosen = chosen.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let patience = [("client_mount_timeout", &*seconds), ("rados_mon_op_timeout", &seconds)];
    for (key, value) in chosen.chain(SETTINGS).chain(patience) {
        match cluster.set(key, value) {
            // Later versions have no longer got some.
            Err(Errno::ENOENT) => {}
            set => set.map_err(failed(key))?,
        }
    }
    be_patient(&cluster, Some(ceph.timeout_s)).map_err(failed(OSD_PATIENCE))?;
    let conf = conf.display();
    cluster.connect().map_err(|errno| match errno {
        Errno::ETIMEDOUT => {
            NoConnection::Away(format!("no monitor of the cluster has answered within {seconds} s ({conf})"))
        }
        // The last is that of a key that is none.
        Errno::ENOENT | Errno::EPERM | Errno::EACCES | Errno::EOPNOTSUPP | Errno::EIO => {
            format!("the cluster does not accept client.{id}: its key is missing or wrong ({conf})").into()
        }
        errno => failed("cannot connect to the cluster")(errno).into(),
    })?;
    Ok(cluster)
}

/// Lets requests fail after so many seconds, or wait for ever: OSDs that are away come back, and a guest waits as for a slow disk.
pub(super) fn be_patient(cluster: &Cluster, seconds: Option<u32>) -> Result<(), Errno> {
    cluster.set(OSD_PATIENCE, &seconds.unwrap_or(0).to_string())
}

fn within(path: &Path, credentials: &[PathBuf]) -> Result<(), String> {
    if credentials.iter().any(|place| path.starts_with(place)) {
        return Ok(());
    }
    Err(format!(
        "{} is not among `credentials` in the section [sandbox] of the configuration",
        path.display()
    ))
}
