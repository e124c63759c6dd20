//! Asking the daemon.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::protocol::{Answer, Command, Failure, LINE, Outcome, Reply, Request, VERSION};

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why there is no answer to what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon is there, or it may not be asked.
    #[error("cannot reach a blkback at {}: {cause}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// It was there, and is no more, or says nothing.
    #[error("the daemon does not answer: {0}")]
    Silent(#[from] io::Error),
    /// It is no daemon of this kind.
    #[error("the daemon's answer makes no sense: {0}")]
    Answer(#[from] serde_json::Error),
    /// It says no.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// How long an answer may take: longer than the daemon gives a guest or a server.
const PATIENCE: Duration = Duration::from_secs(90);

impl Client {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let unreachable = |cause| ClientError::Unreachable { path: path.to_owned(), cause };
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, command: Command) -> Result<Answer, ClientError> {
        let mut line = serde_json::to_vec(&Request { version: VERSION, command })?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        line.clear();
        // Answers may be longer than requests, but not without end.
        let most = 64 * LINE as u64;
        if (&mut self.stream).take(most).read_until(b'\n', &mut line)? == 0 {
            return Err(ClientError::Silent(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice::<Reply>(&line)?.outcome {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(failure) => Err(failure.into()),
        }
    }
}
