//! What the kernel sees of a medium: a folder, and a file in it.

use std::{
    ffi::OsStr,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use nix::{errno::Errno, libc};

use super::{Event, Kind, Tape, lock};

/// The file's name.
pub(super) const NAME: &str = "disk.img";
const FILE: INodeNo = INodeNo(2);
/// How long the kernel may believe what it was told: nothing but the contents ever changes.
const LONG: Duration = Duration::from_secs(3600);

/// The file system.
pub(super) struct Files {
    tape: Arc<Mutex<Tape>>,
}

impl Files {
    pub(super) fn new(tape: Arc<Mutex<Tape>>) -> Self {
        Self { tape }
    }

    fn attributes(&self, file: INodeNo) -> Option<FileAttr> {
        let size = lock(&self.tape).bytes.len() as u64;
        let (kind, perm, size) = match file {
            INodeNo::ROOT => (FileType::Directory, 0o755, 0),
            FILE => (FileType::RegularFile, 0o600, size),
            _ => return None,
        };
        Some(FileAttr {
            ino: file,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

fn code(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno as i32)
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE).filter(|_| parent == INodeNo::ROOT && name == NAME) {
            Some(attributes) => reply.entry(&LONG, &attributes, Generation(0)),
            None => reply.error(code(Errno::ENOENT)),
        }
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(file) {
            Some(attributes) => reply.attr(&LONG, &attributes),
            None => reply.error(code(Errno::ENOENT)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tape = lock(&self.tape);
        match tape.begin(Kind::Read, size as usize) {
            Ok(most) => {
                let rest = tape.bytes.get(place(offset)..).unwrap_or_default();
                reply.data(&rest[..most.min(rest.len())]);
            }
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match lock(&self.tape).write(place(offset), data) {
            Ok(moved) => reply.written(u32::try_from(moved).unwrap_or(u32::MAX)),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut tape = lock(&self.tape);
        match tape.begin(Kind::Flush, 0) {
            Ok(_) => {
                tape.events.push(Event::Flush);
                reply.ok();
            }
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE {
            return reply.error(code(Errno::EOPNOTSUPP));
        }
        let mut tape = lock(&self.tape);
        let punched = tape.begin(Kind::Punch, place(length)).and_then(|bytes| {
            let rest = tape.bytes.len().saturating_sub(place(offset));
            tape.put(place(offset), &vec![0; bytes.min(rest)])
        });
        match punched {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(code(errno)),
        }
    }
}
