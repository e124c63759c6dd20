//! Calls to the hypervisor, each as a safe function where it can be one, and the two instructions that stand beside them.
//!
//! Unsafe stands here because a hypercall is a jump into a page that Xen has filled, with addresses in registers. What makes it
//! sound: each function pairs one number with the structure that belongs to it and borrows it for the time of the call; Xen
//! keeps no pointer. The jump is made by a function of its own, never inline: the entry pushes registers on the stack, where
//! inline code might keep values below the stack pointer (the red zone).
#![expect(unsafe_code, reason = "hypercalls; see the module documentation")]

use core::{
    arch::{asm, naked_asm, x86_64::__cpuid},
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, Ordering},
};

use xen_sys as xen;

use super::abi::{self, AddToPhysmap, HvmParameter, SetUpTable};
use crate::{DomId, PAGE_SIZE, Port, SharedMem};

/// The hypercall page; null until somebody says where it is.
static PAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

/// An error number of Xen's, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

/// Says where the hypercall page is. Before that every call fails.
///
/// # Safety
/// `page` is the whole page that Xen filled for this guest (ELF note `HYPERCALL_PAGE`, or the MSR that CPUID names), and stays.
pub unsafe fn install(page: NonNull<u8>) {
    PAGE.store(page.as_ptr(), Ordering::Release);
}

/// Makes a port that `remote` may bind.
pub(super) fn alloc_unbound(remote: DomId) -> Result<Port, Errno> {
    let mut op = xen::evtchn_alloc_unbound { dom: abi::DOMID_SELF, remote_dom: remote.0, port: 0 };
    event_channel_op(xen::EVTCHNOP_alloc_unbound, &mut op)?;
    Ok(Port(op.port))
}

/// Binds a new local port to a port of another domain.
pub(super) fn bind_interdomain(remote: DomId, port: Port) -> Result<Port, Errno> {
    let mut op = xen::evtchn_bind_interdomain { remote_dom: remote.0, remote_port: port.0, local_port: 0 };
    event_channel_op(xen::EVTCHNOP_bind_interdomain, &mut op)?;
    Ok(Port(op.local_port))
}

/// Closes a local port.
pub(super) fn close(port: Port) -> Result<(), Errno> {
    event_channel_op(xen::EVTCHNOP_close, &mut xen::evtchn_close { port: port.0 })
}

/// Sends an event.
pub(super) fn send(port: Port) -> Result<(), Errno> {
    event_channel_op(xen::EVTCHNOP_send, &mut xen::evtchn_send { port: port.0 })
}

fn event_channel_op<T>(op: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the callers, all in this file, pair each number with its structure.
    unsafe { call(xen::__HYPERVISOR_event_channel_op, [op.into(), address(argument), 0, 0]) }.map(drop)
}

/// Sleeps until one of `ports` is pending, masked or not, or the system time `until` in nanoseconds has passed (0: for ever).
pub(super) fn poll(ports: &[u32], until: u64) -> Result<(), Errno> {
    let count = u32::try_from(ports.len()).map_err(|_| Errno(abi::EINVAL))?;
    // Xen only reads the ports.
    let mut op = xen::sched_poll { ports: ports.as_ptr().cast_mut(), nr_ports: count, timeout: until };
    // SAFETY: the number goes with the structure, whose pointer and length are those of a borrowed slice.
    unsafe { call(xen::__HYPERVISOR_sched_op, [xen::SCHEDOP_poll.into(), address(&mut op), 0, 0]) }.map(drop)
}

/// Lets other domains run.
pub(super) fn yield_now() {
    // SAFETY: the call takes no argument.
    let yielded = unsafe { call(xen::__HYPERVISOR_sched_op, [xen::SCHEDOP_yield.into(), 0, 0, 0]) };
    // It cannot fail in a way that matters to somebody who goes on waiting.
    let _ = yielded;
}

/// Ends this domain; `reason` is a number of Xen's (`SHUTDOWN_*`). Comes back only where there is no hypervisor.
pub(super) fn shut_down(reason: u32) -> Errno {
    let mut op = xen::sched_shutdown { reason };
    // SAFETY: the number goes with the structure.
    let ended =
        unsafe { call(xen::__HYPERVISOR_sched_op, [xen::SCHEDOP_shutdown.into(), address(&mut op), 0, 0]) };
    ended.err().unwrap_or(Errno(abi::ENOSYS))
}

/// Has the tool stack save this guest, and comes back when it runs again, in a new domain or in the old one: the answer does not
/// tell, because the tool stack only sets it for guests that take interrupts. Only for guests that are not PV.
pub(super) fn suspend() -> Result<(), Errno> {
    let mut op = xen::sched_shutdown { reason: xen::SHUTDOWN_suspend };
    // SAFETY: the number goes with the structure.
    unsafe { call(xen::__HYPERVISOR_sched_op, [xen::SCHEDOP_shutdown.into(), address(&mut op), 0, 0]) }
        .map(drop)
}

/// Makes the grant table as many pages large as `frames` has room for, and names them. Errors: Xen's, also as `GNTST_*`.
pub(super) fn set_up_grant_table(frames: &mut [u64]) -> Result<(), Errno> {
    let count = u32::try_from(frames.len()).map_err(|_| Errno(abi::EINVAL))?;
    let frame_list = frames.as_mut_ptr();
    let mut op = SetUpTable { dom: abi::DOMID_SELF, frames: count, status: 0, frame_list };
    // SAFETY: the number goes with the structure, of which there is one; pointer and length are those of a borrowed slice.
    unsafe { call(xen::__HYPERVISOR_grant_table_op, [abi::GNTTABOP_SETUP_TABLE, address(&mut op), 1, 0]) }?;
    if op.status == 0 { Ok(()) } else { Err(Errno(-i32::from(op.status))) }
}

/// Puts machine frame `frame` where the page `at` was, writable. Errors: `at` is not one whole page, or Xen's.
pub(super) fn remap(at: SharedMem<'static>, frame: u64) -> Result<(), Errno> {
    if !is_page(at) {
        return Err(Errno(abi::EINVAL));
    }
    let arguments = [at.as_ptr() as u64, frame << 12 | abi::PTE_WRITABLE, abi::UVMF_INVLPG, 0];
    // SAFETY: the page is whole, and whoever has it looks at it by atomics only and expects others to change it: other memory
    // in its place is no more than that. Xen refuses frames that are not for us.
    unsafe { call(xen::__HYPERVISOR_update_va_mapping, arguments) }.map(drop)
}

/// Puts page `index` of one of Xen's spaces where the page `at` was, whose memory goes back to Xen; only for guests whose page
/// tables Xen does not see. Errors: `at` is not one whole page, or Xen's.
pub(super) fn add_to_physmap(space: u32, index: u64, at: SharedMem<'static>) -> Result<(), Errno> {
    if !is_page(at) {
        return Err(Errno(abi::EINVAL));
    }
    let gpfn = (at.as_ptr().addr() / PAGE_SIZE) as u64;
    let mut op = AddToPhysmap { domid: abi::DOMID_SELF, size: 0, space, idx: index, gpfn };
    // SAFETY: the number goes with the structure. The page is whole, as for `remap`.
    unsafe { call(xen::__HYPERVISOR_memory_op, [abi::XENMEM_ADD_TO_PHYSMAP, address(&mut op), 0, 0]) }
        .map(drop)
}

/// The value of one of the guest's parameters (`HVM_PARAM_*`); none for PV guests.
pub(super) fn parameter(index: u32) -> Result<u64, Errno> {
    let mut op = HvmParameter { domid: abi::DOMID_SELF, pad: 0, index, value: 0 };
    // SAFETY: the number goes with the structure.
    unsafe { call(xen::__HYPERVISOR_hvm_op, [abi::HVMOP_GET_PARAM, address(&mut op), 0, 0]) }?;
    Ok(op.value)
}

/// A fault that nothing in the guest answers ends it as crashed, and not by starting it again. For guests that are not PV.
pub fn crash_on_triple_fault() {
    let value = xen::SHUTDOWN_crash.into();
    let index = abi::HVM_PARAM_TRIPLE_FAULT_REASON;
    let mut op = HvmParameter { domid: abi::DOMID_SELF, pad: 0, index, value };
    // SAFETY: the number goes with the structure.
    let set = unsafe { call(xen::__HYPERVISOR_hvm_op, [abi::HVMOP_SET_PARAM, address(&mut op), 0, 0]) };
    // If Xen does not let us, the tool stack's choice stands.
    let _ = set;
}

/// Has Xen fill a page with the entries of hypercalls and says where it is; only for guests that are not PV, whose page the
/// domain builder fills. False where there is no Xen.
///
/// # Safety
/// `page` is a whole page of the image, mapped where it is and executable, that stays and is used for nothing else.
pub unsafe fn enable_hypercalls(page: NonNull<u8>) -> bool {
    let bases = (abi::CPUID_FIRST_LEAF..).step_by(abi::CPUID_STEP).take(abi::CPUID_BASES);
    let signature = |leaf: &u32| {
        let cpuid = __cpuid(*leaf);
        [cpuid.ebx, cpuid.ecx, cpuid.edx] == abi::CPUID_SIGNATURE
    };
    let Some(base) = bases.into_iter().find(signature) else { return false };
    let register = __cpuid(base + abi::CPUID_HYPERCALLS).ebx;
    let address = page.as_ptr() as u64;
    // SAFETY: Xen names the register, to which the address of a page is written that it may fill; the caller gives it.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") register,
            // The low halves of these registers are what counts.
            in("rax") address,
            in("rdx") address >> 32,
            options(nostack, preserves_flags)
        );
        install(page);
    }
    true
}

/// The processor's time-stamp counter.
pub(super) fn tsc() -> u64 {
    // SAFETY: every 64-bit processor has the instruction, and Xen lets guests use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn is_page(at: SharedMem<'static>) -> bool {
    at.len() == PAGE_SIZE && at.as_ptr().addr().is_multiple_of(PAGE_SIZE)
}

fn address<T>(argument: &mut T) -> u64 {
    ptr::from_mut(argument) as u64
}

/// # Safety
/// `arguments` are what hypercall `number` takes: addresses among them point to what it reads and writes.
unsafe fn call(number: u32, arguments: [u64; 4]) -> Result<u64, Errno> {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return Err(Errno(abi::ENOSYS));
    }
    let [first, second, third, fourth] = arguments;
    // SAFETY: `install` was given a whole hypercall page, whose entries are 32 bytes apart, and numbers are below 128. The
    // arguments are the caller's.
    let answer =
        unsafe { enter(page.add(number as usize * abi::HYPERCALL_BYTES), first, second, third, fourth) };
    u64::try_from(answer).map_err(|_| Errno(i32::try_from(answer.saturating_neg()).unwrap_or(i32::MAX)))
}

/// Moves arguments from where functions have them to where Xen has them, and goes on in the hypercall page, which returns to
/// our caller.
///
/// # Safety
/// `entry` is an entry of a hypercall page, and the arguments are what it takes.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(entry: *const u8, first: u64, second: u64, third: u64, fourth: u64) -> i64 {
    naked_asm!("mov rax, rdi", "mov rdi, rsi", "mov rsi, rdx", "mov rdx, rcx", "mov r10, r8", "jmp rax")
}

#[cfg(test)]
pub(in crate::bare) mod tests;
