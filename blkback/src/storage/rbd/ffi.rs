//! Binding to librbd and librados, of Ceph 16 or later: what the driver uses, and no more.
//!
//! ```text
//!   Cluster   a connection, with threads of its own          rados_t
//!     └ Pool      a pool and namespace                       rados_ioctx_t
//!         └ Rbd       an opened image                        rbd_image_t
//! ```
//!
//! Each owns the one above it, so that they end in the order that the libraries ask for. All three may be used by any thread (librados.h:
//! "thread safe"; librbd has locks of its own).
//!
//! Unsafe stands here because C functions are called (ADR-0012). What makes it sound: [`Functions`] has each function under the signature
//! that its header gives (`rados/librados.h`, `rbd/librbd.h`); handles are private, made by the libraries, and closed once, in `drop`;
//! strings are copied by who is called, before it returns; and memory that is still used afterwards belongs to an [`UnderWay`], which
//! exists from the call to its completion.
#![expect(unsafe_code, reason = "C functions are called; see the module documentation")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr::null_mut,
    sync::{Arc, OnceLock, mpsc::SyncSender},
    thread::sleep,
    time::Duration,
};

use nix::errno::Errno;

use crate::storage::{
    Action, Job,
    library::{Library, LibraryError},
};

type Handle = *mut c_void;

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// What is called, by the names of the headers.
        #[derive(Debug)]
        pub(super) struct Functions { $($name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl Functions {
            fn find(library: &Library) -> Result<Self, LibraryError> {
                let name = |name: &'static [u8]| CStr::from_bytes_with_nul(name).unwrap_or(c"");
                // SAFETY: these are the signatures of the two headers, of Ceph 16.
                unsafe { Ok(Self { $($name: library.get(name(concat!(stringify!($name), "\0").as_bytes()))?,)* }) }
            }
        }
    };
}

functions! {
    rados_create: fn(*mut Handle, *const c_char) -> c_int;
    rados_conf_read_file: fn(Handle, *const c_char) -> c_int;
    rados_conf_set: fn(Handle, *const c_char, *const c_char) -> c_int;
    rados_conf_get: fn(Handle, *const c_char, *mut c_char, usize) -> c_int;
    rados_connect: fn(Handle) -> c_int;
    rados_shutdown: fn(Handle) -> ();
    rados_cluster_fsid: fn(Handle, *mut c_char, usize) -> c_int;
    rados_get_instance_id: fn(Handle) -> u64;
    rados_getaddrs: fn(Handle, *mut *mut c_char) -> c_int;
    rados_buffer_free: fn(*mut c_char) -> ();
    rados_blocklist_add: fn(Handle, *mut c_char, u32) -> c_int;
    rados_wait_for_latest_osdmap: fn(Handle) -> c_int;
    rados_ioctx_create: fn(Handle, *const c_char, *mut Handle) -> c_int;
    rados_ioctx_set_namespace: fn(Handle, *const c_char) -> ();
    rados_ioctx_destroy: fn(Handle) -> ();
    rados_set_pool_full_try: fn(Handle) -> ();
    rbd_open: fn(Handle, *const c_char, *mut Handle, *const c_char) -> c_int;
    rbd_open_read_only: fn(Handle, *const c_char, *mut Handle, *const c_char) -> c_int;
    rbd_close: fn(Handle) -> c_int;
    rbd_stat: fn(Handle, *mut Stat, usize) -> c_int;
    rbd_get_features: fn(Handle, *mut u64) -> c_int;
    rbd_resize: fn(Handle, u64) -> c_int;
    rbd_lock_acquire: fn(Handle, c_uint) -> c_int;
    rbd_lock_break: fn(Handle, c_uint, *const c_char) -> c_int;
    rbd_lock_get_owners: fn(Handle, *mut c_uint, *mut *mut c_char, *mut usize) -> c_int;
    rbd_lock_get_owners_cleanup: fn(*mut *mut c_char, usize) -> ();
    rbd_watchers_list: fn(Handle, *mut Watcher, *mut usize) -> c_int;
    rbd_watchers_list_cleanup: fn(*mut Watcher, usize) -> ();
    rbd_update_watch: fn(Handle, *mut u64, extern "C" fn(*mut c_void), *mut c_void) -> c_int;
    rbd_update_unwatch: fn(Handle, u64) -> c_int;
    rbd_aio_create_completion: fn(*mut c_void, extern "C" fn(Handle, *mut c_void), *mut Handle) -> c_int;
    rbd_aio_get_return_value: fn(Handle) -> isize;
    rbd_aio_release: fn(Handle) -> ();
    rbd_aio_read: fn(Handle, u64, usize, *mut c_char, Handle) -> c_int;
    rbd_aio_write: fn(Handle, u64, usize, *const c_char, Handle) -> c_int;
    rbd_aio_discard: fn(Handle, u64, u64, Handle) -> c_int;
    rbd_aio_flush: fn(Handle, Handle) -> c_int;
}

/// `RBD_LOCK_MODE_EXCLUSIVE`.
const EXCLUSIVE: c_uint = 0;
/// `RBD_FEATURE_EXCLUSIVE_LOCK`.
const FEATURE_LOCK: u64 = 1 << 2;

/// `rbd_image_info_t`.
#[repr(C)]
struct Stat {
    size: u64,
    object_size: u64,
    objects: u64,
    order: c_int,
    prefix: [c_char; 24],
    parent_pool: i64,
    parent_name: [c_char; 96],
}

/// `rbd_image_watcher_t`.
#[repr(C)]
struct Watcher {
    address: *mut c_char,
    id: i64,
    cookie: u64,
}

/// Loads the libraries, or says why that did not work, always the same. To be called for the first time before the sandbox is entered.
pub(super) fn functions() -> Result<&'static Functions, LibraryError> {
    static FUNCTIONS: OnceLock<Result<Functions, LibraryError>> = OnceLock::new();
    let load = || Functions::find(&Library::open(&["librbd.so.1"], "librbd1")?);
    FUNCTIONS.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn check(result: c_int) -> Result<(), Errno> {
    if result < 0 { Err(Errno::from_raw(result.saturating_neg())) } else { Ok(()) }
}

/// Errors: a byte of it is 0.
fn text(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// Calls `fill` with a buffer that is made larger until it is large enough, and takes what is in it up to the first 0.
fn filled(mut fill: impl FnMut(*mut c_char, usize) -> c_int) -> Result<String, Errno> {
    let mut buffer = vec![0_u8; 128];
    loop {
        match check(fill(buffer.as_mut_ptr().cast(), buffer.len())) {
            Err(Errno::ERANGE | Errno::ENAMETOOLONG) if buffer.len() < 1 << 16 => {
                buffer.resize(buffer.len() * 2, 0)
            }
            Err(errno) => return Err(errno),
            Ok(()) => {
                let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
                buffer.truncate(end);
                return Ok(String::from_utf8_lossy(&buffer).into_owned());
            }
        }
    }
}

/// A connection to a cluster, or what will be one.
#[derive(Debug)]
pub(super) struct Cluster {
    functions: &'static Functions,
    raw: Handle,
}

// SAFETY: librados.h lets a cluster handle be used by any thread, by several at a time.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

impl Cluster {
    /// Of a client without its `client.`, not connected yet, without any configuration.
    pub(super) fn new(functions: &'static Functions, id: &str) -> Result<Self, Errno> {
        let mut raw = null_mut();
        // SAFETY: the place for the handle and the name live until the call has returned.
        check(unsafe { (functions.rados_create)(&mut raw, text(id)?.as_ptr()) })?;
        Ok(Self { functions, raw })
    }

    /// Reads a configuration file. Before it is connected.
    pub(super) fn read_conf(&self, path: &str) -> Result<(), Errno> {
        // SAFETY: our handle; the path lives until the call has returned.
        check(unsafe { (self.functions.rados_conf_read_file)(self.raw, text(path)?.as_ptr()) })
    }

    /// Changes a setting. `ENOENT`: there is none of that name.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<(), Errno> {
        let (name, value) = (text(name)?, text(value)?);
        // SAFETY: our handle; both strings live until the call has returned.
        check(unsafe { (self.functions.rados_conf_set)(self.raw, name.as_ptr(), value.as_ptr()) })
    }

    /// What a setting is.
    pub(super) fn get(&self, name: &str) -> Result<String, Errno> {
        let name = text(name)?;
        // SAFETY: our handle; `filled` gives room of the length it says.
        filled(|buffer, len| unsafe { (self.functions.rados_conf_get)(self.raw, name.as_ptr(), buffer, len) })
    }

    /// Connects, within `client_mount_timeout`.
    pub(super) fn connect(&self) -> Result<(), Errno> {
        // SAFETY: our handle.
        check(unsafe { (self.functions.rados_connect)(self.raw) })
    }

    /// The cluster's name among all clusters.
    pub(super) fn fsid(&self) -> Result<String, Errno> {
        // SAFETY: our handle; `filled` gives room of the length it says.
        filled(|buffer, len| unsafe { (self.functions.rados_cluster_fsid)(self.raw, buffer, len) })
    }

    /// This client's number, which no other of the cluster has ever had.
    pub(super) fn instance(&self) -> u64 {
        // SAFETY: our handle.
        unsafe { (self.functions.rados_get_instance_id)(self.raw) }
    }

    /// This client's address, as others know it.
    pub(super) fn address(&self) -> Result<String, Errno> {
        let mut address = null_mut();
        // SAFETY: our handle; the place for the pointer lives until the call has returned.
        check(unsafe { (self.functions.rados_getaddrs)(self.raw, &mut address) })?;
        if address.is_null() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        // SAFETY: the library has just made this string, which ends with a 0 and is ours until it is given back, after the copy.
        unsafe {
            let copy = CStr::from_ptr(address).to_string_lossy().into_owned();
            (self.functions.rados_buffer_free)(address);
            Ok(copy)
        }
    }

    /// From now on no OSD that knows of it, and none that we speak to afterwards, does anything for the client at this address.
    pub(super) fn keep_out(&self, address: &str) -> Result<(), Errno> {
        let address = text(address)?.into_raw();
        // SAFETY: our handle; the string was ours, is not kept by the library, and is ours again. 0: as long as the cluster thinks right.
        let (added, _address) = unsafe {
            ((self.functions.rados_blocklist_add)(self.raw, address, 0), CString::from_raw(address))
        };
        check(added)?;
        // SAFETY: our handle.
        check(unsafe { (self.functions.rados_wait_for_latest_osdmap)(self.raw) })
    }

    /// A pool of it. What it refuses for want of room fails, instead of waiting for room.
    pub(super) fn pool(self, name: &str, namespace: Option<&str>) -> Result<Pool, Errno> {
        let functions = self.functions;
        let mut raw = null_mut();
        // SAFETY: our handle; the name and the place for the new handle live until the call has returned.
        check(unsafe { (functions.rados_ioctx_create)(self.raw, text(name)?.as_ptr(), &mut raw) })?;
        let pool = Pool { raw, cluster: self };
        let namespace = namespace.map(text).transpose()?;
        // SAFETY: the handle that has just been made; the namespace lives until the call has returned.
        unsafe {
            if let Some(namespace) = namespace {
                (functions.rados_ioctx_set_namespace)(raw, namespace.as_ptr());
            }
            (functions.rados_set_pool_full_try)(raw);
        }
        Ok(pool)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: our handle, for the last time: pools and images own their cluster, so there are none any more.
        unsafe { (self.functions.rados_shutdown)(self.raw) }
    }
}

/// A pool of a cluster, or a namespace in it.
#[derive(Debug)]
pub(super) struct Pool {
    raw: Handle,
    pub(super) cluster: Cluster,
}

// SAFETY: librados.h lets an I/O context be used by any thread. It is changed only before anybody else has it.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Opens an image, or a snapshot of it, which cannot be written to.
    pub(super) fn open(self, image: &str, snapshot: Option<&str>, read_only: bool) -> Result<Rbd, Errno> {
        let functions = self.cluster.functions;
        let (image, snapshot) = (text(image)?, snapshot.map(text).transpose()?);
        let snapshot = snapshot.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
        let open = if read_only { functions.rbd_open_read_only } else { functions.rbd_open };
        let mut raw = null_mut();
        // SAFETY: our handle; both names and the place for the new handle live until the call has returned.
        check(unsafe { open(self.raw, image.as_ptr(), &mut raw, snapshot) })?;
        Ok(Rbd { raw, functions, under_way: Arc::default(), pool: self })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: our handle, for the last time; the cluster it belongs to is dropped after it.
        unsafe { (self.cluster.functions.rados_ioctx_destroy)(self.raw) }
    }
}

/// An opened image.
#[derive(Debug)]
pub(super) struct Rbd {
    raw: Handle,
    functions: &'static Functions,
    /// Has as many owners as jobs are under way, and this one.
    under_way: Arc<()>,
    pool: Pool,
}

// SAFETY: librbd guards what it knows of an image by locks of its own; its own tests and users call it from many threads.
unsafe impl Send for Rbd {}
// SAFETY: as above.
unsafe impl Sync for Rbd {}

/// What the library works on after the call that told it to.
struct UnderWay {
    job: Job,
    functions: &'static Functions,
    _image: Arc<()>,
}

impl Rbd {
    /// The cluster that it is in.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.pool.cluster
    }

    /// Its size, and that of the objects it is made of, in bytes. May block.
    pub(super) fn sizes(&self) -> Result<(u64, u64), Errno> {
        let mut stat = Stat {
            size: 0,
            object_size: 0,
            objects: 0,
            order: 0,
            prefix: [0; _],
            parent_pool: 0,
            parent_name: [0; _],
        };
        // SAFETY: our handle; the structure is the header's, and lives until the call has returned.
        check(unsafe { (self.functions.rbd_stat)(self.raw, &mut stat, size_of::<Stat>()) })?;
        Ok((stat.size, stat.object_size))
    }

    /// Makes it so large, or small. May block.
    pub(super) fn resize(&self, bytes: u64) -> Result<(), Errno> {
        // SAFETY: our handle.
        check(unsafe { (self.functions.rbd_resize)(self.raw, bytes) })
    }

    /// Whether it has an exclusive lock.
    pub(super) fn has_lock(&self) -> Result<bool, Errno> {
        let mut features = 0;
        // SAFETY: our handle; the place for the number lives until the call has returned.
        check(unsafe { (self.functions.rbd_get_features)(self.raw, &mut features) })?;
        Ok(features & FEATURE_LOCK != 0)
    }

    /// Takes its exclusive lock, and gives it to nobody before it is closed. `EROFS`, `EBUSY`: somebody has it.
    pub(super) fn lock(&self) -> Result<(), Errno> {
        // SAFETY: our handle.
        check(unsafe { (self.functions.rbd_lock_acquire)(self.raw, EXCLUSIVE) })
    }

    /// The address of the client that has its exclusive lock.
    pub(super) fn owner(&self) -> Result<Option<String>, Errno> {
        let (mut mode, mut owner, mut count) = (0, null_mut(), 1);
        let (functions, raw) = (self.functions, self.raw);
        // SAFETY: our handle; there is room for as many pointers as `count` says, one.
        match check(unsafe { (functions.rbd_lock_get_owners)(raw, &mut mode, &mut owner, &mut count) }) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        }
        if count == 0 || owner.is_null() {
            return Ok(None);
        }
        // SAFETY: the library has just made this string, which ends with a 0 and is ours until it is given back, after the copy.
        unsafe {
            let copy = CStr::from_ptr(owner).to_string_lossy().into_owned();
            (functions.rbd_lock_get_owners_cleanup)(&mut owner, count);
            Ok(Some(copy))
        }
    }

    /// Takes the exclusive lock from the client at `owner`, which is kept out of the cluster first. `ENOENT`: nobody has it.
    pub(super) fn break_lock(&self, owner: &str) -> Result<(), Errno> {
        // SAFETY: our handle; the address lives until the call has returned.
        check(unsafe { (self.functions.rbd_lock_break)(self.raw, EXCLUSIVE, text(owner)?.as_ptr()) })
    }

    /// The addresses of all clients that have it open for writing, or were killed not long ago.
    pub(super) fn watchers(&self) -> Result<Vec<String>, Errno> {
        let mut room = 16;
        loop {
            let mut watchers: Vec<Watcher> = Vec::with_capacity(room);
            let mut count = room;
            let (functions, raw) = (self.functions, self.raw);
            // SAFETY: our handle; there is room for as many watchers as `count` says.
            match check(unsafe { (functions.rbd_watchers_list)(raw, watchers.as_mut_ptr(), &mut count) }) {
                Err(Errno::ERANGE) if room < 1 << 12 => {
                    room *= 2;
                    continue;
                }
                other => other?,
            }
            // SAFETY: the library has filled in so many, each with a string of its own, and takes those back, after the copies.
            return unsafe {
                watchers.set_len(count.min(room));
                let address =
                    |watcher: &Watcher| CStr::from_ptr(watcher.address).to_string_lossy().into_owned();
                let addresses = watchers.iter().map(address).collect();
                (functions.rbd_watchers_list_cleanup)(watchers.as_mut_ptr(), watchers.len());
                Ok(addresses)
            };
        }
    }

    /// Starts a job; it is finished on a thread of the library. A read over the end of the image is an error.
    pub(super) fn start(&self, job: Job) {
        let (functions, raw) = (self.functions, self.raw);
        let action = job.action();
        let under_way = UnderWay { job, functions, _image: Arc::clone(&self.under_way) };
        let under_way = Box::into_raw(Box::new(under_way));
        let mut completion = null_mut();
        // SAFETY: `under_way` is a box that nobody else has, until `finished` makes a box of it again, which it does once: it is called
        // once for each completion, and if the operation could not be started, it is not called, and the box is remade here. The job's
        // memory is taken from it where it now lies, so it stays in place and is touched by nobody else until then; its length is
        // that of the job.
        unsafe {
            let mut result =
                (functions.rbd_aio_create_completion)(under_way.cast(), finished, &mut completion);
            if result >= 0 {
                let memory = (*under_way).job.bytes_mut();
                let (memory, len) = (memory.as_mut_ptr().cast::<c_char>(), memory.len());
                result = match action {
                    Action::Read { offset } => (functions.rbd_aio_read)(raw, offset, len, memory, completion),
                    Action::Write { offset } => {
                        (functions.rbd_aio_write)(raw, offset, len, memory, completion)
                    }
                    Action::Flush => (functions.rbd_aio_flush)(raw, completion),
                    Action::Discard { offset, len, .. } => {
                        (functions.rbd_aio_discard)(raw, offset, len, completion)
                    }
                };
                if result < 0 {
                    (functions.rbd_aio_release)(completion);
                }
            }
            if let Err(errno) = check(result) {
                Box::from_raw(under_way).job.finish(Err(errno));
            }
        }
    }

    /// Has `changed` told whenever the image's header has changed, as by a resize of another client.
    pub(super) fn watch(self: &Arc<Self>, changed: SyncSender<()>) -> Result<Watch, Errno> {
        let mut watch = Watch { image: Arc::clone(self), handle: 0, changed: Box::new(changed) };
        let argument = (&raw const *watch.changed).cast_mut().cast();
        // SAFETY: our handle; the sender lies in a box that is dropped only once the watch is taken back, which waits for callbacks.
        let watched = check(unsafe {
            (self.functions.rbd_update_watch)(self.raw, &mut watch.handle, changed_header, argument)
        });
        match watched {
            Ok(()) => Ok(watch),
            Err(errno) => {
                watch.handle = u64::MAX;
                Err(errno)
            }
        }
    }
}

impl Drop for Rbd {
    fn drop(&mut self) {
        // A worker lets a disk go when it has nothing under way on it, so there is little to wait for.
        while Arc::strong_count(&self.under_way) > 1 {
            sleep(Duration::from_millis(1));
        }
        // SAFETY: our handle, for the last time: nothing is under way, and watches own their image. The pool is dropped after it.
        // There is nothing to be done about an error: it is closed all the same.
        _ = unsafe { (self.functions.rbd_close)(self.raw) };
    }
}

/// A watch on an image's header.
#[derive(Debug)]
pub(super) struct Watch {
    image: Arc<Rbd>,
    handle: u64,
    changed: Box<SyncSender<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.handle != u64::MAX {
            let Rbd { raw, functions, .. } = &*self.image;
            // SAFETY: the image's handle, which is open for as long as we own the image.
            _ = unsafe { (functions.rbd_update_unwatch)(*raw, self.handle) };
        }
    }
}

/// Called by the library when an operation is done.
extern "C" fn finished(completion: Handle, argument: *mut c_void) {
    // SAFETY: `argument` is the box of `Rbd::start`, given up there and made a box again here, once; the completion is the one made
    // there, used for the last time here.
    let (under_way, result) = unsafe {
        let under_way = Box::from_raw(argument.cast::<UnderWay>());
        let result = (under_way.functions.rbd_aio_get_return_value)(completion);
        (under_way.functions.rbd_aio_release)(completion);
        (under_way, result)
    };
    let UnderWay { job, .. } = *under_way;
    let outcome = match c_int::try_from(result) {
        Ok(error @ ..0) => check(error),
        // Over the end.
        Ok(read) if matches!(job.action(), Action::Read { .. }) && usize::try_from(read) != Ok(job.len()) => {
            Err(Errno::EIO)
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Errno::EIO),
    };
    job.finish(outcome);
}

/// Called by the library when an image's header has changed.
extern "C" fn changed_header(argument: *mut c_void) {
    // SAFETY: the sender of a [`Watch`], which is not dropped before the library has returned from here for the last time.
    let changed = unsafe { &*argument.cast::<SyncSender<()>>() };
    // One that is waiting to be heard does for all.
    _ = changed.try_send(());
}
