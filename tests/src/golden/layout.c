/* Prints what the compiler makes of Xen's public block headers: one "name number" per line. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>

#define SIZE(name, type) printf("size.%s %zu\n", name, sizeof(type))
#define OFFSET(type, member) printf(#type "." #member " %zu\n", offsetof(struct type, member))
#define CONSTANT(name) printf(#name " %ld\n", (long)(name))

int main(void)
{
    SIZE("entry", union blkif_sring_entry);
    SIZE("request", struct blkif_request);
    SIZE("discard", struct blkif_request_discard);
    SIZE("indirect", struct blkif_request_indirect);
    SIZE("segment", struct blkif_request_segment);
    SIZE("response", struct blkif_response);
    printf("ring.header %zu\n", offsetof(struct blkif_sring, ring));

    OFFSET(blkif_request, operation);
    OFFSET(blkif_request, nr_segments);
    OFFSET(blkif_request, handle);
    OFFSET(blkif_request, id);
    OFFSET(blkif_request, sector_number);
    OFFSET(blkif_request, seg);

    OFFSET(blkif_request_discard, operation);
    OFFSET(blkif_request_discard, flag);
    OFFSET(blkif_request_discard, handle);
    OFFSET(blkif_request_discard, id);
    OFFSET(blkif_request_discard, sector_number);
    OFFSET(blkif_request_discard, nr_sectors);

    OFFSET(blkif_request_indirect, operation);
    OFFSET(blkif_request_indirect, indirect_op);
    OFFSET(blkif_request_indirect, nr_segments);
    OFFSET(blkif_request_indirect, id);
    OFFSET(blkif_request_indirect, sector_number);
    OFFSET(blkif_request_indirect, handle);
    OFFSET(blkif_request_indirect, indirect_grefs);

    OFFSET(blkif_request_segment, gref);
    OFFSET(blkif_request_segment, first_sect);
    OFFSET(blkif_request_segment, last_sect);

    OFFSET(blkif_response, id);
    OFFSET(blkif_response, operation);
    OFFSET(blkif_response, status);

    CONSTANT(BLKIF_OP_READ);
    CONSTANT(BLKIF_OP_WRITE);
    CONSTANT(BLKIF_OP_WRITE_BARRIER);
    CONSTANT(BLKIF_OP_FLUSH_DISKCACHE);
    CONSTANT(BLKIF_OP_DISCARD);
    CONSTANT(BLKIF_OP_INDIRECT);
    CONSTANT(BLKIF_RSP_OKAY);
    CONSTANT(BLKIF_RSP_ERROR);
    CONSTANT(BLKIF_RSP_EOPNOTSUPP);
    CONSTANT(BLKIF_MAX_SEGMENTS_PER_REQUEST);
    CONSTANT(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST);
    CONSTANT(VDISK_CDROM);
    CONSTANT(VDISK_REMOVABLE);
    CONSTANT(VDISK_READONLY);

    printf("native %s\n", XEN_IO_PROTO_ABI_NATIVE);
    printf("protocol.x86_32 %s\n", XEN_IO_PROTO_ABI_X86_32);
    printf("protocol.x86_64 %s\n", XEN_IO_PROTO_ABI_X86_64);
    printf("protocol.arm %s\n", XEN_IO_PROTO_ABI_ARM);

    for (int pages = 1; pages <= 32; pages++) {
        struct blkif_sring *ring = NULL;
        printf("entries.%d %ld\n", pages, (long)__RING_SIZE(ring, (size_t)pages * 4096));
    }
    return 0;
}
