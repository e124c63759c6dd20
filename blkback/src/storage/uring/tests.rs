use super::*;
use crate::storage::{ImageOptions, Part, contract};

struct Nothing;

impl IoMemory for Nothing {
    fn parts(&mut self, _: impl FnMut(Part<'_>)) {}
}

#[test]
fn a_ring_does_nothing_but_what_disks_need() {
    let mut uring = Uring::<Nothing>::new().unwrap();
    let connect = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
    let linked = opcode::Fsync::new(Fd(-1)).build().flags(Flags::IO_LINK);
    for refused in [opcode::Nop::new().build(), connect, linked] {
        assert!(uring.push(&refused));
        uring.enter(1, None).unwrap();
        assert_eq!(uring.next_completion().unwrap().result(), -libc::EACCES, "{refused:?}");
    }
    assert_eq!(uring.ring.submitter().unregister_files().unwrap_err().raw_os_error(), Some(libc::EACCES));
    assert!(uring.push(&opcode::Fsync::new(Fd(-1)).build()));
    uring.enter(1, None).unwrap();
    assert_eq!(uring.next_completion().unwrap().result(), -libc::EBADF);
}

/// Whatever large operations come to, they do not keep those threads of the kernel that others may have.
#[test]
fn other_threads_of_the_kernel_are_given_back() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(contract::LEAST_BYTES).unwrap();
    let image = Arc::new(Image::open(file.path(), &ImageOptions::default()).unwrap());
    let mut uring = Uring::new().unwrap();
    contract::check(&mut uring, &image, true).unwrap();
    assert!(uring.far_most > 0);
    assert_eq!((uring.far, uring.in_kernel), (0, 0));
}
