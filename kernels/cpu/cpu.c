/* SPDX-License-Identifier: Apache-2.0
 * The CPU backend: its table of operations, each split over the team by outputs. */
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/tiles.h"
#include "kernels/memory.h"
#include "kernels/ops.h"

static void close_device(void *device)
{
    struct cpu_device *d = device;

    phx_team_destroy(d->team);
    phx_scratch_free(&d->rounded);
    phx_scratch_free(&d->sums);
    phx_memory_free(d->moe_scratch);
    phx_memory_free(d);
}

static void *open_device(const struct phx_backend_options *options, const char **isa,
                         int32_t *n_threads, char *why, size_t why_size)
{
    const struct isa  *picked = phx_isa_pick(options->isa, why, why_size);
    struct cpu_device *d;

    if (picked == NULL)
        return NULL;
    if (options->n_threads < 0) {
        (void)snprintf(why, why_size, "threads: %d is negative", options->n_threads);
        return NULL;
    }
    d = phx_memory_alloc(sizeof(*d));
    if (d == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return NULL;
    }
    d->isa = picked;
    d->team = phx_team_create(options->n_threads, options->is_pinned, options->first_core);
    if (d->team == NULL) {
        (void)snprintf(why, why_size, "cannot start %d threads", options->n_threads);
        phx_memory_free(d);
        return NULL;
    }
    d->compute = options->compute;
    if (picked->has_tiles && !phx_scratch_reserve(&d->sums, (size_t)phx_team_size(d->team) * MEMBER_BYTES)) {
        (void)snprintf(why, why_size, "out of memory");
        close_device(d);
        return NULL;
    }
    *isa = picked->name;
    *n_threads = phx_team_size(d->team);
    return d;
}

/* Every operation is done when its call returns. */
static int sync_device(void *device, const char **why)
{
    (void)device;
    (void)why;
    return 0;
}

static void *alloc_memory(void *device, size_t size_bytes)
{
    (void)device;
    return phx_memory_alloc(size_bytes);
}

static void free_memory(void *device, void *ptr)
{
    (void)device;
    phx_memory_free(ptr);
}

static void copy_memory(void *device, void *to, const void *from, size_t size_bytes)
{
    (void)device;
    if (size_bytes > 0)
        memcpy(to, from, size_bytes);
}

static float *row_of(struct phx_tensor t, int32_t row)
{
    return (float *)t.data + row * t.stride0;
}

/* What a row-wise operation needs; units are rows. */
struct row_call {
    const struct cpu_device *d;
    struct phx_tensor        out, x, y;
    const struct cpu_weight *table;
    const int32_t           *ids;
    int32_t                  first_row, head_dim;
    float                    eps, limit;
    enum phx_glu             kind;
    const struct phx_spans  *spans;
};

static void run_embed(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct row_call *c = ctx;

    (void)member;
    for (int32_t t = first; t < end; t++) {
        int64_t row = (int64_t)c->ids[t] - c->first_row;
        float  *out = row_of(c->out, t);

        if (row < 0 || row >= c->table->desc.n)
            memset(out, 0, (size_t)c->out.dim[1] * sizeof(float));
        else
            phx_cpu_weight_row(c->table, (int32_t)row, out);
    }
}

static void op_embed(void *device, struct phx_tensor out, const int32_t *ids, const void *table,
                     int32_t first_row)
{
    struct cpu_device *d = device;
    struct row_call    c = {.d = d, .out = out, .ids = ids, .table = table, .first_row = first_row};

    phx_team_run(d->team, out.dim[0], run_embed, &c);
}

static void run_rmsnorm(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct row_call *c = ctx;

    (void)member;
    for (int32_t t = first; t < end; t++)
        c->d->isa->rmsnorm(row_of(c->out, t), row_of(c->x, t), c->y.data, c->x.dim[1], c->eps);
}

static void op_rmsnorm(void *device, struct phx_tensor out, struct phx_tensor x,
                       struct phx_tensor gain, float eps)
{
    struct cpu_device *d = device;
    struct row_call    c = {.d = d, .out = out, .x = x, .y = gain, .eps = eps};

    phx_team_run(d->team, x.dim[0], run_rmsnorm, &c);
}


static void run_rope(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct row_call  *c = ctx;
    const struct phx_spans *spans = c->spans;

    (void)member;
    for (int32_t s = 0; s < spans->n_seqs; s++) {
        int32_t row = spans->row[s] > first ? spans->row[s] : first;
        int32_t stop = spans->row[s] + spans->n_rows[s];

        for (; row < stop && row < end; row++) {
            int32_t pos = spans->pos[s] + row - spans->row[s];

            for (int32_t h = 0; h < c->out.dim[1] / c->head_dim; h++)
                c->d->isa->rope(row_of(c->out, row) + h * c->head_dim, row_of(c->x, pos),
                                row_of(c->y, pos), c->head_dim / 2);
        }
    }
}

static void op_rope(void *device, struct phx_tensor x, int32_t head_dim,
                    const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin)
{
    struct cpu_device *d = device;
    struct row_call    c = {
        .d = d, .out = x, .x = cos, .y = sin, .spans = spans, .head_dim = head_dim};

    phx_team_run(d->team, x.dim[0], run_rope, &c);
}

struct attention_call {
    const struct cpu_device *d;
    struct attention_job     job;
};

static void run_attention(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct attention_call *c = ctx;

    (void)member;
    (c->job.kv->is_tiled ? c->d->isa->rounded_attention : c->d->isa->attention)(&c->job, first, end,
                                                                               phx_team_size(c->d->team));
}

static void op_attention(void *device, const struct phx_attention_args *args, const void *kv)
{
    struct cpu_device    *d = device;
    struct attention_call call = {.d = d, .job = {.args = args, .kv = kv}};

    phx_team_run(d->team, phx_team_size(d->team), run_attention, &call);
}

static void run_swiglu(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct row_call *c = ctx;
    int32_t                n = c->out.dim[1];

    (void)member;
    for (int32_t t = first; t < end; t++)
        c->d->isa->swiglu(row_of(c->out, t), row_of(c->x, t), row_of(c->x, t) + n, n, c->kind,
                          c->limit);
}

static void op_swiglu(void *device, struct phx_tensor out, struct phx_tensor gate_up,
                      enum phx_glu kind, float limit)
{
    struct cpu_device *d = device;
    struct row_call    c = {.d = d, .out = out, .x = gate_up, .kind = kind, .limit = limit};

    phx_team_run(d->team, out.dim[0], run_swiglu, &c);
}

static void run_add(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct row_call *c = ctx;

    (void)member;
    for (int32_t t = first; t < end; t++)
        c->d->isa->add(row_of(c->x, t), row_of(c->y, c->y.dim[0] == 1 ? 0 : t), c->x.dim[1]);
}

static void op_add(void *device, struct phx_tensor x, struct phx_tensor y)
{
    struct cpu_device *d = device;
    struct row_call    c = {.d = d, .x = x, .y = y};

    phx_team_run(d->team, x.dim[0], run_add, &c);
}

static void op_gather_rows(void *device, struct phx_tensor out, struct phx_tensor x,
                           const int32_t *rows)
{
    (void)device;
    for (int32_t i = 0; i < out.dim[0]; i++)
        memmove(row_of(out, i), row_of(x, rows[i]), (size_t)x.dim[1] * sizeof(float));
}

const struct phx_ops phx_cpu_ops = {
    .name = "cpu",
    .is_host = true,
    .open = open_device,
    .close = close_device,
    .sync = sync_device,
    .alloc = alloc_memory,
    .free = free_memory,
    .upload = copy_memory,
    .download = copy_memory,
    .weight_bytes = phx_cpu_weight_bytes,
    .weight_create = phx_cpu_weight_create,
    .weight_destroy = phx_cpu_weight_destroy,
    .weight_pack = phx_cpu_weight_pack,
    .kv_bytes = phx_cpu_kv_bytes,
    .kv_create = phx_cpu_kv_create,
    .kv_destroy = phx_cpu_kv_destroy,
    .embed = op_embed,
    .rmsnorm = op_rmsnorm,
    .matmul = phx_cpu_matmul,
    .rope = op_rope,
    .kv_write = phx_cpu_kv_write,
    .attention = op_attention,
    .moe_route = phx_cpu_moe_route,
    .swiglu = op_swiglu,
    .moe_reserve = phx_cpu_moe_reserve,
    .moe_ffn = phx_cpu_moe_ffn,
    .moe_bias = phx_cpu_moe_bias,
    .add = op_add,
    .add_row = op_add,
    .gather_rows = op_gather_rows,
    .top = phx_cpu_top,
    .draw = phx_cpu_draw,
};
