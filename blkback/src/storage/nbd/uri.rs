//! Names of NBD exports: `nbd://host[:port]/export`, `nbd+unix:///export?socket=PATH`, and the same with `nbds` for TLS.
//!
//! As in the NBD project's `uri.md`, with libnbd's parameters for TLS.

use std::fmt;

use fluent_uri::pct_enc::{EStr, Encoder};

use crate::sandbox::servers::Server;

/// The port where none is named.
const PORT: u16 = 10809;

/// An export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// Who serves it.
    pub server: Server,
    /// Its name there.
    pub export: String,
    /// How to be sure of that, if by TLS.
    pub tls: Option<Tls>,
}

/// Who the two ends of a connection are, and how they know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// By a key that both have.
    Psk {
        /// The file with users and keys.
        file: String,
        /// Which of them; absent: the name of the daemon's user.
        user: Option<String>,
    },
    /// By certificates (X.509).
    Certificates {
        /// The folder with `cacert.pem`, and `clientcert.pem` and `clientkey.pem` if the server wants them.
        folder: String,
        /// The name that the server's certificate has to be for; none: anybody is believed.
        server: Option<String>,
    },
}

/// Why a text names no export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It is no URI.
    #[error("{0}")]
    Syntax(String),
    /// It is one of something else.
    #[error("{0}:// is none of nbd://, nbds://, nbd+unix:// and nbds+unix://")]
    Scheme(String),
    /// There is no telling where to connect.
    #[error("no server is named: //host, or ?socket=PATH with +unix")]
    Server,
    /// A parameter that is not known. What it asks for would not be done.
    #[error("the parameter {0:?} is not known")]
    Parameter(String),
    /// There is no telling who the server is.
    #[error("nbds:// takes tls-psk-file=FILE or tls-certificates=FOLDER")]
    Credentials,
}

impl Uri {
    /// Reads a URI. Errors: it is none, or leaves something open that has to be said.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let syntax = |error: &dyn fmt::Display| UriError::Syntax(error.to_string());
        let uri = fluent_uri::Uri::parse(text).map_err(|error| syntax(&error))?;
        let (tls, unix) = match uri.scheme().as_str() {
            "nbd" => (false, false),
            "nbds" => (true, false),
            "nbd+unix" => (false, true),
            "nbds+unix" => (true, true),
            other => return Err(UriError::Scheme(other.to_owned())),
        };
        let authority = uri.authority().ok_or(UriError::Server)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let mut words = Words::default();
        for word in uri.query().into_iter().flat_map(|query| query.split('&')) {
            words.take(word)?;
        }
        let server = match words.socket {
            Some(socket) if unix && host.is_empty() => Server::Unix(socket.into()),
            None if !unix && !host.is_empty() => {
                let port = authority.port_to_u16().map_err(|error| syntax(&error))?;
                Server::Tcp { host: host.to_ascii_lowercase(), port: port.unwrap_or(PORT) }
            }
            _ => return Err(UriError::Server),
        };
        let user = authority.userinfo().map(plain).transpose()?;
        let tls = match (tls, words.psk_file, words.certificates) {
            (false, None, None) => None,
            (true, Some(file), None) => Some(Tls::Psk { file, user }),
            (true, None, Some(folder)) => {
                // A socket of this machine has no name that a certificate could be for but this.
                let name = if unix { "localhost" } else { host };
                let server = words.hostname.unwrap_or_else(|| name.to_owned());
                Some(Tls::Certificates { folder, server: Some(server).filter(|_| !words.believes) })
            }
            _ => return Err(UriError::Credentials),
        };
        let path = plain(uri.path())?;
        let export = path.strip_prefix('/').unwrap_or(&path).to_owned();
        Ok(Self { server, export, tls })
    }
}

/// The parameters of a URI.
#[derive(Default)]
struct Words {
    socket: Option<String>,
    psk_file: Option<String>,
    certificates: Option<String>,
    hostname: Option<String>,
    believes: bool,
}

impl Words {
    fn take<E: Encoder>(&mut self, word: &EStr<E>) -> Result<(), UriError> {
        let (key, value) = word.split_once('=').unwrap_or((word, EStr::EMPTY));
        let (key, value) = (plain(key)?, plain(value)?);
        match (key.as_str(), value.as_str()) {
            (_, "") => return Err(UriError::Parameter(key)),
            ("socket", _) => self.socket = Some(value),
            ("tls-psk-file", _) => self.psk_file = Some(value),
            ("tls-certificates", _) => self.certificates = Some(value),
            ("tls-hostname", _) => self.hostname = Some(value),
            ("tls-verify-peer", "false" | "0") => self.believes = true,
            ("tls-verify-peer", "true" | "1") => self.believes = false,
            _ => return Err(UriError::Parameter(key)),
        }
        Ok(())
    }
}

/// What is encoded. A zero byte could not be handed on.
fn plain<E: Encoder>(text: &EStr<E>) -> Result<String, UriError> {
    match text.decode().to_string() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(UriError::Syntax(format!("{} is no text", text.as_str()))),
    }
}

/// The one name that it has, whatever the parameters: what two disks may not both write to.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nbd {} {:?}", self.server, self.export)
    }
}

#[cfg(test)]
mod tests;
