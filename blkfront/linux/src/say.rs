//! Words for the user. Unlike `println!` these do not panic when nobody listens any more.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// Prints text and a new line to standard output at once.
pub(crate) fn line(text: impl AsRef<str>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush()).context("writing to standard output")
}

/// Prints why the command failed to standard error; if that is closed too, nobody is left to tell.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "blkfront: {error:#}");
}

/// Prints what may help, after an error.
pub(crate) fn hint(text: &str) {
    let _ = writeln!(io::stderr(), "blkfront: hint: {text}");
}
