//! Connecting `xenstore-rs` to a socket of our choice.
//!
//! Unsafe stands here because that crate takes the socket's path from the environment and from nowhere else, and changing
//! the environment is unsafe (ADR-0007).
#![expect(
    unsafe_code,
    reason = "the environment is the only way to name the socket; see the module documentation"
)]

use std::{io, os::unix::net::UnixStream, path::Path};

use tokio::sync::Mutex;
use xenstore_rs::tokio::XsTokio;

/// The variable that `xenstore-rs` and Xen's own tools read.
const XENSTORED_PATH: &str = "XENSTORED_PATH";

/// One connection is made at a time: several daemons in one test process have different sockets.
static ENVIRONMENT: Mutex<()> = Mutex::const_new(());

/// Connects to the xenstored behind `path`; without a path to the one of this system, by socket or by device.
pub(super) async fn connect(path: Option<&Path>) -> io::Result<XsTokio> {
    let _alone = ENVIRONMENT.lock().await;
    if let Some(path) = path {
        // Tried first, because `xenstore-rs` goes on to the device without a word when the socket fails.
        UnixStream::connect(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        // SAFETY: the hazard is another thread that reads the environment by other means than `std`, which has a lock. The
        // daemon calls this before it starts its worker threads, and nothing in its dependencies, or in those of the tests
        // that run it in a thread, reads the environment through the C library.
        unsafe { std::env::set_var(XENSTORED_PATH, path) };
    }
    XsTokio::new().await.map_err(|error| io::Error::new(error.kind(), format!("XenStore: {error}")))
}
