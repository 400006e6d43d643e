/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: what the files of the door share.  Every argument is checked once for all implementations, and
 * the first error is kept until it is read. */
#ifndef PHX_KERNELS_DOOR_H
#define PHX_KERNELS_DOOR_H

#include <stdarg.h>
#include <stdio.h>

#include "kernels/ops.h"

struct phx_weight {
    struct phx_weight_desc desc;
    void                  *impl;
};

struct phx_kv {
    struct phx_kv_desc desc;
    void              *impl;
};

/* The first error sticks. */
__attribute__((format(printf, 2, 3))) static inline bool fail(struct phx_backend *b, const char *fmt, ...)
{
    va_list ap;

    if (!b->has_failed) {
        b->has_failed = true;
        va_start(ap, fmt);
        (void)vsnprintf(b->what, sizeof(b->what), fmt, ap); /* truncation is acceptable */
        va_end(ap);
    }
    return false;
}

static inline bool is_matrix(struct phx_backend *b, const char *op, const char *name, struct phx_tensor t,
                             enum phx_dtype dtype, int32_t rows, int32_t columns)
{
    if (t.data == NULL || t.dtype != dtype)
        return fail(b, "%s: %s has no data or another dtype", op, name);
    if (t.dim[0] != rows || t.dim[1] != columns || t.stride0 < t.dim[1])
        return fail(b, "%s: %s is [%d, %d] stride %lld, expected [%d, %d]", op, name, t.dim[0],
                    t.dim[1], (long long)t.stride0, rows, columns);
    return true;
}

static inline bool is_f32(struct phx_backend *b, const char *op, const char *name, struct phx_tensor t,
                          int32_t rows, int32_t columns)
{
    return is_matrix(b, op, name, t, PHX_DTYPE_F32, rows, columns);
}

/* Between phx_step_begin() and the end these arrays have been checked. */
static inline bool check_spans(struct phx_backend *b, const char *op, const struct phx_spans *s, int32_t rows)
{
    if (b->step != NULL && s == b->step->spans && rows == b->step->n_rows)
        return true;
    for (int32_t i = 0; i < s->n_seqs; i++)
        if (s->row[i] < 0 || s->n_rows[i] < 0 || s->pos[i] < 0 ||
            s->n_rows[i] > rows - s->row[i] || s->n_rows[i] > INT32_MAX - s->pos[i])
            return fail(b, "%s: sequence %d has rows %d+%d of %d at position %d", op, i, s->row[i],
                        s->n_rows[i], rows, s->pos[i]);
    return true;
}

/* Every block that the rows of this step touch, from each window's first on, is one of the cache. */
static inline bool check_blocks(struct phx_backend *b, const char *op, const struct phx_spans *s,
                                const struct phx_kv_desc *kv, int32_t window)
{
    const struct phx_step_inputs *step = b->step;

    if (step != NULL && s == step->spans && kv == &step->kv->desc && (step->window == 0 || (window > 0 && window <= step->window)))
        return true;
    for (int32_t i = 0; i < s->n_seqs; i++) {
        int32_t last = s->pos[i] + s->n_rows[i] - 1, first = 0;

        if (s->n_rows[i] == 0)
            continue;
        if (window > 0 && s->pos[i] - window + 1 > 0)
            first = s->pos[i] - window + 1;
        if (last / kv->block_tokens >= s->table_stride)
            return fail(b, "%s: position %d is past the block table of sequence %d", op, last, i);
        for (int32_t j = first / kv->block_tokens; j <= last / kv->block_tokens; j++) {
            int32_t block = s->table[(size_t)i * (size_t)s->table_stride + (size_t)j];

            if (block < 0 || block >= kv->n_blocks)
                return fail(b, "%s: block %d of sequence %d is %d of %d", op, j, i, block,
                            kv->n_blocks);
        }
    }
    return true;
}

static inline bool check_rope(struct phx_backend *b, const char *op, struct phx_tensor x, int32_t head_dim,
                              const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin)
{
    if (!is_f32(b, op, "x", x, x.dim[0], x.dim[1]) || !check_spans(b, op, spans, x.dim[0]))
        return false;
    if (head_dim < 2 || head_dim % 2 != 0 || x.dim[1] % head_dim != 0)
        return fail(b, "%s: %d columns are not heads of %d", op, x.dim[1], head_dim);
    if (!is_f32(b, op, "cos", cos, cos.dim[0], head_dim / 2) || !is_f32(b, op, "sin", sin, cos.dim[0], head_dim / 2))
        return false;
    for (int32_t i = 0; i < spans->n_seqs; i++)
        if (spans->pos[i] > cos.dim[0] - spans->n_rows[i])
            return fail(b, "%s: position %d is past the table of %d", op, spans->pos[i] + spans->n_rows[i] - 1, cos.dim[0]);
    return true;
}

/* Of the values; the caller has the keys. */
static inline bool check_kv_write(struct phx_backend *b, const char *op, const struct phx_kv *kv, int32_t layer, int32_t rows,
                                  struct phx_tensor v, const struct phx_spans *spans)
{
    if (!is_f32(b, op, "v", v, rows, kv->desc.kv_heads * kv->desc.head_dim) || !check_spans(b, op, spans, rows) ||
        !check_blocks(b, op, spans, &kv->desc, 1))
        return false;
    return (layer >= 0 && layer < kv->desc.n_layers) || fail(b, "%s: layer %d of %d", op, layer, kv->desc.n_layers);
}

static inline bool check_route(struct phx_backend *b, const char *op, struct phx_tensor ids, struct phx_tensor gates,
                               struct phx_tensor logits)
{
    int32_t rows = logits.dim[0], top_k = ids.dim[1];

    if (!is_f32(b, op, "logits", logits, rows, logits.dim[1]) || !is_matrix(b, op, "ids", ids, PHX_DTYPE_I32, rows, top_k) ||
        !is_f32(b, op, "gates", gates, rows, top_k))
        return false;
    return (top_k >= 1 && top_k <= logits.dim[1]) || fail(b, "%s: top %d of %d experts", op, top_k, logits.dim[1]);
}

static inline bool check_experts(struct phx_backend *b, const struct phx_moe_args *a)
{
    const struct phx_weight_desc *u = &a->gate_up->desc, *d = &a->down->desc;
    int32_t                       rows = a->x.dim[0], top_k = a->ids.dim[1];

    if (u->n != 2 * d->k || u->k != d->n || u->n_experts != d->n_experts || u->n_slices != 1)
        return fail(b, "moe_ffn: gate_up [%d, %d] does not fit down [%d, %d]", u->n, u->k, d->n, d->k);
    if (a->kind != PHX_GLU_SILU && a->kind != PHX_GLU_OAI)
        return fail(b, "moe_ffn: unknown kind %d", (int)a->kind);
    if (!is_f32(b, "moe_ffn", "x", a->x, rows, u->k) ||
        !is_f32(b, "moe_ffn", "out", a->out, rows, d->n) ||
        !is_matrix(b, "moe_ffn", "ids", a->ids, PHX_DTYPE_I32, rows, top_k) ||
        !is_f32(b, "moe_ffn", "gates", a->gates, rows, top_k) ||
        (a->gate_up_bias.data != NULL &&
         !is_f32(b, "moe_ffn", "gate_up_bias", a->gate_up_bias, u->n_experts, u->n)))
        return false;
    if (top_k < 1 || top_k > u->n_experts)
        return fail(b, "moe_ffn: top %d of %d experts", top_k, u->n_experts);
    return true;
}

static inline bool check_add_norm(struct phx_backend *b, const char *op, const struct phx_add_norm_args *a)
{
    int32_t T = a->x.dim[0], D = a->x.dim[1];

    return is_f32(b, op, "x", a->x, T, D) && is_f32(b, op, "y", a->y, T, D) &&
           (a->bias.data == NULL || is_f32(b, op, "bias", a->bias, 1, D)) &&
           (a->expert_bias.data == NULL ||
            (is_f32(b, op, "expert_bias", a->expert_bias, a->expert_bias.dim[0], D) &&
             is_matrix(b, op, "ids", a->ids, PHX_DTYPE_I32, T, a->ids.dim[1]) &&
             is_f32(b, op, "gates", a->gates, T, a->ids.dim[1]))) &&
           (a->norm.data == NULL || (is_f32(b, op, "norm", a->norm, T, D) && is_f32(b, op, "gain", a->gain, 1, D)));
}

/* A product [T, n] = x [T, k] by one matrix. */
static inline bool check_matmul(struct phx_backend *b, const char *op, struct phx_tensor out, struct phx_tensor x,
                                const struct phx_weight *w, struct phx_tensor bias)
{
    if (!is_f32(b, op, "x", x, x.dim[0], w->desc.k) || !is_f32(b, op, "out", out, x.dim[0], w->desc.n) ||
        (bias.data != NULL && !is_f32(b, op, "bias", bias, 1, w->desc.n)))
        return false;
    return w->desc.n_experts == 1 || fail(b, "%s: a stack of experts is not one matrix", op);
}

static inline bool check_glu(struct phx_backend *b, const char *op, struct phx_tensor out, struct phx_tensor gate_up,
                             enum phx_glu kind)
{
    if (!is_f32(b, op, "out", out, out.dim[0], out.dim[1]) ||
        !is_f32(b, op, "gate_up", gate_up, out.dim[0], 2 * out.dim[1]))
        return false;
    return kind == PHX_GLU_SILU || kind == PHX_GLU_OAI || fail(b, "%s: unknown kind %d", op, (int)kind);
}

static inline void traced(struct phx_backend *b, const char *op, struct phx_tensor out)
{
    if (b->trace != NULL)
        b->trace(b->trace_ctx, op, out);
}

#endif
