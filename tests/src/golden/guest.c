/* Prints what a guest has to know of Xen's public headers, one "name value" a line. */
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/xen.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/sched.h>

enum {
#define XEN_ERRNO(name, value) XEN_##name = value,
#include <xen/errno.h>
};

#define NUMBER(name) printf(#name " %lu\n", (unsigned long)(name))
#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))
#define OFFSET(type, field) printf(#type "." #field " %zu\n", offsetof(struct type, field))
/* A field of a structure that lies in another one. */
#define WITHIN(type, field, outer, place) \
    printf(#type "." #field " %zu\n", offsetof(struct outer, place) + offsetof(struct type, field))
#define ROOM(type, field) printf(#type "." #field ".size %zu\n", sizeof(((struct type *)0)->field))

int main(void) {
    NUMBER(DOMID_SELF);
    NUMBER(XEN_ESRCH);
    NUMBER(XEN_EINVAL);
    NUMBER(XEN_ENOSPC);
    NUMBER(XEN_ENOSYS);
    NUMBER(UVMF_INVLPG);

    NUMBER(GNTTABOP_setup_table);
    SIZE(gnttab_setup_table);
    OFFSET(gnttab_setup_table, dom);
    OFFSET(gnttab_setup_table, nr_frames);
    OFFSET(gnttab_setup_table, status);
    OFFSET(gnttab_setup_table, frame_list);
    printf("grant_entry_v1 %zu\n", sizeof(grant_entry_v1_t));
    printf("grant_entry_v1.flags %zu\n", offsetof(grant_entry_v1_t, flags));
    printf("grant_entry_v1.domid %zu\n", offsetof(grant_entry_v1_t, domid));
    printf("grant_entry_v1.frame %zu\n", offsetof(grant_entry_v1_t, frame));
    NUMBER(GNTTAB_NR_RESERVED_ENTRIES);
    NUMBER(GTF_permit_access);
    NUMBER(GTF_readonly);
    printf("GTF_in_use %u\n", GTF_reading | GTF_writing);

    OFFSET(shared_info, evtchn_pending);
    OFFSET(shared_info, evtchn_mask);
    printf("shared_info.ports %zu\n", 8 * sizeof(((struct shared_info *)0)->evtchn_pending));
    OFFSET(vcpu_info, evtchn_upcall_mask);
    WITHIN(vcpu_time_info, version, shared_info, vcpu_info[0].time);
    WITHIN(vcpu_time_info, tsc_timestamp, shared_info, vcpu_info[0].time);
    WITHIN(vcpu_time_info, system_time, shared_info, vcpu_info[0].time);
    WITHIN(vcpu_time_info, tsc_to_system_mul, shared_info, vcpu_info[0].time);
    WITHIN(vcpu_time_info, tsc_shift, shared_info, vcpu_info[0].time);

    OFFSET(start_info, nr_pages);
    OFFSET(start_info, shared_info);
    OFFSET(start_info, store_mfn);
    OFFSET(start_info, store_evtchn);
    OFFSET(start_info, console.domU.mfn);
    OFFSET(start_info, console.domU.evtchn);
    OFFSET(start_info, mfn_list);
    OFFSET(start_info, cmd_line);
    NUMBER(MAX_GUEST_CMDLINE);

    NUMBER(XENMEM_add_to_physmap);
    NUMBER(XENMAPSPACE_shared_info);
    NUMBER(XENMAPSPACE_grant_table);
    SIZE(xen_add_to_physmap);
    OFFSET(xen_add_to_physmap, space);
    OFFSET(xen_add_to_physmap, idx);
    OFFSET(xen_add_to_physmap, gpfn);
    NUMBER(HVMOP_set_param);
    NUMBER(HVMOP_get_param);
    NUMBER(HVM_PARAM_STORE_PFN);
    NUMBER(HVM_PARAM_STORE_EVTCHN);
    NUMBER(HVM_PARAM_CONSOLE_PFN);
    NUMBER(HVM_PARAM_CONSOLE_EVTCHN);
    NUMBER(HVM_PARAM_TRIPLE_FAULT_REASON);
    SIZE(xen_hvm_param);
    OFFSET(xen_hvm_param, index);
    OFFSET(xen_hvm_param, value);
    NUMBER(XEN_CPUID_FIRST_LEAF);
    NUMBER(XEN_CPUID_SIGNATURE_EBX);
    NUMBER(XEN_CPUID_SIGNATURE_ECX);
    NUMBER(XEN_CPUID_SIGNATURE_EDX);
    NUMBER(XEN_HVM_START_MAGIC_VALUE);
    SIZE(hvm_start_info);
    OFFSET(hvm_start_info, magic);
    OFFSET(hvm_start_info, cmdline_paddr);

    OFFSET(xencons_interface, out);
    ROOM(xencons_interface, out);
    OFFSET(xencons_interface, out_cons);
    OFFSET(xencons_interface, out_prod);
    OFFSET(xenstore_domain_interface, req);
    ROOM(xenstore_domain_interface, req);
    OFFSET(xenstore_domain_interface, req_cons);
    OFFSET(xenstore_domain_interface, req_prod);
    OFFSET(xenstore_domain_interface, rsp);
    ROOM(xenstore_domain_interface, rsp);
    OFFSET(xenstore_domain_interface, rsp_cons);
    OFFSET(xenstore_domain_interface, rsp_prod);

    NUMBER(__HYPERVISOR_update_va_mapping);
    NUMBER(__HYPERVISOR_memory_op);
    NUMBER(__HYPERVISOR_hvm_op);
    NUMBER(__HYPERVISOR_grant_table_op);
    NUMBER(__HYPERVISOR_sched_op);
    NUMBER(__HYPERVISOR_event_channel_op);
    NUMBER(SCHEDOP_yield);
    NUMBER(SCHEDOP_shutdown);
    NUMBER(SCHEDOP_poll);
    NUMBER(SHUTDOWN_poweroff);
    NUMBER(SHUTDOWN_suspend);
    NUMBER(SHUTDOWN_crash);
    NUMBER(EVTCHNOP_alloc_unbound);
    NUMBER(EVTCHNOP_bind_interdomain);
    NUMBER(EVTCHNOP_close);
    NUMBER(EVTCHNOP_send);
    SIZE(evtchn_alloc_unbound);
    OFFSET(evtchn_alloc_unbound, port);
    SIZE(evtchn_bind_interdomain);
    OFFSET(evtchn_bind_interdomain, remote_port);
    OFFSET(evtchn_bind_interdomain, local_port);
    SIZE(evtchn_close);
    SIZE(evtchn_send);
    SIZE(sched_shutdown);
    SIZE(sched_poll);
    OFFSET(sched_poll, nr_ports);
    OFFSET(sched_poll, timeout);
    return 0;
}
