use super::{Mapped, RingPages};
use crate::model::{self, steps};
use crate::{BackRing, Field, FrontRing, Index, Layout, LayoutError, RingMem, mem};
use core::ptr::NonNull;
use proptest::prelude::*;
use std::cell::UnsafeCell;
use std::sync::Arc;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; Layout::PAGE]>);

/// Page-aligned memory in which clones see the same bytes, as two domains see one granted page.
#[derive(Clone)]
struct Shared(Arc<[Page]>);

// SAFETY: Both ends reach the bytes through `RingPages` alone, hence by atomics.
unsafe impl Send for Shared {}

// SAFETY: The pages are on the heap, contiguous, page aligned by their type, and live as long as any clone; they do not
// move with it. They are in an `UnsafeCell`, of whose inside no reference is ever made here.
unsafe impl RingPages for Shared {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    fn bytes(&self) -> usize {
        self.0.len() * Layout::PAGE
    }
}

impl Shared {
    fn new(pages: usize) -> Self {
        Self((0..pages).map(|_| Page(UnsafeCell::new([0; Layout::PAGE]))).collect())
    }

    fn ring(&self, entry_size: usize) -> Mapped<Self> {
        Mapped::new(self.clone(), entry_size).unwrap()
    }

    /// The bytes as they lie there, while nobody else is at work.
    fn bytes(&self) -> Vec<u8> {
        // SAFETY: `RingPages` of this type; the tests that call this have one thread.
        unsafe { core::slice::from_raw_parts(self.base().as_ptr(), RingPages::bytes(self)) }.to_vec()
    }
}

#[test]
fn mapped_pages_are_ring_memory() {
    for pages in [1, 2, 32] {
        mem::tests::contract(4, || Shared::new(pages).ring(108));
        mem::tests::contract(size_of::<usize>(), || Shared::new(pages).ring(112));
    }
}

#[test]
fn indices_and_slots_lie_where_xen_has_them() {
    let pages = Shared::new(2);
    let mem = pages.ring(108);
    for (field, value) in
        [Field::ReqProd, Field::ReqEvent, Field::RspProd, Field::RspEvent].into_iter().zip(1..)
    {
        mem.store(field, Index::new(value));
    }
    mem.write_slot(Index::new(0), &[0xaa]);
    mem.write_slot(Index::new(63), &[0xbb; 108]);
    let bytes = pages.bytes();
    assert_eq!(bytes[..16], [1u32, 2, 3, 4].map(u32::to_ne_bytes).concat());
    assert_eq!(bytes[16..64], [0; 48]);
    assert_eq!(bytes[64..68], [0xaa, 0, 0, 0]);
    assert_eq!(bytes[64 + 63 * 108..64 + 64 * 108], [0xbb; 108]);
    assert!(bytes[64 + 64 * 108..].iter().all(|&byte| byte == 0));
}

#[test]
fn init_erases_what_no_slot_covers() {
    let pages = Shared::new(1);
    // Everything, also the part after the last slot: all of it goes to the other domain.
    let old = pages.ring(4032);
    old.write_slot(Index::new(0), &[0xee; 4032]);
    let front = FrontRing::init(pages.ring(112));
    let bytes = pages.bytes();
    assert_eq!(bytes[..16], [0u32, 1, 0, 1].map(u32::to_ne_bytes).concat());
    assert!(bytes[16..].iter().all(|&byte| byte == 0));
    drop(front);
}

#[test]
fn pages_come_back() {
    let pages = Shared::new(1);
    let front = FrontRing::init(pages.ring(112));
    assert_eq!(front.mem().pages().base(), pages.base());
    assert_eq!(front.into_mem().into_pages().base(), pages.base());
}

#[test]
fn sizes_that_make_no_ring_are_refused() {
    let refused = Mapped::new(Shared::new(33), 112).err();
    assert_eq!(refused, Some(LayoutError { bytes: 33 * Layout::PAGE, entry_size: 112 }));
    assert!(Mapped::new(Shared::new(1), 110).is_err());
}

proptest! {
    #[test]
    fn two_mappings_behave_like_the_model(
        start: u32,
        pages in 1..=4usize,
        entry_size in prop::sample::select(vec![108, 112]),
        steps in steps(),
    ) {
        let pages = Shared::new(pages);
        model::check(pages.ring(entry_size), pages.ring(entry_size), start, &steps);
    }
}

/// Two threads, real memory, whole entries: a torn or stale slot shows as a wrong byte.
#[test]
fn entries_cross_threads_whole() {
    const REQUESTS: u32 = if cfg!(debug_assertions) { 50_000 } else { 2_000_000 };
    for entry_size in [108, 112] {
        let pages = Shared::new(1);
        let mut front = FrontRing::init_at(pages.ring(entry_size), Index::new(u32::MAX - REQUESTS / 2));
        let mut back = BackRing::attach(pages.ring(entry_size)).unwrap();
        let backend = std::thread::spawn(move || {
            let mut entry = vec![0; entry_size];
            let mut expected = 0u32;
            while expected < REQUESTS {
                while back.available().unwrap() > 0 {
                    back.read(0, &mut entry).unwrap();
                    back.consume(1).unwrap();
                    assert!(entry.chunks(4).all(|word| word == expected.to_ne_bytes()), "entry {expected}");
                    back.respond(&entry[..12], 1).unwrap();
                    expected += 1;
                }
                let _ = back.publish();
                std::thread::yield_now();
            }
        });
        let (mut pushed, mut answered) = (0u32, 0u32);
        let mut response = [0; 12];
        while answered < REQUESTS {
            while pushed < REQUESTS && front.push(&pushed.to_ne_bytes().repeat(entry_size / 4)).is_ok() {
                pushed += 1;
            }
            let _ = front.publish();
            while front.peek(&mut response).unwrap() {
                assert!(response.chunks(4).all(|word| word == answered.to_ne_bytes()), "response {answered}");
                front.consume(1).unwrap();
                answered += 1;
            }
            std::thread::yield_now();
        }
        backend.join().unwrap();
    }
}
