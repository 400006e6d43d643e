/* SPDX-License-Identifier: Apache-2.0
 * Ops that are others in one, for backends where a launch costs.  Traced, they are what they are made of. */
#include "kernels/door.h"

void phx_rope_write(struct phx_backend *b, struct phx_tensor x, struct phx_kv *kv, int32_t layer, struct phx_tensor v,
                    const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin)
{
    static const char         op[] = "rope_write";
    const struct phx_kv_desc *desc = &kv->desc;
    int32_t                   keys = desc->kv_heads * desc->head_dim;

    if (b->has_failed || !is_f32(b, op, "x", x, x.dim[0], x.dim[1]))
        return;
    if (x.dim[1] < keys) {
        (void)fail(b, "%s: %d columns hold no keys of %d", op, x.dim[1], keys);
        return;
    }
    if (b->ops->rope_write == NULL || b->is_apart) {
        phx_rope(b, x, desc->head_dim, spans, cos, sin);
        phx_kv_write(b, kv, layer, phx_columns(x, x.dim[1] - keys, keys), v, spans);
        return;
    }
    if (check_rope(b, op, x, desc->head_dim, spans, cos, sin) && check_kv_write(b, op, kv, layer, x.dim[0], v, spans)) {
        b->ops->rope_write(b->device, x, kv->impl, layer, v, spans, cos, sin);
        traced(b, op, x);
    }
}

void phx_add_norm(struct phx_backend *b, const struct phx_add_norm_args *a)
{
    if (b->has_failed || !check_add_norm(b, "add_norm", a))
        return;
    if (b->ops->add_norm != NULL && !b->is_apart) {
        b->ops->add_norm(b->device, a);
        traced(b, "add_norm", a->x);
        return;
    }
    if (a->expert_bias.data != NULL)
        phx_moe_bias(b, a->y, a->ids, a->gates, a->expert_bias);
    if (a->bias.data != NULL)
        phx_add_row(b, a->y, a->bias);
    phx_add(b, a->x, a->y);
    if (a->norm.data != NULL)
        phx_rmsnorm(b, a->norm, a->x, a->gain, a->eps);
}

void phx_moe_route_ffn(struct phx_backend *b, const struct phx_moe_args *args, struct phx_tensor logits)
{
    static const char op[] = "moe_route_ffn";
    const char       *fault;

    if (b->ops->moe_route_ffn == NULL || b->is_apart) {
        phx_moe_route(b, args->ids, args->gates, logits);
        phx_moe_ffn(b, args);
        return;
    }
    if (b->has_failed || !check_route(b, op, args->ids, args->gates, logits) || !check_experts(b, args))
        return;
    if (logits.dim[0] != args->x.dim[0] || logits.dim[1] != args->gate_up->desc.n_experts) {
        (void)fail(b, "%s: logits [%d, %d] for %d rows and %d experts", op, logits.dim[0], logits.dim[1], args->x.dim[0],
                   args->gate_up->desc.n_experts);
        return;
    }
    fault = b->ops->moe_route_ffn(b->device, args, logits, args->gate_up->impl, args->down->impl);
    if (fault != NULL)
        (void)fail(b, "%s: %s", op, fault);
    else
        traced(b, op, args->out);
}

/* What the implementation answered for an op whose result is out. */
static void finish(struct phx_backend *b, const char *op, const char *fault, struct phx_tensor out)
{
    if (fault != NULL)
        (void)fail(b, "%s: %s", op, fault);
    else
        traced(b, op, out);
}

void phx_matmul_rope_write(struct phx_backend *b, const struct phx_matmul_rope_args *a)
{
    static const char         op[] = "matmul_rope_write";
    const struct phx_kv_desc *desc = &a->kv->desc;
    int32_t                   keys = desc->kv_heads * desc->head_dim, queries = a->out.dim[1] - 2 * keys;
    struct phx_tensor         turned, v;

    if (b->has_failed || !check_matmul(b, op, a->out, a->x, a->w, a->bias))
        return;
    if (queries < 0) {
        (void)fail(b, "%s: %d columns hold no keys and values of %d", op, a->out.dim[1], keys);
        return;
    }
    turned = phx_columns(a->out, 0, queries + keys);
    v = phx_columns(a->out, queries + keys, keys);
    if (b->ops->matmul_rope_write == NULL || b->is_apart) {
        phx_matmul(b, a->out, a->x, a->w, a->bias);
        phx_rope_write(b, turned, a->kv, a->layer, v, a->spans, a->cos, a->sin);
        return;
    }
    if (check_rope(b, op, turned, desc->head_dim, a->spans, a->cos, a->sin) &&
        check_kv_write(b, op, a->kv, a->layer, a->x.dim[0], v, a->spans))
        finish(b, op, b->ops->matmul_rope_write(b->device, a, a->w->impl, a->kv->impl), a->out);
}

void phx_matmul_glu(struct phx_backend *b, const struct phx_matmul_glu_args *a)
{
    static const char op[] = "matmul_glu";

    if (b->ops->matmul_glu == NULL || b->is_apart) {
        phx_matmul(b, a->gate_up, a->x, a->w, a->bias);
        phx_swiglu(b, a->out, a->gate_up, a->kind, a->limit);
        return;
    }
    if (!b->has_failed && check_matmul(b, op, a->gate_up, a->x, a->w, a->bias) &&
        check_glu(b, op, a->out, a->gate_up, a->kind))
        finish(b, op, b->ops->matmul_glu(b->device, a, a->w->impl), a->out);
}

void phx_matmul_add_norm(struct phx_backend *b, struct phx_tensor x, const struct phx_weight *w,
                         const struct phx_add_norm_args *end)
{
    static const char op[] = "matmul_add_norm";

    if (b->ops->matmul_add_norm == NULL || b->is_apart) {
        phx_matmul(b, end->y, x, w, (struct phx_tensor){0});
        phx_add_norm(b, end);
        return;
    }
    if (!b->has_failed && check_matmul(b, op, end->y, x, w, (struct phx_tensor){0}) && check_add_norm(b, op, end))
        finish(b, op, b->ops->matmul_add_norm(b->device, x, w->impl, end), end->x);
}

static bool check_mixture(struct phx_backend *b, const char *op, const struct phx_mixture_args *a)
{
    const struct phx_moe_args      *e = a->experts;
    const struct phx_add_norm_args *end = a->end;

    if (!check_matmul(b, op, a->logits, e->x, a->router, a->router_bias) ||
        !check_route(b, op, e->ids, e->gates, a->logits) || !check_experts(b, e))
        return false;
    if (a->logits.dim[1] != e->gate_up->desc.n_experts)
        return fail(b, "%s: a router of %d for %d experts", op, a->logits.dim[1], e->gate_up->desc.n_experts);
    if (end == NULL)
        return true;
    if (end->y.data != e->out.data ||
        (end->expert_bias.data != NULL && (end->ids.data != e->ids.data || end->gates.data != e->gates.data ||
                                           end->expert_bias.dim[0] != e->gate_up->desc.n_experts)))
        return fail(b, "%s: the end is not that of these experts", op);
    return check_add_norm(b, op, end);
}

void phx_mixture(struct phx_backend *b, const struct phx_mixture_args *a)
{
    static const char          op[] = "mixture";
    const struct phx_moe_args *e = a->experts;

    if (b->ops->mixture == NULL || b->is_apart) {
        phx_matmul(b, a->logits, e->x, a->router, a->router_bias);
        phx_moe_route_ffn(b, e, a->logits);
        if (a->end != NULL)
            phx_add_norm(b, a->end);
        return;
    }
    if (!b->has_failed && check_mixture(b, op, a))
        finish(b, op, b->ops->mixture(b->device, a, a->router->impl, e->gate_up->impl, e->down->impl),
               a->end != NULL ? a->end->x : e->out);
}
