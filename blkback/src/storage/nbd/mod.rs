//! Exports of NBD servers, through libnbd.
//!
//! ```text
//!   workers ── jobs ──▶ driver: inbox ──▶ thread of the disk ──▶ session (libnbd) ──▶ server
//!           ◀── finished ───────────────────────┘  connects again, sends again, gives up
//! ```
//!
//! A disk has one connection, and one thread that talks on it. When the connection breaks, or the server does not answer in time, what
//! it has not finished is sent again on the next one: guests see a pause, and errors only after [`Patience::reconnect`].
//!
//! NBD has no locks, and no way to ask whether what came by another connection is done. A server that is still at work on requests
//! of the old connection could do one of them after the guest was told that it is done, and has written anew. So the old connection is
//! closed first, and nothing is sent again for [`Patience::settle`]. A server that takes one client at a time, and lets the next in when
//! it is through with the last, needs no such time.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Claim, Image, ImageError, ImageOptions, library::LibraryError};
use crate::sandbox::outside::Outside;

mod connect;
mod driver;
mod facts;
mod ffi;
mod session;
mod thread;
pub mod uri;
mod work;

pub use uri::Uri;

/// How long a server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the answer to a request. A connection on which one takes longer is given up.
    pub timeout: Duration,
    /// For a connection when there is none any more: requests that are under way, or come meanwhile, fail then (`EIO`), as do those after
    /// them. It is tried on and on.
    pub reconnect: Duration,
    /// For the server to be done with what it has from a connection that is lost.
    pub settle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [timeout, reconnect, settle] = [30, 60, 1].map(Duration::from_secs);
        Self { timeout, reconnect, settle }
    }
}

/// Loads the library. To be done before the sandbox is entered. Errors, for people: it is not installed.
pub fn load() -> Result<(), String> {
    ffi::functions().map(drop).map_err(|error: LibraryError| error.to_string())
}

/// Opens the export that the URI `text` names. Blocks until the server has answered, a few seconds at most.
pub fn open(
    outside: &Arc<dyn Outside>,
    text: &str,
    options: &ImageOptions,
    patience: Patience,
) -> Result<Image, ImageError> {
    let name = Path::new(text);
    let wrong = |why| ImageError::Driver { name: name.to_owned(), why };
    let uri = Uri::parse(text).map_err(|error| wrong(error.to_string()))?;
    let claim = uri.to_string();
    let (driver, geometry) = driver::start(Arc::clone(outside), text, uri, options, patience)?;
    let claim = Claim { name: claim, writes: !geometry.read_only, shared: options.shared };
    Image::driven(name.to_owned(), Arc::new(driver), geometry, Err(claim))
}

/// What others say, fit for a log and for XenStore.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
