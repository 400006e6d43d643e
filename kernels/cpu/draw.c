/* SPDX-License-Identifier: Apache-2.0
 * Draws from rows of logits, a row at a time by each member of the team.  What a rank of this backend samples with is
 * shard/sample, which reads the logits where they are; this is the operation by its definition. */
#include <math.h>

#include "kernels/cpu/isa.h"
#include "kernels/draw.h"

struct draw_call {
    struct phx_tensor      out, logits;
    const struct phx_draw_row *draws;
};

/* -infinity when there is no other, NaN when a logit is NaN or +infinity. */
static float find_largest(const float *logits, int32_t n)
{
    float largest = -INFINITY;
    bool  is_odd = false;

    for (int32_t i = 0; i < n; i++) {
        is_odd |= !(logits[i] < INFINITY);
        largest = logits[i] > largest ? logits[i] : largest;
    }
    return is_odd ? NAN : largest;
}

static int32_t block_size(int32_t n, int32_t first)
{
    return n - first < PHX_DRAW_BLOCK ? n - first : PHX_DRAW_BLOCK;
}

static double sum_block(const float *logits, int32_t n, double largest, double scale)
{
    double lane[PHX_DRAW_LANES] = {0};

    for (int32_t i = 0; i < n; i++)
        lane[i % PHX_DRAW_LANES] += phx_draw_weight(logits[i], largest, scale);
    return phx_draw_join(lane);
}

static int32_t find_in_block(const float *logits, int32_t n, double largest, double scale, double at)
{
    double  weight[PHX_DRAW_BLOCK], runs[PHX_DRAW_RUNS] = {0};
    int32_t run;

    for (int32_t i = 0; i < n; i++) {
        weight[i] = phx_draw_weight(logits[i], largest, scale);
        runs[i / PHX_DRAW_RUN] += weight[i];
    }
    run = phx_draw_find(runs, PHX_DRAW_RUNS, &at) * PHX_DRAW_RUN;
    return run + phx_draw_find(weight + run, n - run < PHX_DRAW_RUN ? n - run : PHX_DRAW_RUN, &at);
}

static void draw(const float *logits, int32_t n, const struct phx_draw_row *d, double *out)
{
    double sums[PHX_DRAW_COLUMNS_MAX / PHX_DRAW_BLOCK], scale = 1.0 / (double)d->temperature, sum = 0, at;
    float   largest = find_largest(logits, n);
    int32_t n_blocks = (n - 1) / PHX_DRAW_BLOCK + 1, first, id;

    out[PHX_DRAW_ID] = -1.0;
    out[PHX_DRAW_LOGIT] = out[PHX_DRAW_SUM] = NAN;
    out[PHX_DRAW_LARGEST] = (double)largest;
    if (!(largest > -INFINITY))
        return;
    for (int32_t i = 0; i < n_blocks; i++) {
        first = i * PHX_DRAW_BLOCK;
        sums[i] = sum_block(logits + first, block_size(n, first), (double)largest, scale);
        sum += sums[i];
    }
    at = d->share * sum;
    first = phx_draw_find(sums, n_blocks, &at) * PHX_DRAW_BLOCK;
    id = first + find_in_block(logits + first, block_size(n, first), (double)largest, scale, at);
    out[PHX_DRAW_ID] = (double)id;
    out[PHX_DRAW_LOGIT] = (double)logits[id];
    out[PHX_DRAW_SUM] = sum;
}

static void run_draws(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct draw_call *c = ctx;

    (void)member;
    for (int32_t i = first; i < end; i++)
        draw((const float *)c->logits.data + c->draws[i].row * c->logits.stride0, c->logits.dim[1], &c->draws[i],
             (double *)c->out.data + i * c->out.stride0);
}

void phx_cpu_draw(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws)
{
    struct cpu_device *d = device;
    struct draw_call   c = {out, logits, draws};

    phx_team_run(d->team, out.dim[0], run_draws, &c);
}
