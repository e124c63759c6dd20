#![expect(unsafe_code, reason = "memory to look at")]

use alloc::{boxed::Box, vec};

use super::*;

/// Zeroed pages that are never given back, for tests of what lies in shared memory.
pub(crate) fn leaked(pages: usize) -> SharedMem<'static> {
    #[repr(C, align(4096))]
    #[derive(Clone)]
    struct Page([u8; PAGE_SIZE]);
    let pages = Box::leak(vec![Page([0; PAGE_SIZE]); pages].into_boxed_slice());
    let len = size_of_val(pages);
    // SAFETY: leaked, page aligned, `len` bytes long, and known to nobody else.
    unsafe { SharedMem::new(NonNull::from(pages).cast(), len) }
}

#[test]
fn words_are_those_of_the_bytes() {
    let page = leaked(1);
    page.write(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(page.word16(2).unwrap().load(Ordering::Relaxed), u16::from_ne_bytes([3, 4]));
    assert_eq!(page.word32(4).unwrap().load(Ordering::Relaxed), u32::from_ne_bytes([5, 6, 7, 8]));
    page.word64(8).unwrap().store(u64::MAX, Ordering::Relaxed);
    let mut bytes = [0; 17];
    page.read(&mut bytes);
    assert_eq!(bytes[7..], [8, 255, 255, 255, 255, 255, 255, 255, 255, 0]);
}

#[test]
fn there_are_no_words_outside_or_askew() {
    let page = leaked(1);
    assert!(page.word16(4094).is_some() && page.word16(4095).is_none() && page.word16(4096).is_none());
    assert!(page.word32(4092).is_some() && page.word32(4094).is_none() && page.word32(usize::MAX).is_none());
    assert!(page.word64(4088).is_some() && page.word64(4092).is_none() && page.word64(1).is_none());
}
