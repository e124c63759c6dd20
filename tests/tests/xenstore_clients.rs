//! XenStore clients that nobody here wrote, against the simulated xenstored.
//!
//! | client | what it stands for |
//! |---|---|
//! | Debian's `xenstore-utils` (libxenstore) | every C program of a toolstack |
//! | PyPI's `pyxs` | a client with its own codec: permissions, transactions, watches |
//! | `xenstore-rs` | what `blkback` uses |
//!
//! All find the socket by `XENSTORED_PATH`, as on real Xen.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Output},
};

use xen_platform::{
    DomId, StoreError,
    fake::{SharedStore, StoreHandle},
    sim::xenstored::{self, Xenstored},
};

mod xenstore_clients {
    mod pyxs;
    mod utils;
    mod xenstore_rs;
}

/// A served store, and a privileged connection past the socket to look at it with.
struct Served {
    store: SharedStore,
    direct: StoreHandle,
    dir: tempfile::TempDir,
    _server: Xenstored,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SharedStore::default();
        let server = xenstored::serve(UnixListener::bind(dir.path().join("socket")).unwrap(), store.clone());
        let direct = store.connect(DomId::DOM0).unwrap();
        Self { store, direct, dir, _server: server.unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A command that finds the socket.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("XENSTORED_PATH", self.socket());
        command
    }

    fn put(&mut self, path: &str, value: &str) {
        self.direct.transact(|tx| tx.write(path, value)).unwrap();
    }

    fn get(&mut self, path: &str) -> Result<String, StoreError> {
        let value = xen_platform::Store::read(&mut self.direct, path)?;
        Ok(String::from_utf8(value).unwrap())
    }
}

/// What a command printed; it must have succeeded.
fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}
