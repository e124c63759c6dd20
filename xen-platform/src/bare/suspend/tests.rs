//! Saved and restored by a hypervisor of our own.

use core::time::Duration;
use std::{thread, vec, vec::Vec};

use super::*;
use crate::{
    Clock as _, EventChannels as _, EventError, FrontWorld as _, PAGE_SIZE, Port, SharedMem, WatchEvent,
    bare::{
        Reserved, abi,
        byte_ring::ByteRing,
        hypercall::tests::{PEER, PORT, install_ours, mapped, set_parameter, when_suspended},
        start::pvh::tests::start,
        tests::pend,
    },
    fake,
    page::tests::leaked,
    wire::{Decoder, Kind, Message},
};

/// A PVH guest, and what it shares with others.
struct Bed {
    world: World,
    reserved: Reserved,
    store: SharedMem<'static>,
}

fn bed() -> Bed {
    install_ours();
    let (start, memory) = start();
    let reserved = Reserved { shared_info: leaked(1), grant_table: leaked(1), pool: leaked(16) };
    tick(reserved.shared_info);
    let world = World::new(&start.unwrap(), reserved).unwrap();
    mapped();
    Bed { world, reserved, store: memory.part(3 * PAGE_SIZE, PAGE_SIZE).unwrap() }
}

/// A tick is a quarter of a nanosecond or so.
fn tick(shared_info: SharedMem<'static>) {
    let scale = shared_info.word32(abi::shared_info::TSC_TO_SYSTEM_MUL).unwrap();
    scale.store(1 << 30, Ordering::Relaxed);
}

/// What is in a guest's memory when it runs again: nothing of Xen's and the daemons'. The daemon of the new domain answers what
/// it is asked first with these payloads, and names what it was asked.
fn restore(
    bed: &Bed,
    answers: Vec<(Kind, &'static [u8])>,
) -> impl FnOnce() -> thread::JoinHandle<Vec<Message>> + 'static {
    let (shared_info, table, page) = (bed.reserved.shared_info, bed.reserved.grant_table, bed.store);
    move || {
        [shared_info, table, page].into_iter().for_each(SharedMem::zero);
        tick(shared_info);
        set_parameter(abi::HVM_PARAM_STORE_EVTCHN, 9);
        thread::spawn(move || {
            let requests = ByteRing::new(page, abi::store::REQUESTS).unwrap();
            let replies = ByteRing::new(page, abi::store::REPLIES).unwrap();
            let mut decoder = Decoder::default();
            let mut asked = Vec::new();
            for (kind, payload) in answers {
                let request = loop {
                    if let Some(message) = decoder.next_message().unwrap() {
                        break message;
                    }
                    let mut chunk = [0; 100];
                    let count = requests.read(&mut chunk).unwrap();
                    decoder.push(&chunk[..count]);
                };
                assert_eq!(request.kind, kind);
                let mut bytes = Vec::new();
                request.reply(payload.to_vec()).encode(&mut bytes);
                assert_eq!(replies.write(&bytes), Ok(bytes.len()));
                pend(shared_info, Port(9));
                asked.push(request);
            }
            asked
        })
    }
}

#[test]
fn what_xen_and_the_daemons_forgot_is_set_up_again() {
    let bed = bed();
    let watch = |path: &str| {
        let (daemon, mut store) = (restore(&bed, vec![(Kind::WATCH, b"OK\0")])(), bed.world.store().unwrap());
        store.watch(path, "t").unwrap();
        daemon.join().unwrap();
        store
    };
    let (first, second) = (watch("device/a"), watch("device/b"));

    // They end with their stores.
    let answers = [Kind::WATCH, Kind::WATCH, Kind::UNWATCH, Kind::UNWATCH].map(|kind| (kind, &b"OK\0"[..]));
    let daemon = restore(&bed, answers.to_vec());
    let (told, hear) = std::sync::mpsc::channel();
    when_suspended(move || {
        told.send(daemon()).unwrap();
        0
    });
    // An hour and a bit.
    let time = bed.reserved.shared_info.word64(abi::shared_info::SYSTEM_TIME).unwrap();
    time.store(1 << 42, Ordering::Relaxed);
    let before = bed.world.clock().now();
    assert_eq!(bed.world.suspend(), Ok(true));
    assert!(bed.world.clock().now() >= before, "Xen counts from another start");
    drop((first, second));
    let asked = hear.recv().unwrap().join().unwrap();
    let payloads: Vec<_> = asked.into_iter().take(2).map(|message| message.payload).collect();
    assert_eq!(payloads, [b"device/a\x000/t\0", b"device/b\x001/t\0"]);

    let frame = |page: SharedMem<'static>| (page.as_ptr().addr() / PAGE_SIZE) as u64;
    let expected = [
        (abi::XENMAPSPACE_SHARED_INFO, 0, frame(bed.reserved.shared_info)),
        (abi::XENMAPSPACE_GRANT_TABLE, 0, frame(bed.reserved.grant_table)),
    ];
    assert_eq!(mapped(), expected);
    assert_eq!(
        bed.reserved.shared_info.word16(0).unwrap().load(Ordering::Relaxed),
        u16::from_le_bytes([0, 1])
    );
}

#[test]
fn handles_of_an_earlier_life_touch_nothing_of_this_one() {
    let bed = bed();
    let mut old = bed.world.events().unwrap();
    let port = old.alloc_unbound(PEER).unwrap();
    let daemon = restore(&bed, Vec::new());
    when_suspended(move || {
        daemon();
        0
    });
    assert_eq!(bed.world.suspend(), Ok(true));

    // The number is somebody else's now.
    let mut new = bed.world.events().unwrap();
    assert_eq!(new.alloc_unbound(PEER), Ok(PORT));
    pend(bed.reserved.shared_info, port);
    assert_eq!(old.notify(port), Ok(()));
    assert_eq!(old.unmask(port), Ok(()));
    assert_eq!(old.unbind(port), Err(EventError::NotBound(port)));
    assert_eq!(old.alloc_unbound(PEER), Err(EventError::Exhausted));
    assert_eq!(old.wait(Some(Duration::from_millis(1))), Ok(false));
    assert_eq!(old.take_pending(), None);
    assert_eq!(new.take_pending(), Some(port));
    drop(old);
    assert_eq!(new.unbind(port), Ok(()));
}

/// As after `xl save -c`, or when saving fails.
#[test]
fn a_guest_that_goes_on_where_it_was_has_all_it_had() {
    let bed = bed();
    let mut events = bed.world.events().unwrap();
    let port = events.alloc_unbound(PEER).unwrap();
    // Whatever the tool stack makes of the answer, and more than once.
    for answer in [0, 1, 0] {
        when_suspended(move || answer);
        assert_eq!(bed.world.suspend(), Ok(false));
        pend(bed.reserved.shared_info, port);
        assert_eq!(events.take_pending(), Some(port));
        events.unmask(port).unwrap();
    }
    assert!(!bed.world.machine.shared.is_masked(Port(4095)));
}

#[test]
fn guests_that_cannot_be_saved_say_so() {
    let what = "being saved";
    assert_eq!(bed().world.suspend(), Err(BootError::Refused { what, errno: abi::ENOSYS }));
    let pv = crate::bare::tests::world().world;
    assert!(matches!(pv.suspend(), Err(BootError::Missing(_))));
}

#[test]
fn requests_are_taken_once_and_acknowledged() {
    let machine = fake::Machine::new(1);
    let guest = machine.create_domain(16).unwrap();
    let mut toolstack = machine.store().connect(crate::DomId::DOM0).unwrap();
    let home = std::format!("/local/domain/{guest}/control");
    let node = std::format!("{home}/shutdown");
    toolstack.apply(&[Change::Write(&node, "")]).unwrap();
    let owned = [crate::wire::Permission::new(guest, crate::wire::Rights::None)];
    for path in [&home, &node] {
        let set = toolstack.transact(|tree| tree.set_permissions(path, &owned));
        set.unwrap();
    }
    let mut control = Control::new(machine.world(guest).store().unwrap()).unwrap();
    assert_eq!(toolstack.read(&std::format!("{home}/feature-suspend")).unwrap(), b"1");
    assert_eq!(control.next_request(), Ok(None));
    for (word, request) in [
        ("suspend", Request::Suspend),
        ("poweroff", Request::PowerOff),
        ("halt", Request::PowerOff),
        ("reboot", Request::Other("reboot".into())),
    ] {
        toolstack.apply(&[Change::Write(&node, word)]).unwrap();
        assert_eq!(control.next_request(), Ok(Some(request)));
        assert_eq!(toolstack.read(&node).unwrap(), b"");
        while let Some(event) = control.store.next_event().unwrap() {
            assert_eq!(event, WatchEvent { path: "control/shutdown".into(), token: TOKEN.into() });
        }
    }
    toolstack.apply(&[Change::Remove(&node)]).unwrap();
    assert_eq!(control.next_request(), Ok(None));
}
