/* SPDX-License-Identifier: Apache-2.0
 * Products of a whole step, on the path that pick.c names. */
#include "kernels/cpu/i8.h"
#include "kernels/cpu/tiles.h"

struct call {
    struct cpu_device *d;
    struct matmul_job  job;
    struct round_job   round;
    struct tile_rows   rows;
};

static void run_vectors(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    (void)member; /* outputs are disjoint */
    c->d->isa->matmul(&c->job, first, end);
}

static void run_round(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    (void)member;
    c->d->isa->round_rows(&c->round, first, end);
}

static void run_pack(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    (void)member;
    phx_tiles_pack(&c->rows, first, end);
}

static void run_tiles(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct call *c = ctx;

    phx_tiles_matmul(&c->job, c->rows.tiles, c->d->sums.data + (size_t)member * MEMBER_BYTES, first, end);
}

static const char NO_SCRATCH[] = "out of memory for scratch";

static const char *multiply_rounded(struct call *c)
{
    struct cpu_device *d = c->d;
    size_t             row_floats = (size_t)c->job.w->n_blocks * BLOCK_K;

    if (!phx_scratch_reserve(&d->rounded, (size_t)c->job.n_rows * row_floats * sizeof(float)))
        return NO_SCRATCH;
    c->round = (struct round_job){c->job.w, c->job.x, c->job.x_stride, (float *)(void *)d->rounded.data};
    phx_team_run(d->team, c->job.n_rows, run_round, c);
    c->job.x = c->round.out;
    c->job.x_stride = (int64_t)row_floats;
    c->job.is_rounded = true;
    phx_team_run(d->team, c->job.w->n_panels, run_vectors, c);
    return NULL;
}

static const char *multiply_tiles(struct call *c)
{
    struct cpu_device *d = c->d;

    if (!phx_scratch_reserve(&d->rounded, tiles_bytes(c->job.w, c->job.n_rows)))
        return NO_SCRATCH;
    c->rows = (struct tile_rows){c->job.w, c->job.x, c->job.x_stride, NULL, c->job.n_rows, d->rounded.data};
    phx_team_run(d->team, phx_tiles_units(&c->rows), run_pack, c);
    phx_team_run(d->team, count_pairs(c->job.w), run_tiles, c);
    return NULL;
}

const char *phx_cpu_matmul(void *device, struct phx_tensor out, struct phx_tensor x, const void *weight,
                           struct phx_tensor bias)
{
    struct cpu_device       *d = device;
    const struct cpu_weight *w = weight;
    struct call              c = {.d = d,
                                  .job = {.w = w,
                                          .data = w->data,
                                          .x = x.data,
                                          .x_stride = x.stride0,
                                          .out = out.data,
                                          .out_stride = out.stride0,
                                          .bias = bias.data,
                                          .n_rows = x.dim[0]}};

    if (x.dim[0] == 0)
        return NULL;
    switch (phx_cpu_pick_matmul(d->isa, d->compute, w, x.dim[0])) {
    case PATH_TILES: return multiply_tiles(&c);
    case PATH_ROUNDED: return multiply_rounded(&c);
    case PATH_I8:
    case PATH_I8_TILES: return phx_cpu_matmul_i8(d, &c.job);
    default: phx_team_run(d->team, w->n_panels, run_vectors, &c); return NULL;
    }
}
