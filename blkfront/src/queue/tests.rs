#![expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use core::time::Duration;
use std::{
    format,
    sync::{Arc, Mutex},
    thread, vec,
};

use blkif_proto::{
    Discard, Op, Opcode, Operations, Response, Status,
    keys::{BackendFeatures, DiskInfo, RequestMaxima},
};
use proptest::prelude::*;
use xen_platform::fake;

use super::*;
use crate::{Config, Device, Frontend, IoError, Operation, SegmentChoice, fake::*};

mod hostile;
mod memory;

type World = fake::World;

/// A connected disk whose requests wait to be answered by the test.
struct Fixture {
    bed: Bed,
    device: Device<World>,
    queue: Queue<World>,
}

fn features() -> BackendFeatures {
    BackendFeatures {
        max_indirect_segments: 128,
        operations: Operations {
            flush: true,
            barrier: true,
            discard: Some(Discard { granularity: 4096, alignment: 0, secure: false }),
        },
        ..BackendFeatures::ORIGINAL
    }
}

fn fixture(change: impl FnOnce(&mut Setup, &mut Config)) -> Fixture {
    let mut setup = Setup { serve: false, features: features(), ..Setup::plain(64 * 1024) };
    let mut config = Config { timeout: Duration::from_secs(5), ..Config::default() };
    change(&mut setup, &mut config);
    let bed = Bed::new(setup);
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    let (device, mut queues) = frontend.configure(config).unwrap().set_up_queues().unwrap().start().unwrap();
    Fixture { bed, device, queue: queues.remove(0) }
}

fn plain() -> Fixture {
    fixture(|_, _| ())
}

impl Fixture {
    fn buffer(&mut self, bytes: usize) -> Buffer {
        self.queue.alloc_buffer(bytes).unwrap()
    }

    /// Submits reads of a page each.
    fn submit_reads(&mut self, count: u64) {
        for n in 0..count {
            let buffer = self.buffer(4096);
            self.queue.submit(Io::read(n * 8, buffer).cookie(n)).unwrap();
        }
    }

    /// One read of a page, published, taken by the backend.
    fn one_read(&mut self) -> Taken {
        self.submit_reads(1);
        self.queue.publish().unwrap();
        self.bed.backend().take(0).remove(0)
    }

    fn answer(&self, responses: impl IntoIterator<Item = Response>) {
        let mut backend = self.bed.backend();
        for response in responses {
            backend.answer(0, response, 1);
        }
        backend.publish(0);
    }

    fn finish(&mut self) -> (Result<usize, DeviceError>, Vec<Completion>) {
        let mut done = Vec::new();
        (self.queue.finish(&mut |completion| done.push(completion)), done)
    }

    /// The queue fails as `expected`, and everything in flight ends with that.
    fn fails(mut self, expected: DeviceError, in_flight: usize) {
        let (finished, done) = self.finish();
        assert_eq!(finished, Err(expected));
        assert_eq!(done.len(), in_flight);
        assert!(
            done.iter().all(|completion| completion.result == Err(IoError::Device(expected))),
            "{done:?}"
        );
        assert_eq!(self.queue.in_flight(), 0);
        // And stays so.
        assert_eq!(self.queue.publish(), Err(expected));
        assert_eq!(self.queue.wait(None), Err(expected));
        let rejected = self.queue.submit(Io::flush()).unwrap_err();
        assert_eq!(rejected.reason, RejectReason::Device(expected));
        // The device can be stopped all the same, with nothing left lent.
        drop(done);
        let stopped = self.device.stop(vec![self.queue], &mut |late| panic!("{late:?}"));
        stopped.map_err(|kept| kept.error).unwrap().unconfigure().unwrap();
    }

    fn stop(self) {
        let stopped = self.device.stop(vec![self.queue], &mut |_| ()).map_err(|kept| kept.error).unwrap();
        assert!(stopped.error().is_none());
        stopped.unconfigure().unwrap();
    }
}

#[test]
fn nothing_is_seen_before_publish_and_a_batch_is_one_notification() {
    let mut f = plain();
    f.submit_reads(8);
    assert!(f.bed.backend().take(0).is_empty());
    f.queue.publish().unwrap();
    assert_eq!(f.queue.stats().notifications, 1);
    let taken = f.bed.backend().take(0);
    assert_eq!(
        taken.iter().map(|request| request.sector).collect::<Vec<_>>(),
        [0, 8, 16, 24, 32, 40, 48, 56]
    );
    // The backend has not asked to be told of more.
    f.submit_reads(8);
    f.queue.publish().unwrap();
    assert_eq!(f.queue.stats().notifications, 1);
    f.queue.publish().unwrap();
    f.stop();
}

#[test]
fn answers_come_in_any_order_and_keep_their_marks() {
    let mut f = plain();
    f.submit_reads(5);
    f.queue.publish().unwrap();
    let mut taken = f.bed.backend().take(0);
    taken.reverse();
    f.answer(taken.iter().map(|request| request.response(Status::OKAY)));
    let (finished, done) = f.finish();
    assert_eq!(finished, Ok(5));
    assert_eq!(done.iter().map(|completion| completion.io.cookie).collect::<Vec<_>>(), [4, 3, 2, 1, 0]);
    assert_eq!(f.finish().0, Ok(0));
    assert_eq!(f.queue.in_flight(), 0);
    f.stop();
}

#[test]
fn statuses_become_results() {
    let mut f = plain();
    f.submit_reads(4);
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    let statuses = [Status::OKAY, Status::ERROR, Status::NOT_SUPPORTED, Status(7)];
    f.answer(taken.iter().zip(statuses).map(|(request, status)| request.response(status)));
    let results: Vec<_> = f.finish().1.into_iter().map(|completion| completion.result).collect();
    let expected = [Ok(()), Err(IoError::Failed), Err(IoError::NotSupported), Err(IoError::UnknownStatus(7))];
    assert_eq!(results, expected);
    f.stop();
}

#[test]
fn a_large_io_completes_once_and_one_failure_fails_it() {
    let mut f = fixture(|setup, _| setup.features.max_indirect_segments = 0);
    let buffer = f.buffer(100 * 4096);
    f.queue.submit(Io::read(0, buffer)).unwrap();
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    assert_eq!(taken.len(), 10, "ten times ten pages");
    assert!(taken.iter().all(|request| request.segments.len() == 10));
    let (last, others) = taken.split_last().unwrap();
    let bad = |n: usize| if n == 3 { Status::ERROR } else { Status::OKAY };
    f.answer(others.iter().enumerate().map(|(n, request)| request.response(bad(n))));
    assert_eq!(f.finish().0, Ok(0));
    f.answer([last.response(Status::OKAY)]);
    let (_, done) = f.finish();
    assert_eq!((done.len(), done[0].result), (1, Err(IoError::Failed)));
    f.stop();
}

#[test]
fn what_the_ring_has_no_room_for_moves_up() {
    let mut f = fixture(|setup, _| setup.features.max_indirect_segments = 0);
    assert_eq!(f.queue.depth(), 32);
    // 50 requests, and one more after them.
    let buffer = f.buffer(50 * 11 * 4096);
    f.queue.submit(Io::read(0, buffer)).unwrap();
    f.submit_reads(1);
    f.queue.publish().unwrap();
    let mut answered = 0;
    let mut done = Vec::new();
    while done.len() < 2 {
        let taken = f.bed.backend().take(0);
        assert!(!taken.is_empty(), "stuck after {answered} requests");
        answered += taken.len();
        f.answer(taken.iter().map(|request| request.response(Status::OKAY)));
        done.extend(f.finish().1);
    }
    assert_eq!(answered, 51);
    f.stop();
}

#[test]
fn a_full_queue_gives_the_io_back() {
    let mut f = plain();
    f.submit_reads(32);
    let buffer = f.buffer(4096);
    let rejected = f.queue.submit(Io::read(7, buffer).cookie(99)).unwrap_err();
    assert_eq!((rejected.reason, rejected.io.cookie), (RejectReason::Full, 99));
    assert!(rejected.io.buffer.is_some());
    f.stop();
}

#[test]
fn abort_gives_back_what_was_not_published() {
    let mut f = fixture(|setup, _| setup.features.max_indirect_segments = 0);
    f.submit_reads(2);
    f.queue.publish().unwrap();
    // 20 requests, then more than the ring has room for.
    for pages in [220, 220] {
        let buffer = f.buffer(pages * 4096);
        f.queue.submit(Io::read(0, buffer).cookie(pages as u64)).unwrap();
    }
    let mut back = Vec::new();
    f.queue.abort(&mut |io| back.push(io));
    assert_eq!(back.iter().map(|io| io.cookie).collect::<Vec<_>>(), [220, 220]);
    assert!(back.iter().all(|io| io.buffer.is_some()));
    assert_eq!(f.queue.in_flight(), 2);
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    assert_eq!(taken.len(), 2);
    f.answer(taken.iter().map(|request| request.response(Status::OKAY)));
    assert_eq!(f.finish().0, Ok(2));
    // The queue works on, with the same ring slots.
    let again = f.one_read();
    f.answer([again.response(Status::OKAY)]);
    assert_eq!(f.finish().0, Ok(1));
    f.stop();
}

#[test]
fn operations_without_data_arrive_as_such() {
    let mut f = plain();
    f.queue.submit(Io::flush()).unwrap();
    f.queue.submit(Io { op: Operation::WriteBarrier, ..Io::flush() }).unwrap();
    f.queue.submit(Io::discard(16, 24)).unwrap();
    f.queue.publish().unwrap();
    let mut taken = f.bed.backend().take(0);
    f.answer(taken.iter().map(|request| request.response(Status::OKAY)));
    assert_eq!(f.finish().0, Ok(2));
    taken.extend(f.bed.backend().take(0));
    let ops: Vec<_> = taken.iter().map(|request| request.op).collect();
    assert_eq!(ops, [Op::Flush, Op::WriteBarrier, Op::Discard { sectors: 24, secure: false }]);
    assert!(taken.iter().all(|request| request.segments.is_empty()));
    assert_eq!(taken[2].sector, 16);
    f.stop();
}

#[test]
fn nothing_is_sent_behind_a_barrier_that_is_not_answered() {
    let mut f = plain();
    for n in 0..7 {
        let buffer = f.buffer(4096);
        let io = if n % 3 == 1 { Io::write_barrier(n, buffer) } else { Io::write(n, buffer) };
        f.queue.submit(io).unwrap();
    }
    f.queue.publish().unwrap();
    for sectors in [&[0, 1][..], &[2, 3, 4], &[5, 6]] {
        let taken = f.bed.backend().take(0);
        assert_eq!(taken.iter().map(|request| request.sector).collect::<Vec<_>>(), sectors);
        // The barrier first: what came before it is the backend's to order.
        f.answer(taken.iter().rev().map(|request| request.response(Status::OKAY)));
        assert_eq!(f.finish().0, Ok(sectors.len()));
    }
    f.stop();
}

#[test]
fn a_large_barrier_stays_direct_where_large_requests_are_indirect() {
    let mut f = plain();
    let buffer = f.buffer(30 * 4096);
    f.queue.submit(Io::write_barrier(0, buffer)).unwrap();
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    assert!(taken.iter().all(|request| request.op == Op::WriteBarrier && !request.indirect));
    assert_eq!(taken.iter().map(|request| request.segments.len()).collect::<Vec<_>>(), [10, 10, 10]);
    f.stop();
}

#[test]
fn grants_are_read_only_for_writes_and_gone_after_use() {
    let mut f = plain();
    let buffer = f.buffer(4096);
    f.queue.submit(Io::write(0, buffer)).unwrap();
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0).remove(0);
    let granted = f.bed.machine.leaks().granted;
    f.bed.backend().run(&taken);
    f.answer([taken.response(Status::OKAY)]);
    let (_, done) = f.finish();
    let buffer = done.into_iter().next().unwrap().io.buffer.unwrap();
    assert_eq!(buffer.pages.lent(), None);
    assert_eq!(f.bed.machine.leaks().granted, granted - 1);
    f.queue.free_buffer(buffer);
    f.stop();
}

#[test]
fn persistent_grants_stay_and_are_reused() {
    let mut f = fixture(|setup, _| setup.features.persistent = true);
    let mut grefs = Vec::new();
    for _ in 0..3 {
        let taken = f.one_read();
        f.bed.backend().run(&taken);
        f.answer([taken.response(Status::OKAY)]);
        let (finished, done) = f.finish();
        assert_eq!(finished, Ok(1));
        grefs.push(taken.segments[0].gref);
        for completion in done {
            let buffer = completion.io.buffer.unwrap();
            assert_eq!(buffer.pages.lent(), Some(xen_platform::Access::ReadWrite));
            f.queue.free_buffer(buffer);
        }
    }
    assert!(grefs.iter().all(|gref| *gref == grefs[0]), "{grefs:?}");
    f.stop();
}

#[test]
fn events_are_asked_for_and_spurious_ones_counted() {
    let mut f = plain();
    let taken = f.one_read();
    assert_eq!(f.queue.wait(Some(Duration::from_millis(20))), Ok(false));
    f.bed.backend().ring_the_bell(0);
    assert_eq!(f.queue.wait(Some(Duration::from_millis(20))), Ok(false));
    assert_eq!((f.queue.stats().events, f.queue.stats().spurious), (1, 1));
    f.answer([taken.response(Status::OKAY)]);
    assert_eq!(f.queue.wait(Some(Duration::from_secs(5))), Ok(true));
    assert_eq!(f.finish().0, Ok(1));
    assert_eq!(f.queue.wait(None), Ok(false), "nothing in flight, nothing to wait for");
    // The port was unmasked again.
    let taken = f.one_read();
    assert_eq!(f.queue.arm(), Ok(false));
    f.answer([taken.response(Status::OKAY)]);
    assert_eq!(f.queue.wait(Some(Duration::from_secs(5))), Ok(true));
    f.stop();
}

#[test]
fn looking_before_sleeping_finds_answers_without_an_event() {
    let mut f = fixture(|setup, _| setup.serve = true);
    let spin = Duration::from_millis(50);
    for _ in 0..50 {
        f.submit_reads(1);
        while f.queue.in_flight() > 0 {
            f.queue.wait_polling(spin, Some(Duration::from_secs(5))).unwrap();
            for completion in f.finish().1 {
                f.queue.free_buffer(completion.io.buffer.unwrap());
            }
        }
    }
    assert_eq!(f.queue.stats().completed, 50);
    f.stop();
}

#[test]
fn callbacks_run_while_they_are_enabled() {
    let mut f = plain();
    let done = Arc::new(Mutex::new(Vec::new()));
    f.queue.set_callback({
        let done = done.clone();
        move |completion| done.lock().unwrap().push(completion.io.cookie)
    });
    f.submit_reads(3);
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    assert_eq!(f.queue.enable_callback(), Ok(false));
    assert_eq!(f.queue.dispatch(), Ok(0));
    f.answer([taken[0].response(Status::OKAY)]);
    assert_eq!(f.queue.dispatch(), Ok(1));
    f.queue.disable_callback();
    f.answer([taken[1].response(Status::OKAY), taken[2].response(Status::OKAY)]);
    assert_eq!(f.queue.dispatch(), Ok(0));
    assert_eq!(*done.lock().unwrap(), [0]);
    assert_eq!(f.queue.enable_callback(), Ok(true), "answers are waiting");
    assert_eq!(f.queue.dispatch(), Ok(2));
    assert_eq!(*done.lock().unwrap(), [0, 1, 2]);
    f.stop();
}

#[test]
fn a_queue_moves_between_threads_with_its_work() {
    let mut f = plain();
    let taken = f.one_read();
    f.answer([taken.response(Status::OKAY)]);
    let mut queue = f.queue;
    f.queue = thread::spawn(move || {
        assert_eq!(queue.finish(&mut |_| ()), Ok(1));
        queue
    })
    .join()
    .unwrap();
    f.stop();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random I/Os, answered in random order, in every way of large requests: each completes once, and the disk is what a plain
    /// model says.
    #[test]
    fn the_disk_is_what_was_written(
        choice in prop::sample::select(vec![SegmentChoice::Direct, SegmentChoice::Blocks, SegmentChoice::Indirect]),
        persistent in any::<bool>(),
        ios in prop::collection::vec((any::<bool>(), 0u64..2000, 0u32..16, 1u32..700, any::<u8>()), 1..40),
        shuffle in any::<u64>(),
    ) {
        let f = fixture(|setup, config| {
            setup.features.persistent = persistent;
            setup.features.request_maxima = Some(RequestMaxima { requests: 64, segments: 40, bytes: 40 * 4096 });
            setup.disk.sectors = 4096;
            *config = Config { segments: choice, ..config.clone() };
        });
        let Fixture { bed, device, mut queue } = f;
        let mut model = vec![0u8; 4096 * 512];
        let mut random = shuffle;
        for (is_write, sector, first, sectors, fill) in ios {
            let (offset, len) = (first * 512, sectors * 512);
            let buffer = queue.alloc_buffer((offset + len) as usize).unwrap();
            let at = sector as usize * 512;
            let part = at..at + len as usize;
            let op = if is_write {
                buffer.write(offset as usize, &vec![fill; len as usize]);
                model[part.clone()].fill(fill);
                Operation::Write
            } else {
                Operation::Read
            };
            let io = Io { op, ..Io::read(sector, buffer).part(offset, len).cookie(u64::from(fill)) };
            queue.submit(io).unwrap();
            queue.publish().unwrap();
            let mut done = Vec::new();
            while queue.in_flight() > 0 {
                let mut backend = bed.backend();
                let mut taken = backend.take(0);
                prop_assert!(!taken.is_empty());
                while !taken.is_empty() {
                    random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
                    let request = taken.swap_remove((random >> 33) as usize % taken.len());
                    let status = backend.run(&request);
                    backend.answer(0, request.response(status), request.entries);
                }
                backend.publish(0);
                drop(backend);
                queue.finish(&mut |completion| done.push(completion)).unwrap();
            }
            prop_assert_eq!(done.len(), 1);
            let completion = done.remove(0);
            prop_assert_eq!((completion.result, completion.io.cookie), (Ok(()), u64::from(fill)));
            let buffer = completion.io.buffer.unwrap();
            let mut bytes = vec![0; len as usize];
            buffer.read(offset as usize, &mut bytes);
            prop_assert!(bytes == model[part]);
            queue.free_buffer(buffer);
        }
        prop_assert!(bed.backend().image == model);
        let stopped = device.stop(vec![queue], &mut |_| ()).map_err(|kept| kept.error).unwrap();
        stopped.unconfigure().unwrap();
        let leaks = bed.machine.leaks();
        prop_assert_eq!((leaks.mapped, leaks.granted, leaks.pages), (0, 0, 0));
    }
}
