//! Once a queue is warm, submitting, publishing, finishing and reusing buffers allocates nothing.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait; it only forwards to the system's"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use blkfront::{
    Config, Frontend, Io, Operation, Queue, SegmentChoice,
    fake::{Bed, Setup},
};
use blkif_proto::{
    Status,
    keys::{BackendFeatures, RequestMaxima},
};
use xen_platform::fake;

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

/// A batch of mixed sizes through the queue, answered by the backend; the allocations that the queue's own calls made.
fn batch(bed: &Bed, queue: &mut Queue<fake::World>, done: &mut Vec<Io>) -> usize {
    let before = ALLOCATIONS.get();
    for (n, bytes) in [4096, 64 * 1024, 4096, 300 * 1024, 8192].into_iter().enumerate() {
        let buffer = queue.alloc_buffer(bytes).unwrap();
        let op = if n % 2 == 0 { Operation::Read } else { Operation::Write };
        queue.submit(Io { op, ..Io::read(0, buffer) }).unwrap();
    }
    queue.publish().unwrap();
    let mut ours = ALLOCATIONS.get() - before;
    while queue.in_flight() > 0 {
        {
            let mut backend = bed.backend();
            for request in backend.take(0) {
                backend.answer(0, request.response(Status::OKAY), request.entries);
            }
            backend.publish(0);
        }
        let before = ALLOCATIONS.get();
        queue.arm().unwrap();
        queue.finish(&mut |completion| done.push(completion.io)).unwrap();
        ours += ALLOCATIONS.get() - before;
    }
    let before = ALLOCATIONS.get();
    for io in done.drain(..) {
        queue.free_buffer(io.buffer.unwrap());
    }
    ours + ALLOCATIONS.get() - before
}

#[test]
fn the_data_path_allocates_nothing() {
    for segments in [SegmentChoice::Direct, SegmentChoice::Blocks, SegmentChoice::Indirect] {
        for persistent in [true, false] {
            let features = BackendFeatures {
                max_indirect_segments: 256,
                request_maxima: Some(RequestMaxima { requests: 32, segments: 255, bytes: 255 * 4096 }),
                persistent,
                ..BackendFeatures::ORIGINAL
            };
            let bed = Bed::new(Setup { features, serve: false, ..Setup::plain(4096) });
            let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
            let configured = frontend.configure(Config { segments, ..Config::default() }).unwrap();
            let (device, mut queues) = configured.set_up_queues().unwrap().start().unwrap();
            let mut done = Vec::with_capacity(64);
            for _ in 0..3 {
                batch(&bed, &mut queues[0], &mut done);
            }
            let allocated: usize = (0..20).map(|_| batch(&bed, &mut queues[0], &mut done)).sum();
            assert_eq!(allocated, 0, "{segments:?}, persistent {persistent}");
            let stopped = device.stop(queues, &mut |_| ()).map_err(|kept| kept.error).unwrap();
            stopped.unconfigure().unwrap();
        }
    }
}
