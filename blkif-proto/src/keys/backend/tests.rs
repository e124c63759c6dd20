use super::*;
use crate::keys::tests::{ALL, Dir, GARBAGE};

#[test]
fn backend_features_round_trip_and_leave_out_what_is_not() {
    for features in
        [ALL, BackendFeatures::ORIGINAL, BackendFeatures { max_ring_pages: 4, persistent: false, ..ALL }]
    {
        let dir = Dir::emitted(|put| features.emit(put));
        assert_eq!(BackendFeatures::parse(dir.get()), Ok(features));
        assert!(dir.0.values().all(|value| value != "0") || features.operations.discard.is_some());
    }
    assert_eq!(Dir::emitted(|put| BackendFeatures::ORIGINAL.emit(put)).keys(), [""; 0]);
    let all = Dir::emitted(|put| ALL.emit(put)).with("sectors", "1").with("params", "x");
    let stale = BackendFeatures { operations: Operations::default(), ..ALL }.stale(all.keys());
    assert_eq!(
        stale,
        [
            "discard-alignment",
            "discard-granularity",
            "discard-secure",
            "feature-barrier",
            "feature-discard",
            "feature-flush-cache"
        ]
    );
}

#[test]
fn a_backends_absurd_offers_are_brought_down() {
    let dir = Dir::of(&[
        ("max-ring-page-order", "4000000000"),
        ("multi-queue-max-queues", "18446744073709551615"),
        ("feature-max-indirect-segments", "65536"),
        ("max-request-segments", "70000"),
        ("max-requests", "0"),
        ("max-request-size", "4294967296"),
    ]);
    let features = BackendFeatures::parse(dir.get()).unwrap();
    assert_eq!(
        (features.max_ring_pages, features.max_queues, features.max_indirect_segments),
        (32, 256, 4096)
    );
    let maxima = RequestMaxima { requests: 1, segments: 255, bytes: 1_044_480 };
    assert_eq!(features.request_maxima, Some(maxima));
    for garbage in GARBAGE.iter().filter(|garbage| **garbage != "99999999999") {
        let dir = Dir::of(&[("max-ring-page-order", garbage)]);
        assert_eq!(BackendFeatures::parse(dir.get()).unwrap_err().key(), "max-ring-page-order");
    }
    assert_eq!(
        BackendFeatures::parse(Dir::of(&[("feature-barrier", "2")]).get()).unwrap_err().key(),
        "feature-barrier"
    );
}

#[test]
fn the_dialect_follows_from_what_the_backend_writes() {
    let dialect = |pairs: &[(&str, &str)]| {
        let features = BackendFeatures::parse(Dir::of(pairs).get()).unwrap();
        (features.dialect, features.max_ring_pages)
    };
    assert_eq!(dialect(&[("max-ring-page-order", "2"), ("max-ring-pages", "4")]), (RingDialect::Order, 4));
    assert_eq!(dialect(&[("max-ring-pages", "7")]), (RingDialect::NumPages, 4));
    assert_eq!(
        dialect(&[("max-ring-pages", "7"), ("max-request-segments", "33")]),
        (RingDialect::Pages2010, 7)
    );
    assert_eq!(dialect(&[]), (RingDialect::Order, 1));
}

#[test]
fn disks_are_checked_by_the_frontend() {
    let disk = |sectors: &str, size: &str| {
        BackendDisk::parse(Dir::of(&[("sectors", sectors), ("sector-size", size), ("info", "4")]).get())
    };
    let good = disk("2048", "512").unwrap();
    assert_eq!((good.sectors, good.sector_size, good.physical_sector_size), (2048, 512, 512));
    assert_eq!(good.info, DiskInfo::READ_ONLY);
    assert_eq!(BackendDisk::parse(Dir::emitted(|put| good.emit(put)).get()), Ok(good));

    for (sectors, size, key) in [
        ("0", "512", "sectors"),
        ("18014398509481984", "512", "sectors"),
        ("18446744073709551615", "512", "sectors"),
        ("2047", "1024", "sectors"),
        ("", "512", "sectors"),
        ("2048", "256", "sector-size"),
        ("2048", "0", "sector-size"),
        ("2048", "8192", "sector-size"),
        ("2048", "1536", "sector-size"),
        ("2048", "", "sector-size"),
    ] {
        assert_eq!(disk(sectors, size).unwrap_err().key(), key, "{sectors} of {size}");
    }
    assert!(disk("18014398509481983", "512").is_ok());
    for removable in ["1", "2"] {
        let empty = Dir::of(&[("sectors", "0"), ("sector-size", "512"), ("info", removable)]);
        assert_eq!(BackendDisk::parse(empty.get()).unwrap().sectors, 0);
    }
    let odd =
        Dir::of(&[("sectors", "8"), ("sector-size", "512"), ("info", "0"), ("physical-sector-size", "700")]);
    assert_eq!(BackendDisk::parse(odd.get()).unwrap_err().key(), "physical-sector-size");
}
