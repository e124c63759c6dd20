//! The functions of libnbd that are used, as its header has them.
//!
//! Unsafe stands here because only we know what they look like (ADR-0012).
#![expect(unsafe_code, reason = "a C library's functions are declared; see the module documentation")]

use std::{
    ffi::{CString, c_char, c_int, c_uint, c_void},
    sync::OnceLock,
};

use crate::storage::library::{Library, LibraryError};

/// A handle of the library's.
pub(super) type Raw = *mut c_void;

/// What the library calls when the server has answered a command, or cannot any more (`nbd_completion_callback`).
#[repr(C)]
pub(super) struct Completion {
    pub(super) callback: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    pub(super) user_data: *mut c_void,
    pub(super) free: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// Declares the functions of the library, without the `nbd_` of their names, and loads them.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            pub(super) set_tls_hostname: Option<unsafe extern "C" fn(Raw, *const c_char) -> c_int>,
        }

        impl Functions {
            fn load() -> Result<Self, LibraryError> {
                let library = Library::open(&["libnbd.so.0"], "libnbd0")?;
                let symbol = |name: &str| CString::new(format!("nbd_{name}")).unwrap_or_default();
                Ok(Self {
                    // SAFETY: the signatures are those of libnbd.h 1.14, which do not change under this soname.
                    $($name: unsafe { library.get(&symbol(stringify!($name))) }?,)*
                    // SAFETY: the same, of 1.22.
                    set_tls_hostname: unsafe { library.get(&symbol("set_tls_hostname")) }.ok(),
                })
            }
        }
    };
}

functions! {
    create() -> Raw;
    close(Raw);
    get_error() -> *const c_char;
    set_export_name(Raw, *const c_char) -> c_int;
    set_tls(Raw, c_int) -> c_int;
    set_tls_username(Raw, *const c_char) -> c_int;
    set_tls_psk_file(Raw, *const c_char) -> c_int;
    set_tls_certificates(Raw, *const c_char) -> c_int;
    set_tls_verify_peer(Raw, bool) -> c_int;
    set_request_structured_replies(Raw, bool) -> c_int;
    set_pread_initialize(Raw, bool) -> c_int;
    aio_connect_socket(Raw, c_int) -> c_int;
    aio_get_direction(Raw) -> c_uint;
    aio_notify_read(Raw) -> c_int;
    aio_notify_write(Raw) -> c_int;
    aio_is_connecting(Raw) -> c_int;
    aio_is_dead(Raw) -> c_int;
    aio_is_closed(Raw) -> c_int;
    get_size(Raw) -> i64;
    get_block_size(Raw, c_int) -> i64;
    is_read_only(Raw) -> c_int;
    can_flush(Raw) -> c_int;
    can_trim(Raw) -> c_int;
    aio_pread(Raw, *mut c_void, usize, u64, Completion, u32) -> i64;
    aio_pwrite(Raw, *const c_void, usize, u64, Completion, u32) -> i64;
    aio_flush(Raw, Completion, u32) -> i64;
    aio_trim(Raw, u64, u64, Completion, u32) -> i64;
}

static FUNCTIONS: OnceLock<Result<Functions, LibraryError>> = OnceLock::new();

/// The library's functions; it is loaded if that has not been done. Errors: it is not installed.
pub(super) fn functions() -> Result<&'static Functions, LibraryError> {
    FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(Clone::clone)
}
