/* SPDX-License-Identifier: Apache-2.0
 * The door of kernels/: opens a backend, checks every argument once for all of them, and keeps the first
 * error until it is read. */
#include "kernels/backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/desc.h"
#include "kernels/door.h"
#include "kernels/memory.h"
#include "kernels/module.h"

struct phx_backend *phx_backend_open(const char *name, const struct phx_backend_options *options,
                                     char *why, size_t why_size)
{
    static const struct phx_backend_options defaults = {0};
    struct phx_backend                     *b = phx_memory_alloc(sizeof(*b));

    if (b == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return NULL;
    }
    if (strcmp(name, "cpu") == 0)
        b->ops = &phx_cpu_ops;
    else if (strcmp(name, "cuda") == 0)
        b->ops = phx_module_load(name, &b->module, why, why_size);
    else
        (void)snprintf(why, why_size, "backend '%.20s' is unknown: cpu or cuda", name);
    b->is_eager = options != NULL && options->is_eager;
    if (b->ops != NULL)
        b->device = b->ops->open(options != NULL ? options : &defaults, &b->isa, &b->n_threads, why,
                                 why_size);
    if (b->device == NULL) {
        phx_backend_close(b);
        return NULL;
    }
    return b;
}

void phx_backend_close(struct phx_backend *b)
{
    if (b == NULL)
        return;
    if (b->device != NULL)
        b->ops->close(b->device);
    phx_module_unload(b->module);
    phx_memory_free(b);
}

void phx_backend_set_trace(struct phx_backend *b, phx_trace_fn fn, void *ctx)
{
    b->trace = fn;
    b->trace_ctx = ctx;
    b->is_apart = fn != NULL;
}

void phx_backend_set_watch(struct phx_backend *b, phx_trace_fn fn, void *ctx)
{
    phx_backend_set_trace(b, fn, ctx);
    b->is_apart = false;
}

int phx_backend_sync(struct phx_backend *b, const char **what)
{
    const char *why = NULL;
    int         rc = b->ops->sync(b->device, &why);

    if (rc != 0)
        (void)fail(b, "device: %s", why);
    if (!b->has_failed)
        return 0;
    b->has_failed = false;
    memcpy(b->told, b->what, sizeof(b->told));
    if (what != NULL)
        *what = b->told;
    return rc == PHX_SYNC_LOST ? rc : -1;
}

/* The implementation knows how much memory there is. */
static void fail_memory(struct phx_backend *b, const char *op, size_t size_bytes)
{
    const char *why = NULL;

    if (b->ops->sync(b->device, &why) != 0)
        (void)fail(b, "%s: %zu bytes cannot be had: %s", op, size_bytes, why);
    else
        (void)fail(b, "%s: %zu bytes cannot be had", op, size_bytes);
}

/* ---- weights --------------------------------------------------------------------------------- */

size_t phx_weight_bytes(const struct phx_backend *b, const struct phx_weight_desc *desc)
{
    const struct phx_ops *ops = b != NULL ? b->ops : &phx_cpu_ops;

    return phx_weight_find_fault(desc) != NULL ? 0 : ops->weight_bytes(desc);
}

struct phx_weight *phx_weight_create(struct phx_backend *b, const struct phx_weight_desc *desc)
{
    const char        *fault = phx_weight_find_fault(desc);
    struct phx_weight *w;

    if (fault != NULL) {
        (void)fail(b, "weight_create: %s", fault);
        return NULL;
    }
    w = phx_memory_alloc(sizeof(*w));
    if (w == NULL)
        return NULL;
    w->desc = *desc;
    w->impl = b->ops->weight_create(b->device, desc);
    if (w->impl == NULL) {
        fail_memory(b, "weight_create", b->ops->weight_bytes(desc));
        phx_memory_free(w);
        return NULL;
    }
    return w;
}

void phx_weight_destroy(struct phx_backend *b, struct phx_weight *w)
{
    if (w == NULL)
        return;
    b->ops->weight_destroy(b->device, w->impl);
    phx_memory_free(w);
}

const struct phx_weight_desc *phx_weight_describe(const struct phx_weight *w)
{
    return &w->desc;
}

void phx_weight_pack(struct phx_backend *b, struct phx_weight *w,
                     const struct phx_weight_source *source)
{
    const struct phx_weight_desc *d = &w->desc;
    bool has_scales = source->dtype == PHX_DTYPE_MXFP4 || source->dtype == PHX_DTYPE_I8;

    if (b->has_failed)
        return;
    if (!phx_weight_can_store(source->dtype, d->dtype))
        (void)fail(b, "weight_pack: dtype %d cannot be stored as %d exactly", (int)source->dtype,
                   (int)d->dtype);
    else if (source->expert < 0 || source->expert >= d->n_experts || source->first_row < 0 ||
             source->n_rows < 0 || source->n_rows > d->n - source->first_row)
        (void)fail(b, "weight_pack: expert %d rows %d+%d are not of [%d][%d]", source->expert,
                   source->first_row, source->n_rows, d->n_experts, d->n);
    else if (source->n_rows > 0 && (source->data == NULL || (has_scales && source->scale == NULL)))
        (void)fail(b, "weight_pack: no source data");
    else
        b->ops->weight_pack(b->device, w->impl, source);
}

/* ---- key/value cache ------------------------------------------------------------------------- */

size_t phx_kv_bytes(const struct phx_backend *b, const struct phx_kv_desc *desc)
{
    const struct phx_ops *ops = b != NULL ? b->ops : &phx_cpu_ops;

    return phx_kv_is_valid(desc) ? ops->kv_bytes(desc) : 0;
}

struct phx_kv *phx_kv_create(struct phx_backend *b, const struct phx_kv_desc *desc)
{
    struct phx_kv *kv;

    if (!phx_kv_is_valid(desc)) {
        (void)fail(b, "kv_create: block_tokens 16 or 32, even head_dim up to 512, F32, BF16, I8 or F8_E4M3");
        return NULL;
    }
    kv = phx_memory_alloc(sizeof(*kv));
    if (kv == NULL)
        return NULL;
    kv->desc = *desc;
    kv->impl = b->ops->kv_create(b->device, desc);
    if (kv->impl == NULL) {
        fail_memory(b, "kv_create", b->ops->kv_bytes(desc));
        phx_memory_free(kv);
        return NULL;
    }
    return kv;
}

void phx_kv_destroy(struct phx_backend *b, struct phx_kv *kv)
{
    if (kv == NULL)
        return;
    b->ops->kv_destroy(b->device, kv->impl);
    phx_memory_free(kv);
}

/* ---- ops ------------------------------------------------------------------------------------- */

void phx_embed(struct phx_backend *b, struct phx_tensor out, const int32_t *ids,
               const struct phx_weight *table, int32_t first_row)
{
    if (b->has_failed || !is_f32(b, "embed", "out", out, out.dim[0], table->desc.k))
        return;
    b->ops->embed(b->device, out, ids, table->impl, first_row);
    traced(b, "embed", out);
}

void phx_rmsnorm(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                 struct phx_tensor gain, float eps)
{
    if (b->has_failed || !is_f32(b, "rmsnorm", "x", x, x.dim[0], x.dim[1]) ||
        !is_f32(b, "rmsnorm", "out", out, x.dim[0], x.dim[1]) ||
        !is_f32(b, "rmsnorm", "gain", gain, 1, x.dim[1]))
        return;
    b->ops->rmsnorm(b->device, out, x, gain, eps);
    traced(b, "rmsnorm", out);
}

void phx_matmul(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                const struct phx_weight *w, struct phx_tensor bias)
{
    const char *fault;

    if (b->has_failed || !check_matmul(b, "matmul", out, x, w, bias))
        return;
    fault = b->ops->matmul(b->device, out, x, w->impl, bias);
    if (fault != NULL)
        (void)fail(b, "matmul: %s", fault);
    else
        traced(b, "matmul", out);
}

void phx_rope(struct phx_backend *b, struct phx_tensor x, int32_t head_dim,
              const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin)
{
    if (b->has_failed || !check_rope(b, "rope", x, head_dim, spans, cos, sin))
        return;
    b->ops->rope(b->device, x, head_dim, spans, cos, sin);
    traced(b, "rope", x);
}

void phx_kv_write(struct phx_backend *b, struct phx_kv *kv, int32_t layer, struct phx_tensor k,
                  struct phx_tensor v, const struct phx_spans *spans)
{
    if (b->has_failed || !is_f32(b, "kv_write", "k", k, k.dim[0], kv->desc.kv_heads * kv->desc.head_dim) ||
        !check_kv_write(b, "kv_write", kv, layer, k.dim[0], v, spans))
        return;
    b->ops->kv_write(b->device, kv->impl, layer, k, v, spans);
}

static bool check_attention(struct phx_backend *b, const struct phx_attention_args *a)
{
    const struct phx_kv_desc *kv = &a->kv->desc;
    int32_t                   columns = a->n_heads * kv->head_dim;

    if (!is_f32(b, "attention", "q", a->q, a->q.dim[0], columns) ||
        !is_f32(b, "attention", "out", a->out, a->q.dim[0], columns) ||
        (a->sinks.data != NULL && !is_f32(b, "attention", "sinks", a->sinks, 1, a->n_heads)) ||
        !check_spans(b, "attention", a->spans, a->q.dim[0]) ||
        !check_blocks(b, "attention", a->spans, kv, a->window))
        return false;
    if (a->layer < 0 || a->layer >= kv->n_layers || a->window < 0)
        return fail(b, "attention: layer %d of %d, window %d", a->layer, kv->n_layers, a->window);
    if (a->n_heads < 1 || a->group < 1 || a->head_first < 0 || a->kv_first < 0 ||
        a->head_first / a->group < a->kv_first ||
        (a->head_first + a->n_heads - 1) / a->group - a->kv_first >= kv->kv_heads)
        return fail(b, "attention: heads %d+%d in groups of %d do not read kv heads %d+%d",
                    a->head_first, a->n_heads, a->group, a->kv_first, kv->kv_heads);
    return true;
}

void phx_attention(struct phx_backend *b, const struct phx_attention_args *args)
{
    if (b->has_failed || !check_attention(b, args))
        return;
    b->ops->attention(b->device, args, args->kv->impl);
    traced(b, "attention", args->out);
}

void phx_moe_route(struct phx_backend *b, struct phx_tensor ids, struct phx_tensor gates,
                   struct phx_tensor logits)
{
    if (b->has_failed || !check_route(b, "moe_route", ids, gates, logits))
        return;
    b->ops->moe_route(b->device, ids, gates, logits);
    traced(b, "moe_route", gates);
}

void phx_swiglu(struct phx_backend *b, struct phx_tensor out, struct phx_tensor gate_up,
                enum phx_glu kind, float limit)
{
    if (b->has_failed || !check_glu(b, "swiglu", out, gate_up, kind))
        return;
    b->ops->swiglu(b->device, out, gate_up, kind, limit);
    traced(b, "swiglu", out);
}

void phx_moe_reserve(struct phx_backend *b, int32_t max_rows, int32_t top_k,
                     const struct phx_weight *gate_up, const struct phx_weight *down)
{
    const char *fault;

    if (b->has_failed)
        return;
    if (max_rows < 0 || top_k < 1 || top_k > gate_up->desc.n_experts) {
        (void)fail(b, "moe_reserve: %d rows, top %d of %d experts", max_rows, top_k,
                   gate_up->desc.n_experts);
        return;
    }
    fault = b->ops->moe_reserve(b->device, max_rows, top_k, &gate_up->desc, &down->desc);
    if (fault != NULL)
        (void)fail(b, "moe_reserve: %s (%d rows)", fault, max_rows);
}

void phx_moe_ffn(struct phx_backend *b, const struct phx_moe_args *args)
{
    const char *fault;

    if (b->has_failed || !check_experts(b, args))
        return;
    fault = b->ops->moe_ffn(b->device, args, args->gate_up->impl, args->down->impl);
    if (fault != NULL)
        (void)fail(b, "moe_ffn: %s", fault);
    else
        traced(b, "moe_ffn", args->out);
}

void phx_moe_bias(struct phx_backend *b, struct phx_tensor x, struct phx_tensor ids,
                  struct phx_tensor gates, struct phx_tensor bias)
{
    const char *fault;

    if (b->has_failed || !is_f32(b, "moe_bias", "x", x, x.dim[0], x.dim[1]) ||
        !is_matrix(b, "moe_bias", "ids", ids, PHX_DTYPE_I32, x.dim[0], ids.dim[1]) ||
        !is_f32(b, "moe_bias", "gates", gates, x.dim[0], ids.dim[1]) ||
        !is_f32(b, "moe_bias", "bias", bias, bias.dim[0], x.dim[1]))
        return;
    fault = b->ops->moe_bias(b->device, x, ids, gates, bias);
    if (fault != NULL)
        (void)fail(b, "moe_bias: %s", fault);
    else
        traced(b, "moe_bias", x);
}

void phx_add(struct phx_backend *b, struct phx_tensor x, struct phx_tensor y)
{
    if (b->has_failed || !is_f32(b, "add", "x", x, x.dim[0], x.dim[1]) ||
        !is_f32(b, "add", "y", y, x.dim[0], x.dim[1]))
        return;
    b->ops->add(b->device, x, y);
    traced(b, "add", x);
}

void phx_add_row(struct phx_backend *b, struct phx_tensor x, struct phx_tensor row)
{
    if (b->has_failed || !is_f32(b, "add_row", "x", x, x.dim[0], x.dim[1]) ||
        !is_f32(b, "add_row", "row", row, 1, x.dim[1]))
        return;
    b->ops->add_row(b->device, x, row);
    traced(b, "add_row", x);
}

void phx_gather_rows(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                     const int32_t *rows)
{
    if (b->has_failed || !is_f32(b, "gather_rows", "x", x, x.dim[0], x.dim[1]) ||
        !is_f32(b, "gather_rows", "out", out, out.dim[0], x.dim[1]))
        return;
    for (int32_t i = b->step != NULL && rows == b->step->picked ? b->step->n_picked : 0; i < out.dim[0]; i++)
        if (rows[i] < 0 || rows[i] >= x.dim[0]) {
            (void)fail(b, "gather_rows: row %d of %d", rows[i], x.dim[0]);
            return;
        }
    b->ops->gather_rows(b->device, out, x, rows);
    traced(b, "gather_rows", out);
}

void phx_top(struct phx_backend *b, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
             struct phx_tensor logits)
{
    int32_t rows = logits.dim[0], top_k = ids.dim[1];

    if (b->has_failed || !is_f32(b, "top", "logits", logits, rows, logits.dim[1]) ||
        !is_matrix(b, "top", "ids", ids, PHX_DTYPE_I32, rows, top_k) ||
        !is_f32(b, "top", "values", values, rows, top_k) || !is_f32(b, "top", "lse", lse, rows, 1))
        return;
    if (top_k < 1 || top_k > logits.dim[1] || top_k > PHX_TOP_MAX) {
        (void)fail(b, "top: %d of %d logits", top_k, logits.dim[1]);
        return;
    }
    b->ops->top(b->device, ids, values, lse, logits);
    traced(b, "top", values);
}

void phx_draw(struct phx_backend *b, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws)
{
    if (b->has_failed || !is_f32(b, "draw", "logits", logits, logits.dim[0], logits.dim[1]) ||
        !is_matrix(b, "draw", "out", out, PHX_DTYPE_F64, out.dim[0], PHX_DRAW_WIDTH))
        return;
    if (logits.dim[1] < 1 || logits.dim[1] > PHX_DRAW_COLUMNS_MAX) {
        (void)fail(b, "draw: %d logits", logits.dim[1]);
        return;
    }
    for (int32_t i = 0; i < out.dim[0]; i++) {
        const struct phx_draw_row *d = &draws[i];

        if (d->row < 0 || d->row >= logits.dim[0] || !(d->temperature > 0.0f) || !(d->temperature < INFINITY) ||
            !(d->share >= 0.0) || !(d->share < 1.0)) {
            (void)fail(b, "draw: row %d of %d at temperature %g, share %g", d->row, logits.dim[0], (double)d->temperature,
                       d->share);
            return;
        }
    }
    b->ops->draw(b->device, out, logits, draws);
    traced(b, "draw", out);
}
