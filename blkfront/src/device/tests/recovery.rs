//! Backends and drivers that go away, and come back.

use super::*;

/// Waits until the backend is back, and moves the device's only queue to it.
fn reconnect(device: &mut Device<World>, queue: &mut Queue<World>) {
    loop {
        match device.wait_control(Some(Duration::from_secs(5))).unwrap() {
            Some(DeviceEvent::Reconnected(links)) => {
                return links.into_iter().for_each(|link| queue.reconnect(link).unwrap());
            }
            Some(_) => {}
            None => panic!("no reconnection"),
        }
    }
}

#[test]
fn a_removed_device_can_still_be_stopped() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (mut device, queues) = connect(&bed, config());
    {
        // xl block-detach --force: the frontend's directory goes first.
        let (path, mut backend) = (bed.path(), bed.backend());
        backend.follows = false;
        backend.store.apply(&[Change::Remove(&path)]).unwrap();
        backend.disconnect();
        backend.write_state(State::Closed);
    }
    let event = device.wait_control(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(event, Some(DeviceEvent::Lost)), "{event:?}");
    stop(device, queues);
    assert_eq!(bed.frontend_key("state"), None, "not brought back to life");
}

#[test]
fn a_backend_that_closes_and_returns_gets_all_work_again_in_order() {
    let bed = Bed::new(Setup { serve: false, features: everything(), ..Setup::plain(4096) });
    let (mut device, mut queues) = connect(&bed, config());
    let queue = &mut queues[0];
    let mut tickets = Vec::new();
    for n in 0..6u8 {
        let buffer = queue.alloc_buffer(8192).unwrap();
        buffer.write(0, &[n + 1; 8192]);
        let io = if n == 3 { Io::write_barrier(0, buffer) } else { Io::write(u64::from(n), buffer) };
        tickets.push(queue.submit(io.cookie(n.into())).unwrap());
    }
    queue.publish().unwrap();
    {
        let mut backend = bed.backend();
        let taken = backend.take(0);
        assert_eq!(taken.len(), 4, "as far as the barrier");
        // One is answered, out of order, the others never.
        let status = backend.run(&taken[1]);
        backend.answer(0, taken[1].response(status), 1);
        backend.publish(0);
    }
    let mut done = Vec::new();
    assert_eq!(queue.finish(&mut |completion| done.push(completion)), Ok(1));
    assert_eq!(done[0].io.cookie, 1);
    {
        let mut backend = bed.backend();
        backend.disconnect();
        backend.seen.clear();
        // With other abilities than before.
        backend.setup.features = BackendFeatures { request_maxima: None, persistent: false, ..everything() };
        backend.setup.serve = true;
        backend.write_state(State::Closed);
    }
    assert!(matches!(device.wait_control(Some(Duration::from_secs(5))), Ok(Some(DeviceEvent::Lost))));
    assert!(queue.is_stale());
    // Submitted in between: goes to the new backend after the others.
    let buffer = queue.alloc_buffer(4096).unwrap();
    tickets.push(queue.submit(Io::write(100, buffer).cookie(6)).unwrap());
    queue.publish().unwrap();
    let links = match device.wait_control(Some(Duration::from_secs(5))) {
        Ok(Some(DeviceEvent::Reconnected(links))) => links,
        other => panic!("{other:?}"),
    };
    assert_eq!(device.negotiated().segments, SegmentMode::Indirect);
    for link in links {
        queue.reconnect(link).unwrap();
    }
    assert!(!queue.is_stale());
    let mut done = Vec::new();
    while queue.in_flight() > 0 {
        queue.wait(Some(Duration::from_secs(5))).unwrap();
        queue.finish(&mut |completion| done.push(completion)).unwrap();
    }
    let expected: Vec<_> =
        [0, 2, 3, 4, 5, 6].iter().map(|&n: &usize| (tickets[n], n as u64, Ok(()))).collect();
    done.sort_by_key(|completion| completion.ticket);
    let got: Vec<_> = done.iter().map(|c| (c.ticket, c.io.cookie, c.result)).collect();
    assert_eq!(got, expected);
    let mut first = [0; 1];
    done[1].io.buffer.as_ref().unwrap().read(0, &mut first);
    assert_eq!(first, [3], "the data moved with the work");
    assert_eq!(queue.stats().requeued, 6);
    let ops: Vec<_> = bed.backend().seen.iter().map(|request| (request.op, request.sector)).collect();
    let wrote = |n| (Op::Write, n);
    assert_eq!(ops, [wrote(0), wrote(2), (Op::WriteBarrier, 0), wrote(4), wrote(5), wrote(100)]);
    for completion in done {
        queue.free_buffer(completion.io.buffer.unwrap());
    }
    stop(device, queues);
    let leaks = bed.machine.leaks();
    assert_eq!((leaks.mapped, leaks.granted, leaks.pages, leaks.ports), (0, 0, 0, 0), "{leaks:?}");
}

/// What such a buffer moves to may be what the new backend has mapped already, and keeps mapped.
#[test]
fn buffers_of_before_are_of_use_with_a_backend_that_keeps_pages() {
    let bed = bed(everything());
    let (mut device, mut queues) = connect(&bed, config());
    let held = queues[0].alloc_buffer(4096).unwrap();
    held.write(0, &[7; 4096]);
    bed.backend().disconnect();
    bed.backend().write_state(State::Closed);
    reconnect(&mut device, &mut queues[0]);
    write(&mut queues[0], 0, &pattern(1, 4096));
    let done = queues[0].execute(Io::write(8, held), &mut |other| panic!("{other:?}")).unwrap();
    assert_eq!(done.result, Ok(()));
    queues[0].free_buffer(done.io.buffer.unwrap());
    assert_eq!(read(&mut queues[0], 8, 4096), [7; 4096]);
    stop(device, queues);
}

/// A guest of one thread, which sees that its backend is gone only when it looks.
#[test]
fn work_that_ends_in_silence_is_no_end_of_the_device() {
    let bed = bed(everything());
    let (mut device, mut queues) = connect(&bed, Config { timeout: Duration::from_millis(200), ..config() });
    {
        let mut backend = bed.backend();
        backend.follows = false;
        backend.disconnect();
        backend.write_state(State::Closed);
    }
    let buffer = queues[0].alloc_buffer(4096).unwrap();
    let done = queues[0].execute(Io::write(0, buffer), &mut |_| ()).unwrap();
    assert_eq!(done.result, Err(IoError::Device(DeviceError::Silent { seconds: 0 })));
    queues[0].free_buffer(done.io.buffer.unwrap());

    bed.backend().follows = true;
    reconnect(&mut device, &mut queues[0]);
    write(&mut queues[0], 0, &pattern(7, 20 * 1024));
    stop(device, queues);
}

#[test]
fn a_backend_that_attaches_again_is_no_interruption() {
    let bed = bed(BackendFeatures::ORIGINAL);
    let (mut device, mut queues) = connect(&bed, config());
    bed.backend().follows = false;
    bed.backend().write_state(State::InitWait);
    bed.backend().write_state(State::Connected);
    let event = device.wait_control(Some(Duration::from_millis(50))).unwrap();
    assert!(event.is_none(), "{event:?}");
    write(&mut queues[0], 0, &pattern(4, 4096));
    bed.backend().follows = true;
    stop(device, queues);
}

#[test]
fn what_the_returned_disk_cannot_take_is_refused() {
    let bed = Bed::new(Setup { serve: false, features: everything(), ..Setup::plain(4096) });
    let (mut device, mut queues) = connect(&bed, config());
    let queue = &mut queues[0];
    for sector in [0, 4000] {
        let buffer = queue.alloc_buffer(4096).unwrap();
        queue.submit(Io::write(sector, buffer)).unwrap();
    }
    queue.submit(Io::discard(0, 8)).unwrap();
    queue.publish().unwrap();
    {
        let mut backend = bed.backend();
        backend.disconnect();
        backend.setup.disk.sectors = 1024;
        backend.setup.features.operations.discard = None;
        let directory = backend.directory.clone();
        backend.store.apply(&[Change::Remove(&format!("{directory}/feature-discard"))]).unwrap();
        backend.setup.serve = true;
        backend.write_state(State::Closed);
    }
    reconnect(&mut device, queue);
    let mut results = Vec::new();
    while queue.in_flight() > 0 {
        queue.wait(Some(Duration::from_secs(5))).unwrap();
        queue.finish(&mut |completion| results.push((completion.ticket, completion.result))).unwrap();
    }
    results.sort_by_key(|(ticket, _)| *ticket);
    assert_eq!(results[0].1, Ok(()));
    assert!(matches!(results[1].1, Err(IoError::Refused(RejectReason::OutOfRange { .. }))), "{results:?}");
    assert_eq!(results[2].1, Err(IoError::Refused(RejectReason::NotSupported)));
    stop(device, queues);
}

#[test]
fn the_connection_of_a_killed_driver_is_closed_first() {
    let bed = bed(everything());
    let (device, queues) = connect(&bed, Config { queues: 2, ring_pages: 4, ..config() });
    // Gone without a word.
    drop((device, queues));
    assert_eq!(bed.frontend_key("state").as_deref(), Some("4"));
    let (device, mut queues) = connect(&bed, config());
    assert_eq!((device.negotiated().queues, device.negotiated().ring_pages), (1, 1));
    write(&mut queues[0], 0, &pattern(5, 4096));
    stop(device, queues);
}
