//! The daemon's end of the control socket.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::unistd::{Group, Uid, User, chown, geteuid};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix::UCred},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, error, warn};

use super::protocol::{Answer, Command, Failure, FailureKind, LINE, Outcome, Reply, Request, VERSION};
use crate::config::ControlConfig;

/// Connections at a time; others wait.
const CONNECTIONS: usize = 32;
/// How long a client may take to ask, or to take its answer.
const CLIENT_WITHIN: Duration = Duration::from_secs(30);
/// How long an answer may take. What is under way by then goes on.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A question on its way to who can answer it.
#[derive(Debug)]
pub struct Ask {
    /// The question.
    pub command: Command,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer, Failure>>,
}

impl Ask {
    /// Answers. A client that is gone does not mind.
    pub fn answer(self, answer: Result<Answer, Failure>) {
        _ = self.reply.send(answer);
    }
}

/// A control socket that nobody listens to yet.
#[derive(Debug)]
pub struct Desk {
    listener: std::os::unix::net::UnixListener,
    admins: Vec<u32>,
}

impl Desk {
    /// Makes the socket, in the place of one that a dead daemon has left. Who may connect is up to its owner, group and mode; who may
    /// change anything are root, this user, and the configuration's `admins`. Call before the sandbox closes. Errors: the
    /// system's, or no such user or group.
    pub fn open(path: &Path, config: &ControlConfig) -> io::Result<Self> {
        let mut admins = vec![0, geteuid().as_raw()];
        for name in &config.admins {
            let user = User::from_name(name)?.ok_or_else(|| unknown("user", name))?;
            admins.push(user.uid.as_raw());
        }
        Ok(Self { listener: listen(path, config.group.as_deref())?, admins })
    }

    /// Passes questions on, for ever. Errors: the socket cannot be used by this runtime.
    pub async fn serve(self, asks: mpsc::Sender<Ask>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener)?;
        let (admins, free) = (Arc::new(self.admins), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return Ok(()) };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (asks, admins) = (asks.clone(), Arc::clone(&admins));
                    tokio::spawn(async move {
                        if let Err(error) = attend(stream, &admins, &asks).await {
                            debug!(%error, "control connection");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: that may pass.
                    error!(%error, "control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Makes a Unix socket, in the place of one that a dead daemon has left, for its owner and a group's members if one is named. Errors: the
/// system's, or no such group.
pub(crate) fn listen(path: &Path, group: Option<&str>) -> io::Result<std::os::unix::net::UnixListener> {
    // One daemon runs at a time: nobody else listens there.
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if let Some(name) = group {
        let group = Group::from_name(name)?.ok_or_else(|| unknown("group", name))?;
        chown(path, None, Some(group.gid))?;
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} {name}"))
}

/// Answers one client until it leaves.
async fn attend(stream: UnixStream, admins: &[u32], asks: &mpsc::Sender<Ask>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut read).take(LINE as u64);
        if timeout(CLIENT_WITHIN, bounded.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let outcome = match understand(&line, &peer, admins) {
            Ok(command) => consult(command, asks).await,
            Err(failure) => Err(failure),
        };
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Ok);
        let mut reply = serde_json::to_vec(&Reply { version: VERSION, outcome })?;
        reply.push(b'\n');
        timeout(CLIENT_WITHIN, write.write_all(&reply)).await??;
        if !whole {
            return Ok(());
        }
    }
}

fn understand(line: &[u8], peer: &UCred, admins: &[u32]) -> Result<Command, Failure> {
    if !line.ends_with(b"\n") && line.len() >= LINE {
        return Err(Failure::new(FailureKind::Malformed, format!("a request of more than {LINE} bytes")));
    }
    let malformed =
        |error: serde_json::Error| Failure::new(FailureKind::Malformed, format!("request: {error}"));
    let value: serde_json::Value = serde_json::from_slice(line).map_err(malformed)?;
    // Before the command: another version may have other ones.
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => {
            let text = format!("request: version {version} is not spoken here, only {VERSION}");
            return Err(Failure::new(FailureKind::Version, text));
        }
        None => return Err(Failure::new(FailureKind::Malformed, "request: no version")),
    }
    let request: Request = serde_json::from_value(value).map_err(malformed)?;
    if !request.command.only_looks() && !admins.contains(&peer.uid()) {
        warn!(uid = peer.uid(), command = ?request.command, "not allowed");
        let uid = Uid::from_raw(peer.uid());
        return Err(Failure::new(
            FailureKind::Forbidden,
            format!("user {uid} may look, and not change anything"),
        ));
    }
    Ok(request.command)
}

async fn consult(command: Command, asks: &mpsc::Sender<Ask>) -> Result<Answer, Failure> {
    let (reply, answer) = oneshot::channel();
    let ended = || Failure::new(FailureKind::Failed, "the daemon is coming to an end");
    asks.send(Ask { command, reply }).await.map_err(|_| ended())?;
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(ended())),
        Err(_) => {
            let text = format!("not done within {} s; it may be yet", ANSWER_WITHIN.as_secs());
            Err(Failure::new(FailureKind::Failed, text))
        }
    }
}

#[cfg(test)]
mod tests;
