//! The ioctls of Linux's Xen devices (`uapi/xen/{gntdev,gntalloc,evtchn}.h`), as safe functions.
//!
//! Unsafe stands here because an ioctl is a raw system call. What makes it sound: each function names one number with the one
//! structure that belongs to it, passes memory that it borrows for the time of the call, and checks the lengths that
//! the kernel would believe. The kernel keeps no pointer.
#![expect(unsafe_code, reason = "ioctls; see the module documentation")]

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::{errno::Errno, libc};

use crate::{DomId, Port};

/// `_IOC(_IOC_NONE, kind, number, bytes)`: these headers encode no direction.
const fn ioc(kind: u8, number: u8, bytes: usize) -> libc::c_ulong {
    (bytes as libc::c_ulong) << 16 | (kind as libc::c_ulong) << 8 | number as libc::c_ulong
}

// The structures that end in an array are handled as words, in which the fields lie as on little-endian machines.
const _: () = assert!(cfg!(target_endian = "little"));

/// Words before the array, and which of them the index is.
const HEADER_WORDS: usize = 2;
const INDEX_WORD: usize = 1;
/// Where the fields of gntalloc's first word are, in bits; the domain comes first.
const ALLOC_FLAGS: u32 = 16;
const ALLOC_COUNT: u32 = 32;

/// Bytes that the numbers of the ioctls with an array encode: one element, whatever the length.
const WITH_ONE: usize = 24;

const MAP_GRANT_REF: libc::c_ulong = ioc(b'G', 0, WITH_ONE);
const UNMAP_GRANT_REF: libc::c_ulong = ioc(b'G', 1, size_of::<Range>());
const ALLOC_GREF: libc::c_ulong = ioc(b'G', 5, WITH_ONE);
const DEALLOC_GREF: libc::c_ulong = ioc(b'G', 6, size_of::<Range>());
const SET_UNMAP_NOTIFY: libc::c_ulong = ioc(b'G', 7, size_of::<UnmapNotify>());
const GRANT_COPY: libc::c_ulong = ioc(b'G', 8, size_of::<GrantCopy>());
const BIND_INTERDOMAIN: libc::c_ulong = ioc(b'E', 1, 8);
const BIND_UNBOUND_PORT: libc::c_ulong = ioc(b'E', 2, 4);
const UNBIND: libc::c_ulong = ioc(b'E', 3, 4);
const NOTIFY: libc::c_ulong = ioc(b'E', 4, 4);
const RESET: libc::c_ulong = ioc(b'E', 5, 0);
const RESTRICT_DOMID: libc::c_ulong = ioc(b'E', 6, 2);

/// The ioctls of a backend: it takes what guests grant and ports that guests made, and offers nothing itself.
pub const BACKEND_IOCTLS: &[u64] =
    &[MAP_GRANT_REF, UNMAP_GRANT_REF, SET_UNMAP_NOTIFY, GRANT_COPY, BIND_INTERDOMAIN, UNBIND, NOTIFY, RESET];

/// `GNTALLOC_FLAG_WRITABLE`.
const WRITABLE: u64 = 1;

/// Pages of a node: `ioctl_gntdev_unmap_grant_ref` and `ioctl_gntalloc_dealloc_gref`.
#[repr(C)]
#[derive(Debug)]
struct Range {
    index: u64,
    count: u32,
    pad: u32,
}

/// `ioctl_gntdev_unmap_notify`, and gntalloc's of the same shape.
#[repr(C)]
#[derive(Debug)]
struct UnmapNotify {
    index: u64,
    action: u32,
    port: u32,
}

/// `ioctl_gntdev_grant_copy`.
#[repr(C)]
#[derive(Debug)]
struct GrantCopy {
    count: u32,
    segments: *mut CopySegment,
}

/// `gntdev_grant_copy_segment`. Each end is an address of this process, or a granted page ([`foreign`]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct CopySegment {
    pub(super) source: u64,
    pub(super) dest: u64,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) status: i16,
}

/// `GNTCOPY_source_gref`.
pub(super) const SOURCE_GREF: u16 = 1;
/// `GNTCOPY_dest_gref`.
pub(super) const DEST_GREF: u16 = 2;

/// The end of a copy that lies in a granted page.
pub(super) fn foreign(dom: DomId, gref: u32, offset: u16) -> u64 {
    u64::from(gref) | u64::from(offset) << 32 | u64::from(dom.0) << 48
}

/// Announces grants that are to be mapped, and answers the offset to give `mmap`. `words` is room that is used again.
pub(super) fn map_grant_refs(
    fd: BorrowedFd<'_>,
    from: DomId,
    refs: impl ExactSizeIterator<Item = u32>,
    words: &mut Vec<u64>,
) -> Result<u64, Errno> {
    words.clear();
    words.extend([u64::from(count(refs.len())?), 0]);
    words.extend(refs.map(|gref| u64::from(from.0) | u64::from(gref) << 32));
    // SAFETY: the kernel reads two words and as many more as the first one says, which are all there, and writes the second.
    unsafe { ioctl(fd, MAP_GRANT_REF, words.as_mut_ptr().cast()) }?;
    words.get(INDEX_WORD).copied().ok_or(Errno::EIO)
}

/// Forgets grants that were announced, or whose mapping has ended.
pub(super) fn unmap_grant_refs(fd: BorrowedFd<'_>, index: u64, count: u32) -> Result<(), Errno> {
    with(fd, UNMAP_GRANT_REF, Range { index, count, pad: 0 }).map(drop)
}

/// Makes zeroed pages that `to` may read and write. Answers the offset to give `mmap`, and the grants in order.
pub(super) fn alloc_grefs(fd: BorrowedFd<'_>, to: DomId, pages: usize) -> Result<(u64, Vec<u32>), Errno> {
    let mut words = vec![0; HEADER_WORDS + pages.div_ceil(2)];
    words[0] = u64::from(to.0) | WRITABLE << ALLOC_FLAGS | u64::from(count(pages)?) << ALLOC_COUNT;
    // SAFETY: the kernel reads and writes two words, and writes as many half words after them as the first one says.
    unsafe { ioctl(fd, ALLOC_GREF, words.as_mut_ptr().cast()) }?;
    let bytes: Vec<u8> = words[HEADER_WORDS..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let (halves, _) = bytes.as_chunks();
    Ok((words[INDEX_WORD], halves.iter().map(|half| u32::from_le_bytes(*half)).take(pages).collect()))
}

/// Gives pages up; each lives on until the peer has let go of it.
pub(super) fn dealloc_grefs(fd: BorrowedFd<'_>, index: u64, count: u32) -> Result<(), Errno> {
    with(fd, DEALLOC_GREF, Range { index, count, pad: 0 }).map(drop)
}

/// What happens when the page at byte `index` of a node is unmapped, the end of the process included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnmap {
    /// Nothing any more.
    Nothing,
    /// That byte is cleared.
    ClearByte,
    /// An event is sent.
    Event(Port),
}

/// Sets what happens when a page is unmapped.
pub(super) fn set_unmap_notify(fd: BorrowedFd<'_>, index: u64, what: OnUnmap) -> Result<(), Errno> {
    let (action, port) = match what {
        OnUnmap::Nothing => (0, 0),
        OnUnmap::ClearByte => (1, 0),
        OnUnmap::Event(port) => (2, port.0),
    };
    with(fd, SET_UNMAP_NOTIFY, UnmapNotify { index, action, port }).map(drop)
}

/// Runs copies; each segment's status says how it went.
///
/// # Safety
/// The end of each segment that is no grant is an address with `len` bytes behind it, which nobody else uses for the time of
/// the call; a destination is writable.
pub(super) unsafe fn grant_copy(fd: BorrowedFd<'_>, segments: &mut [CopySegment]) -> Result<(), Errno> {
    let copy = GrantCopy { count: count(segments.len())?, segments: segments.as_mut_ptr() };
    with(fd, GRANT_COPY, copy).map(drop)
}

/// Binds a new local port to a port of another domain.
pub(super) fn bind_interdomain(fd: BorrowedFd<'_>, dom: DomId, port: Port) -> Result<Port, Errno> {
    with(fd, BIND_INTERDOMAIN, [u32::from(dom.0), port.0]).and_then(local)
}

/// Makes a port that `dom` may bind.
pub(super) fn bind_unbound(fd: BorrowedFd<'_>, dom: DomId) -> Result<Port, Errno> {
    with(fd, BIND_UNBOUND_PORT, u32::from(dom.0)).and_then(local)
}

/// Closes a local port.
pub(super) fn unbind(fd: BorrowedFd<'_>, port: Port) -> Result<(), Errno> {
    with(fd, UNBIND, port.0).map(drop)
}

/// Sends an event.
pub(super) fn notify(fd: BorrowedFd<'_>, port: Port) -> Result<(), Errno> {
    with(fd, NOTIFY, port.0).map(drop)
}

/// Empties the buffer of pending ports after it ran over.
pub(super) fn reset(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    with(fd, RESET, ()).map(drop)
}

/// From now on only ports of `dom` can be bound.
pub(super) fn restrict(fd: BorrowedFd<'_>, dom: DomId) -> Result<(), Errno> {
    with(fd, RESTRICT_DOMID, dom.0).map(drop)
}

/// An ioctl that takes a structure of fixed size.
fn with<T>(fd: BorrowedFd<'_>, number: libc::c_ulong, mut value: T) -> Result<i32, Errno> {
    debug_assert_eq!(number >> 16, size_of::<T>() as libc::c_ulong);
    // SAFETY: the number encodes the size of the structure that the kernel reads and writes, which is that of `value`; it is
    // private to this module that the two go together.
    unsafe { ioctl(fd, number, (&raw mut value).cast()) }
}

/// # Safety
/// `argument` points to what the ioctl `number` reads and writes.
unsafe fn ioctl(
    fd: BorrowedFd<'_>,
    number: libc::c_ulong,
    argument: *mut libc::c_void,
) -> Result<i32, Errno> {
    // SAFETY: the caller's; musl's ioctl takes another type of number, hence the cast.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), number as _, argument) })
}

fn count(n: usize) -> Result<u32, Errno> {
    u32::try_from(n).map_err(|_| Errno::E2BIG)
}

fn local(answer: i32) -> Result<Port, Errno> {
    u32::try_from(answer).map(Port).map_err(|_| Errno::EIO)
}

/// Numbers, sizes and offsets by the names of the kernel's headers, for comparison with what a C compiler makes of them.
pub fn layout() -> Vec<(&'static str, u64)> {
    let size = |n: usize| n as u64;
    vec![
        ("IOCTL_GNTDEV_MAP_GRANT_REF", MAP_GRANT_REF),
        ("IOCTL_GNTDEV_UNMAP_GRANT_REF", UNMAP_GRANT_REF),
        ("IOCTL_GNTDEV_SET_UNMAP_NOTIFY", SET_UNMAP_NOTIFY),
        ("IOCTL_GNTDEV_GRANT_COPY", GRANT_COPY),
        ("IOCTL_GNTALLOC_ALLOC_GREF", ALLOC_GREF),
        ("IOCTL_GNTALLOC_DEALLOC_GREF", DEALLOC_GREF),
        ("IOCTL_GNTALLOC_SET_UNMAP_NOTIFY", SET_UNMAP_NOTIFY),
        ("IOCTL_EVTCHN_BIND_INTERDOMAIN", BIND_INTERDOMAIN),
        ("IOCTL_EVTCHN_BIND_UNBOUND_PORT", BIND_UNBOUND_PORT),
        ("IOCTL_EVTCHN_UNBIND", UNBIND),
        ("IOCTL_EVTCHN_NOTIFY", NOTIFY),
        ("IOCTL_EVTCHN_RESET", RESET),
        ("IOCTL_EVTCHN_RESTRICT_DOMID", RESTRICT_DOMID),
        ("gntdev_grant_copy_segment", size(size_of::<CopySegment>())),
        ("gntdev_grant_copy_segment.dest", size(core::mem::offset_of!(CopySegment, dest))),
        ("gntdev_grant_copy_segment.len", size(core::mem::offset_of!(CopySegment, len))),
        ("gntdev_grant_copy_segment.flags", size(core::mem::offset_of!(CopySegment, flags))),
        ("gntdev_grant_copy_segment.status", size(core::mem::offset_of!(CopySegment, status))),
        ("ioctl_gntdev_grant_copy.segments", size(core::mem::offset_of!(GrantCopy, segments))),
        ("ioctl_gntdev_map_grant_ref.index", size(INDEX_WORD * 8)),
        ("ioctl_gntdev_map_grant_ref.refs", size(HEADER_WORDS * 8)),
        ("ioctl_gntalloc_alloc_gref.flags", u64::from(ALLOC_FLAGS / 8)),
        ("ioctl_gntalloc_alloc_gref.count", u64::from(ALLOC_COUNT / 8)),
        ("ioctl_gntalloc_alloc_gref.index", size(INDEX_WORD * 8)),
        ("ioctl_gntalloc_alloc_gref.gref_ids", size(HEADER_WORDS * 8)),
        ("ioctl_gntdev_unmap_grant_ref.count", size(core::mem::offset_of!(Range, count))),
        ("ioctl_gntalloc_dealloc_gref.count", size(core::mem::offset_of!(Range, count))),
        ("ioctl_gntdev_unmap_notify.action", size(core::mem::offset_of!(UnmapNotify, action))),
        ("ioctl_gntdev_unmap_notify.event_channel_port", size(core::mem::offset_of!(UnmapNotify, port))),
    ]
}
