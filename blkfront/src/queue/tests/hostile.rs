//! What neither a backend nor an application gets away with.

use xen_platform::Clock as _;

use super::*;

#[test]
fn foreign_repeated_and_wrong_answers_end_the_connection() {
    type Nonsense = fn(&Taken) -> (Vec<Response>, DeviceError, usize);
    let cases: [Nonsense; 5] = [
        |taken| {
            let id = taken.id ^ 1 << 63;
            (vec![Response { id, ..taken.response(Status::OKAY) }], DeviceError::ForeignResponse { id }, 1)
        },
        |taken| {
            let id = taken.id + 1;
            (vec![Response { id, ..taken.response(Status::OKAY) }], DeviceError::ForeignResponse { id }, 1)
        },
        |taken| {
            let id = u64::MAX;
            (vec![Response { id, ..taken.response(Status::OKAY) }], DeviceError::ForeignResponse { id }, 1)
        },
        |taken| {
            let response = Response { op: Opcode::WRITE, ..taken.response(Status::OKAY) };
            (vec![response], DeviceError::WrongOperation { sent: 0, answered: 1 }, 1)
        },
        // Not an indirect request, so not even this.
        |taken| {
            let response = Response { op: Opcode::INDIRECT, ..taken.response(Status::OKAY) };
            (vec![response], DeviceError::WrongOperation { sent: 0, answered: 6 }, 1)
        },
    ];
    for nonsense in cases {
        let mut f = plain();
        let taken = f.one_read();
        let (responses, error, in_flight) = nonsense(&taken);
        f.answer(responses);
        f.fails(error, in_flight);
    }
}

#[test]
fn a_second_answer_to_one_request_ends_the_connection() {
    let mut f = plain();
    f.submit_reads(2);
    f.queue.publish().unwrap();
    let taken = f.bed.backend().take(0);
    let response = taken[0].response(Status::OKAY);
    f.answer([response, response]);
    let (finished, done) = f.finish();
    let error = DeviceError::ForeignResponse { id: response.id };
    assert_eq!(finished, Err(error));
    let results: Vec<_> = done.iter().map(|completion| (completion.io.cookie, completion.result)).collect();
    assert_eq!(results, [(0, Ok(())), (1, Err(IoError::Device(error)))]);
    f.stop();
}

#[test]
fn a_producer_index_that_runs_ahead_ends_the_connection() {
    for jump in [2u32, 32, 33, 1 << 31, u32::MAX] {
        let mut f = plain();
        f.one_read();
        use ringbuf::{Field, RingMem};
        let ring = f.queue.link.parts.ring.as_ref().unwrap();
        let index = ring.mem().load(Field::RspProd);
        ring.mem().store(Field::RspProd, index.plus(jump));
        f.fails(DeviceError::CorruptRing, 1);
    }
}

/// Nobody looks at XenStore meanwhile, as in a guest with nothing but this one thread.
#[test]
fn whoever_can_only_wait_is_told_of_a_silent_backend() {
    let timeout = Duration::from_millis(300);
    let mut f = fixture(|_, config| config.timeout = timeout);
    f.submit_reads(2);
    let buffer = f.buffer(4096);
    let (mut others, began) = (Vec::new(), f.queue.clock().now());
    let done = f.queue.execute(Io::write(0, buffer), &mut |other| others.push(other)).unwrap();
    let error = DeviceError::Silent { seconds: 0 };
    assert!(f.queue.clock().now() - began >= timeout);
    assert_eq!(done.result, Err(IoError::Device(error)));
    assert!(done.io.buffer.is_some(), "the backend maps nothing");
    assert!(others.iter().all(|other| other.result == Err(IoError::Device(error))));
    assert_eq!((others.len(), f.queue.in_flight()), (2, 0));
    f.stop();
}

/// Waits for requests, and takes them.
fn taken(bed: &Bed) -> Vec<Taken> {
    loop {
        let taken = bed.backend().take(0);
        if !taken.is_empty() {
            return taken;
        }
        thread::yield_now();
    }
}

#[test]
fn slow_answers_are_not_silence() {
    let mut f = fixture(|setup, config| {
        setup.features.max_indirect_segments = 0;
        config.timeout = Duration::from_millis(400);
    });
    let buffer = f.buffer(44 * 4096);
    thread::scope(|scope| {
        let bed = &f.bed;
        scope.spawn(move || {
            for request in taken(bed) {
                thread::sleep(Duration::from_millis(150));
                let mut backend = bed.backend();
                backend.answer(0, request.response(Status::OKAY), 1);
                backend.publish(0);
            }
        });
        let done = f.queue.execute(Io::read(0, buffer), &mut |_| ()).unwrap();
        assert_eq!(done.result, Ok(()));
    });
    f.stop();
}

#[test]
fn whoever_waits_is_told_of_nonsense() {
    type Harm = fn(&mut Backend, &Taken);
    let harms: [(Harm, &str); 3] = [
        (
            |backend, taken| backend.answer(0, Response { id: !taken.id, ..taken.response(Status::OKAY) }, 1),
            "id",
        ),
        (
            |backend, taken| backend.answer(0, Response { op: Opcode(9), ..taken.response(Status::OKAY) }, 1),
            "operation",
        ),
        (
            |backend, _| {
                use ringbuf::{Field, RingMem};
                backend.rings[0].ring.mem().store(Field::RspProd, ringbuf::Index::new(77));
            },
            "index",
        ),
    ];
    for (harm, words) in harms {
        let mut f = plain();
        let buffer = f.buffer(4096);
        let done = thread::scope(|scope| {
            let bed = &f.bed;
            scope.spawn(move || {
                let taken = taken(bed).remove(0);
                let mut backend = bed.backend();
                harm(&mut backend, &taken);
                backend.publish(0);
                backend.ring_the_bell(0);
            });
            f.queue.execute(Io::read(0, buffer), &mut |other| panic!("{other:?}")).unwrap()
        });
        let Err(IoError::Device(error)) = done.result else { panic!("{words}: {:?}", done.result) };
        assert!(error.to_string().contains(words), "{error}");
        f.stop();
    }
}

#[test]
fn an_indirect_answer_may_name_either_operation() {
    for op in [Opcode::WRITE, Opcode::INDIRECT] {
        let mut f = plain();
        let buffer = f.buffer(64 * 4096);
        f.queue.submit(Io::write(0, buffer)).unwrap();
        f.queue.publish().unwrap();
        let taken = f.bed.backend().take(0).remove(0);
        assert!(taken.indirect && taken.segments.len() == 64);
        f.answer([Response { op, ..taken.response(Status::OKAY) }]);
        assert_eq!(f.finish().0, Ok(1), "operation {op}");
        f.stop();
    }
}

#[test]
fn a_page_still_mapped_at_its_answer_is_never_used_again() {
    let mut f = plain();
    f.bed.backend().clings = true;
    let taken = f.one_read();
    f.bed.backend().run(&taken);
    f.answer([taken.response(Status::OKAY)]);
    let (finished, done) = f.finish();
    let gref = taken.segments[0].gref;
    assert_eq!(finished, Err(DeviceError::StillMapped(gref)));
    assert_eq!(done[0].result, Err(IoError::Device(DeviceError::StillMapped(gref))));
    assert!(done[0].io.buffer.is_none());
    assert!(f.queue.stats().quarantined >= 1);
    f.stop();
}

#[test]
fn what_cannot_be_done_is_rejected_with_the_reason() {
    let mut f = fixture(|setup, _| {
        setup.disk.sector_size = 4096;
        setup.disk.physical_sector_size = 4096;
    });
    let capacity = 64 * 1024;
    let mut reject = |io: Io, expected: RejectReason| {
        let what = format!("{io:?}");
        let rejected = f.queue.submit(io).map(|_| ()).unwrap_err();
        assert_eq!(rejected.reason, expected, "{what}");
        if let Some(buffer) = rejected.io.buffer {
            f.queue.free_buffer(buffer);
        }
    };
    let other = {
        let mut f = plain();
        let buffer = f.buffer(4096);
        f.stop();
        buffer
    };
    reject(Io::read(0, other), RejectReason::ForeignBuffer);
    reject(Io { op: Operation::Read, ..Io::flush() }, RejectReason::WrongShape);
    reject(Io { len: 512, ..Io::flush() }, RejectReason::WrongShape);
    reject(Io::discard_securely(0, 8), RejectReason::NotSupported);
    let range = |sector, count| RejectReason::OutOfRange { sector, count, capacity };
    reject(Io::discard(capacity - 8, 16), range(capacity - 8, 16));
    reject(Io::discard(u64::MAX, u64::MAX), range(u64::MAX, u64::MAX));
    let mut with_data = |change: fn(Io) -> Io, expected| {
        let buffer = f.queue.alloc_buffer(8192).unwrap();
        let rejected = f.queue.submit(change(Io::write(0, buffer))).map(|_| ()).unwrap_err();
        assert_eq!(rejected.reason, expected);
        f.queue.free_buffer(rejected.io.buffer.unwrap());
    };
    with_data(|io| Io { op: Operation::Flush, ..io }, RejectReason::WrongShape);
    with_data(|io| io.part(0, 0), RejectReason::WrongShape);
    with_data(|io| io.part(4096, 8192), RejectReason::OutsideBuffer);
    with_data(|io| io.part(u32::MAX, u32::MAX), RejectReason::OutsideBuffer);
    with_data(|io| io.part(512, 4096), RejectReason::Misaligned(4096));
    with_data(|io| io.part(0, 512), RejectReason::Misaligned(4096));
    with_data(|io| Io { sector: 1, ..io }, RejectReason::Misaligned(4096));
    with_data(|io| Io { sector: 64 * 1024 - 8, ..io }, range(capacity - 8, 16));
    with_data(|io| Io { sector: 0u64.wrapping_sub(8), ..io }, range(u64::MAX - 7, 16));
    assert_eq!((f.queue.in_flight(), f.queue.stats().submitted), (0, 0));
    f.stop();
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let mut f = fixture(|setup, _| setup.disk.info = DiskInfo::READ_ONLY);
    for op in [Operation::Write, Operation::WriteBarrier] {
        let buffer = f.buffer(4096);
        let rejected = f.queue.submit(Io { op, ..Io::write(0, buffer) }).unwrap_err();
        assert_eq!(rejected.reason, RejectReason::ReadOnly);
    }
    assert_eq!(f.queue.submit(Io::discard(0, 8)).unwrap_err().reason, RejectReason::ReadOnly);
    f.one_read();
    f.stop();
}
