/* SPDX-License-Identifier: Apache-2.0
 * A whole safetensors file: whatever it says, every accepted tensor lies inside it. */
#include <stdint.h>

#include "rpc/base/mem.h"
#include "shard/load/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_arena  *arena = phx_arena_create();
    struct phx_st_list list = {0};
    struct phx_err     err;
    uint64_t           sum = 0;

    if (phx_st_parse(data, size, "input", 0, arena, &list, &err) == 0) {
        for (int32_t i = 0; i < list.n; i++) {
            const struct phx_ckpt_tensor *t = &list.items[i];

            phx_assert(t->data >= data && t->data + t->size_bytes <= data + size);
            for (uint64_t k = 0; k < t->size_bytes; k += 1 + t->size_bytes / 64)
                sum += t->data[k];
        }
        phx_assert(sum <= 255 * (uint64_t)size * 64);
    }
    phx_mem_free(list.items);
    phx_arena_destroy(arena);
    return 0;
}
