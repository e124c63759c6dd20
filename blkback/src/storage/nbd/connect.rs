//! Making a connection: a socket, and what the two ends say before there are requests.

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{Shutdown, shutdown},
    unistd::read,
};

use super::{
    facts::Facts,
    session::{Session, State},
    uri::{Tls, Uri},
};
use crate::sandbox::outside::Outside;
use std::os::fd::AsRawFd as _;

/// How long a server may take to say what it exports.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Where a disk is to be had.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) outside: Arc<dyn Outside>,
    pub(super) uri: Uri,
}

/// A connection over which commands can be sent.
pub(super) struct Connection {
    pub(super) session: Session,
    pub(super) facts: Facts,
    /// The same socket as the session's.
    pub(super) socket: OwnedFd,
}

/// Why there is no connection. For people.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may be otherwise in a while.
    Passing(String),
    /// It is not allowed, or makes no sense.
    Lasting(String),
}

impl Place {
    /// Connects, and hears what is exported. Blocks for ten seconds at most.
    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        let Uri { server, export, tls } = &self.uri;
        let socket = self.outside.connect(server).map_err(|error| match error.raw_os_error() {
            Some(libc::EXDEV) => Failure::Lasting(format!(
                "the server {server} is none of those for images (`images` in the section [sandbox] of the configuration)"
            )),
            _ => Failure::Passing(format!("cannot connect to {server}: {error}")),
        })?;
        super::load().map_err(Failure::Lasting)?;
        if let Some(tls) = tls {
            readable(tls)?;
        }
        let passing = |why| Failure::Passing(format!("{server}: {why}"));
        let ours = socket.try_clone().map_err(|error| passing(error.to_string()))?;
        let export = CString::new(export.as_str()).unwrap_or_default();
        let mut session = Session::begin(socket, &export, tls.as_ref()).map_err(Failure::Lasting)?;
        let deadline = Instant::now() + HANDSHAKE;
        while session.state() == State::Shaking {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(passing("the server does not answer, or another client has it".into()));
            }
            session.proceed(wait(&ours, session.events(), left).map_err(|errno| passing(errno.to_string()))?);
        }
        if let Some(why) = session.over() {
            return Err(passing(why.to_owned()));
        }
        let facts = session.facts().map_err(passing)?;
        Ok(Connection { session, facts, socket: ours })
    }
}

/// The library would not say which file it misses, or why.
fn readable(tls: &Tls) -> Result<(), Failure> {
    let path = match tls {
        Tls::Psk { file, .. } => Path::new(file).to_owned(),
        Tls::Certificates { folder, .. } => Path::new(folder).join("cacert.pem"),
    };
    File::open(&path).map(drop).map_err(|error| {
        let hint = "it has to be among `credentials` in the section [sandbox] of the configuration, and the daemon's user must be able to read it";
        Failure::Lasting(format!("cannot read {}: {error}; {hint}", path.display()))
    })
}

fn wait(socket: &OwnedFd, events: PollFlags, time: Duration) -> Result<PollFlags, Errno> {
    let mut fds = [PollFd::new(socket.as_fd(), events)];
    match poll(&mut fds, timeout(time)) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(PollFlags::empty()),
        Err(errno) => return Err(errno),
    }
    Ok(fds.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty()))
}

/// Rounded up: a wait that is too short would spin.
pub(super) fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
}

/// Lets the server know that nothing more will come on a connection, and gives it `time` to be done with what has. False if it has not
/// closed its end by then.
pub(super) fn see_off(socket: &OwnedFd, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    // Fails if it is closed already.
    _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
    let mut closed = false;
    let mut answers = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return closed;
        }
        if closed {
            std::thread::sleep(left);
            continue;
        }
        _ = wait(socket, PollFlags::POLLIN, left);
        closed = !matches!(read(socket, &mut answers), Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR));
    }
}
