/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/memory.h"

#include <stdio.h>

enum {
    PROCESS_BYTES = 64 << 20, /* a rank's program, libraries, MPI, rings */
    CACHE_SHARE = 2           /* at most this part of what is left goes to the cache by itself */
};

static uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t total(const struct phx_memory_need *n)
{
    return add_capped(add_capped(n->weights_bytes, n->kv_bytes), add_capped(n->scratch_bytes, n->other_bytes));
}

void phx_memory_need(const struct phx_part *parts, const int32_t *ranks, int32_t n, int64_t n_blocks,
                     uint64_t extra_bytes, struct phx_memory_need *out)
{
    *out = (struct phx_memory_need){.n_ranks = n};
    for (int32_t i = 0; i < n; i++) {
        const struct phx_part *p = &parts[ranks[i]];
        uint64_t               kv;

        if (__builtin_mul_overflow(p->kv_bytes_per_block, (uint64_t)n_blocks, &kv))
            kv = UINT64_MAX;
        out->weights_bytes = add_capped(out->weights_bytes, p->weights_bytes);
        out->kv_bytes = add_capped(out->kv_bytes, kv);
        out->scratch_bytes = add_capped(out->scratch_bytes, p->scratch_bytes);
        out->other_bytes = add_capped(out->other_bytes, add_capped(extra_bytes, PROCESS_BYTES));
    }
}

int64_t phx_memory_budget(const struct phx_memory_need *without_kv, const struct phx_memory_room *room)
{
    uint64_t need = total(without_kv), have = (uint64_t)room->free_bytes;

    return have > need ? (int64_t)((have - need) / CACHE_SHARE) : 0;
}

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

int phx_memory_check(const struct phx_memory_need *n, const struct phx_memory_room *room, struct phx_err *err)
{
    uint64_t need = total(n);
    char     what[48] = "MemAvailable";

    if (need <= (uint64_t)room->free_bytes)
        return 0;
    if (room->limit_bytes > 0)
        (void)snprintf(what, sizeof(what), "cgroup limit %.2f", gib((uint64_t)room->limit_bytes));
    return phx_fail(err, PHX_E_NOMEM,
                    "memory: %.2f GiB needed by %d rank%s here (weights %.2f, kv %.2f, scratch %.2f, other %.2f), "
                    "%.2f can be had (%s); raise the limit or lower kv_memory, max_seqs, max_rows",
                    gib(need), n->n_ranks, n->n_ranks == 1 ? "" : "s", gib(n->weights_bytes),
                    gib(n->kv_bytes), gib(n->scratch_bytes), gib(n->other_bytes),
                    gib((uint64_t)room->free_bytes), what);
}
