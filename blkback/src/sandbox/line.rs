//! What is said between the daemon in its sandbox and its keeper outside: packets of a Unix socket, with descriptors.
//!
//! ```text
//!   daemon                                            keeper
//!     open: how, path, and a socket for the answer ──▶
//!           ◀────────────────── errno, or the file ──  a process of its own for each, because it may take long
//!     connect: server, and a socket for the answer ──▶
//!           ◀──────────── errno, or the connection ──  the same
//!     ready, stopping                              ──▶ tells systemd
//! ```
//!
//! The keeper takes the daemon for an attacker: what it does not understand it drops.
//!
//! Unsafe stands here because descriptors arrive as numbers (ADR-0011).
#![expect(unsafe_code, reason = "descriptors arrive as numbers; see the module documentation")]

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
        sendmsg, socketpair,
    },
};
use tracing::warn;

use super::{
    outside::{How, Outside, Progress},
    servers::Server,
};

/// The longest packet in bytes: a path, and a byte before it.
const PACKET_MAX: usize = 4097;

/// The most descriptors that Linux lets a packet have (`SCM_MAX_FD`): those that there was no room for could not be closed.
const FDS_MAX: usize = 253;

const READY: u8 = 1;
const STOPPING: u8 = 2;
const OPEN: u8 = 4;
const WRITE: u8 = 8;
const DIRECT: u8 = 16;
const UNIX: u8 = 32;
const TCP: u8 = 64;

/// What the daemon may ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// To open an image.
    Open(PathBuf, How),
    /// To connect to a server.
    Connect(Server),
    /// To tell systemd.
    Tell(Progress),
}

impl Ask {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Ask::Tell(Progress::Ready) => vec![READY],
            Ask::Tell(Progress::Stopping) => vec![STOPPING],
            Ask::Open(path, how) => {
                let head = OPEN | if how.write { WRITE } else { 0 } | if how.direct { DIRECT } else { 0 };
                [&[head], path.as_os_str().as_bytes()].concat()
            }
            Ask::Connect(Server::Unix(path)) => [&[UNIX], path.as_os_str().as_bytes()].concat(),
            Ask::Connect(Server::Tcp { host, port }) => {
                [&[TCP][..], &port.to_le_bytes(), host.as_bytes()].concat()
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [READY] => Some(Ask::Tell(Progress::Ready)),
            [STOPPING] => Some(Ask::Tell(Progress::Stopping)),
            [head, path @ ..] if head & !(WRITE | DIRECT) == OPEN => {
                let how = How { write: head & WRITE != 0, direct: head & DIRECT != 0 };
                Some(Ask::Open(OsStr::from_bytes(path).into(), how))
            }
            [UNIX, path @ ..] => Some(Ask::Connect(Server::Unix(OsStr::from_bytes(path).into()))),
            [TCP, low, high, host @ ..] => {
                let (host, port) = (str::from_utf8(host).ok()?.to_owned(), u16::from_le_bytes([*low, *high]));
                Some(Ask::Connect(Server::Tcp { host, port }))
            }
            _ => None,
        }
    }
}

/// The daemon's end.
#[derive(Debug)]
pub struct Line(OwnedFd);

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Ear(pub(super) OwnedFd);

/// Two ends of a new line.
pub(super) fn line() -> io::Result<(Line, Ear)> {
    let (line, ear) = pair()?;
    Ok((Line(line), Ear(ear)))
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

impl Line {
    fn ask(&self, ask: &Ask, answer: Option<OwnedFd>) -> io::Result<()> {
        Ok(send(&self.0, &ask.bytes(), answer.as_ref())?)
    }

    /// What is opened for us, or why it is not.
    fn have(&self, ask: &Ask) -> io::Result<OwnedFd> {
        let (ours, theirs) = pair()?;
        self.ask(ask, Some(theirs))?;
        let mut bytes = [0; 4];
        // Nothing at all: whoever was to do it has ended.
        let (count, fd) = receive(&ours, &mut bytes)?;
        match (count, i32::from_le_bytes(bytes), fd) {
            (4, 0, Some(fd)) => Ok(fd),
            (4, errno @ 1.., _) => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(Errno::EIO.into()),
        }
    }
}

impl Outside for Line {
    fn open(&self, path: &Path, how: How) -> io::Result<File> {
        self.have(&Ask::Open(path.to_owned(), how)).map(File::from)
    }

    fn connect(&self, server: &Server) -> io::Result<OwnedFd> {
        self.have(&Ask::Connect(server.clone()))
    }

    fn tell(&self, progress: Progress) {
        if let Err(error) = self.ask(&Ask::Tell(progress), None) {
            warn!(%error, "cannot tell systemd");
        }
    }
}

impl Ear {
    /// What was asked, and where an answer goes; none if it makes no sense. Errors: there is nothing.
    pub(super) fn take(&self) -> Result<Option<(Ask, Option<OwnedFd>)>, Errno> {
        let mut bytes = [0; PACKET_MAX];
        let (count, answer) = receive(&self.0, &mut bytes)?;
        if count == 0 {
            return Err(Errno::ECONNRESET);
        }
        Ok(bytes.get(..count).and_then(Ask::parse).map(|ask| (ask, answer)))
    }
}

/// Answers an [`Ask::Open`] or [`Ask::Connect`].
pub(super) fn answer(to: &OwnedFd, outcome: io::Result<OwnedFd>) -> Result<(), Errno> {
    match outcome {
        Ok(fd) => send(to, &0_i32.to_le_bytes(), Some(&fd)),
        Err(error) => send(to, &error.raw_os_error().unwrap_or(Errno::EIO as i32).to_le_bytes(), None),
    }
}

fn send(socket: &OwnedFd, bytes: &[u8], fd: Option<&OwnedFd>) -> Result<(), Errno> {
    let raw: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let iov = [IoSlice::new(bytes)];
    loop {
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &iov, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// A packet, and the last of the descriptors beside it.
fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = cmsg_space!([RawFd; FDS_MAX]);
    loop {
        let mut iov = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for this message: nobody else knows them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((received.bytes, fds.pop()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_heard() {
        let both = How { write: true, direct: true };
        let open = |how| Ask::Open("/srv/a b".into(), how);
        for ask in [
            Ask::Tell(Progress::Ready),
            Ask::Tell(Progress::Stopping),
            open(How::default()),
            open(How { write: true, direct: false }),
            open(both),
            Ask::Connect(Server::Unix("/run/a b".into())),
            Ask::Connect(Server::Tcp { host: "host".into(), port: 10809 }),
        ] {
            assert_eq!(Ask::parse(&ask.bytes()), Some(ask));
        }
        for bytes in [
            &[][..],
            b"\x00/srv",
            b"\x01/srv",
            b"\x05/srv",
            b"\x24/srv",
            b"\xFF",
            b"\x40\x01",
            b"\x40\x01\x02\xFF",
        ] {
            assert_eq!(Ask::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn files_and_reasons_come_back() {
        let (line, ear) = line().unwrap();
        let mut answers = vec![Ok(File::open("/dev/null").unwrap().into()), Err(Errno::EXDEV.into())];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for answer_with in answers.drain(..) {
                    let (ask, to) = ear.take().unwrap().unwrap();
                    assert_eq!(ask, Ask::Open("/x".into(), How::default()));
                    answer(&to.unwrap(), answer_with).unwrap();
                }
                // Nobody answers.
                drop(ear.take());
            });
            let open = || line.open(Path::new("/x"), How::default()).map_err(|error| error.raw_os_error());
            assert!(open().is_ok());
            assert_eq!(open().unwrap_err(), Some(Errno::EXDEV as i32));
            assert_eq!(open().unwrap_err(), Some(Errno::EIO as i32));
        });
    }

    #[test]
    fn more_descriptors_than_one_are_closed() {
        let (line, ear) = line().unwrap();
        let null = File::open("/dev/null").unwrap();
        let raw = [null.as_raw_fd(); 100];
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let rights = [ControlMessage::ScmRights(&raw)];
        let iov = [IoSlice::new(&[READY])];
        let before = open();
        sendmsg::<UnixAddr>(line.0.as_raw_fd(), &iov, &rights, MsgFlags::empty(), None).unwrap();
        let (ask, one) = ear.take().unwrap().unwrap();
        assert!(ask == Ask::Tell(Progress::Ready) && one.is_some());
        drop(one);
        // Other tests of this process open some meanwhile.
        assert!(open() < before + 50);
    }
}
