/*
 * Prints messages as a C driver lays them out, filled with the numbers of a fixed pseudo-random sequence. One message per
 * line: a kind, its fields by name in decimal, and at last the bytes in hexadecimal. Segments are gref:first:last.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xen/io/blkif.h>

#define EXAMPLES 24
#define BLOCK_SEGMENTS 14

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t number(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void bytes(const void *from, size_t length)
{
    const uint8_t *byte = from;

    printf(" bytes=");
    while (length--)
        printf("%02x", *byte++);
    printf("\n");
}

static void segments(struct blkif_request_segment *seg, unsigned int count)
{
    for (unsigned int i = 0; i < count; i++) {
        seg[i].gref = number();
        seg[i].first_sect = number() % 8;
        seg[i].last_sect = seg[i].first_sect + number() % (8 - seg[i].first_sect);
        printf("%s%" PRIu32 ":%u:%u", i ? "," : "", seg[i].gref, seg[i].first_sect, seg[i].last_sect);
    }
}

/* Sectors stay below 2^40, so that every request lies on a disk of that size; ids use all of their bits. */
static uint64_t sector(void)
{
    return number() >> 24;
}

static void direct(uint8_t operation, unsigned int count, blkif_vdev_t handle)
{
    union blkif_sring_entry entry;

    memset(&entry, 0, sizeof(entry));
    entry.req.operation = operation;
    entry.req.nr_segments = count;
    entry.req.handle = handle;
    entry.req.id = number();
    entry.req.sector_number = count ? sector() : 0;
    printf("direct operation=%u handle=%u id=%" PRIu64 " sector=%" PRIu64 " segments=", operation, handle,
           entry.req.id, entry.req.sector_number);
    segments(entry.req.seg, count);
    bytes(&entry, sizeof(entry));
}

static void discard(uint8_t flag, blkif_vdev_t handle)
{
    union blkif_sring_entry entry;
    struct blkif_request_discard *request = (void *)&entry;

    memset(&entry, 0, sizeof(entry));
    request->operation = BLKIF_OP_DISCARD;
    request->flag = flag;
    request->handle = handle;
    request->id = number();
    request->sector_number = sector();
    request->nr_sectors = sector();
    printf("discard secure=%u handle=%u id=%" PRIu64 " sector=%" PRIu64 " sectors=%" PRIu64, flag, handle,
           request->id, request->sector_number, request->nr_sectors);
    bytes(&entry, sizeof(entry));
}

static void indirect(uint8_t operation, unsigned int count, blkif_vdev_t handle)
{
    static struct blkif_request_segment descriptors[4096];
    union blkif_sring_entry entry;
    struct blkif_request_indirect *request = (void *)&entry;

    memset(&entry, 0, sizeof(entry));
    memset(descriptors, 0, sizeof(descriptors));
    request->operation = BLKIF_OP_INDIRECT;
    request->indirect_op = operation;
    request->nr_segments = count;
    request->handle = handle;
    request->id = number();
    request->sector_number = sector();
    printf("indirect operation=%u handle=%u id=%" PRIu64 " sector=%" PRIu64 " pages=", operation, handle, request->id,
           request->sector_number);
    for (unsigned int page = 0; page < (count + 511) / 512; page++) {
        request->indirect_grefs[page] = number();
        printf("%s%" PRIu32, page ? "," : "", request->indirect_grefs[page]);
    }
    printf(" segments=");
    segments(descriptors, count);
    bytes(&entry, sizeof(entry));
    printf("descriptors");
    bytes(descriptors, count * sizeof(descriptors[0]));
}

/* The extension of 2010, which Xen's headers do not have: an ordinary request, and further entries full of segments. */
static void blocks(uint8_t operation, unsigned int count)
{
    union blkif_sring_entry entry;
    struct blkif_request_segment block[BLOCK_SEGMENTS];
    unsigned int done;

    memset(&entry, 0, sizeof(entry));
    entry.req.operation = operation;
    entry.req.nr_segments = count;
    entry.req.id = number();
    entry.req.sector_number = sector();
    printf("blocks operation=%u id=%" PRIu64 " sector=%" PRIu64 " segments=", operation, entry.req.id,
           entry.req.sector_number);
    segments(entry.req.seg, BLKIF_MAX_SEGMENTS_PER_REQUEST);
    bytes(&entry, sizeof(entry));
    for (done = BLKIF_MAX_SEGMENTS_PER_REQUEST; done < count; done += BLOCK_SEGMENTS) {
        memset(block, 0, sizeof(block));
        printf("block segments=");
        segments(block, count - done < BLOCK_SEGMENTS ? count - done : BLOCK_SEGMENTS);
        bytes(block, sizeof(block));
    }
}

static void response(uint8_t operation, int16_t status)
{
    union blkif_sring_entry entry;

    memset(&entry, 0, sizeof(entry));
    entry.rsp.id = number();
    entry.rsp.operation = operation;
    entry.rsp.status = status;
    printf("response operation=%u status=%d id=%" PRIu64, operation, status, entry.rsp.id);
    bytes(&entry, sizeof(entry));
}

int main(void)
{
    for (unsigned int i = 0; i < EXAMPLES; i++) {
        blkif_vdev_t handle = i % 2 ? number() : 0;

        direct(BLKIF_OP_READ, 1 + i % BLKIF_MAX_SEGMENTS_PER_REQUEST, handle);
        direct(BLKIF_OP_WRITE, 1 + i % BLKIF_MAX_SEGMENTS_PER_REQUEST, handle);
        direct(BLKIF_OP_WRITE_BARRIER, i % (BLKIF_MAX_SEGMENTS_PER_REQUEST + 1), handle);
        direct(BLKIF_OP_FLUSH_DISKCACHE, i % (BLKIF_MAX_SEGMENTS_PER_REQUEST + 1), handle);
        discard(i % 3 ? 0 : BLKIF_DISCARD_SECURE, handle);
        indirect(i % 2 ? BLKIF_OP_WRITE : BLKIF_OP_READ, 1 + number() % (i % 4 ? 64 : 4096), handle);
        response(number() % 7, -(int16_t)(i % 3));
    }
    indirect(BLKIF_OP_READ, 512, 0);
    indirect(BLKIF_OP_READ, 513, 0);
    indirect(BLKIF_OP_WRITE, 4096, 0);
    /* On i386 the fourteenth segment of a block would not fit its entry. */
    for (unsigned int count = 12; count <= (sizeof(union blkif_sring_entry) < 112 ? 24 : 255); count++)
        blocks(count % 2 ? BLKIF_OP_WRITE : BLKIF_OP_READ, count);
    return 0;
}
