//! All of it over the model of Xen in this process.

use alloc::{format, string::ToString as _, vec::Vec};

use blkfront::{
    Capabilities, Discard, SegmentChoice,
    fake::{Bed, Setup, connection_keys},
};
use xen_platform::{
    DomId,
    wire::{Permission, Rights},
};

use super::*;
use crate::verify::extents;

/// A guest with a disk of 16 MiB, as the tool stack leaves it.
fn bed(setup: impl FnOnce(&mut Setup)) -> Bed {
    let mut what = Setup::plain(32 * 1024);
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

fn told(bed: &Bed, line: &str) -> (bool, String) {
    let mut out = String::new();
    let done = run(&bed.world(), line, &mut out);
    (done, out)
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
        let (done, out) = std::thread::scope(|scope| {
            let guest = scope.spawn(|| told(&bed, "verify segments=direct"));
            let mut harmed = false;
            while !guest.is_finished() {
                let mut backend = bed.backend();
                for queue in 0..backend.rings.len() {
                    let taken = backend.take(queue);
                    for request in taken {
                        // Between the writes and the reads there is a flush.
                        if request.op == blkif_proto::Op::Flush && !harmed {
                            harm(&mut backend.image);
                            harmed = true;
                        }
                        let status = backend.run(&request);
                        backend.answer(queue, request.response(status), request.entries);
                    }
                    backend.publish(queue);
                }
                drop(backend);
                std::thread::yield_now();
            }
            guest.join().unwrap()
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
fn orders_that_make_no_sense_are_refused() {
    let bed = bed(|_| ());
    for (line, told_of) in [
        ("verfy", "what is 'verfy'"),
        ("info now", "what is 'now'"),
        ("info queues=0", "what is 'queues=0'"),
        ("info queues=many", "what is 'queues=many'"),
        ("info segments=all", "what is 'segments=all'"),
        ("info persistent=maybe", "what is 'persistent=maybe'"),
        ("info device=1", "no disk in /local/domain/"),
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
