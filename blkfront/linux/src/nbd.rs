//! `nbd`: the disk as an NBD export on a Unix socket.
//!
//! ```text
//!              accepts            one thread per queue: sockets and ring in one loop
//!  clients ──▶ this thread ──▶ Worker ── Client ── Conversation (bytes in, checked requests out)
//!                  │              └───── Jobs ──── Queue (requests in pieces, several at once)
//!                  └─ watches signals and the backend
//! ```
//!
//! Limits: simple replies only, no TLS, one export; clients are as trusted as the socket's permissions make them.

mod client;
mod conversation;
mod export;
mod handshake;
mod jobs;
mod mailbox;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, anyhow};
use blkfront::Device;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};

use self::{export::Export, mailbox::Mailbox, worker::Worker};
use crate::{
    connect::{Disk, World, look_after},
    exit::Usage,
    say,
    signal::Stop,
};

/// Arguments of `nbd`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Name of the export; clients that name none get it too
    #[arg(long, default_value = "", value_name = "NAME", value_parser = export_name)]
    export: String,
}

/// The protocol's limit on names.
fn export_name(name: &str) -> Result<String, String> {
    match name.len() {
        0..=4096 => Ok(name.into()),
        _ => Err("longer than 4096 bytes".into()),
    }
}

/// Serves the disk until it is told to stop. Errors: the socket, the connection to the backend.
pub(crate) fn run<W: World>(args: &Args, disk: &mut Disk<W>) -> anyhow::Result<()> {
    let export = Export::new(&args.export, &disk.capabilities());
    let signals = disk.stop.wake_up().context("listening for signals")?;
    let listener = Listener::bind(&args.socket)?;
    say::line(address(args))?;
    let mailboxes = disk.queues.iter().map(|_| Mailbox::new()).collect::<io::Result<Vec<_>>>()?;
    let disk_can = disk.capabilities();
    let (device, queues, stop, poll) = (&mut disk.device, &mut disk.queues, &disk.stop, disk.poll);
    thread::scope(|scope| {
        let workers: Vec<_> = queues
            .iter_mut()
            .zip(&mailboxes)
            .map(|(queue, mailbox)| {
                let export = &export;
                scope.spawn(move || {
                    let result = Worker::new(queue, export, disk_can, mailbox, poll).and_then(Worker::run);
                    if result.is_err() {
                        stop.request();
                    }
                    result
                })
            })
            .collect();
        let accepted = accept(&listener, &signals, &mailboxes, device, stop);
        mailboxes.iter().for_each(Mailbox::stop);
        let served = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a thread failed"))));
        served.fold(accepted, anyhow::Result::and)
    })
}

/// Takes clients in and hands them to the workers in turn, until a stop.
fn accept<W: World>(
    listener: &Listener,
    signals: &UnixStream,
    mailboxes: &[Mailbox],
    device: &mut Device<W>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut turn = mailboxes.iter().cycle();
    while !stop.requested() {
        let mut waited = [
            PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waited, PollTimeout::from(500u16)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for clients"),
        }
        look_after(device)?;
        match listener.socket.accept() {
            Ok((client, _)) => {
                if let Some(mailbox) = turn.next() {
                    mailbox.give(client);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!("accepting a client: {error}");
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
    info!("stopping");
    Ok(())
}

/// The socket's file, removed at the end.
struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`; takes the place of a socket that nobody listens at any more.
    fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        match UnixStream::connect(path) {
            Ok(_) => return Err(Usage(format!("somebody listens at {shown} already")).into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).with_context(|| format!("removing the old {shown}"))?;
            }
            Err(_) => {}
        }
        let socket = UnixListener::bind(path).with_context(|| format!("listening at {shown}"))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.into() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            warn!("removing {}: {error}", self.path.display());
        }
    }
}

/// The export's address in the form that NBD's tools take.
fn address(args: &Args) -> String {
    let path = std::path::absolute(&args.socket).unwrap_or_else(|_| args.socket.clone());
    format!("nbd+unix:///{}?socket={}", args.export, path.display())
}
