/* SPDX-License-Identifier: Apache-2.0
 * The experts of a mixture: pairs are sorted on the device, both products run over tiles of pairs of one expert, and
 * the pairs' results are joined.  Large steps go through in passes of rows, which changes no bit. */
#include "kernels/cuda/moe.h"

#include "kernels/cuda/hopper.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pick_moe.h"
#include "kernels/cuda/weight.h"

_Static_assert((int)CUDA_MOE_BLOCK_K == (int)CUDA_BLOCK_K, "one block");

static const char OP[] = "moe_ffn";

/* Where the pieces of a pass lie in the scratch, in bytes from its start. */
struct scratch_plan {
    size_t row, place, tiles, n_tiles, x, gate_up, act, slices;
    size_t used;
    int32_t n_slots; /* on warpgroups */
    bool   is_too_large;
};

static size_t take(struct scratch_plan *p, size_t n, size_t each, size_t size)
{
    size_t at = p->used, bytes;

    if (__builtin_mul_overflow(n, each, &bytes) || __builtin_mul_overflow(bytes, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)CUDA_ALIGN_BYTES - 1, &bytes) ||
        __builtin_add_overflow(p->used, bytes / CUDA_ALIGN_BYTES * CUDA_ALIGN_BYTES, &p->used))
        p->is_too_large = true;
    return at;
}

/* The same blocks as one slice: class B joins slices before they are weighted. */
static struct cuda_cut join_slices(struct cuda_cut cut)
{
    cut.block_end[0] = cut.n_blocks;
    cut.k_end[0] = cut.k_end[cut.n_slices - 1];
    cut.n_slices = 1;
    return cut;
}

static struct cuda_moe_choice pick(const struct cuda_device *d, const struct phx_weight_desc *gate_up,
                                   const struct phx_weight_desc *down, int32_t n_pairs)
{
    return phx_cuda_pick_moe(d->compute, d->is_fast, phx_cuda_hopper_is_usable(d), gate_up, down, n_pairs);
}

/* One mixture, and how it is computed. */
struct moe_call {
    struct cuda_device        *d;
    const struct phx_moe_args    *args;
    const struct cuda_weight     *gate_up, *down;
    struct cuda_moe_choice        choice;
    struct scratch_plan           plan;
    unsigned char                *scratch;
    int32_t                       first, n_rows, top_k; /* of the pass */
    struct phx_tensor             logits;               /* that experts are chosen by; data NULL: they have been */
    const struct cuda_weight     *router;               /* that makes them, or NULL: they are there */
    struct phx_tensor             router_bias;
    const struct phx_add_norm_args *end;                /* of the branch, or NULL */
    bool                          is_finished;          /* by the down product: its outputs are joined ... */
    bool                          is_ended;             /* ... and the branch is ended */
};

static struct scratch_plan plan_scratch(const struct cuda_moe_choice *c, int32_t n_rows, int32_t top_k,
                                        const struct phx_weight_desc *up, const struct phx_weight_desc *down)
{
    bool                is_float = c->kernel == CUDA_MOE_FLOAT;
    struct scratch_plan p = {0};
    size_t              rows = (size_t)n_rows, pairs = rows * (size_t)top_k, act_rows = pairs;
    size_t              up_k = (size_t)phx_cuda_weight_cut(up).n_blocks * CUDA_BLOCK_K;
    size_t              down_k = (size_t)phx_cuda_weight_cut(down).n_blocks * CUDA_BLOCK_K;
    int32_t             tiles = phx_cuda_moe_tiles_max(n_rows * top_k, up->n_experts, CUDA_MOE_PAIRS_MIN);

    p.row = take(&p, pairs, 1, sizeof(int32_t));
    p.place = take(&p, pairs, 1, sizeof(int32_t));
    p.tiles = take(&p, (size_t)tiles, 1, sizeof(struct cuda_moe_tile));
    p.n_tiles = take(&p, 1, 1, sizeof(int32_t));
    if (c->kernel == CUDA_MOE_HOPPER) {
        p.n_slots = cuda_moe_slots(n_rows * top_k, phx_cuda_moe_tiles_max(n_rows * top_k, up->n_experts, c->tile_pairs));
        rows = act_rows = (size_t)p.n_slots;
        up_k = cuda_round_up(up_k, CUDA_HOPPER_ATOM_K);
        down_k = cuda_round_up(down_k, CUDA_HOPPER_ATOM_K);
    }
    p.x = take(&p, rows, is_float ? 0 : up_k, sizeof(uint16_t));
    p.gate_up = take(&p, pairs, c->is_fused ? 0 : (size_t)up->n, sizeof(float));
    p.act = take(&p, act_rows, down_k, is_float ? sizeof(float) : sizeof(uint16_t));
    p.slices = take(&p, pairs, (size_t)(c->is_joined ? 1 : down->n_slices) * (size_t)down->n, sizeof(float));
    return p;
}

size_t phx_cuda_moe_scratch(const struct cuda_device *d, int32_t max_rows, int32_t top_k,
                            const struct phx_weight_desc *gate_up, const struct phx_weight_desc *down)
{
    struct cuda_moe_choice c = pick(d, gate_up, down, top_k);
    int32_t                rows = phx_cuda_pick_moe_rows(down, c.is_joined, max_rows, top_k);
    struct scratch_plan    p;

    c = pick(d, gate_up, down, rows * top_k); /* of kernels that want more, the one for the most pairs wants most */
    p = plan_scratch(&c, rows, top_k, gate_up, down);
    return p.is_too_large ? SIZE_MAX : p.used;
}

const char *phx_cuda_moe_reserve(void *device, int32_t max_rows, int32_t top_k, const struct phx_weight_desc *gate_up,
                                 const struct phx_weight_desc *down)
{
    size_t bytes = phx_cuda_moe_scratch(device, max_rows, top_k, gate_up, down);

    if (bytes == SIZE_MAX)
        return "the scratch is too large to count";
    (void)phx_cuda_scratch(device, bytes); /* keeps its own error */
    return NULL;
}

static void *piece(const struct moe_call *c, size_t at)
{
    return c->scratch + at;
}

static int32_t tiles_max(const struct moe_call *c)
{
    return phx_cuda_moe_tiles_max(c->n_rows * c->top_k, c->gate_up->desc.n_experts, c->choice.tile_pairs);
}

static struct cuda_moe_sort plan_sort(const struct moe_call *c)
{
    const struct phx_tensor *ids = &c->args->ids;

    return (struct cuda_moe_sort){
        .ids = (const int32_t *)ids->data + c->first * ids->stride0,
        .ids_stride = ids->stride0,
        .n_rows = c->n_rows,
        .top_k = c->top_k,
        .n_experts = c->gate_up->desc.n_experts,
        .tile_pairs = c->choice.tile_pairs,
        .row = piece(c, c->plan.row),
        .place = piece(c, c->plan.place),
        .tiles = piece(c, c->plan.tiles),
        .n_tiles = piece(c, c->plan.n_tiles),
        .fault = c->d->fault,
    };
}

static struct cuda_moe_round plan_round(const struct moe_call *c)
{
    const struct phx_tensor *x = &c->args->x;

    return (struct cuda_moe_round){piece(c, c->plan.x), (const float *)x->data + c->first * x->stride0, x->stride0, c->n_rows,
                                   c->gate_up->cut};
}

static bool start_with_router(const struct moe_call *c, const struct cuda_moe_start *a)
{
    struct cuda_product p = {.w = phx_cuda_weight_look(c->router), .n_rows = c->n_rows, .x = c->args->x.data,
                             .x_stride = c->args->x.stride0, .bias = c->router_bias.data, .out = c->logits.data,
                             .out_stride = c->logits.stride0};

    p.ahead = phx_cuda_matmul_ahead(c->d, &p.w, 1);
    return phx_cuda_check(c->d, phx_cuda_moe_router(c->d->stream, a, &p, c->d->staging.counters), OP);
}

/* Sorts, and rounds the rows where the product wants that; in one launch where few rows are streamed. */
static bool start(const struct moe_call *c)
{
    struct cuda_moe_start a = {.sort = plan_sort(c), .round = plan_round(c)};

    if (c->choice.kernel == CUDA_MOE_STREAM) {
        if (c->logits.data != NULL)
            a.route = phx_cuda_route_call(c->args->ids, c->args->gates, c->logits);
        if (c->router != NULL)
            return start_with_router(c, &a);
        return phx_cuda_check(c->d, phx_cuda_moe_start(c->d->stream, &a), OP);
    }
    return phx_cuda_check(c->d, phx_cuda_moe_sort(c->d->stream, &a.sort), OP) &&
           (c->choice.kernel != CUDA_MOE_TILE || phx_cuda_check(c->d, phx_cuda_moe_round(c->d->stream, &a.round), OP));
}

static bool multiply(const struct moe_call *c, const struct cuda_moe_product *a)
{
    int rc = c->choice.kernel == CUDA_MOE_FLOAT    ? phx_cuda_moe_float(c->d->stream, a)
             : c->choice.kernel == CUDA_MOE_HOPPER ? phx_cuda_moe_hopper(c->d->stream, a, c->d->sm_count)
             : c->choice.kernel == CUDA_MOE_STREAM ? phx_cuda_moe_stream(c->d->stream, a)
                                                   : phx_cuda_moe_tile(c->d->stream, a);

    return phx_cuda_check(c->d, rc, OP);
}

static struct cuda_moe_product start_product(const struct moe_call *c, const struct cuda_weight *w)
{
    return (struct cuda_moe_product){
        .w = phx_cuda_weight_look(w),
        .tiles = piece(c, c->plan.tiles),
        .n_tiles = piece(c, c->plan.n_tiles),
        .tiles_max = tiles_max(c),
        .tile_pairs = c->choice.tile_pairs,
    };
}

/* Elements of a rounded row. */
static int64_t rounded_stride(const struct cuda_weight *w)
{
    return (int64_t)w->cut.n_blocks * CUDA_BLOCK_K;
}

/* Elements of a row of the product of such a weight, or on warpgroups its slots. */
static int64_t x_stride(const struct moe_call *c, const struct cuda_weight *w)
{
    return c->choice.kernel == CUDA_MOE_HOPPER ? c->plan.n_slots : rounded_stride(w);
}

/* The activations of all pairs, each pair's at a slot of its own. */
static bool gather(const struct moe_call *c, const struct cuda_moe_product *a)
{
    struct cuda_moe_gather g = {.out = piece(c, c->plan.x),
                                .x = (const float *)c->args->x.data + c->first * c->args->x.stride0,
                                .x_stride = c->args->x.stride0,
                                .row = piece(c, c->plan.row),
                                .tiles = a->tiles,
                                .n_tiles = a->n_tiles,
                                .tiles_max = a->tiles_max,
                                .n_slots = c->plan.n_slots,
                                .cut = c->gate_up->cut};

    return phx_cuda_check(c->d, phx_cuda_moe_gather(c->d->stream, &g), OP);
}

/* Into act, or into gate_up when the glu is not fused. */
static bool multiply_up(const struct moe_call *c)
{
    const struct phx_moe_args *args = c->args;
    struct cuda_moe_product    a = start_product(c, c->gate_up);

    a.x = (const float *)args->x.data + c->first * args->x.stride0;
    a.x_stride = args->x.stride0;
    if (c->choice.kernel != CUDA_MOE_FLOAT) {
        if (c->choice.kernel == CUDA_MOE_HOPPER && !gather(c, &a))
            return false;
        a.x = piece(c, c->plan.x);
        a.x_stride = x_stride(c, c->gate_up);
    }
    a.row = piece(c, c->plan.row);
    a.bias = args->gate_up_bias.data;
    a.bias_stride = args->gate_up_bias.stride0;
    a.kind = args->kind;
    a.limit = args->limit;
    if (c->choice.is_fused) {
        a.act = piece(c, c->plan.act);
        a.act_stride = x_stride(c, c->down);
    } else
        a.out = piece(c, c->plan.gate_up);
    return multiply(c, &a);
}

static bool apply_glu(const struct moe_call *c)
{
    struct cuda_moe_glu a = {
        .gate_up = piece(c, c->plan.gate_up),
        .n_pairs = c->n_rows * c->top_k,
        .n = c->down->desc.k,
        .cut = c->down->cut,
        .kind = c->args->kind,
        .limit = c->args->limit,
    };

    if (c->choice.kernel == CUDA_MOE_FLOAT)
        a.out = piece(c, c->plan.act);
    else
        a.act = piece(c, c->plan.act);
    return phx_cuda_check(c->d, phx_cuda_moe_glu(c->d->stream, &a), OP);
}

static struct cuda_moe_join plan_join(const struct moe_call *c)
{
    const struct phx_moe_args *args = c->args;

    return (struct cuda_moe_join){
        .out = (float *)args->out.data + c->first * args->out.stride0,
        .out_stride = args->out.stride0,
        .slices = piece(c, c->plan.slices),
        .place = piece(c, c->plan.place),
        .gates = (const float *)args->gates.data + c->first * args->gates.stride0,
        .gates_stride = args->gates.stride0,
        .n_rows = c->n_rows,
        .top_k = c->top_k,
        .n_slices = c->choice.is_joined ? 1 : c->down->desc.n_slices,
        .n = c->down->desc.n,
    };
}

/* The down product with the join behind it, or in it. */
static bool multiply_down(const struct moe_call *c)
{
    struct cuda_moe_product a = start_product(c, c->down);
    struct cuda_moe_finish  f = {.join = plan_join(c), .end.counters = c->d->staging.counters};

    if (c->choice.is_joined)
        a.w.cut = join_slices(a.w.cut);
    a.x = piece(c, c->plan.act);
    a.x_stride = c->choice.kernel == CUDA_MOE_FLOAT ? c->down->desc.k : x_stride(c, c->down);
    a.out = piece(c, c->plan.slices);
    if (c->is_ended)
        f.end.call = phx_cuda_add_norm_call(c->d, c->end);
    if (c->is_finished)
        return phx_cuda_check(c->d, phx_cuda_moe_finish(c->d->stream, &a, &f), OP);
    return multiply(c, &a) && phx_cuda_check(c->d, phx_cuda_moe_join(c->d->stream, &f.join), OP);
}

static bool run_pass(const struct moe_call *c)
{
    return start(c) && multiply_up(c) && (c->choice.is_fused || apply_glu(c)) && multiply_down(c);
}

/* Which launches there are for all rows: what is not in another comes before or after.  Where experts are not chosen here, their
 * ids may be wrong, and a tile be missing that the down product would wait for. */
static void plan_launches(struct moe_call *c, int32_t rows, bool is_one_pass)
{
    struct cuda_add_norm_call end = {0};

    if (c->end != NULL)
        end = phx_cuda_add_norm_call(c->d, c->end);
    c->is_finished = c->logits.data != NULL && is_one_pass && phx_cuda_pick_finish(&c->choice, rows) &&
                     c->down->desc.n / CUDA_TILE_ROWS + 2 <= CUDA_COUNTERS;
    c->is_ended = c->is_finished && c->end != NULL && cuda_can_end(&end);
    if (c->router != NULL && !(is_one_pass && phx_cuda_pick_router(&c->choice, &c->router->desc, rows))) {
        (void)phx_cuda_matmul(c->d, c->logits, c->args->x, c->router, c->router_bias); /* float32: it has no reason to refuse */
        c->router = NULL;
    }
    if (c->logits.data != NULL && !(is_one_pass && phx_cuda_pick_choosing(&c->choice, rows))) {
        phx_cuda_moe_route(c->d, c->args->ids, c->args->gates, c->logits);
        c->logits.data = NULL;
    }
}

static const char *run(struct moe_call *c)
{
    const struct phx_moe_args *args = c->args;
    int32_t                    rows = args->x.dim[0], pass;

    c->top_k = args->ids.dim[1];
    if (c->gate_up->desc.dtype == PHX_DTYPE_I8 || c->down->desc.dtype == PHX_DTYPE_I8)
        return "experts are not multiplied as I8";
    if (rows == 0)
        return NULL;
    c->choice = pick(c->d, &c->gate_up->desc, &c->down->desc, c->top_k);
    pass = phx_cuda_pick_moe_rows(&c->down->desc, c->choice.is_joined, rows, c->top_k);
    c->choice = pick(c->d, &c->gate_up->desc, &c->down->desc, pass * c->top_k);
    c->plan = plan_scratch(&c->choice, pass, c->top_k, &c->gate_up->desc, &c->down->desc);
    if (c->plan.is_too_large)
        return "the scratch is too large to count";
    plan_launches(c, rows, pass == rows); /* a router's product may take scratch */
    c->scratch = phx_cuda_scratch(c->d, c->plan.used);
    if (c->scratch == NULL)
        return NULL; /* it has kept the reason */
    for (c->n_rows = pass; c->first < rows; c->first += c->n_rows) {
        c->n_rows = rows - c->first < pass ? rows - c->first : pass;
        if (!run_pass(c))
            return NULL;
    }
    if (c->end != NULL && !c->is_ended)
        phx_cuda_add_norm(c->d, c->end);
    return NULL;
}

const char *phx_cuda_moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up, const void *down)
{
    struct moe_call c = {.d = device, .args = args, .gate_up = gate_up, .down = down};

    return run(&c);
}

const char *phx_cuda_moe_route_ffn(void *device, const struct phx_moe_args *args, struct phx_tensor logits,
                                   const void *gate_up, const void *down)
{
    struct moe_call c = {.d = device, .args = args, .gate_up = gate_up, .down = down, .logits = logits};

    return run(&c);
}

const char *phx_cuda_mixture(void *device, const struct phx_mixture_args *a, const void *router, const void *gate_up,
                             const void *down)
{
    struct moe_call c = {.d = device, .args = a->experts, .gate_up = gate_up, .down = down, .logits = a->logits,
                         .router = router, .router_bias = a->router_bias, .end = a->end};

    return run(&c);
}
