/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/isa.h"
#include "kernels/memory.h"

bool phx_scratch_reserve(struct cpu_scratch *s, size_t size_bytes)
{
    unsigned char *data;

    if (size_bytes <= s->size_bytes)
        return true;
    data = phx_memory_alloc(size_bytes);
    if (data == NULL)
        return false;
    phx_memory_free(s->data);
    s->data = data;
    s->size_bytes = size_bytes;
    return true;
}

void phx_scratch_free(struct cpu_scratch *s)
{
    phx_memory_free(s->data);
    s->data = NULL;
    s->size_bytes = 0;
}
