//! Backends that do not connect, or do not close.

use super::*;

#[test]
fn a_missing_device_and_a_silent_backend_are_errors_with_names() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let nowhere = Frontend::probe(bed.world(), "/local/domain/1/device/vbd/9").err();
    let Some(Error::Store(StoreError::NoEntry(path) | StoreError::Denied(path))) = &nowhere else {
        panic!("{nowhere:?}");
    };
    assert!(path.contains("vbd/9"), "{path}");
    bed.backend().follows = false;
    bed.backend().write_state(State::Initialising);
    let silent = Frontend::probe_within(bed.world(), &bed.path(), Duration::from_millis(50)).err();
    assert!(matches!(&silent, Some(Error::TimedOut { wanted: "InitWait", .. })), "{silent:?}");
}

#[test]
fn a_backend_that_never_connects_is_an_error_and_gets_nothing() {
    let bed = bed(everything());
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    bed.backend().follows = false;
    let limit = Duration::from_millis(50);
    let prepared = frontend
        .configure(Config { timeout: limit, queues: 2, ..config() })
        .unwrap()
        .set_up_queues()
        .unwrap();
    let silent = prepared.start().err();
    assert!(matches!(&silent, Some(Error::TimedOut { wanted: "Connected", .. })), "{silent:?}");
    assert_eq!(connection_keys(&bed), Vec::<String>::new());
    assert_eq!(bed.frontend_key("state").as_deref(), Some("6"));
    let leaks = bed.machine.leaks();
    assert_eq!((leaks.mapped, leaks.granted, leaks.pages, leaks.ports), (0, 0, 0, 0), "{leaks:?}");
}

#[test]
fn a_backend_that_does_not_follow_is_left_behind() {
    let bed = bed(everything());
    let (device, queues) = connect(&bed, Config { timeout: Duration::from_millis(50), ..config() });
    bed.backend().follows = false;
    let stopped = device.stop(queues, &mut |_| ()).map_err(|kept| kept.error).unwrap();
    assert!(matches!(stopped.error(), Some(Error::TimedOut { .. })), "{:?}", stopped.error());
    assert_eq!(bed.frontend_key("state").as_deref(), Some("6"));
}

#[test]
fn a_backend_that_refuses_gives_its_reason() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
    {
        let mut backend = bed.backend();
        backend.follows = false;
        backend.write("error", "no such image");
    }
    let prepared = frontend.configure(config()).unwrap().set_up_queues().unwrap();
    bed.backend().write_state(State::Closing);
    let refused = prepared.start().err();
    assert!(
        matches!(&refused, Some(Error::Closed { reason, .. }) if reason == ": no such image"),
        "{refused:?}"
    );
    assert_eq!(bed.frontend_key("state").as_deref(), Some("6"));
    assert_eq!(bed.machine.leaks().granted, 0);
}

#[test]
fn nonsense_keys_are_named() {
    for (key, value) in
        [("sectors", "0"), ("sector-size", "500"), ("info", "many"), ("sectors", "99999999999999999999")]
    {
        let bed = bed(BackendFeatures::ORIGINAL);
        let frontend = Frontend::probe(bed.world(), &bed.path()).unwrap();
        bed.backend().follows = false;
        let prepared = frontend.configure(config()).unwrap().set_up_queues().unwrap();
        {
            let mut backend = bed.backend();
            let disk = backend.setup.disk;
            disk.emit(|key, value| backend.write(key, value));
            backend.write(key, value);
            backend.write_state(State::Connected);
        }
        let error = prepared.start().err();
        assert!(
            matches!(&error, Some(Error::Record { error, .. }) if error.key() == key),
            "{key}={value}: {error:?}"
        );
    }
}

/// XSA-349, from the other seat: any number of events is one look, and none is left when the flood is over.
#[test]
fn a_flood_of_watch_events_holds_nothing_up() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (mut device, mut queues) = connect(&bed, config());
    let mut polls = 0;
    for round in 0..20 {
        (0..1000).for_each(|_| bed.backend().write_state(State::Connected));
        assert!(device.poll_control().unwrap().is_none());
        write(&mut queues[0], 0, &pattern(round, 4096));
        polls += 1;
    }
    while device.control.has_events().unwrap() {
        polls += 1;
        assert!(polls < 200, "events have piled up");
    }
    assert_eq!(read(&mut queues[0], 0, 4096), pattern(19, 4096));
    stop(device, queues);
}
