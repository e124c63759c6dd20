//! What crosses between a guest and Xen, as far as `xen-sys` does not define it, and where the fields lie that it does.
//!
//! Pages that Xen or another domain writes are never seen through Rust structures: only these offsets matter, by which
//! [`SharedMem`](crate::SharedMem)'s words are found. [`layout`] is all of it for comparison with Xen's public headers.

use alloc::{vec, vec::Vec};
use core::mem::offset_of;

use xen_sys as xen;

/// Ourselves, where a domain is to be named (`DOMID_SELF`).
pub(super) const DOMID_SELF: u16 = 0x7FF0;

/// `XEN_ESRCH`: no such domain.
pub(super) const ESRCH: i32 = 3;
/// `XEN_EINVAL`.
pub(super) const EINVAL: i32 = 22;
/// `XEN_ENOSPC`.
pub(super) const ENOSPC: i32 = 28;
/// `XEN_ENOSYS`: the answer to every hypercall before there is a hypercall page.
pub(super) const ENOSYS: i32 = 38;

/// Bytes of a guest's entry in the hypercall page.
pub(super) const HYPERCALL_BYTES: usize = 32;

/// A page is present, writable, and was used.
pub(super) const PTE_WRITABLE: u64 = 0x67;
/// Only this processor's old translation of that one page is to be forgotten (`UVMF_INVLPG | UVMF_LOCAL`).
pub(super) const UVMF_INVLPG: u64 = 2;

/// `GNTTABOP_setup_table`.
pub(super) const GNTTABOP_SETUP_TABLE: u64 = 2;

/// `gnttab_setup_table`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct SetUpTable {
    pub(super) dom: u16,
    pub(super) frames: u32,
    pub(super) status: i16,
    pub(super) frame_list: *mut u64,
}

const _: () = assert!(size_of::<SetUpTable>() == 24);
const _: () = assert!(offset_of!(SetUpTable, frames) == 4 && offset_of!(SetUpTable, status) == 8);
const _: () = assert!(offset_of!(SetUpTable, frame_list) == 16);

/// `XENMEM_add_to_physmap`.
pub(super) const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
/// `XENMAPSPACE_shared_info`.
pub(super) const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`.
pub(super) const XENMAPSPACE_GRANT_TABLE: u32 = 1;

/// `xen_add_to_physmap`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct AddToPhysmap {
    pub(super) domid: u16,
    pub(super) size: u16,
    pub(super) space: u32,
    pub(super) idx: u64,
    pub(super) gpfn: u64,
}

const _: () = assert!(size_of::<AddToPhysmap>() == 24 && offset_of!(AddToPhysmap, idx) == 8);
const _: () = assert!(offset_of!(AddToPhysmap, space) == 4 && offset_of!(AddToPhysmap, gpfn) == 16);

/// `HVMOP_set_param`.
pub(super) const HVMOP_SET_PARAM: u64 = 0;
/// `HVMOP_get_param`.
pub(super) const HVMOP_GET_PARAM: u64 = 1;
/// XenStore's page, by its frame.
pub(super) const HVM_PARAM_STORE_PFN: u32 = 1;
/// XenStore's port.
pub(super) const HVM_PARAM_STORE_EVTCHN: u32 = 2;
/// The console's page, by its frame.
pub(super) const HVM_PARAM_CONSOLE_PFN: u32 = 17;
/// The console's port.
pub(super) const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
/// What a guest's triple fault is taken for (`SHUTDOWN_*`).
pub(super) const HVM_PARAM_TRIPLE_FAULT_REASON: u32 = 31;

/// `xen_hvm_param`.
#[repr(C)]
#[derive(Debug)]
pub(super) struct HvmParameter {
    pub(super) domid: u16,
    pub(super) pad: u16,
    pub(super) index: u32,
    pub(super) value: u64,
}

const _: () = assert!(size_of::<HvmParameter>() == 16);
const _: () = assert!(offset_of!(HvmParameter, index) == 4 && offset_of!(HvmParameter, value) == 8);

/// The first leaf at which Xen may introduce itself (`XEN_CPUID_FIRST_LEAF`); others follow in steps, if it has to stand behind
/// somebody else.
pub(super) const CPUID_FIRST_LEAF: u32 = 0x4000_0000;
/// From one possible base to the next.
pub(super) const CPUID_STEP: usize = 0x100;
/// How many bases Xen uses.
pub(super) const CPUID_BASES: usize = 256;
/// "XenVMMXenVMM", in EBX, ECX and EDX.
pub(super) const CPUID_SIGNATURE: [u32; 3] = [0x566E_6558, 0x6558_4D4D, 0x4D4D_566E];
/// The leaf, from the base on, that names the register of the hypercall page.
pub(super) const CPUID_HYPERCALLS: u32 = 2;

/// What a PVH guest finds when it starts (`hvm_start_info`).
pub(super) mod hvm_start_info {
    pub(crate) const BYTES: usize = 56;
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const MAGIC_VALUE: u32 = 0x336E_C578;
    pub(crate) const COMMAND_LINE: usize = 24;
}

/// An entry of the grant table, version 1 (`grant_entry_v1`).
pub(super) mod entry {
    pub(crate) const BYTES: usize = 8;
    pub(crate) const FLAGS: usize = 0;
    pub(crate) const DOMAIN: usize = 2;
    pub(crate) const FRAME: usize = 4;

    /// References that Xen's tool stack uses itself come first (`GNTTAB_NR_RESERVED_ENTRIES`).
    pub(crate) const RESERVED: u32 = 8;

    /// `GTF_permit_access`.
    pub(crate) const PERMIT: u16 = 1;
    /// `GTF_readonly`.
    pub(crate) const READ_ONLY: u16 = 1 << 2;
    /// `GTF_reading | GTF_writing`: the peer has the page mapped, or is copying.
    pub(crate) const IN_USE: u16 = 1 << 3 | 1 << 4;
}

/// The page shared with the hypervisor (`shared_info`), of which we use the first virtual processor's part.
pub(super) mod shared_info {
    use super::*;

    pub(crate) const PENDING: usize = offset_of!(xen::shared_info, evtchn_pending);
    pub(crate) const MASK: usize = offset_of!(xen::shared_info, evtchn_mask);
    /// Ports of the two-level event channels: a bit each.
    pub(crate) const PORTS: u32 = 64 * 64;
    pub(crate) const UPCALL_MASK: usize = offset_of!(xen::vcpu_info, evtchn_upcall_mask);

    const TIME: usize = offset_of!(xen::shared_info, vcpu_info) + offset_of!(xen::vcpu_info, time);
    pub(crate) const VERSION: usize = TIME + offset_of!(xen::vcpu_time_info, version);
    pub(crate) const TSC_TIMESTAMP: usize = TIME + offset_of!(xen::vcpu_time_info, tsc_timestamp);
    pub(crate) const SYSTEM_TIME: usize = TIME + offset_of!(xen::vcpu_time_info, system_time);
    pub(crate) const TSC_TO_SYSTEM_MUL: usize = TIME + offset_of!(xen::vcpu_time_info, tsc_to_system_mul);
    pub(crate) const TSC_SHIFT: usize = TIME + offset_of!(xen::vcpu_time_info, tsc_shift);
}

/// What a PV guest finds when it starts (`start_info`).
pub(super) mod start_info {
    use super::*;

    pub(crate) const MAGIC: &[u8] = b"xen-3.0-x86_64";
    pub(crate) const PAGES: usize = offset_of!(xen::start_info, nr_pages);
    pub(crate) const SHARED_INFO: usize = offset_of!(xen::start_info, shared_info);
    pub(crate) const STORE_FRAME: usize = offset_of!(xen::start_info, store_mfn);
    pub(crate) const STORE_PORT: usize = offset_of!(xen::start_info, store_evtchn);
    pub(crate) const CONSOLE_FRAME: usize = offset_of!(xen::start_info, console);
    pub(crate) const CONSOLE_PORT: usize =
        CONSOLE_FRAME + offset_of!(xen::start_info__bindgen_ty_1__bindgen_ty_1, evtchn);
    pub(crate) const FRAME_LIST: usize = offset_of!(xen::start_info, mfn_list);
    pub(crate) const COMMAND_LINE: usize = offset_of!(xen::start_info, cmd_line);
    pub(crate) const COMMAND_LINE_BYTES: usize = xen::MAX_GUEST_CMDLINE as usize;
}

/// The console's page (`xencons_interface`).
pub(super) mod console {
    use crate::bare::byte_ring::Place;

    pub(crate) const OUT: Place = Place { data: 1024, size: 2048, consumer: 3080, producer: 3084 };
}

/// XenStore's page (`xenstore_domain_interface`).
pub(super) mod store {
    use crate::bare::byte_ring::Place;

    pub(crate) const REQUESTS: Place = Place { data: 0, size: 1024, consumer: 2048, producer: 2052 };
    pub(crate) const REPLIES: Place = Place { data: 1024, size: 1024, consumer: 2056, producer: 2060 };
}

/// Numbers, sizes and offsets by the names of Xen's public headers.
pub fn layout() -> Vec<(&'static str, u64)> {
    let size = |n: usize| n as u64;
    let mut all: Vec<(&'static str, u64)> = vec![
        ("DOMID_SELF", DOMID_SELF.into()),
        ("XEN_ESRCH", ESRCH.unsigned_abs().into()),
        ("XEN_EINVAL", EINVAL.unsigned_abs().into()),
        ("XEN_ENOSPC", ENOSPC.unsigned_abs().into()),
        ("XEN_ENOSYS", ENOSYS.unsigned_abs().into()),
        ("UVMF_INVLPG", UVMF_INVLPG),
        ("GNTTABOP_setup_table", GNTTABOP_SETUP_TABLE),
        ("gnttab_setup_table", size(size_of::<SetUpTable>())),
        ("gnttab_setup_table.dom", size(offset_of!(SetUpTable, dom))),
        ("gnttab_setup_table.nr_frames", size(offset_of!(SetUpTable, frames))),
        ("gnttab_setup_table.status", size(offset_of!(SetUpTable, status))),
        ("gnttab_setup_table.frame_list", size(offset_of!(SetUpTable, frame_list))),
        ("grant_entry_v1", size(entry::BYTES)),
        ("grant_entry_v1.flags", size(entry::FLAGS)),
        ("grant_entry_v1.domid", size(entry::DOMAIN)),
        ("grant_entry_v1.frame", size(entry::FRAME)),
        ("GNTTAB_NR_RESERVED_ENTRIES", entry::RESERVED.into()),
        ("GTF_permit_access", entry::PERMIT.into()),
        ("GTF_readonly", entry::READ_ONLY.into()),
        ("GTF_in_use", entry::IN_USE.into()),
        ("shared_info.evtchn_pending", size(shared_info::PENDING)),
        ("shared_info.evtchn_mask", size(shared_info::MASK)),
        ("shared_info.ports", shared_info::PORTS.into()),
        ("vcpu_info.evtchn_upcall_mask", size(shared_info::UPCALL_MASK)),
        ("vcpu_time_info.version", size(shared_info::VERSION)),
        ("vcpu_time_info.tsc_timestamp", size(shared_info::TSC_TIMESTAMP)),
        ("vcpu_time_info.system_time", size(shared_info::SYSTEM_TIME)),
        ("vcpu_time_info.tsc_to_system_mul", size(shared_info::TSC_TO_SYSTEM_MUL)),
        ("vcpu_time_info.tsc_shift", size(shared_info::TSC_SHIFT)),
        ("start_info.nr_pages", size(start_info::PAGES)),
        ("start_info.shared_info", size(start_info::SHARED_INFO)),
        ("start_info.store_mfn", size(start_info::STORE_FRAME)),
        ("start_info.store_evtchn", size(start_info::STORE_PORT)),
        ("start_info.console.domU.mfn", size(start_info::CONSOLE_FRAME)),
        ("start_info.console.domU.evtchn", size(start_info::CONSOLE_PORT)),
        ("start_info.mfn_list", size(start_info::FRAME_LIST)),
        ("start_info.cmd_line", size(start_info::COMMAND_LINE)),
        ("MAX_GUEST_CMDLINE", size(start_info::COMMAND_LINE_BYTES)),
    ];
    all.extend(not_pv());
    all.extend(places());
    all.extend(borrowed());
    all
}

/// What only guests need that are not PV.
fn not_pv() -> impl Iterator<Item = (&'static str, u64)> {
    let [ebx, ecx, edx] = CPUID_SIGNATURE;
    let numbers = [
        ("XENMAPSPACE_shared_info", XENMAPSPACE_SHARED_INFO),
        ("XENMAPSPACE_grant_table", XENMAPSPACE_GRANT_TABLE),
        ("HVM_PARAM_STORE_PFN", HVM_PARAM_STORE_PFN),
        ("HVM_PARAM_STORE_EVTCHN", HVM_PARAM_STORE_EVTCHN),
        ("HVM_PARAM_CONSOLE_PFN", HVM_PARAM_CONSOLE_PFN),
        ("HVM_PARAM_CONSOLE_EVTCHN", HVM_PARAM_CONSOLE_EVTCHN),
        ("HVM_PARAM_TRIPLE_FAULT_REASON", HVM_PARAM_TRIPLE_FAULT_REASON),
        ("XEN_HVM_START_MAGIC_VALUE", hvm_start_info::MAGIC_VALUE),
        ("XEN_CPUID_FIRST_LEAF", CPUID_FIRST_LEAF),
        ("XEN_CPUID_SIGNATURE_EBX", ebx),
        ("XEN_CPUID_SIGNATURE_ECX", ecx),
        ("XEN_CPUID_SIGNATURE_EDX", edx),
        ("__HYPERVISOR_memory_op", xen::__HYPERVISOR_memory_op),
        ("__HYPERVISOR_hvm_op", xen::__HYPERVISOR_hvm_op),
    ];
    let sizes = [
        ("xen_add_to_physmap", size_of::<AddToPhysmap>()),
        ("xen_add_to_physmap.space", offset_of!(AddToPhysmap, space)),
        ("xen_add_to_physmap.idx", offset_of!(AddToPhysmap, idx)),
        ("xen_add_to_physmap.gpfn", offset_of!(AddToPhysmap, gpfn)),
        ("xen_hvm_param", size_of::<HvmParameter>()),
        ("xen_hvm_param.index", offset_of!(HvmParameter, index)),
        ("xen_hvm_param.value", offset_of!(HvmParameter, value)),
        ("hvm_start_info", hvm_start_info::BYTES),
        ("hvm_start_info.magic", hvm_start_info::MAGIC),
        ("hvm_start_info.cmdline_paddr", hvm_start_info::COMMAND_LINE),
    ];
    let words = [
        ("XENMEM_add_to_physmap", XENMEM_ADD_TO_PHYSMAP),
        ("HVMOP_set_param", HVMOP_SET_PARAM),
        ("HVMOP_get_param", HVMOP_GET_PARAM),
    ];
    let numbers = numbers.into_iter().map(|(name, value)| (name, value.into()));
    let sizes = sizes.into_iter().map(|(name, value)| (name, value as u64));
    numbers.chain(sizes).chain(words)
}

/// The byte rings.
fn places() -> impl Iterator<Item = (&'static str, u64)> {
    [
        ("xencons_interface.out", console::OUT.data),
        ("xencons_interface.out.size", console::OUT.size),
        ("xencons_interface.out_cons", console::OUT.consumer),
        ("xencons_interface.out_prod", console::OUT.producer),
        ("xenstore_domain_interface.req", store::REQUESTS.data),
        ("xenstore_domain_interface.req.size", store::REQUESTS.size),
        ("xenstore_domain_interface.req_cons", store::REQUESTS.consumer),
        ("xenstore_domain_interface.req_prod", store::REQUESTS.producer),
        ("xenstore_domain_interface.rsp", store::REPLIES.data),
        ("xenstore_domain_interface.rsp.size", store::REPLIES.size),
        ("xenstore_domain_interface.rsp_cons", store::REPLIES.consumer),
        ("xenstore_domain_interface.rsp_prod", store::REPLIES.producer),
    ]
    .into_iter()
    .map(|(name, value)| (name, value as u64))
}

/// What we take from `xen-sys`, which is generated from headers of another version.
fn borrowed() -> impl Iterator<Item = (&'static str, u64)> {
    [
        ("__HYPERVISOR_update_va_mapping", xen::__HYPERVISOR_update_va_mapping),
        ("__HYPERVISOR_grant_table_op", xen::__HYPERVISOR_grant_table_op),
        ("__HYPERVISOR_sched_op", xen::__HYPERVISOR_sched_op),
        ("__HYPERVISOR_event_channel_op", xen::__HYPERVISOR_event_channel_op),
        ("SCHEDOP_yield", xen::SCHEDOP_yield),
        ("SCHEDOP_shutdown", xen::SCHEDOP_shutdown),
        ("SCHEDOP_poll", xen::SCHEDOP_poll),
        ("SHUTDOWN_poweroff", xen::SHUTDOWN_poweroff),
        ("SHUTDOWN_suspend", xen::SHUTDOWN_suspend),
        ("SHUTDOWN_crash", xen::SHUTDOWN_crash),
        ("EVTCHNOP_alloc_unbound", xen::EVTCHNOP_alloc_unbound),
        ("EVTCHNOP_bind_interdomain", xen::EVTCHNOP_bind_interdomain),
        ("EVTCHNOP_close", xen::EVTCHNOP_close),
        ("EVTCHNOP_send", xen::EVTCHNOP_send),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.into()))
    .chain([
        ("evtchn_alloc_unbound", size_of::<xen::evtchn_alloc_unbound>() as u64),
        ("evtchn_alloc_unbound.port", offset_of!(xen::evtchn_alloc_unbound, port) as u64),
        ("evtchn_bind_interdomain", size_of::<xen::evtchn_bind_interdomain>() as u64),
        ("evtchn_bind_interdomain.remote_port", offset_of!(xen::evtchn_bind_interdomain, remote_port) as u64),
        ("evtchn_bind_interdomain.local_port", offset_of!(xen::evtchn_bind_interdomain, local_port) as u64),
        ("evtchn_close", size_of::<xen::evtchn_close>() as u64),
        ("evtchn_send", size_of::<xen::evtchn_send>() as u64),
        ("sched_shutdown", size_of::<xen::sched_shutdown>() as u64),
        ("sched_poll", size_of::<xen::sched_poll>() as u64),
        ("sched_poll.nr_ports", offset_of!(xen::sched_poll, nr_ports) as u64),
        ("sched_poll.timeout", offset_of!(xen::sched_poll, timeout) as u64),
    ])
}
