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
