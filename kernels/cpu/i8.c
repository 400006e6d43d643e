/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/i8.h"

#include "kernels/cpu/tiles.h"

struct call {
    struct cpu_device   *d;
    const struct i8_isa *isa;
    struct matmul_job   *job;
    struct i8_rows       rows;
};

static void run_quantise(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    (void)member; /* rows are disjoint */
    c->isa->quantise(&c->rows, first, end);
}

static void run_vectors(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    (void)member;
    c->isa->matmul(c->job, &c->rows, first, end);
}

static void run_tiles(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    phx_tiles_matmul_i8(c->job, &c->rows, c->d->sums.data + (size_t)member * MEMBER_BYTES, first, end);
}

const char *phx_cpu_matmul_i8(struct cpu_device *d, struct matmul_job *job)
{
    const struct cpu_weight *w = job->w;
    size_t                   tiles = i8_tiles_bytes(w, job->n_rows);
    size_t                   n = (size_t)w->n_groups * (size_t)i8_row_blocks(job->n_rows) * LANES;
    bool                     has_tiles = phx_cpu_pick_matmul(d->isa, d->compute, w, job->n_rows) == PATH_I8_TILES;
    struct call              c = {.d = d, .isa = phx_i8_pick(d->isa), .job = job};

    if (!phx_scratch_reserve(&d->rounded, i8_bytes(w, job->n_rows)))
        return "out of memory for scratch";
    c.rows = (struct i8_rows){w, job->x, job->x_stride, job->n_rows, (signed char *)d->rounded.data,
                              (float *)(void *)(d->rounded.data + tiles),
                              (int32_t *)(void *)(d->rounded.data + tiles + n * sizeof(float)), has_tiles};
    phx_team_run(d->team, i8_row_blocks(job->n_rows), run_quantise, &c);
    if (has_tiles)
        phx_team_run(d->team, count_pairs(w), run_tiles, &c);
    else
        phx_team_run(d->team, w->n_panels, run_vectors, &c);
    return NULL;
}
