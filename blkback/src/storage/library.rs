//! C libraries, loaded while the daemon runs: it is built, and serves all other disks, where there are none (ADR-0012).
//!
//! A library is loaded before the sandbox is entered, which lets nobody map what can be executed, and stays for as long as the
//! process does: what was found in it never becomes invalid.
//!
//! Unsafe stands here because loading runs the library's own code, and because only its caller knows a symbol's type.
#![expect(unsafe_code, reason = "code of others is loaded; see the module documentation")]

use std::ffi::CStr;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use nix::libc::RTLD_NODELETE;

/// A loaded library.
#[derive(Debug)]
pub(crate) struct Library {
    handle: Handle,
    name: &'static str,
}

/// Why a library cannot be used. For people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LibraryError {
    /// It is not there, or misses what it needs itself.
    #[error(
        "the library {name} cannot be loaded ({why}): install the package {package}, and restart the daemon"
    )]
    Missing {
        /// Its file's name.
        name: &'static str,
        /// Debian's package with it.
        package: &'static str,
        /// What the system says.
        why: String,
    },
    /// It is too old, or another library of the same name.
    #[error("the library {name} has no {symbol}: it is too old, or not the right one")]
    Symbol {
        /// Its file's name.
        name: &'static str,
        /// What was looked for.
        symbol: String,
    },
}

impl Library {
    /// Loads the first of `names` that is there (sonames, as in `libnbd.so.0`), with all that it needs; nothing of it is looked up
    /// later. `package` is Debian's name for it, for the message. Errors: [`LibraryError::Missing`], with what the system says of the
    /// last.
    pub(crate) fn open(names: &[&'static str], package: &'static str) -> Result<Self, LibraryError> {
        let mut failed = LibraryError::Missing { name: "", package, why: "it has no name".into() };
        for name in names {
            // SAFETY: the file is one of the system's libraries, by a name of our own choice, and its initialisers are meant to be run
            // by whoever loads it. It is never unloaded (`RTLD_NODELETE`), so nothing of it can be used too late.
            match unsafe { Handle::open(Some(*name), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) } {
                Ok(handle) => return Ok(Self { handle, name }),
                Err(error) => failed = LibraryError::Missing { name, package, why: reason(&error) },
            }
        }
        Err(failed)
    }

    /// A function of the library, or whatever else has the type of a pointer. Errors: [`LibraryError::Symbol`].
    ///
    /// # Safety
    ///
    /// `T` is the type of a pointer to what the library calls `symbol`: for a function, its signature in the library's header.
    pub(crate) unsafe fn get<T: Copy>(&self, symbol: &CStr) -> Result<T, LibraryError> {
        let missing = || LibraryError::Symbol { name: self.name, symbol: symbol.to_string_lossy().into() };
        // SAFETY: the caller answers for the type. What is copied out of the borrow stays valid: the library is never unloaded.
        unsafe { self.handle.get::<T>(symbol.to_bytes_with_nul()) }.map(|found| *found).map_err(|_| missing())
    }
}

/// What the loader says, without what the crate says around it.
fn reason(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let error = Library::open(&["libnone.so.1", "libnone.so.0"], "libnone0").unwrap_err().to_string();
        assert!(error.contains("libnone.so.0") && error.contains("the package libnone0"), "{error}");
    }

    #[test]
    fn functions_are_found_by_name() {
        let library = Library::open(&["libnone.so.1", "libc.so.6"], "libc6").unwrap();
        // SAFETY: the C library's `abs` takes and returns an `int`.
        let abs = unsafe { library.get::<extern "C" fn(c_int) -> c_int>(c"abs") }.unwrap();
        drop(library);
        assert_eq!(abs(-3), 3);
    }

    #[test]
    fn what_a_library_does_not_have_is_named() {
        let library = Library::open(&["libc.so.6"], "libc6").unwrap();
        // SAFETY: there is no such function, so its type is right.
        let error = unsafe { library.get::<extern "C" fn()>(c"blkback_has_none") }.unwrap_err();
        assert_eq!(error, LibraryError::Symbol { name: "libc.so.6", symbol: "blkback_has_none".into() });
    }
}
