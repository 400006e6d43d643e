/* SPDX-License-Identifier: Apache-2.0
 * What a share weighs.  The same list of weights and vectors that shard/model binds, in the layout the
 * backend packs them in. */
#include <string.h>

#include "shard/partition/cut.h"

static int32_t count(struct phx_range r)
{
    return r.end - r.first;
}

/* ---- matrices ------------------------------------------------------------------------------- */

static struct phx_weight_desc whole(enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts)
{
    return (struct phx_weight_desc){.dtype = dtype, .n = n, .k = k, .n_experts = n_experts, .n_slices = 1,
                                    .slice_end = {k}};
}

static struct phx_weight_desc sliced(enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts, int32_t n_slices,
                                     const int32_t *slice_end)
{
    struct phx_weight_desc desc = whole(dtype, n, k, n_experts);

    desc.n_slices = n_slices;
    memcpy(desc.slice_end, slice_end, (size_t)n_slices * sizeof(*slice_end));
    return desc;
}

static struct phx_weight_desc describe_qkv(const struct phx_model_config *c, const struct phx_part *p)
{
    return whole(c->dtype, (count(p->heads) + 2 * count(p->kv_heads)) * c->head_dim, c->dim, 1);
}

static struct phx_weight_desc describe_attn_out(const struct phx_model_config *c, const struct phx_part *p)
{
    return sliced(c->dtype, c->dim, count(p->heads) * c->head_dim, 1, p->n_slices, p->attn_slice_end);
}

static struct phx_weight_desc describe_router(const struct phx_model_config *c)
{
    return whole(PHX_DTYPE_F32, c->n_experts, c->dim, 1);
}

/* Of a dense ffn, or the stack of a mixture. */
static struct phx_weight_desc describe_gate_up(const struct phx_model_config *c, const struct phx_part *p)
{
    return c->n_experts > 0 ? whole(c->expert_dtype, 2 * count(p->ffn), c->dim, c->n_experts)
                            : whole(c->dtype, 2 * count(p->ffn), c->dim, 1);
}

static struct phx_weight_desc describe_down(const struct phx_model_config *c, const struct phx_part *p)
{
    return sliced(c->n_experts > 0 ? c->expert_dtype : c->dtype, c->dim, count(p->ffn),
                  c->n_experts > 0 ? c->n_experts : 1, p->n_slices, p->ffn_slice_end);
}

static struct phx_weight_desc describe_vocabulary(const struct phx_model_config *c, const struct phx_part *p)
{
    return whole(c->dtype, count(p->vocab), c->dim, 1);
}

static struct phx_kv_desc describe_kv(const struct phx_partition_request *q, const struct phx_part *p)
{
    return (struct phx_kv_desc){.n_layers = count(p->layers), .n_blocks = 1, .block_tokens = q->block_tokens,
                                .kv_heads = count(p->kv_heads), .head_dim = q->config->head_dim, .dtype = q->kv_dtype};
}

static int32_t count_logits(const struct phx_partition_request *q)
{
    return q->max_logits > 0 ? q->max_logits : q->max_seqs;
}

void phx_part_work(const struct phx_partition_request *q, const struct phx_part *p, struct phx_part_work *out)
{
    const struct phx_model_config *c = q->config;
    int32_t                        n = 0;

    out->weights[n++] = describe_qkv(c, p);
    out->weights[n++] = describe_attn_out(c, p);
    if (p->pp == 0 || p->has_head)
        out->weights[n++] = describe_vocabulary(c, p);
    if (c->n_experts > 0)
        out->weights[n++] = describe_router(c);
    out->weights[n++] = describe_gate_up(c, p);
    out->weights[n++] = describe_down(c, p);
    out->work = (struct phx_work){.max_rows = q->max_step_rows, .top_k = c->n_experts > 0 ? c->experts_per_token : 0,
                                  .n_weights = n, .weights = out->weights, .kv = describe_kv(q, p)};
    if (!p->has_head)
        return;
    out->work.max_logits = count_logits(q);
    out->work.max_draws = p->tp == 0 ? PHX_LOGITS_DRAWS_MAX * out->work.max_logits : 0;
    out->work.n_columns = p->tp == 0 ? c->vocab_size : count(p->vocab);
}

/* ---- adding up ------------------------------------------------------------------------------ */

/* Allocations in the order in which shard/model makes them: their bytes, and what the device takes for them. */
struct sum {
    const struct phx_partition_request *request;
    uint64_t                            bytes;
    struct phx_memory_count             device;
};

static void add_bytes(struct sum *s, uint64_t bytes)
{
    s->bytes += bytes;
    phx_memory_count_add(s->request->backend, &s->device, bytes);
}

static void add_matrix(struct sum *s, struct phx_weight_desc desc)
{
    add_bytes(s, phx_weight_bytes(s->request->backend, &desc));
}

/* Norms, biases and sinks are widened to float32. */
static void add_vector(struct sum *s, int64_t n)
{
    add_bytes(s, (uint64_t)n * sizeof(float));
}

static void add_attention(struct sum *s, const struct phx_part *p)
{
    const struct phx_model_config *c = s->request->config;

    add_vector(s, c->dim); /* the norm */
    add_matrix(s, describe_qkv(c, p));
    if (c->has_attn_bias)
        add_vector(s, (count(p->heads) + 2 * count(p->kv_heads)) * c->head_dim);
    add_matrix(s, describe_attn_out(c, p));
    if (c->has_attn_bias)
        add_vector(s, c->dim);
    if (c->has_sinks)
        add_vector(s, count(p->heads));
}

/* Everything of the ffn but the stacks of experts. */
static void add_ffn_fixed(struct sum *s, const struct phx_part *p)
{
    const struct phx_model_config *c = s->request->config;

    add_vector(s, c->dim); /* the norm */
    if (c->n_experts > 0) {
        add_matrix(s, describe_router(c));
        add_vector(s, c->n_experts);
        return;
    }
    add_matrix(s, describe_gate_up(c, p));
    add_matrix(s, describe_down(c, p));
    if (!c->has_mlp_bias)
        return;
    add_vector(s, 2 * (int64_t)count(p->ffn));
    add_vector(s, c->dim);
}

static void add_experts(struct sum *s, const struct phx_part *p)
{
    const struct phx_model_config *c = s->request->config;

    if (c->n_experts == 0)
        return;
    add_matrix(s, describe_gate_up(c, p));
    add_vector(s, (int64_t)c->n_experts * 2 * count(p->ffn));
    add_matrix(s, describe_down(c, p));
    add_vector(s, (int64_t)c->n_experts * c->dim);
}

static uint64_t sum_of(const struct phx_partition_request *q, const struct phx_part *p,
                       void (*add)(struct sum *s, const struct phx_part *p))
{
    struct sum s = {.request = q};

    add(&s, p);
    return s.bytes;
}

void phx_share_bytes(const struct phx_partition_request *q, const struct phx_part *p,
                     struct phx_share_bytes *bytes)
{
    const struct phx_model_config *c = q->config;
    struct phx_weight_desc         vocabulary = describe_vocabulary(c, p);
    uint64_t fixed = sum_of(q, p, add_attention) + sum_of(q, p, add_ffn_fixed), experts = sum_of(q, p, add_experts);

    bytes->layer = fixed + experts;
    bytes->layer_read = fixed;
    if (c->n_experts > 0)
        bytes->layer_read += experts / (uint64_t)c->n_experts * (uint64_t)c->experts_per_token;
    bytes->embedding = phx_weight_bytes(q->backend, &vocabulary);
    bytes->head = bytes->embedding + (uint64_t)c->dim * sizeof(float);
    bytes->row = bytes->embedding / (uint64_t)count(p->vocab);
}

/* A tied table on one stage is embedding and head, once. */
static void add_weights(struct sum *s, const struct phx_part *p)
{
    const struct phx_model_config *c = s->request->config;
    bool                           is_first = p->pp == 0, is_last = p->pp == p->pp_size - 1;

    if (is_first)
        add_matrix(s, describe_vocabulary(c, p));
    if (is_last && !(is_first && c->is_tied))
        add_matrix(s, describe_vocabulary(c, p));
    if (is_last)
        add_vector(s, c->dim);
    for (int32_t i = 0; i < count(p->layers); i++) {
        add_attention(s, p);
        add_ffn_fixed(s, p);
        add_experts(s, p);
    }
}

/* Tensors of a step at its largest. */
static void add_tensors(struct sum *s, const struct phx_part *p)
{
    const struct phx_partition_request *q = s->request;
    const struct phx_model_config      *c = q->config;
    int64_t rows = q->max_step_rows, q_dim = (int64_t)count(p->heads) * c->head_dim;
    int64_t kv_dim = (int64_t)count(p->kv_heads) * c->head_dim, ffn = count(p->ffn);
    int64_t context = q->max_context > 0 ? q->max_context : c->max_position;
    int64_t logits = count_logits(q);
    int64_t dense[] = {2 * ffn, ffn}, mixture[] = {c->n_experts, c->experts_per_token, c->experts_per_token};

    for (int i = 0; i < 2; i++) /* cos and sin */
        add_vector(s, context * (c->head_dim / 2));
    for (int i = 0; i < 3; i++) /* x, norm, out */
        add_vector(s, rows * c->dim);
    add_vector(s, rows * (q_dim + 2 * kv_dim));
    add_vector(s, rows * q_dim); /* attn */
    for (size_t i = 0; i < (c->n_experts > 0 ? sizeof(mixture) : sizeof(dense)) / sizeof(int64_t); i++)
        add_vector(s, rows * (c->n_experts > 0 ? mixture[i] : dense[i]));
    if (!p->has_head)
        return;
    add_vector(s, logits * c->dim);
    if (p->tp_size > 1)
        add_vector(s, logits * count(p->vocab));
    if (p->tp == 0 && q->backend != NULL && !phx_backend_is_host(q->backend))
        add_vector(s, logits * c->vocab_size); /* the host has them besides */
    if (q->backend != NULL && !phx_backend_is_host(q->backend))
        add_vector(s, logits * PHX_LOGITS_SMALL);
}

/* All but the cache. */
static void add_part(struct sum *s, struct phx_part *p)
{
    struct phx_part_work work;

    phx_part_work(s->request, p, &work);
    phx_memory_count_add(s->request->backend, &s->device, phx_work_bytes(s->request->backend, &work.work));
    add_weights(s, p);
    p->weights_bytes = s->bytes;
    add_tensors(s, p);
    p->scratch_bytes = s->bytes - p->weights_bytes;
    p->overhead_bytes = s->device.total_bytes - s->bytes;
}

void phx_part_bytes(const struct phx_partition_request *q, struct phx_part *p)
{
    struct phx_kv_desc kv = describe_kv(q, p);
    struct sum         s = {.request = q};

    add_part(&s, p);
    p->kv_bytes_per_block = phx_kv_bytes(q->backend, &kv);
}

uint64_t phx_part_device_bytes(const struct phx_partition_request *q, const struct phx_part *part, int64_t n_blocks)
{
    struct phx_part p = *part;
    struct sum      s = {.request = q};

    add_part(&s, &p);
    add_bytes(&s, p.kv_bytes_per_block * (uint64_t)n_blocks);
    return s.device.total_bytes;
}
