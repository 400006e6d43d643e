/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/pad.h"

#include <string.h>

enum { EXACT_MAX = 16, FINE_MAX = 64, FINE = 8, COARSE_MAX = 256, COARSE = 16 };

int32_t phx_pad_rows(int32_t n, int32_t most)
{
    int32_t unit = n <= EXACT_MAX || n > COARSE_MAX ? 1 : n <= FINE_MAX ? FINE : COARSE;
    int32_t rows = (n - 1) / unit * unit + unit;

    return rows < most ? rows : most;
}

static int32_t find_shortest(const struct phx_spans *s)
{
    int32_t shortest = 0;

    for (int32_t i = 1; i < s->n_seqs; i++)
        if (s->pos[i] < s->pos[shortest])
            shortest = i;
    return shortest;
}

void phx_pad_batch(struct phx_batch *batch, const struct phx_pad_room *room, int32_t block_tokens)
{
    struct phx_spans *s = &batch->spans;
    int32_t           n = batch->n_rows, rows, from;
    size_t            n_blocks, stride = (size_t)s->table_stride;

    if (n == 0 || s->n_seqs != n || batch->n_logits != n)
        return;
    rows = phx_pad_rows(n, room->most);
    from = find_shortest(s);
    n_blocks = (size_t)(s->pos[from] / block_tokens + 1);
    for (int32_t i = n; i < rows; i++) {
        room->tokens[i] = room->tokens[from];
        room->row[i] = i;
        room->n_rows[i] = 1;
        room->pos[i] = room->pos[from];
        memcpy(room->table + (size_t)i * stride, room->table + (size_t)from * stride, n_blocks * sizeof(int32_t));
    }
    batch->n_pads = rows - n;
    batch->n_rows = s->n_seqs = rows;
}
