/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/memory.h"

#include <stdint.h>
#include <sys/mman.h>

/* A header in front of each block remembers its size; it keeps the 64-byte alignment. */
enum { HEADER_BYTES = 64, HUGE_FROM_BYTES = 4 << 20, HUGE_PAGE_BYTES = 2 << 20 };

struct header {
    void  *base;
    size_t size_bytes;
};

void *phx_memory_alloc(size_t size_bytes)
{
    size_t         total;
    unsigned char *base, *block;
    struct header *header;

    if (__builtin_add_overflow(size_bytes, (size_t)HEADER_BYTES + HUGE_PAGE_BYTES, &total))
        return NULL;
    if (size_bytes < HUGE_FROM_BYTES)
        total = size_bytes + HEADER_BYTES;
    base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    block = base + HEADER_BYTES;
    if (size_bytes >= HUGE_FROM_BYTES) {
        uintptr_t at = ((uintptr_t)base + HEADER_BYTES + HUGE_PAGE_BYTES - 1) &
                       ~((uintptr_t)HUGE_PAGE_BYTES - 1);

        block = base + (at - (uintptr_t)base);
        (void)madvise(block, size_bytes, MADV_HUGEPAGE); /* advice: small pages work as well */
    }
    header = (struct header *)(void *)(block - HEADER_BYTES);
    header->base = base;
    header->size_bytes = total;
    return block;
}

void phx_memory_free(void *ptr)
{
    const struct header *header;

    if (ptr == NULL)
        return;
    header = (const struct header *)(const void *)((const unsigned char *)ptr - HEADER_BYTES);
    (void)munmap(header->base, header->size_bytes); /* a mapping we made ourselves */
}
