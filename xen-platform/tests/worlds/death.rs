//! Rules about processes and domains that die.

use std::os::unix::process::ExitStatusExt;

use blkif_proto::GrantRef;
use nix::{errno::Errno, sys::signal::Signal};
use xen_platform::{
    Access, BackWorld, DomId, EventChannels, EventError, FrontWorld, GrantError, Lender, Mapper, Mapping,
    PAGE_SIZE, Port, Store,
};

use crate::lab::{Deed, Lab, Pair, SimLab, soon, this_test_again};

fn a_killed_mapper_lets_go(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(3).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    let refs = pages.grants().to_vec();
    let mut mapper = back.mapper().unwrap();
    let mut survivor = mapper.mapping();
    mapper.map(guest, &refs[..1], Access::Read, &mut survivor).unwrap();
    let twice = [refs.clone(), refs.clone()].concat();
    let victim = lab.victim(DomId::DOM0, Deed::Map(guest, twice));
    assert!(matches!(lender.reclaim(&mut pages), Err(GrantError::Busy(_))));
    assert_eq!(lab.leaks().mapped, 7);
    victim.kill();
    assert_eq!(soon(|| Some(lab.leaks().mapped).filter(|mapped| *mapped == 1)), 1);
    assert_eq!(
        lender.reclaim(&mut pages),
        Err(GrantError::Busy(refs[0])),
        "the other process still maps one"
    );
    survivor.clear();
    lender.reclaim(&mut pages).unwrap();
    let again = lab.victim(DomId::DOM0, Deed::Alloc(guest));
    again.kill();
}

fn a_killed_binder_leaves_the_port_to_the_next(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let mut events = FrontWorld::events(&front).unwrap();
    let near = events.alloc_unbound(DomId::DOM0).unwrap();
    let victim = lab.victim(DomId::DOM0, Deed::Bind(guest, near));
    events.notify(near).unwrap();
    let mut next = BackWorld::events(&back).unwrap();
    assert_eq!(next.bind_interdomain(guest, near), Err(EventError::NotUnbound));
    victim.kill();
    let far = soon(|| next.bind_interdomain(guest, near).ok());
    assert_eq!((next.take_pending(), next.take_pending()), (Some(far), None));
    next.notify(far).unwrap();
    assert_eq!(events.take_pending(), Some(near));
    next.unmask(far).unwrap();
    events.notify(near).unwrap();
    assert_eq!(next.take_pending(), Some(far));
}

fn a_killed_guest_process_leaves_its_peers_port_waiting(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let victim = lab.victim(guest, Deed::Alloc(DomId::DOM0));
    let mut events = BackWorld::events(&back).unwrap();
    let far = events.bind_interdomain(guest, Port(victim.said[0])).unwrap();
    assert_eq!(events.take_pending(), Some(far));
    events.unmask(far).unwrap();
    victim.kill();
    events.notify(far).unwrap();
    let mut next = FrontWorld::events(&front).unwrap();
    let near = soon(|| next.bind_interdomain(DomId::DOM0, far).ok());
    assert_eq!(next.take_pending(), Some(near));
    next.notify(near).unwrap();
    assert_eq!(events.take_pending(), Some(far));
}

fn a_killed_lenders_pages_come_back_when_nobody_maps_them(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let victim = lab.victim(guest, Deed::Lend(DomId::DOM0, 200));
    let refs: Vec<GrantRef> = victim.said.iter().copied().map(GrantRef).collect();
    let mut mapper = back.mapper().unwrap();
    let mut mapping = mapper.mapping();
    mapper.map(guest, &refs[..1], Access::Read, &mut mapping).unwrap();
    victim.kill();
    soon(|| (lab.leaks().granted == 1).then_some(()));
    let refused = mapper.map(guest, &refs[1..2], Access::Read, &mut mapping);
    assert_eq!(refused, Err(GrantError::BadRef(refs[1])));
    let mut lender = front.lender(DomId::DOM0).unwrap();
    assert!(lender.alloc(256).is_err(), "a page is still mapped");
    let mut seen = [0; 8];
    mapping.page(0).unwrap().read(&mut seen);
    assert_eq!(seen, [0xAB; 8], "and keeps what it had");
    mapping.clear();
    let pages = lender.alloc(256).unwrap();
    let mut bytes = vec![1; 256 * PAGE_SIZE];
    pages.mem().read(&mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0), "nothing of the dead process shows");
}

fn a_destroyed_guest_is_gone_but_what_is_mapped_stays(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(2).unwrap();
    lender.lend(&mut pages, Access::ReadWrite).unwrap();
    pages.mem().write(b"last words");
    let mut mapper = back.mapper().unwrap();
    let mut mapping = mapper.mapping();
    mapper.map(guest, &pages.grants()[..1], Access::Read, &mut mapping).unwrap();
    let (mut near, mut far) = (FrontWorld::events(&front).unwrap(), BackWorld::events(&back).unwrap());
    let port = near.alloc_unbound(DomId::DOM0).unwrap();
    let bound = far.bind_interdomain(guest, port).unwrap();
    let mut store = front.store().unwrap();
    lab.destroy(guest);

    let refused = mapper.map(guest, &pages.grants()[1..], Access::Read, &mut mapping);
    assert_eq!(refused, Err(GrantError::NoDomain(guest)));
    assert_eq!(mapper.map_ring(guest, pages.grants()).err(), Some(GrantError::NoDomain(guest)));
    let mut seen = [0; 10];
    mapping.page(0).unwrap().read(&mut seen);
    assert_eq!(&seen, b"last words");
    far.notify(bound).unwrap();
    assert_eq!(far.bind_interdomain(guest, port), Err(EventError::NoDomain(guest)));
    assert_eq!(far.alloc_unbound(guest), Err(EventError::NoDomain(guest)));
    assert_eq!(near.alloc_unbound(DomId::DOM0), Err(EventError::NoDomain(guest)));
    assert_eq!(lender.alloc(1).unwrap_err(), GrantError::NoDomain(guest));
    assert_eq!(lender.lend(&mut pages, Access::Read), Err(GrantError::NoDomain(guest)));
    assert!(store.write_something().is_err(), "its line to XenStore is cut");
    assert_eq!(lab.leaks().mapped, 1);
    mapping.clear();
    assert_eq!((lab.leaks().mapped, lab.leaks().granted), (0, 0));
    lender.release(pages);
    drop(lender);
    assert_ne!(lab.guest(), guest, "numbers are not used again at once");
}

trait WriteSomething: Store {
    fn write_something(&mut self) -> Result<(), xen_platform::StoreError> {
        self.apply(&[xen_platform::Change::Write("data/something", "x")])
    }
}
impl<S: Store> WriteSomething for S {}

/// Runs in a process of its own, where it is to be killed by the fault.
fn writing_through_a_read_only_mapping_faults(lab: &impl Lab) {
    const CHILD: &str = "XEN_PLATFORM_TEST_FAULT";
    if std::env::var_os(CHILD).is_none() {
        let status = this_test_again().env(CHILD, "1").stderr(std::process::Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGSEGV as i32), "{status}");
        return;
    }
    let Pair { guest, front, back } = Pair::new(lab);
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(1).unwrap();
    lender.lend(&mut pages, Access::Read).unwrap();
    let mut mapper = back.mapper().unwrap();
    let mut mapping = mapper.mapping();
    mapper.map(guest, pages.grants(), Access::Read, &mut mapping).unwrap();
    mapping.page(0).unwrap().write(b"forbidden");
}

fn the_kernel_may_not_write_through_it_either(lab: &impl Lab) {
    let Pair { guest, front, back } = Pair::new(lab);
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(1).unwrap();
    lender.lend(&mut pages, Access::Read).unwrap();
    let mut mapper = back.mapper().unwrap();
    let mut mapping = mapper.mapping();
    mapper.map(guest, pages.grants(), Access::Read, &mut mapping).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, b"from the disk").unwrap();
    let page = mapping.page(0).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    #[expect(unsafe_code, reason = "a system call on raw memory, as a backend's disk I/O is")]
    // SAFETY: the kernel may write up to 13 bytes at the mapped page of 4096, or refuse; nobody else uses it meanwhile.
    let read = unsafe { nix::libc::pread(fd, page.as_ptr().cast(), 13, 0) };
    assert_eq!((read, Errno::last()), (-1, Errno::EFAULT));
}

/// Only real processes can be killed between two instructions.
#[test]
fn killed_in_the_middle_of_mapping() {
    let lab = SimLab::new();
    let Pair { guest, front, .. } = Pair::new(&lab);
    let mut lender = front.lender(DomId::DOM0).unwrap();
    let mut pages = lender.alloc(8).unwrap();
    for round in 0..10 {
        lender.lend(&mut pages, Access::ReadWrite).unwrap();
        let deed = || Deed::Churn(guest, pages.grants().to_vec());
        let (one, two) = (lab.victim(DomId::DOM0, deed()), lab.victim(DomId::DOM0, deed()));
        std::thread::sleep(std::time::Duration::from_millis(round));
        one.kill();
        two.kill();
        soon(|| lender.reclaim(&mut pages).ok());
        assert_eq!(lab.leaks().mapped, 0);
    }
}

crate::in_both_worlds!(
    a_killed_mapper_lets_go,
    a_killed_binder_leaves_the_port_to_the_next,
    a_killed_guest_process_leaves_its_peers_port_waiting,
    a_killed_lenders_pages_come_back_when_nobody_maps_them,
    a_destroyed_guest_is_gone_but_what_is_mapped_stays,
    writing_through_a_read_only_mapping_faults,
    the_kernel_may_not_write_through_it_either,
);
