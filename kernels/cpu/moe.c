/* SPDX-License-Identifier: Apache-2.0
 * Mixture of experts: routing, and the experts' products in expert order so that each expert's weights are
 * read once per step for all of its rows. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/memory.h"

enum { TOP_K_MAX = 64 };

void phx_cpu_moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates,
                       struct phx_tensor logits)
{
    const struct cpu_device *d = device;
    int32_t                  top_k = ids.dim[1], n_experts = logits.dim[1];

    for (int32_t t = 0; t < logits.dim[0]; t++) {
        const float *row = (const float *)logits.data + t * logits.stride0;
        int32_t     *id = (int32_t *)ids.data + t * ids.stride0;
        float       *gate = (float *)gates.data + t * gates.stride0, sum = 0.0f;

        for (int32_t j = 0; j < top_k; j++) {
            int32_t best = -1;

            for (int32_t e = 0; e < n_experts; e++) {
                bool is_taken = false;

                for (int32_t i = 0; i < j; i++)
                    is_taken = is_taken || id[i] == e;
                /* a NaN logit loses, and the first expert wins when all are NaN */
                if (!is_taken && (best < 0 || row[e] > row[best] || (isnan(row[best]) && !isnan(row[e]))))
                    best = e;
            }
            id[j] = best;
        }
        for (int32_t j = 0; j < top_k; j++) {
            gate[j] = d->isa->exp(row[id[j]] - row[id[0]]);
            sum += gate[j];
        }
        for (int32_t j = 0; j < top_k; j++)
            gate[j] /= sum;
    }
}

void phx_cpu_moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids,
                      struct phx_tensor gates, struct phx_tensor bias)
{
    const struct cpu_device *d = device;

    for (int32_t t = 0; t < x.dim[0]; t++)
        for (int32_t j = 0; j < ids.dim[1]; j++) {
            int32_t e = ((const int32_t *)ids.data)[t * ids.stride0 + j];
            float   gate = ((const float *)gates.data)[t * gates.stride0 + j];

            d->isa->axpy((float *)x.data + t * x.stride0, (const float *)bias.data + e * bias.stride0,
                         x.dim[1], gate);
        }
}

/* Scratch of one call, cut from one allocation. */
struct scratch {
    float   *gathered; /* [pairs, D] rows of x in expert order */
    float   *gate_up;  /* [pairs, 2F] */
    float   *act;      /* [pairs, F] */
    float   *partial;  /* [members][rows][slices][GROUP_ROWS] */
    float   *pair_gate;
    int32_t *pair_row;
    int32_t *expert_end;
    size_t   partial_stride;
};

static size_t take(size_t *used, size_t n, size_t size)
{
    size_t at = *used;

    *used += (n * size + 63) / 64 * 64;
    return at;
}

/* Fills *s relative to base and returns the bytes needed (base may be NULL to ask for them). */
static size_t plan_scratch(struct scratch *s, unsigned char *base, int32_t members, int32_t rows,
                           int32_t top_k, const struct phx_weight_desc *gate_up,
                           const struct phx_weight_desc *down)
{
    size_t used = 0, pairs = (size_t)rows * (size_t)top_k;
    size_t at[7];

    s->partial_stride = (size_t)rows * (size_t)down->n_slices * GROUP_ROWS;
    at[0] = take(&used, pairs * (size_t)gate_up->k, sizeof(float));
    at[1] = take(&used, pairs * (size_t)gate_up->n, sizeof(float));
    at[2] = take(&used, pairs * (size_t)down->k, sizeof(float));
    at[3] = take(&used, s->partial_stride * (size_t)members, sizeof(float));
    at[4] = take(&used, pairs, sizeof(float));
    at[5] = take(&used, pairs, sizeof(int32_t));
    at[6] = take(&used, (size_t)gate_up->n_experts, sizeof(int32_t));
    if (base != NULL) {
        s->gathered = (float *)(void *)(base + at[0]);
        s->gate_up = (float *)(void *)(base + at[1]);
        s->act = (float *)(void *)(base + at[2]);
        s->partial = (float *)(void *)(base + at[3]);
        s->pair_gate = (float *)(void *)(base + at[4]);
        s->pair_row = (int32_t *)(void *)(base + at[5]);
        s->expert_end = (int32_t *)(void *)(base + at[6]);
    }
    return used;
}

int phx_cpu_moe_reserve(void *device, int32_t max_rows, int32_t top_k,
                        const struct phx_weight_desc *gate_up, const struct phx_weight_desc *down)
{
    struct cpu_device *d = device;
    struct scratch     s;
    size_t bytes = plan_scratch(&s, NULL, phx_team_size(d->team), max_rows, top_k, gate_up, down);
    unsigned char *data;

    if (bytes <= d->moe_scratch_bytes)
        return 0;
    data = phx_memory_alloc(bytes);
    if (data == NULL)
        return -1;
    phx_memory_free(d->moe_scratch);
    d->moe_scratch = data;
    d->moe_scratch_bytes = bytes;
    return 0;
}

/* Sorts the (row, expert) pairs by expert, rows ascending inside one, and gathers the rows. */
static void sort_pairs(const struct phx_moe_args *a, const struct scratch *s, int32_t n_experts)
{
    int32_t rows = a->x.dim[0], top_k = a->ids.dim[1], n = 0;

    for (int32_t e = 0; e < n_experts; e++) {
        for (int32_t t = 0; t < rows; t++)
            for (int32_t j = 0; j < top_k; j++) {
                if (((const int32_t *)a->ids.data)[t * a->ids.stride0 + j] != e)
                    continue;
                s->pair_row[n] = t;
                s->pair_gate[n] = ((const float *)a->gates.data)[t * a->gates.stride0 + j];
                memcpy(s->gathered + (size_t)n * (size_t)a->x.dim[1],
                       (const float *)a->x.data + t * a->x.stride0,
                       (size_t)a->x.dim[1] * sizeof(float));
                n++;
            }
        s->expert_end[e] = n;
    }
}

struct moe_call {
    const struct cpu_device   *device;
    const struct phx_moe_args *args;
    const struct cpu_weight   *gate_up;
    const struct scratch      *scratch;
    int32_t                    n_active; /* experts with rows */
    struct moe_down_job        down;
};

static int32_t expert_begin(const struct scratch *s, int32_t e)
{
    return e > 0 ? s->expert_end[e - 1] : 0;
}

/* Units: (active expert, panel of output rows), expert by expert. */
static void run_gate_up(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call   *c = ctx;
    const struct cpu_weight *w = c->gate_up;
    const struct scratch    *s = c->scratch;
    int32_t                  n_panels = w->n_panels, active = 0;

    (void)member; /* outputs are disjoint */
    for (int32_t e = 0; e < w->desc.n_experts && active * n_panels < end; e++) {
        int32_t           begin = expert_begin(s, e), n = s->expert_end[e] - begin;
        int32_t           from = first - active * n_panels, to = end - active * n_panels;
        struct matmul_job job = {
            .w = w,
            .data = expert_data(w, e),
            .x = s->gathered + (size_t)begin * (size_t)w->desc.k,
            .x_stride = w->desc.k,
            .out = s->gate_up + (size_t)begin * (size_t)w->desc.n,
            .out_stride = w->desc.n,
            .n_rows = n,
        };

        if (n == 0)
            continue;
        if (c->args->gate_up_bias.data != NULL)
            job.bias = (const float *)c->args->gate_up_bias.data + e * c->args->gate_up_bias.stride0;
        from = from > 0 ? from : 0;
        to = to < n_panels ? to : n_panels;
        if (from < to)
            c->device->isa->matmul(&job, from, to);
        active++;
    }
}

static void run_glu(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call *c = ctx;
    int32_t                n = c->gate_up->desc.n, f = n / 2;

    (void)member;
    for (int32_t i = first; i < end; i++)
        c->device->isa->swiglu(c->scratch->act + (size_t)i * (size_t)f,
                               c->scratch->gate_up + (size_t)i * (size_t)n,
                               c->scratch->gate_up + (size_t)i * (size_t)n + f, f, c->args->kind,
                               c->args->limit);
}

static void run_down(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call *c = ctx;

    c->device->isa->moe_down(&c->down, member, first, end);
}

int phx_cpu_moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up,
                    const void *down)
{
    struct cpu_device       *d = device;
    const struct cpu_weight *wu = gate_up, *wd = down;
    int32_t                  rows = args->x.dim[0], top_k = args->ids.dim[1];
    struct scratch           s;
    struct moe_call          c = {d, args, wu, &s, 0, {0}};

    if (phx_cpu_moe_reserve(device, rows, top_k, &wu->desc, &wd->desc) != 0)
        return -1;
    (void)plan_scratch(&s, d->moe_scratch, phx_team_size(d->team), rows, top_k, &wu->desc, &wd->desc);
    sort_pairs(args, &s, wu->desc.n_experts);
    for (int32_t e = 0; e < wu->desc.n_experts; e++)
        c.n_active += s.expert_end[e] > expert_begin(&s, e);
    phx_team_run(d->team, c.n_active * wu->n_panels, run_gate_up, &c);
    phx_team_run(d->team, rows * top_k, run_glu, &c);
    c.down = (struct moe_down_job){
        .w = wd,
        .act = s.act,
        .act_stride = wd->desc.k,
        .expert_end = s.expert_end,
        .pair_row = s.pair_row,
        .pair_gate = s.pair_gate,
        .out = args->out.data,
        .out_stride = args->out.stride0,
        .n_rows = rows,
        .partial = s.partial,
        .partial_stride = s.partial_stride,
    };
    phx_team_run(d->team, wd->n_panels, run_down, &c);
    return 0;
}
