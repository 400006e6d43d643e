/* SPDX-License-Identifier: Apache-2.0
 * The best of each row of logits, and ln of the sum of their exponentials: blocks of 4096 logits, joined in order. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/isa.h"

enum { BLOCK_LOGITS = 4096 };

struct top_call {
    const struct isa *isa;
    struct phx_tensor ids, values, lse, logits;
};

/* A later logit wins only when it is larger; NaN loses to all others. */
static bool is_better(float later, float earlier)
{
    return later > earlier || (isnan(earlier) && !isnan(later));
}

/* Kept sorted by insertion: few, and most logits fail the first comparison. */
static void find_top(const float *logits, int32_t n, int32_t top_k, int32_t *ids, float *values)
{
    int32_t n_top = 0;

    for (int32_t i = 0; i < n; i++) {
        float   x = logits[i];
        int32_t at = n_top;

        if (at == top_k && !is_better(x, values[at - 1]))
            continue;
        at -= at == top_k;
        n_top = at + 1;
        for (; at > 0 && is_better(x, values[at - 1]); at--) {
            ids[at] = ids[at - 1];
            values[at] = values[at - 1];
        }
        ids[at] = i;
        values[at] = x;
    }
}

static float log_sum_exp(const struct isa *isa, const float *logits, int32_t n)
{
    float m = 0, l = 0;

    for (int32_t i = 0; i < n; i += BLOCK_LOGITS) {
        float block_m, block_l, top;

        isa->sum_exp(logits + i, n - i < BLOCK_LOGITS ? n - i : BLOCK_LOGITS, &block_m, &block_l);
        if (i == 0)
            m = block_m;
        top = block_m > m ? block_m : m;
        l = fmaf(block_l, isa->exp(block_m - top), l * isa->exp(m - top));
        m = top;
    }
    return m + logf(l);
}

static void run_top(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct top_call *c = ctx;

    (void)member;
    for (int32_t t = first; t < end; t++) {
        const float *logits = (const float *)c->logits.data + t * c->logits.stride0;

        find_top(logits, c->logits.dim[1], c->ids.dim[1], (int32_t *)c->ids.data + t * c->ids.stride0,
                 (float *)c->values.data + t * c->values.stride0);
        ((float *)c->lse.data)[t * c->lse.stride0] = log_sum_exp(c->isa, logits, c->logits.dim[1]);
    }
}

void phx_cpu_top(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                 struct phx_tensor logits)
{
    struct cpu_device *d = device;
    struct top_call    c = {d->isa, ids, values, lse, logits};

    phx_team_run(d->team, logits.dim[0], run_top, &c);
}
