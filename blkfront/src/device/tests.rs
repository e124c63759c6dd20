#![expect(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

use core::time::Duration;
use std::{thread, vec};

use blkif_proto::{Discard, Op, Operations, keys::BackendFeatures, keys::RequestMaxima};
use xen_platform::{Change, Store, StoreError, fake};

use super::*;
use crate::{Abi, DeviceError, Io, Operation, RejectReason, SegmentChoice, SegmentMode, fake::*};

mod recovery;
mod refusals;

type World = fake::World;

fn config() -> Config {
    Config { timeout: Duration::from_secs(10), ..Config::default() }
}

fn connect(bed: &Bed, config: Config) -> (Device<World>, Vec<Queue<World>>) {
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    frontend.configure(config).unwrap().set_up_queues().unwrap().start().unwrap()
}

fn stop(device: Device<World>, queues: Vec<Queue<World>>) -> World {
    let stopped = device.stop(queues, &mut |late| panic!("{late:?}")).map_err(|kept| kept.error).unwrap();
    assert!(stopped.error().is_none(), "{:?}", stopped.error());
    stopped.unconfigure().unwrap()
}

fn everything() -> BackendFeatures {
    BackendFeatures {
        max_ring_pages: 16,
        max_queues: 4,
        max_indirect_segments: 256,
        request_maxima: Some(RequestMaxima { requests: 256, segments: 255, bytes: 255 * 4096 }),
        persistent: true,
        operations: Operations {
            flush: true,
            barrier: true,
            discard: Some(Discard { granularity: 0, alignment: 0, secure: false }),
        },
        ..BackendFeatures::ORIGINAL
    }
}

fn bed(features: BackendFeatures) -> Bed {
    Bed::new(Setup { features, ..Setup::plain(64 * 1024) })
}

/// Bytes that differ from place to place.
fn pattern(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (at / 4).wrapping_mul(0x9E37).wrapping_add(seed + at % 4) as u8).collect()
}

fn write(queue: &mut Queue<World>, sector: u64, bytes: &[u8]) {
    let buffer = queue.alloc_buffer(bytes.len()).unwrap();
    buffer.write(0, bytes);
    let io = Io::write(sector, buffer).part(0, bytes.len() as u32);
    let done = queue.execute(io, &mut |other| panic!("{other:?}")).unwrap();
    assert_eq!(done.result, Ok(()));
    queue.free_buffer(done.io.buffer.unwrap());
}

fn read(queue: &mut Queue<World>, sector: u64, len: usize) -> Vec<u8> {
    let buffer = queue.alloc_buffer(len).unwrap();
    let io = Io::read(sector, buffer).part(0, len as u32);
    let done = queue.execute(io, &mut |other| panic!("{other:?}")).unwrap();
    assert_eq!(done.result, Ok(()));
    let mut bytes = vec![0; len];
    let buffer = done.io.buffer.unwrap();
    buffer.read(0, &mut bytes);
    queue.free_buffer(buffer);
    bytes
}

#[test]
fn a_whole_life_against_the_original_protocol() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (device, mut queues) = connect(&bed, config());
    let negotiated = device.negotiated();
    assert_eq!((negotiated.queues, negotiated.ring_pages, negotiated.ring_entries), (1, 1, 32));
    assert_eq!((negotiated.segments, negotiated.max_segments), (SegmentMode::Direct, 11));
    assert!(!negotiated.persistent);
    let disk = *device.capabilities();
    assert_eq!((disk.sectors, disk.sector_size, disk.largest_request), (64 * 1024, 512, 44 * 1024));
    assert!(!disk.read_only && !disk.flush && !disk.barrier && disk.discard.is_none());

    let bytes = pattern(1, 300 * 1024 + 512);
    write(&mut queues[0], 77, &bytes);
    assert_eq!(&bed.backend().image[77 * 512..][..bytes.len()], &bytes[..]);
    assert_eq!(read(&mut queues[0], 77, bytes.len()), bytes);
    assert!(bed.backend().seen.iter().all(|request| request.segments.len() <= 11 && !request.indirect));

    stop(device, queues);
    assert_eq!(connection_keys(&bed), Vec::<String>::new());
    assert_eq!(bed.frontend_key("state").as_deref(), Some("1"));
    let leaks = bed.machine.leaks();
    assert_eq!((leaks.mapped, leaks.granted, leaks.pages, leaks.ports), (0, 0, 0, 0), "{leaks:?}");
}

/// Every way of large requests, with and without persistent grants, in every layout, on one and several ring pages.
#[test]
fn data_arrives_whole_in_every_combination() {
    for segments in [SegmentChoice::Direct, SegmentChoice::Blocks, SegmentChoice::Indirect] {
        for persistent in [false, true] {
            for (abi, ring_pages) in [(Abi::X86_64, 1), (Abi::X86_32, 4), (Abi::Arm, 16)] {
                let bed = bed(everything());
                let config = Config { segments, persistent, abi, ring_pages, ..config() };
                let (device, mut queues) = connect(&bed, config);
                let what = format!("{}", device.negotiated());
                assert_eq!(device.negotiated().persistent, persistent, "{what}");
                let bytes = pattern(3, 3 * 1024 * 1024 + 1536);
                write(&mut queues[0], 8, &bytes);
                assert!(read(&mut queues[0], 8, bytes.len()) == bytes, "{what}");
                let backend = bed.backend();
                let most = backend.seen.iter().map(|request| request.segments.len()).max();
                assert!(most > Some(11) || segments == SegmentChoice::Direct, "{what}: {most:?}");
                assert_eq!(
                    backend.seen.iter().any(|r| r.indirect),
                    segments == SegmentChoice::Indirect,
                    "{what}"
                );
                drop(backend);
                stop(device, queues);
                let leaks = bed.machine.leaks();
                assert_eq!((leaks.mapped, leaks.granted, leaks.pages), (0, 0, 0), "{what}: {leaks:?}");
            }
        }
    }
}

#[test]
fn segment_blocks_are_preferred_and_reductions_told() {
    let bed = bed(BackendFeatures { max_ring_pages: 4, max_queues: 2, ..everything() });
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    assert_eq!(frontend.info().features.max_queues, 2);
    let configured =
        frontend.configure(Config { queues: 3, ring_pages: 16, max_segments: 4096, ..config() }).unwrap();
    let negotiated = configured.negotiated();
    assert_eq!(negotiated.segments, SegmentMode::Blocks);
    assert_eq!((negotiated.queues, negotiated.ring_pages), (2, 4));
    let told: Vec<_> = negotiated.reductions.iter().map(|r| (r.key, r.wanted, r.offered, r.used)).collect();
    assert!(told.contains(&("multi-queue-max-queues", 3, 2, 2)), "{told:?}");
    assert!(told.contains(&("max-ring-pages", 16, 4, 4)), "{told:?}");
}

#[test]
fn rings_are_a_power_of_two_of_pages_and_no_deeper_than_the_backend_takes() {
    for (asked, pages, depth) in
        [(0, 1, 32), (1, 1, 32), (3, 2, 64), (5, 4, 128), (31, 8, 256), (u32::MAX, 8, 256)]
    {
        let bed = bed(BackendFeatures { max_ring_pages: 8, ..everything() });
        let (device, queues) = connect(&bed, Config { ring_pages: asked, queues: 0, ..config() });
        let negotiated = device.negotiated();
        assert_eq!(
            (queues.len(), negotiated.ring_pages, negotiated.ring_entries),
            (1, pages, depth),
            "{asked}"
        );
        assert_eq!(queues[0].depth(), depth as usize);
        stop(device, queues);
    }
}

#[test]
fn an_untrusted_backend_gets_no_persistent_grants() {
    let bed = Bed::new(Setup { features: everything(), trusted: false, ..Setup::plain(64) });
    let (device, queues) = connect(&bed, config());
    assert!(!device.info().trusted && !device.negotiated().persistent);
    assert_eq!(bed.frontend_key("feature-persistent").as_deref(), Some("0"));
    stop(device, queues);
}

/// Linux publishes persistent grants and the operations only when it connects.
#[test]
fn what_a_backend_says_late_counts() {
    let early = BackendFeatures { persistent: false, operations: Operations::default(), ..everything() };
    let bed = Bed::new(Setup { features: early, late: Some(everything()), ..Setup::plain(4096) });
    let (device, mut queues) = connect(&bed, config());
    assert_eq!(bed.frontend_key("feature-persistent").as_deref(), Some("1"));
    assert!(device.negotiated().persistent, "{}", device.negotiated());
    assert!(device.negotiated().reductions.iter().all(|cut| cut.key != "feature-persistent"));
    assert!(device.capabilities().flush && device.capabilities().discard.is_some());
    let bytes = pattern(6, 200 * 1024);
    write(&mut queues[0], 0, &bytes);
    assert!(read(&mut queues[0], 0, bytes.len()) == bytes);
    stop(device, queues);
    let leaks = bed.machine.leaks();
    assert_eq!((leaks.mapped, leaks.granted, leaks.pages), (0, 0, 0), "{leaks:?}");
}

#[test]
fn persistent_grants_need_both_ends() {
    let bed = bed(BackendFeatures { persistent: false, ..everything() });
    let (device, mut queues) = connect(&bed, Config { segments: SegmentChoice::Indirect, ..config() });
    assert!(!device.negotiated().persistent);
    let bytes = pattern(6, 200 * 1024);
    write(&mut queues[0], 0, &bytes);
    assert!(read(&mut queues[0], 0, bytes.len()) == bytes);
    stop(device, queues);
}

#[test]
fn queues_work_on_threads_of_their_own() {
    let bed = bed(everything());
    let (device, queues) = connect(&bed, Config { queues: 4, ..config() });
    assert_eq!(queues.len(), 4);
    let workers: Vec<_> = queues
        .into_iter()
        .map(|mut queue| {
            thread::spawn(move || {
                let bytes = pattern(queue.index(), 64 * 1024);
                let sector = u64::from(queue.index()) * 1000;
                for _ in 0..20 {
                    write(&mut queue, sector, &bytes);
                    assert!(read(&mut queue, sector, bytes.len()) == bytes);
                }
                queue
            })
        })
        .collect();
    let mut queues: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    queues.reverse();
    stop(device, queues);
}

#[test]
fn late_and_spurious_events_lose_nothing() {
    let bed = bed(everything());
    let (device, queues) = connect(&bed, Config { queues: 3, ..config() });
    bed.machine.set_faults(fake::Faults {
        late_events: 300,
        spurious_events: 300,
        ..fake::Faults::default()
    });
    let workers: Vec<_> = queues
        .into_iter()
        .map(|mut queue| {
            thread::spawn(move || {
                let sector = u64::from(queue.index()) * 100;
                for n in 0..25 {
                    let bytes = pattern(n, 4096);
                    write(&mut queue, sector, &bytes);
                    assert!(read(&mut queue, sector, bytes.len()) == bytes);
                }
                queue
            })
        })
        .collect();
    let queues: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    let struck = bed.machine.faults_struck();
    assert!(struck.iter().any(|fault| matches!(fault, fake::Fault::Late(..))), "the schedule did strike");
    assert!(struck.iter().any(|fault| matches!(fault, fake::Fault::Spurious(..))));
    bed.machine.set_faults(fake::Faults::default());
    stop(device, queues);
}

#[test]
fn stale_keys_of_an_earlier_driver_are_removed() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let path = bed.path();
    let stale = ["ring-ref0", "ring-ref1", "ring-page-order", "num-ring-pages", "multi-queue-num-queues"];
    let mut store = bed.machine.store().connect(bed.guest).unwrap();
    for key in stale {
        store.apply(&[Change::Write(&format!("{path}/{key}"), "1")]).unwrap();
    }
    store.apply(&[Change::Write(&format!("{path}/queue-0/ring-ref"), "1")]).unwrap();
    let (device, queues) = connect(&bed, config());
    let keys = connection_keys(&bed);
    for key in stale.iter().chain(&["queue-0"]) {
        assert!(!keys.iter().any(|present| present == key), "{key} is still there");
    }
    stop(device, queues);
}

#[test]
fn a_resize_is_seen_and_used() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (mut device, mut queues) = connect(&bed, config());
    while device.poll_control().unwrap().is_some() {}
    let beyond = device.capabilities().sectors;
    let buffer = queues[0].alloc_buffer(512).unwrap();
    let rejected = queues[0].submit(Io::read(beyond, buffer).part(0, 512)).unwrap_err();
    assert!(matches!(rejected.reason, RejectReason::OutOfRange { .. }));
    queues[0].free_buffer(rejected.io.buffer.unwrap());
    bed.backend().resize(beyond + 1000);
    let event = device.wait_control(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(event, Some(DeviceEvent::Resized { sectors }) if sectors == beyond + 1000), "{event:?}");
    assert_eq!(device.capabilities().sectors, beyond + 1000);
    write(&mut queues[0], beyond, &pattern(9, 512));
    stop(device, queues);
}

#[test]
fn io_goes_on_while_the_backend_asks_to_close() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (mut device, mut queues) = connect(&bed, config());
    bed.backend().write_state(State::Closing);
    let event = device.wait_control(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(event, Some(DeviceEvent::Closing)), "{event:?}");
    write(&mut queues[0], 0, &pattern(2, 8192));
    stop(device, queues);
}

#[test]
fn stop_wants_every_queue() {
    let bed = bed(everything());
    let (device, mut queues) = connect(&bed, Config { queues: 2, ..config() });
    let last = queues.pop().unwrap();
    let Err(NotStopped { error, device, mut queues }) = device.stop(queues, &mut |_| ()) else {
        panic!("stopped without a queue");
    };
    assert!(matches!(error, Error::Queues { given: 1, owned: 2 }), "{error}");
    queues.push(last);
    stop(device, queues);
}

#[test]
fn stop_ends_what_the_backend_never_answers() {
    let bed = Bed::new(Setup { serve: false, ..Setup::plain(1024) });
    let (device, mut queues) = connect(&bed, Config { timeout: Duration::from_millis(100), ..config() });
    let buffer = queues[0].alloc_buffer(4096).unwrap();
    queues[0].submit(Io::write(0, buffer)).unwrap();
    let mut late = Vec::new();
    let mut stopped =
        device.stop(queues, &mut |completion| late.push(completion)).map_err(|kept| kept.error).unwrap();
    assert!(stopped.error().is_none());
    assert_eq!(late.len(), 1);
    let Completion { io, result, .. } = late.remove(0);
    assert_eq!(result, Err(IoError::Cancelled));
    stopped.free_buffer(io.buffer.expect("the backend has let go of it"));
    // The process goes on: nothing else takes its memory back.
    let _world = stopped.unconfigure().unwrap();
    let leaks = bed.machine.leaks();
    assert_eq!((leaks.granted, leaks.pages, leaks.ports), (0, 0, 0), "{leaks:?}");
}

#[test]
fn the_reason_of_a_failed_queue_is_left_for_people() {
    let bed = Bed::new(Setup { serve: false, ..Setup::plain(64) });
    let (device, mut queues) = connect(&bed, config());
    let op = Operation::Read;
    let buffer = queues[0].alloc_buffer(4096).unwrap();
    queues[0].submit(Io { op, ..Io::read(0, buffer) }).unwrap();
    queues[0].publish().unwrap();
    {
        let mut backend = bed.backend();
        let taken = backend.take(0);
        let response =
            blkif_proto::Response { id: !taken[0].id, ..taken[0].response(blkif_proto::Status::OKAY) };
        backend.answer(0, response, 1);
        backend.publish(0);
    }
    let error = queues[0].finish(&mut |_| ()).unwrap_err();
    assert!(matches!(error, DeviceError::ForeignResponse { .. }));
    let stopped = device.stop(queues, &mut |_| ()).map_err(|kept| kept.error).unwrap();
    let text = bed.frontend_key("error").unwrap();
    assert!(text.contains("no outstanding request"), "{text}");
    stopped.unconfigure().unwrap();
    assert_eq!(bed.frontend_key("error"), None);
}
