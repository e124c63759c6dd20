//! `nbdkit` and `qemu-nbd`, each on a Unix socket of its own.

use std::{
    ffi::OsString,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::world::{Process, wait_until};

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs, or could.
#[derive(Debug)]
pub struct Server {
    program: &'static str,
    arguments: Vec<OsString>,
    socket: PathBuf,
    process: Option<Process>,
}

impl Server {
    /// `nbdkit` with `arguments`: filters, a plugin and its parameters. Its socket and log are in `dir`, named `name`.
    pub fn nbdkit(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let socket = dir.join(format!("{name}.sock"));
        let fixed = ["--foreground", "--exit-with-parent", "--unix"].map(OsString::from);
        let fixed = fixed.into_iter().chain([socket.clone().into()]);
        Self::start_as("nbdkit", fixed.chain(arguments.iter().map(OsString::from)).collect(), socket)
    }

    /// `qemu-nbd` with `arguments`: how, and the image. The same.
    pub fn qemu(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let socket = dir.join(format!("{name}.sock"));
        let fixed = ["--persistent", "--socket"].map(OsString::from);
        let fixed = fixed.into_iter().chain([socket.clone().into()]);
        Self::start_as("qemu-nbd", fixed.chain(arguments.iter().map(OsString::from)).collect(), socket)
    }

    fn start_as(program: &'static str, arguments: Vec<OsString>, socket: PathBuf) -> Result<Self> {
        let mut server = Self { program, arguments, socket, process: None };
        server.start()?;
        Ok(server)
    }

    /// Starts it, again if need be, and waits until it listens.
    pub fn start(&mut self) -> Result<()> {
        _ = std::fs::remove_file(&self.socket);
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdin(Stdio::null());
        let mut process =
            Process::spawn_logged(self.program, &mut command, &self.socket.with_extension("log"))?;
        wait_until(&format!("{} to listen", self.program), PATIENCE, || {
            process.check_alive()?;
            Ok(UnixStream::connect(&self.socket).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// The process. Errors: it does not run.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the server does not run")
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The URI of an export.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.socket.with_extension("log")).unwrap_or_default()
    }
}
