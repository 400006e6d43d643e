/* SPDX-License-Identifier: Apache-2.0
 * Byte-pair merging over token ids (private to daemon/text).
 * A merge says: these two neighbours become that token, with this priority (lowest first, leftmost
 * on ties).  Rank files and tokenizer.json both end as such a table, so there is one engine. */
#ifndef PHX_DAEMON_TEXT_MERGE_H
#define PHX_DAEMON_TEXT_MERGE_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank;
    int32_t  id;
};

struct phx_merges {
    struct phx_merge *slots; /* open addressing; pair == UINT64_MAX is free */
    uint64_t          mask;
};

/* Room for n merges.  PHX_E_NOMEM. */
int  phx_merges_init(struct phx_merges *m, size_t n, struct phx_err *err) PHX_CHECKED;
void phx_merges_fini(struct phx_merges *m);
/* A pair given twice keeps its last rank (as the reference does). */
void phx_merges_put(struct phx_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* Memory that encoding reuses from piece to piece; zero-initialise. */
struct phx_merge_scratch {
    void  *memory;
    size_t size_bytes;
};
void phx_merge_scratch_fini(struct phx_merge_scratch *s);

/* Merges ids[0..n) in place until no pair is left.  *n_out: what remains.  O(n log n).
 * PHX_E_NOMEM for a very long piece on a full machine. */
int phx_merges_apply(const struct phx_merges *m, int32_t *ids, size_t n,
                     struct phx_merge_scratch *scratch, size_t *n_out,
                     struct phx_err *err) PHX_CHECKED;

#endif
