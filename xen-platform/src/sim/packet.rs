//! Packets with descriptors over a Unix socket.

use std::{
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
        listen, recv, recvmsg, sendmsg, socket,
    },
};

use super::SimError;
use crate::fake::adopt;

/// The longest packet in bytes.
const PACKET_MAX: usize = 4096;

/// Descriptors beside one packet.
const FDS_MAX: usize = 2;

/// A socket that keeps packets apart.
fn packets() -> Result<OwnedFd, SimError> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SimError::system("socket"))
}

fn address(path: &Path) -> Result<UnixAddr, SimError> {
    UnixAddr::new(path).map_err(|_| SimError::LongPath(path.to_owned()))
}

/// Connects to the socket at `path`. Errors: errno of `connect`, or what is wrong with the path.
pub(crate) fn dial(path: &Path) -> Result<Result<OwnedFd, Errno>, SimError> {
    let address = address(path)?;
    let socket = packets()?;
    Ok(connect(socket.as_raw_fd(), &address).map(|()| socket))
}

/// Listens at `path`, which must not exist. The standard library's listener does not care that these are packets.
pub(crate) fn announce(path: &Path) -> Result<UnixListener, SimError> {
    let address = address(path)?;
    let socket = packets()?;
    bind(socket.as_raw_fd(), &address).map_err(SimError::system("bind"))?;
    listen(&socket, Backlog::MAXALLOWABLE).map_err(SimError::system("listen"))?;
    Ok(UnixListener::from(socket))
}

/// Sends one packet of words, and descriptors beside it.
pub(crate) fn send(socket: impl AsFd, words: &[u32], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
    let fd = socket.as_fd().as_raw_fd();
    let iov = [IoSlice::new(&bytes)];
    again(|| sendmsg::<UnixAddr>(fd, &iov, rights, MsgFlags::MSG_NOSIGNAL, None)).map(drop)
}

/// Receives the words of one packet; `None` when the other end is gone. Descriptors beside them are not let in.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Vec<u32>>, Errno> {
    let mut bytes = [0; PACKET_MAX];
    let length = again(|| recv(socket.as_fd().as_raw_fd(), &mut bytes, MsgFlags::empty()))?;
    Ok(words(&bytes, length))
}

/// Words, and descriptors beside them.
pub(crate) type Packet = (Vec<u32>, Vec<OwnedFd>);

/// Receives one packet; `None` when the other end is gone.
pub(crate) fn receive_with_fds(socket: impl AsFd) -> Result<Option<Packet>, Errno> {
    let mut bytes = [0; PACKET_MAX];
    let mut space = cmsg_space!([RawFd; FDS_MAX]);
    let fd = socket.as_fd().as_raw_fd();
    let (length, fds) = again(|| {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(fd, &mut iov, Some(&mut space), flags)?;
        let fds: Vec<OwnedFd> = received.cmsgs()?.flat_map(adopt).collect();
        Ok((received.bytes, fds))
    })?;
    Ok(words(&bytes, length).map(|words| (words, fds)))
}

/// The words of a packet; no bytes at all are the end.
fn words(bytes: &[u8], length: usize) -> Option<Vec<u32>> {
    let words = bytes.get(..length).filter(|bytes| !bytes.is_empty())?.chunks_exact(4);
    Some(words.filter_map(|word| word.try_into().ok().map(u32::from_le_bytes)).collect())
}

fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
