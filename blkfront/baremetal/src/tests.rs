//! All of it over the model of Xen in this process.

use alloc::{format, string::ToString as _, vec::Vec};
use core::time::Duration;
use std::time::Instant;

use blkfront::{
    Capabilities, Discard, SegmentChoice,
    fake::{Backend, Bed, Setup, Taken, connection_keys},
};
use blkfront_bench::{Job, Mode};
use blkif_proto::{Opcode, Response, Status, xenbus::State};
use ringbuf::{Field, Index, RingMem as _};
use sha2::{Digest as _, Sha256};
use xen_platform::{
    DomId,
    wire::{Permission, Rights},
};

use super::*;
use crate::verify::extents;

mod asked;
mod soak;

/// A guest with a disk of 16 MiB, as the tool stack leaves it.
fn bed(setup: impl FnOnce(&mut Setup)) -> Bed {
    bed_of(32 * 1024, setup)
}

fn bed_of(sectors: u64, setup: impl FnOnce(&mut Setup)) -> Bed {
    let mut what = Setup::plain(sectors);
    setup(&mut what);
    let bed = Bed::new(what);
    let home = format!("/local/domain/{}", bed.guest);
    let (id, disks) = (format!("{home}/domid"), format!("{home}/device/vbd"));
    let readable = [Permission::new(DomId::DOM0, Rights::None), Permission::new(bed.guest, Rights::Read)];
    let mut backend = bed.backend();
    let made = backend.store.transact(|tree| {
        tree.write(&id, bed.guest.to_string())?;
        [&id, &disks].into_iter().try_for_each(|node| tree.set_permissions(node, &readable))
    });
    made.unwrap();
    drop(backend);
    bed
}

fn all_features(setup: &mut Setup) {
    let features = &mut setup.features;
    features.max_ring_pages = 16;
    features.max_queues = 4;
    features.persistent = true;
    features.max_indirect_segments = 256;
    features.operations.flush = true;
}

/// Whether all went well, and what the guest tells.
fn told(bed: &Bed, line: &str) -> (bool, String) {
    meanwhile(bed, line, || std::thread::sleep(Duration::from_millis(1)))
}

/// What the guest tells while time passes and `turn` is done again and again.
fn meanwhile(bed: &Bed, line: &str, mut turn: impl FnMut()) -> (bool, String) {
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let mut out = String::new();
            (run(&bed.world(), line, &mut out), out)
        });
        let mut last = Instant::now();
        while !guest.is_finished() {
            turn();
            bed.machine.advance(last.elapsed());
            last = Instant::now();
        }
        guest.join().unwrap()
    })
}

/// What the guest tells while its backend, which does not serve by itself, does `work` for each request.
fn served(bed: &Bed, line: &str, mut work: impl FnMut(&mut Backend, &Taken) -> Status) -> (bool, String) {
    meanwhile(bed, line, || {
        let mut backend = bed.backend();
        for queue in 0..backend.rings.len() {
            for request in backend.take(queue) {
                let status = work(&mut backend, &request);
                backend.answer(queue, request.response(status), request.entries);
            }
            backend.publish(queue);
        }
        drop(backend);
        std::thread::yield_now();
    })
}

/// What the guest tells to whom `event` happens while it is at work.
fn while_it_runs(bed: &Bed, line: &str, event: impl FnOnce(&mut Backend)) -> String {
    let mut event = Some(event);
    let (_, out) = meanwhile(bed, line, || {
        let mut backend = bed.backend();
        if backend.seen.len() >= 20
            && let Some(event) = event.take()
        {
            event(&mut backend);
        }
        drop(backend);
        std::thread::sleep(Duration::from_micros(100));
    });
    assert!(event.is_none(), "over before it happened: {out}");
    out
}

#[test]
fn a_disk_is_told_of_and_left_as_it_was() {
    let bed = bed(all_features);
    for _ in 0..2 {
        let (done, out) = told(&bed, "info ring-pages=4");
        assert!(done, "{out}");
        for line in ["size 16777216 bytes in sectors of 512", "access read-write", "done"] {
            assert!(out.lines().any(|told| told == line), "{line} in {out}");
        }
    }
    assert_eq!(connection_keys(&bed), Vec::<String>::new());
}

#[test]
fn a_disk_that_is_right_is_verified_in_every_way() {
    let bed = bed(all_features);
    let (done, out) = told(&bed, "verify");
    assert!(done, "{out}");
    assert_eq!(out.lines().filter(|line| line.starts_with("verified ")).count(), 5, "{out}");
    let backend = bed.backend();
    assert!(backend.seen.iter().any(|request| request.indirect && request.segments.len() == 256));
    assert!(backend.seen.iter().any(|request| !request.indirect && request.segments.len() == 11));
}

#[test]
fn a_disk_that_forgets_or_mixes_up_is_found_out() {
    type Harm = fn(&mut [u8]);
    let harms: [Harm; 3] = [
        |image| image[100] ^= 1,
        |image| image.copy_within(0..512, 8 * 512),
        |image| {
            let end = image.len();
            image[end - 512..].fill(0);
        },
    ];
    for (index, harm) in harms.into_iter().enumerate() {
        let bed = bed(|setup| setup.features.operations.flush = true);
        bed.backend().setup.serve = false;
        let mut harmed = false;
        let (done, out) = served(&bed, "verify segments=direct", |backend, request| {
            // Between the writes and the reads there is a flush.
            if request.op == blkif_proto::Op::Flush && !harmed {
                harm(&mut backend.image);
                harmed = true;
            }
            backend.run(request)
        });
        assert!(!done, "harm {index}: {out}");
        assert!(out.contains("failed: byte ") && out.contains(" instead of "), "harm {index}: {out}");
    }
}

#[test]
fn a_backend_that_does_not_answer_is_not_waited_for() {
    let bed = bed(|setup| setup.serve = false);
    let (done, out) = told(&bed, "verify segments=direct timeout=1");
    assert!(!done && out.contains("failed: no answer within 1 s"), "{out}");
}

#[test]
fn the_sum_of_a_disk_is_that_of_its_bytes() {
    // The last piece is not whole.
    for (sectors, queues) in [(32 * 1024, 1), (9 * 1024 + 3, 3), (1, 1)] {
        let bed = bed_of(sectors, all_features);
        let image: Vec<u8> = (0..=250u8).cycle().take(usize::try_from(sectors).unwrap() * 512).collect();
        bed.backend().image.clone_from(&image);
        let (done, out) = told(&bed, &format!("sum queues={queues}"));
        let digest = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(done && out.contains(&format!("\nsha256 {digest}\n")), "{out}");
        let backend = bed.backend();
        assert!(backend.seen.iter().all(|request| request.op == blkif_proto::Op::Read));
    }
}

#[test]
fn a_measurement_is_json_on_one_line() {
    let bed = bed(all_features);
    let (done, out) =
        told(&bed, "bench rw=randrw overwrite=yes bs=8192 depth=4 warmup=0 count=200 queues=2 poll-us=0");
    assert!(done, "{out}");
    let json: Vec<_> = out.lines().filter(|line| line.starts_with('{')).collect();
    let [json] = json[..] else { panic!("{out}") };
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((&json["mode"], &json["depth"]), (&"randrw (70 % reads)".into(), &4.into()));
    assert!(json["total"]["ios"].as_u64().unwrap() >= 200, "{json}");
    assert_eq!((&json["connection"]["queues"], &json["cpu"]), (&2.into(), &serde_json::Value::Null));
    for direction in ["read", "write"] {
        assert!(json[direction]["iops"].as_f64().unwrap() > 0.0, "{json}");
        assert!(json[direction]["latency_ns"]["p99_9"].is_u64(), "{json}");
    }
}

#[test]
fn loads_that_do_not_fit_are_refused() {
    let bed = bed(|_| ());
    for (line, told_of) in [
        ("bench rw=randwrite", "this would destroy what is on the disk"),
        ("bench bs=1000", "bs must be a multiple of 512 bytes"),
        ("bench span=100", "100 bytes are too few"),
        ("bench rw=random", "what is 'rw=random'"),
        ("bench rwmix=101", "what is 'rwmix=101'"),
    ] {
        let (done, out) = told(&bed, line);
        assert!(!done && out.contains(told_of), "{line}: {out}");
    }
    assert!(bed.backend().seen.is_empty());
}

#[test]
fn a_backend_that_stays_away_is_not_waited_for() {
    for command in ["soak", "verify segments=direct", "sum", "bench warmup=0"] {
        let bed = bed(|_| ());
        let out = while_it_runs(&bed, &format!("{command} timeout=1"), |backend| {
            backend.disconnect();
            (backend.setup.serve, backend.follows) = (false, false);
            backend.write_state(State::InitWait);
            backend.write_state(State::Closed);
        });
        assert!(out.contains("failed: the backend is gone"), "{command}: {out}");
        let closed = out.contains("I/Os failed when the disk was closed");
        // A measurement keeps nothing in flight while it looks.
        assert!(closed || command.starts_with("bench"), "{command}: {out}");
    }
}

#[test]
fn a_disk_that_is_taken_away_is_let_go() {
    for command in ["verify segments=direct", "sum", "bench warmup=0"] {
        let bed = bed(|_| ());
        let out = while_it_runs(&bed, &format!("{command} timeout=5"), |backend| {
            backend.write_state(State::Closing)
        });
        assert!(out.contains("failed: the disk is being taken away"), "{command}: {out}");
        assert_eq!(connection_keys(&bed), Vec::<String>::new());
    }
}

#[test]
fn answers_that_make_no_sense_end_the_work_with_words() {
    type Lie = fn(&Taken) -> Response;
    let lies: [(Lie, &str); 3] = [
        (
            |taken| Response { id: !taken.id, ..taken.response(Status::OKAY) },
            "response to no outstanding request",
        ),
        (|taken| Response { op: Opcode(99), ..taken.response(Status::OKAY) }, "names operation 99"),
        (|taken| taken.response(Status(77)), "the backend answered with unknown status 77"),
    ];
    for (lie, words) in lies {
        for command in ["soak", "verify segments=direct", "sum", "bench warmup=0"] {
            let bed = bed(|setup| setup.serve = false);
            let (done, out) = meanwhile(&bed, command, || {
                let mut backend = bed.backend();
                for queue in 0..backend.rings.len() {
                    for request in backend.take(queue) {
                        backend.answer(queue, lie(&request), request.entries);
                    }
                    backend.publish(queue);
                }
            });
            assert!(!done && out.contains("failed: ") && out.contains(words), "{command}: {out}");
        }
    }
}

#[test]
fn an_answer_that_comes_twice_ends_the_work_with_words() {
    for command in ["soak", "verify segments=direct", "sum", "bench warmup=0"] {
        let bed = bed(|setup| setup.serve = false);
        let mut first = None;
        let (done, out) = meanwhile(&bed, command, || {
            let mut backend = bed.backend();
            for queue in 0..backend.rings.len() {
                for request in backend.take(queue) {
                    let status = backend.run(&request);
                    let response = *first.get_or_insert(request.response(status));
                    backend.answer(queue, response, request.entries);
                }
                backend.publish(queue);
            }
        });
        let words = "response to no outstanding request";
        assert!(!done && out.contains("failed: ") && out.contains(words), "{command}: {out}");
    }
}

#[test]
fn an_index_that_cannot_be_ends_the_work_with_words() {
    for (command, ahead) in
        [("soak", 0x8000_0000), ("verify segments=direct", 1000), ("sum", 33), ("bench warmup=0", u32::MAX)]
    {
        let bed = bed(|setup| setup.serve = false);
        let (done, out) = meanwhile(&bed, command, || {
            let mut backend = bed.backend();
            if backend.rings.is_empty() || backend.take(0).is_empty() {
                return;
            }
            let mem = backend.rings[0].ring.mem();
            mem.store(Field::RspProd, Index::new(ahead));
            backend.ring_the_bell(0);
        });
        let words = "the backend's ring index is corrupt";
        assert!(!done && out.contains("failed: ") && out.contains(words), "{command}: {out}");
    }
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let bed = bed(|_| ());
    for (line, told_of) in [
        ("verfy", "what is 'verfy'"),
        ("info now", "what is 'now'"),
        ("info queues=0", "what is 'queues=0'"),
        ("info queues=many", "what is 'queues=many'"),
        ("info segments=all", "what is 'segments=all'"),
        ("info persistent=maybe", "what is 'persistent=maybe'"),
        ("info device=1", "no disk in device/vbd"),
    ] {
        let (done, out) = told(&bed, line);
        assert!(!done && out.contains(told_of), "{line}: {out}");
    }
}

#[test]
fn options_say_how_to_connect() {
    let line = "verify device=51712 queues=2 ring-pages=4 max-segments=64 segments=blocks persistent=no extents=9 timeout=3";
    let order = Order::parse(line).unwrap();
    assert_eq!(
        (order.command, order.device, order.extents, order.chosen),
        (Command::Verify, Some(51712), 9, true)
    );
    let config = order.config;
    assert_eq!((config.queues, config.ring_pages, config.max_segments), (2, 4, 64));
    assert_eq!((config.segments, config.persistent), (SegmentChoice::Blocks, false));
    assert_eq!(config.timeout.as_secs(), 3);
    let line = "bench rw=write rwmix=5 bs=1024 depth=3 runtime=4 warmup=0 count=6 span=4096 seed=9";
    let order = Order::parse(&format!("{line} overwrite=yes poll-us=7 timeout=8")).unwrap();
    let seconds = Duration::from_secs;
    let job = Job {
        mode: Mode::Write,
        mix: 5,
        block: 1024,
        depth: 3,
        warmup: seconds(0),
        runtime: seconds(4),
        count: Some(6),
        span: Some(4096),
        seed: 9,
        overwrite: true,
        poll: Duration::from_micros(7),
        patience: seconds(8),
    };
    assert_eq!((order.job, order.seeded, order.chosen), (job, true, false));
    assert!(!Order::parse("verify device=1 extents=2 timeout=1").unwrap().chosen);
    assert_eq!(Order::parse("").unwrap().command, Command::Info);
}

fn disk(sectors: u64, alignment: u32, largest_request: u32) -> Capabilities {
    Capabilities {
        sectors,
        sector_size: alignment,
        physical_sector_size: alignment,
        read_only: false,
        removable: false,
        cdrom: false,
        largest_request,
        alignment,
        flush: true,
        barrier: false,
        discard: None::<Discard>,
    }
}

#[test]
fn places_lie_apart_and_reach_both_ends() {
    for (disk, count) in [
        (disk(65_536, 512, 45_056), 24),
        (disk(65_536, 512, 1 << 20), 24),
        (disk(65_536, 4096, 1 << 20), 24),
        (disk(20_000_000, 512, 1 << 20), 100),
        (disk(100, 512, 45_056), 24),
        (disk(8, 4096, 45_056), 1),
    ] {
        let extents = extents(&disk, count);
        let unit = disk.alignment as usize;
        assert_eq!(extents.first().unwrap().sector, 0);
        if extents.len() > 1 {
            let last = extents.last().unwrap();
            assert_eq!(last.sector + last.sectors as u64, disk.sectors, "{disk:?}");
        }
        for pair in extents.windows(2) {
            assert!(pair[0].sector + pair[0].sectors as u64 <= pair[1].sector, "{disk:?}: {pair:?}");
        }
        for extent in &extents {
            let aligned = extent.offset.is_multiple_of(unit) && (extent.sectors * 512).is_multiple_of(unit);
            assert!(aligned && extent.offset < 4096 && extent.sectors > 0);
        }
    }
    let all = extents(&disk(65_536, 512, 1 << 20), 12);
    let sizes: Vec<_> = all.iter().map(|extent| extent.sectors).collect();
    assert_eq!(sizes, [7, 8, 9, 87, 88, 89, 2047, 2048, 2049, 4095, 4096, 4097]);
}
