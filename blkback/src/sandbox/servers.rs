//! The servers that images may be on, and the only way to them.

use std::{
    fmt, io,
    net::{TcpStream, ToSocketAddrs as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::FileTypeExt as _, net::UnixStream},
    },
    path::PathBuf,
    time::Duration,
};

use nix::errno::Errno;

use super::folders::Folders;

/// How long one address of a server is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// On a Unix socket.
    Unix(PathBuf),
    /// On a TCP port.
    Tcp {
        /// Its name in small letters, or its address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Unix(path) => write!(f, "{}", path.display()),
            Server::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Server::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Server {
    /// Connects to it, wherever it is. Blocks. Errors: the system's.
    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Server::Unix(path) => Ok(UnixStream::connect(path)?.into()),
            Server::Tcp { host, port } => {
                let mut failed = Errno::EADDRNOTAVAIL.into();
                let unknown = |_| io::Error::from(Errno::EHOSTUNREACH);
                for address in (host.as_str(), *port).to_socket_addrs().map_err(unknown)? {
                    match TcpStream::connect_timeout(&address, PATIENCE) {
                        Ok(stream) => {
                            // Requests are small, and none waits for another.
                            stream.set_nodelay(true)?;
                            return Ok(stream.into());
                        }
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }
}

/// Where images may be: hosts, and folders in which servers have their sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    all: bool,
    hosts: Vec<Server>,
    sockets: Folders,
}

impl FromIterator<Servers> for Servers {
    /// Whatever any of them allows.
    fn from_iter<I: IntoIterator<Item = Servers>>(each: I) -> Self {
        each.into_iter().fold(Self::default(), |mut all, mut one| {
            all.all |= one.all;
            all.hosts.append(&mut one.hosts);
            all.sockets = all.sockets.or(one.sockets);
            all
        })
    }
}

impl Servers {
    /// All there are.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// A single one; for a path that is a folder, those that have their sockets in it.
    pub fn one(server: Server) -> Self {
        match server {
            Server::Unix(path) => Self { sockets: Folders::new([path]), ..Self::default() },
            host @ Server::Tcp { .. } => Self { hosts: vec![host], ..Self::default() },
        }
    }

    /// Connects to a server, if it is one of these. Blocks. Errors: `EXDEV`, it is not; the system's.
    pub fn connect(&self, server: &Server) -> io::Result<OwnedFd> {
        if self.all {
            return server.connect();
        }
        match server {
            Server::Unix(path) => {
                let found = self.sockets.find(path)?;
                if !found.metadata()?.file_type().is_socket() {
                    return Err(Errno::ENOTSOCK.into());
                }
                // What was looked at, whatever its name leads to by now.
                Server::Unix(format!("/proc/self/fd/{}", found.as_raw_fd()).into()).connect()
            }
            Server::Tcp { .. } if self.hosts.contains(server) => server.connect(),
            Server::Tcp { .. } => Err(Errno::EXDEV.into()),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests;
