/* SPDX-License-Identifier: Apache-2.0
 * Mixture of experts: routing, and the experts' products in expert order so that each expert's weights are
 * read once per step for all of its rows. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/tiles.h"
#include "kernels/memory.h"

static const char WRONG_ID[] = "an expert id is out of range";

/* ---- routing --------------------------------------------------------------------------------- */

struct route_call {
    const struct cpu_device *d;
    struct phx_tensor        ids, gates, x, bias;
};

static int32_t *ids_of(struct phx_tensor ids, int32_t row)
{
    return (int32_t *)ids.data + row * ids.stride0;
}

static float *row_of(struct phx_tensor t, int32_t row)
{
    return (float *)t.data + row * t.stride0;
}

static bool is_chosen(const int32_t *ids, int32_t n, int32_t e)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == e)
            return true;
    return false;
}

/* The best expert not among the first n of ids; a NaN loses, the lowest index wins a tie. */
static int32_t find_best(const float *logits, int32_t n_experts, const int32_t *ids, int32_t n)
{
    int32_t best = -1;

    for (int32_t e = 0; e < n_experts; e++) {
        bool is_better = best < 0 || logits[e] > logits[best] ||
                         (isnan(logits[best]) && !isnan(logits[e]));

        if (is_better && !is_chosen(ids, n, e))
            best = e;
    }
    return best;
}

static void run_route(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct route_call *c = ctx;
    int32_t                  top_k = c->ids.dim[1];

    (void)member;
    for (int32_t t = first; t < end; t++) {
        const float *logits = row_of(c->x, t);
        int32_t     *id = ids_of(c->ids, t);
        float       *gate = row_of(c->gates, t), sum = 0.0f;

        for (int32_t j = 0; j < top_k; j++)
            id[j] = find_best(logits, c->x.dim[1], id, j);
        for (int32_t j = 0; j < top_k; j++) {
            gate[j] = c->d->isa->exp(logits[id[j]] - logits[id[0]]);
            sum += gate[j];
        }
        for (int32_t j = 0; j < top_k; j++)
            gate[j] /= sum;
    }
}

void phx_cpu_moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates,
                       struct phx_tensor logits)
{
    struct cpu_device *d = device;
    struct route_call  c = {.d = d, .ids = ids, .gates = gates, .x = logits};

    phx_team_run(d->team, logits.dim[0], run_route, &c);
}

static bool are_ids_valid(struct phx_tensor ids, int32_t n_experts)
{
    for (int32_t t = 0; t < ids.dim[0]; t++)
        for (int32_t j = 0; j < ids.dim[1]; j++)
            if (ids_of(ids, t)[j] < 0 || ids_of(ids, t)[j] >= n_experts)
                return false;
    return true;
}

static void run_bias(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct route_call *c = ctx;

    (void)member;
    for (int32_t t = first; t < end; t++)
        for (int32_t j = 0; j < c->ids.dim[1]; j++)
            c->d->isa->axpy(row_of(c->x, t), row_of(c->bias, ids_of(c->ids, t)[j]), c->x.dim[1],
                            row_of(c->gates, t)[j]);
}

const char *phx_cpu_moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids,
                             struct phx_tensor gates, struct phx_tensor bias)
{
    struct cpu_device *d = device;
    struct route_call  c = {.d = d, .ids = ids, .gates = gates, .x = x, .bias = bias};

    if (!are_ids_valid(ids, bias.dim[0]))
        return WRONG_ID;
    phx_team_run(d->team, x.dim[0], run_bias, &c);
    return NULL;
}

/* ---- experts --------------------------------------------------------------------------------- */

/* Scratch of one call, cut from one allocation.  A pair is a (row, expert); pairs are in expert order. */
struct scratch {
    float   *gate_up;    /* [pairs, 2F] */
    float   *act;        /* [pairs, F] */
    float   *partial;    /* [members][rows][slices][GROUP_ROWS] */
    float   *pair_gate;  /* [pairs] */
    int32_t *pair_row;   /* [pairs] */
    int32_t *expert_end; /* [E] */
    int32_t *row_block;  /* [E] first row block of each expert's tiles */
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
    at[0] = take(&used, pairs * (size_t)gate_up->n, sizeof(float));
    at[1] = take(&used, pairs * (size_t)down->k, sizeof(float));
    at[2] = take(&used, s->partial_stride * (size_t)members, sizeof(float));
    at[3] = take(&used, pairs, sizeof(float));
    at[4] = take(&used, pairs, sizeof(int32_t));
    at[5] = take(&used, (size_t)gate_up->n_experts, sizeof(int32_t));
    at[6] = take(&used, (size_t)gate_up->n_experts, sizeof(int32_t));
    if (base != NULL) {
        s->gate_up = (float *)(void *)(base + at[0]);
        s->act = (float *)(void *)(base + at[1]);
        s->partial = (float *)(void *)(base + at[2]);
        s->pair_gate = (float *)(void *)(base + at[3]);
        s->pair_row = (int32_t *)(void *)(base + at[4]);
        s->expert_end = (int32_t *)(void *)(base + at[5]);
        s->row_block = (int32_t *)(void *)(base + at[6]);
    }
    return used;
}

const char *phx_cpu_moe_reserve(void *device, int32_t max_rows, int32_t top_k,
                                const struct phx_weight_desc *gate_up,
                                const struct phx_weight_desc *down)
{
    struct cpu_device *d = device;
    struct scratch     s;
    size_t bytes = plan_scratch(&s, NULL, phx_team_size(d->team), max_rows, top_k, gate_up, down);
    unsigned char *data;

    if (bytes <= d->moe_scratch_bytes)
        return NULL;
    data = phx_memory_alloc(bytes);
    if (data == NULL)
        return "out of memory for scratch";
    phx_memory_free(d->moe_scratch);
    d->moe_scratch = data;
    d->moe_scratch_bytes = bytes;
    return NULL;
}

/* Sorts the pairs by expert, rows ascending inside one: a counting sort whose counters end as expert_end. */
static void sort_pairs(const struct phx_moe_args *a, const struct scratch *s, int32_t n_experts)
{
    int32_t rows = a->x.dim[0], top_k = a->ids.dim[1], begin = 0;

    memset(s->expert_end, 0, (size_t)n_experts * sizeof(int32_t));
    for (int32_t t = 0; t < rows; t++)
        for (int32_t j = 0; j < top_k; j++)
            s->expert_end[ids_of(a->ids, t)[j]]++;
    for (int32_t e = 0; e < n_experts; e++) {
        int32_t n = s->expert_end[e];

        s->expert_end[e] = begin;
        begin += n;
    }
    for (int32_t t = 0; t < rows; t++)
        for (int32_t j = 0; j < top_k; j++) {
            int32_t at = s->expert_end[ids_of(a->ids, t)[j]]++;

            s->pair_row[at] = t;
            s->pair_gate[at] = row_of(a->gates, t)[j];
        }
}

struct moe_call {
    struct cpu_device         *device;
    enum cpu_path              path;
    const struct phx_moe_args *args;
    const struct cpu_weight   *gate_up;
    const struct scratch      *scratch;
    struct moe_down_job        down;
    const float               *x; /* of gate/up: the rows as they are, or rounded */
    int64_t                    x_stride;
};

static int32_t expert_begin(const struct scratch *s, int32_t e)
{
    return e > 0 ? s->expert_end[e - 1] : 0;
}

static int32_t count_active(const struct scratch *s, int32_t n_experts)
{
    int32_t n = 0;

    for (int32_t e = 0; e < n_experts; e++)
        n += s->expert_end[e] > expert_begin(s, e) ? 1 : 0;
    return n;
}

static const unsigned char *expert_tiles(const struct moe_call *c, const struct cpu_weight *w, int32_t e)
{
    return c->device->rounded.data + (size_t)c->scratch->row_block[e] * (size_t)w->n_blocks * TILE_BYTES;
}

/* What a thread's share of a product is counted in. */
static int32_t units_of(const struct moe_call *c, const struct cpu_weight *w)
{
    return c->path == PATH_TILES ? count_pairs(w) : w->n_panels;
}

static void run_expert(const struct moe_call *c, int32_t member, int32_t e, int32_t panel_first, int32_t panel_end)
{
    const struct cpu_weight *w = c->gate_up;
    const struct phx_tensor *bias = &c->args->gate_up_bias;
    int32_t                  begin = expert_begin(c->scratch, e);
    struct matmul_job        job = {
        .w = w,
        .data = expert_data(w, e),
        .x = c->x,
        .x_stride = c->x_stride,
        .is_rounded = c->path == PATH_ROUNDED,
        .x_row = c->scratch->pair_row + begin,
        .out = c->scratch->gate_up + (size_t)begin * (size_t)w->desc.n,
        .out_stride = w->desc.n,
        .bias = bias->data != NULL ? row_of(*bias, e) : NULL,
        .n_rows = c->scratch->expert_end[e] - begin,
    };

    if (c->path == PATH_TILES)
        phx_tiles_matmul(&job, expert_tiles(c, w, e), c->device->sums.data + (size_t)member * MEMBER_BYTES,
                         panel_first, panel_end);
    else
        c->device->isa->matmul(&job, panel_first, panel_end);
}

/* Units: (active expert, panel of output rows or pair of panels), expert by expert. */
static void run_gate_up(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call *c = ctx;
    int32_t                n_panels = units_of(c, c->gate_up), unit = 0;

    for (int32_t e = 0; e < c->gate_up->desc.n_experts && unit < end; e++) {
        int32_t from = first - unit, to = end - unit;

        if (c->scratch->expert_end[e] == expert_begin(c->scratch, e))
            continue;
        from = from > 0 ? from : 0;
        to = to < n_panels ? to : n_panels;
        if (from < to)
            run_expert(c, member, e, from, to);
        unit += n_panels;
    }
}

static void run_glu(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call *c = ctx;
    int32_t                n = c->gate_up->desc.n, f = n / 2;

    (void)member;
    for (int32_t i = first; i < end; i++) {
        const float *gate = c->scratch->gate_up + (size_t)i * (size_t)n;

        c->device->isa->swiglu(c->scratch->act + (size_t)i * (size_t)f, gate, gate + f, f,
                               c->args->kind, c->args->limit);
    }
}

static void run_down(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct moe_call *c = ctx;

    if (c->path == PATH_TILES)
        phx_tiles_moe_down(&c->down, c->device->rounded.data, c->scratch->row_block, member,
                           c->device->sums.data + (size_t)member * MEMBER_BYTES, first, end);
    else
        c->device->isa->moe_down(&c->down, member, first, end);
}

/* ---- rounding ------------------------------------------------------------------------------------- */

struct round_call {
    const struct moe_call *c;
    struct round_job       round;
    struct tile_rows       tiles; /* of all pairs; an expert's part is cut from it */
};

static void run_round(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct round_call *r = ctx;

    (void)member;
    r->c->device->isa->round_rows(&r->round, first, end);
}

/* Units: experts. */
static void run_pack(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct round_call *r = ctx;

    (void)member;
    for (int32_t e = first; e < end; e++) {
        struct tile_rows rows = r->tiles;
        int32_t          begin = expert_begin(r->c->scratch, e);

        if (rows.x_row != NULL)
            rows.x_row += begin;
        else
            rows.x += begin * rows.x_stride;
        rows.n_rows = r->c->scratch->expert_end[e] - begin;
        rows.tiles = r->c->device->rounded.data +
                     (size_t)r->c->scratch->row_block[e] * (size_t)rows.w->n_blocks * TILE_BYTES;
        phx_tiles_pack(&rows, 0, phx_tiles_units(&rows));
    }
}

/* Rows for products with w: x as it is, rounded, or in tiles by expert.  pair_row: which row of x a pair has, or
 * NULL when x has a row per pair. */
static void prepare_rows(struct moe_call *c, const struct cpu_weight *w, struct phx_tensor x, const int32_t *pair_row)
{
    struct cpu_device *d = c->device;
    struct round_call  r = {.c = c,
                            .round = {w, x.data, x.stride0, (float *)(void *)d->rounded.data},
                            .tiles = {.w = w, .x = x.data, .x_stride = x.stride0, .x_row = pair_row}};

    c->x = x.data;
    c->x_stride = x.stride0;
    if (c->path == PATH_TILES)
        phx_team_run(d->team, w->desc.n_experts, run_pack, &r);
    if (c->path != PATH_ROUNDED)
        return;
    phx_team_run(d->team, x.dim[0], run_round, &r);
    c->x = r.round.out;
    c->x_stride = (int64_t)w->n_blocks * BLOCK_K;
}

/* Room for either product's rows in their largest form. */
static size_t rounded_bytes(const struct cpu_weight *w, int32_t n_pairs)
{
    size_t blocks = (size_t)count_row_blocks(n_pairs) + (size_t)w->desc.n_experts;
    size_t tiles = blocks * (size_t)w->n_blocks * TILE_BYTES;
    size_t floats = (size_t)n_pairs * (size_t)w->n_blocks * BLOCK_K * sizeof(float);

    return tiles > floats ? tiles : floats;
}

static void place_tiles(const struct scratch *s, int32_t n_experts)
{
    int32_t block = 0;

    for (int32_t e = 0; e < n_experts; e++) {
        s->row_block[e] = block;
        block += count_row_blocks(s->expert_end[e] - expert_begin(s, e));
    }
}

const char *phx_cpu_moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up,
                            const void *down)
{
    struct cpu_device       *d = device;
    const struct cpu_weight *wu = gate_up, *wd = down;
    int32_t                  rows = args->x.dim[0], top_k = args->ids.dim[1];
    struct scratch           s;
    struct moe_call          c = {.device = d, .args = args, .gate_up = wu, .scratch = &s};
    int32_t                  n_active;
    const char              *fault;

    if (!are_ids_valid(args->ids, wu->desc.n_experts))
        return WRONG_ID;
    fault = phx_cpu_moe_reserve(device, rows, top_k, &wu->desc, &wd->desc);
    if (fault != NULL)
        return fault;
    (void)plan_scratch(&s, d->moe_scratch, phx_team_size(d->team), rows, top_k, &wu->desc, &wd->desc);
    if (rows == 0)
        return NULL;
    sort_pairs(args, &s, wu->desc.n_experts);
    n_active = count_active(&s, wu->desc.n_experts);
    c.path = phx_cpu_pick_moe(d->isa, d->compute, wu, wd, rows * top_k, n_active);
    if (c.path != PATH_FLOAT && (!phx_scratch_reserve(&d->rounded, rounded_bytes(wu, rows * top_k)) ||
                                 !phx_scratch_reserve(&d->rounded, rounded_bytes(wd, rows * top_k))))
        return "out of memory for scratch";
    place_tiles(&s, wu->desc.n_experts);
    prepare_rows(&c, wu, args->x, s.pair_row);
    phx_team_run(d->team, n_active * units_of(&c, wu), run_gate_up, &c);
    phx_team_run(d->team, rows * top_k, run_glu, &c);
    prepare_rows(&c, wd, phx_view(s.act, rows * top_k, wd->desc.k), NULL);
    c.down = (struct moe_down_job){
        .w = wd,
        .act = c.x,
        .act_stride = c.x_stride,
        .is_rounded = c.path == PATH_ROUNDED,
        .expert_end = s.expert_end,
        .pair_row = s.pair_row,
        .pair_gate = s.pair_gate,
        .out = args->out.data,
        .out_stride = args->out.stride0,
        .n_rows = rows,
        .partial = s.partial,
        .partial_stride = s.partial_stride,
    };
    phx_team_run(d->team, units_of(&c, wd), run_down, &c);
    return NULL;
}
