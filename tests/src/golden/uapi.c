/* Prints the numbers and layouts of the ioctls of Linux's Xen devices, one "name value" a line. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;

#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

#define NUMBER(name) printf(#name " %lu\n", (unsigned long)(name))
#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))
#define OFFSET(type, field) printf(#type "." #field " %zu\n", offsetof(struct type, field))

int main(void) {
    NUMBER(IOCTL_GNTDEV_MAP_GRANT_REF);
    NUMBER(IOCTL_GNTDEV_UNMAP_GRANT_REF);
    NUMBER(IOCTL_GNTDEV_SET_UNMAP_NOTIFY);
    NUMBER(IOCTL_GNTDEV_GRANT_COPY);
    NUMBER(IOCTL_GNTALLOC_ALLOC_GREF);
    printf("IOCTL_GNTALLOC_DEALLOC_GREF %lu\n", (unsigned long)IOCTL_GNTALLOC_DEALLOC_GREF);
    NUMBER(IOCTL_GNTALLOC_SET_UNMAP_NOTIFY);
    NUMBER(IOCTL_EVTCHN_BIND_INTERDOMAIN);
    NUMBER(IOCTL_EVTCHN_BIND_UNBOUND_PORT);
    NUMBER(IOCTL_EVTCHN_UNBIND);
    NUMBER(IOCTL_EVTCHN_NOTIFY);
    NUMBER(IOCTL_EVTCHN_RESET);
    NUMBER(IOCTL_EVTCHN_RESTRICT_DOMID);
    SIZE(gntdev_grant_copy_segment);
    OFFSET(gntdev_grant_copy_segment, dest);
    OFFSET(gntdev_grant_copy_segment, len);
    OFFSET(gntdev_grant_copy_segment, flags);
    OFFSET(gntdev_grant_copy_segment, status);
    OFFSET(ioctl_gntdev_grant_copy, segments);
    OFFSET(ioctl_gntdev_map_grant_ref, index);
    OFFSET(ioctl_gntdev_map_grant_ref, refs);
    OFFSET(ioctl_gntdev_unmap_grant_ref, count);
    OFFSET(ioctl_gntalloc_alloc_gref, flags);
    OFFSET(ioctl_gntalloc_alloc_gref, count);
    OFFSET(ioctl_gntalloc_alloc_gref, index);
    OFFSET(ioctl_gntalloc_alloc_gref, gref_ids);
    OFFSET(ioctl_gntalloc_dealloc_gref, count);
    OFFSET(ioctl_gntdev_unmap_notify, action);
    OFFSET(ioctl_gntdev_unmap_notify, event_channel_port);
    return 0;
}
