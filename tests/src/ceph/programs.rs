//! Ceph's programs and libraries, where `tests/ceph/fetch` has put them.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Unpacked Debian packages.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Fetches them, if that has not been done yet. Errors: they cannot be had.
    pub fn find() -> Result<Self> {
        let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("ceph/fetch");
        let output =
            Command::new(fetch).stderr(Stdio::inherit()).output().context("cannot run tests/ceph/fetch")?;
        ensure!(output.status.success(), "tests/ceph/fetch failed");
        Ok(Self { root: String::from_utf8(output.stdout)?.trim().into() })
    }

    /// A program, one of these or of this host, that finds the libraries and Python modules it needs among these.
    pub fn command(&self, program: &str) -> Command {
        let path = env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env("PATH", format!("{}:{path}", self.root.join("usr/bin").display()))
            .env("LD_LIBRARY_PATH", self.library_path())
            .env("PYTHONPATH", self.root.join("usr/lib/python3/dist-packages"))
            .stdin(Stdio::null());
        command
    }

    /// Where the libraries are, for `LD_LIBRARY_PATH`.
    pub fn library_path(&self) -> String {
        let folders = [self.libraries(), self.libraries().join("ceph"), self.root.join("lib").join(TRIPLET)];
        folders.map(|folder| folder.display().to_string()).join(":")
    }

    /// The folder that librbd.so.1 is in.
    pub(super) fn libraries(&self) -> PathBuf {
        self.root.join("usr/lib").join(TRIPLET)
    }
}

/// How Debian names the folders of this machine's libraries.
const TRIPLET: &str = match cfg!(target_arch = "aarch64") {
    true => "aarch64-linux-gnu",
    false => "x86_64-linux-gnu",
};
