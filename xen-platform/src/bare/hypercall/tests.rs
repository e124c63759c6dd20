//! A hypervisor of our own behind a page of entries like Xen's: it answers what the tests of this world ask.

use core::{arch::global_asm, cell::RefCell};
use std::{boxed::Box, time::Duration, vec::Vec};

use super::*;
use crate::page::tests::leaked;

// As in Xen's page: an entry every 32 bytes, the number known by the entry, arguments in rdi, rsi, rdx and r10.
global_asm!(
    ".pushsection .text.hypercall_page, \"ax\", @progbits",
    ".balign 4096",
    "hypercall_page_of_tests:",
    ".set number, 0",
    ".rept 128",
    ".balign 32",
    "push rcx",
    "push r11",
    "sub rsp, 8",
    "mov rcx, r10",
    "mov r8d, number",
    "call {answer}",
    "add rsp, 8",
    "pop r11",
    "pop rcx",
    "ret",
    ".set number, number + 1",
    ".endr",
    ".popsection",
    answer = sym answer,
);

unsafe extern "C" {
    #[link_name = "hypercall_page_of_tests"]
    static HYPERCALL_PAGE: u8;
}

/// Calls fail from here on as if there were no such thing, but for those that are answered below.
pub(in crate::bare) fn install_ours() {
    // SAFETY: a whole page of entries.
    unsafe { install(NonNull::from(&HYPERCALL_PAGE)) };
}

/// The port that every new channel gets.
pub(in crate::bare) const PORT: Port = Port(70);
/// The only domain there is besides us.
pub(in crate::bare) const PEER: DomId = DomId(3);

std::thread_local! {
    static PARAMETERS: RefCell<[u64; 39]> = const { RefCell::new([0; 39]) };
    static SUSPENDED: RefCell<Option<Box<dyn FnOnce() -> i64>>> = const { RefCell::new(None) };
    static MAPPED: RefCell<Vec<(u32, u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// What a parameter of the guest is, for this thread.
pub(in crate::bare) fn set_parameter(index: u32, value: u64) {
    PARAMETERS.with_borrow_mut(|parameters| parameters[index as usize] = value);
}

/// What happens while the guest of this thread is suspended, and Xen's answer.
pub(in crate::bare) fn when_suspended(then: impl FnOnce() -> i64 + 'static) {
    SUSPENDED.set(Some(Box::new(then)));
}

/// Which pages of Xen's were put where by this thread: space, index, frame.
pub(in crate::bare) fn mapped() -> Vec<(u32, u64, u64)> {
    MAPPED.with_borrow_mut(std::mem::take)
}

extern "sysv64" fn answer(first: u64, second: u64, third: u64, fourth: u64, number: u32) -> i64 {
    match number {
        xen::__HYPERVISOR_event_channel_op => event_channel(first, second),
        // SAFETY: the call's structure.
        xen::__HYPERVISOR_sched_op if first == xen::SCHEDOP_poll.into() => unsafe {
            std::thread::sleep(Duration::from_millis(1));
            let op = &*(second as *const xen::sched_poll);
            if op.nr_ports > 128 { -22 } else { 0 }
        },
        xen::__HYPERVISOR_sched_op if first == xen::SCHEDOP_yield.into() => 0,
        xen::__HYPERVISOR_sched_op if first == xen::SCHEDOP_shutdown.into() => {
            // SAFETY: the call's structure.
            let op = unsafe { &*(second as *const xen::sched_shutdown) };
            let suspended = SUSPENDED.take().filter(|_| op.reason == xen::SHUTDOWN_suspend);
            suspended.map_or(-i64::from(abi::ENOSYS), |then| then())
        }
        // SAFETY: the call's structure, and the list that it names.
        xen::__HYPERVISOR_grant_table_op => unsafe {
            assert_eq!((first, third), (abi::GNTTABOP_SETUP_TABLE, 1));
            let op = &mut *(second as *mut SetUpTable);
            assert_eq!(op.dom, abi::DOMID_SELF);
            if op.frames > 64 {
                op.status = -1;
                return 0;
            }
            (0..op.frames).for_each(|n| *op.frame_list.add(n as usize) = 900 + u64::from(n));
            0
        },
        xen::__HYPERVISOR_update_va_mapping => {
            assert_eq!((first % 4096, second & 0xFFF, third), (0, abi::PTE_WRITABLE, abi::UVMF_INVLPG));
            // A frame that is nobody's.
            if second >> 12 == 0xBAD { -22 } else { 0 }
        }
        xen::__HYPERVISOR_memory_op => {
            assert_eq!(first, abi::XENMEM_ADD_TO_PHYSMAP);
            // SAFETY: the call's structure.
            let op = unsafe { &*(second as *const AddToPhysmap) };
            assert_eq!((op.domid, op.size), (abi::DOMID_SELF, 0));
            MAPPED.with_borrow_mut(|mapped| mapped.push((op.space, op.idx, op.gpfn)));
            0
        }
        xen::__HYPERVISOR_hvm_op => {
            // SAFETY: the call's structure.
            let op = unsafe { &mut *(second as *mut HvmParameter) };
            assert_eq!(op.domid, abi::DOMID_SELF);
            let (index, value) = (op.index as usize, &mut op.value);
            PARAMETERS.with_borrow_mut(|parameters| match first {
                abi::HVMOP_GET_PARAM => *value = parameters[index],
                abi::HVMOP_SET_PARAM => parameters[index] = *value,
                other => panic!("operation {other} of a guest's parameters"),
            });
            0
        }
        _ => -i64::from(fourth == 0) * i64::from(abi::ENOSYS),
    }
}

fn event_channel(op: u64, argument: u64) -> i64 {
    // SAFETY: each number with its structure.
    unsafe {
        match u32::try_from(op).unwrap() {
            xen::EVTCHNOP_alloc_unbound => {
                let op = &mut *(argument as *mut xen::evtchn_alloc_unbound);
                assert_eq!(op.dom, abi::DOMID_SELF);
                op.port = PORT.0;
                if op.remote_dom == PEER.0 { 0 } else { -3 }
            }
            xen::EVTCHNOP_bind_interdomain => {
                let op = &mut *(argument as *mut xen::evtchn_bind_interdomain);
                op.local_port = PORT.0 + 1;
                if (op.remote_dom, op.remote_port) == (PEER.0, 9) { 0 } else { -22 }
            }
            xen::EVTCHNOP_close | xen::EVTCHNOP_send => 0,
            other => panic!("event channel operation {other}"),
        }
    }
}

#[test]
fn answers_and_errors_come_back() {
    install_ours();
    assert_eq!(alloc_unbound(PEER), Ok(PORT));
    assert_eq!(alloc_unbound(DomId(4)), Err(Errno(abi::ESRCH)));
    assert_eq!(bind_interdomain(PEER, Port(9)), Ok(Port(PORT.0 + 1)));
    assert_eq!(bind_interdomain(PEER, Port(8)), Err(Errno(abi::EINVAL)));
    assert_eq!(poll(&[1; 128], 0), Ok(()));
    assert_eq!(poll(&[1; 129], 0), Err(Errno(abi::EINVAL)));
    assert_eq!(shut_down(0), Errno(abi::ENOSYS), "this hypervisor does not know how to");
}

#[test]
fn the_grant_table_is_as_large_as_asked_for() {
    install_ours();
    let mut frames = [0; 3];
    assert_eq!(set_up_grant_table(&mut frames), Ok(()));
    assert_eq!(frames, [900, 901, 902]);
    assert_eq!(set_up_grant_table(&mut [0; 65]), Err(Errno(1)), "GNTST_general_error");
}

#[test]
fn whole_pages_are_mapped_anew_and_no_less() {
    install_ours();
    let pages = leaked(2);
    assert_eq!(remap(pages.part(0, 4096).unwrap(), 5), Ok(()));
    assert_eq!(remap(pages.part(0, 4096).unwrap(), 0xBAD), Err(Errno(abi::EINVAL)));
    for (at, len) in [(0, 8192), (0, 2048), (8, 4096)] {
        assert_eq!(remap(pages.part(at, len).unwrap(), 5), Err(Errno(abi::EINVAL)));
    }
}

#[test]
fn a_triple_fault_is_a_crash() {
    install_ours();
    crash_on_triple_fault();
    assert_eq!(parameter(abi::HVM_PARAM_TRIPLE_FAULT_REASON), Ok(xen::SHUTDOWN_crash.into()));
}
