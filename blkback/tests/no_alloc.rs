//! Once a queue is warm, carrying requests allocates nothing: counted over every strategy and way of large requests, with
//! the memory storage and with io_uring.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and cut patterns to size"
)]
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait; it only forwards to the system's"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use blkback::{
    data::buffer::Buffer,
    storage::{Action, DiskId, Image, ImageOptions, IoMemory, Op as DiskOp, Part, Storage, Uring},
};
use blkif_proto::{Op, SegmentMode, Status};
use xen_platform::Access;

#[path = "data_plane/guest.rs"]
mod guest;

use guest::{Rig, Terms, strategies, whole};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system allocator with the arguments that came, so its contract is kept; counting touches
// a thread-local without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System.alloc` above with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_warm_queue_allocates_nothing() {
    for (strategy, persistent) in strategies() {
        for mode in [SegmentMode::Direct, SegmentMode::Blocks, SegmentMode::Indirect] {
            // Descriptor pages are new each time: the cache must be full before it is warm.
            let terms =
                Terms { strategy, persistent, mode, ring_pages: 2, cache_pages: 80, ..Terms::default() };
            let mut rig = Rig::new(terms);
            let small = rig.pages(2, Access::ReadWrite, 1);
            let large = rig.pages(if mode == SegmentMode::Direct { 11 } else { 64 }, Access::ReadWrite, 2);
            let mut descriptors = Vec::new();
            for round in 0..12 {
                let mut entries = std::collections::HashMap::new();
                for n in 0..8 {
                    let op = [Op::Read, Op::Write, Op::Flush, Op::Write][n % 4];
                    let pages = if n % 2 == 0 { &small } else { &large };
                    let segments = if op == Op::Flush { Vec::new() } else { whole(pages) };
                    let (id, pages) = rig.push(op, n as u64 * 64, &segments);
                    descriptors.extend(pages);
                    let blocks = if mode == SegmentMode::Blocks { segments.len() } else { 0 };
                    entries.insert(id, blkif_proto::segment_block::entries_for(blocks));
                }
                rig.kick();
                let count = allocations(|| rig.settle());
                assert!(round < 8 || count == 0, "{count} allocations: {strategy:?} {persistent} {mode:?}");
                while let Some(answer) = rig.answer_of(&entries) {
                    assert_eq!(answer.status, Status::OKAY);
                    entries.remove(&answer.id);
                }
                assert!(entries.is_empty());
            }
        }
    }
}

/// One page of memory, to be read into.
struct Memory(Buffer);

impl IoMemory for Memory {
    fn parts(&mut self, mut each: impl FnMut(Part<'_>)) {
        each(Part::Private(self.0.bytes_mut(4096)));
    }
}

#[test]
fn io_uring_allocates_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let image = Arc::new(Image::open(file.path(), &ImageOptions::default()).unwrap());
    let mut uring = Uring::new().unwrap();
    let disk = uring.attach(&image).unwrap();
    let new = |disk: DiskId| {
        let mut buffer = Buffer::default();
        assert!(buffer.reserve(4096));
        Box::new(DiskOp { disk, action: Action::Read { offset: 0 }, outcome: Ok(()), data: Memory(buffer) })
    };
    let mut ops: Vec<_> = (0..32).map(|_| new(disk)).collect();
    for round in 0..5 {
        let count = allocations(|| {
            for op in ops.drain(..) {
                assert!(uring.submit(op).is_ok());
            }
            uring.kick().unwrap();
            while ops.len() < 32 {
                match uring.reap() {
                    Some(op) => ops.push(op),
                    None => _ = uring.wait(None).unwrap(),
                }
            }
        });
        assert!(round < 2 || count == 0, "{count} allocations in round {round}");
    }
}
