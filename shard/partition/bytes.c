/* SPDX-License-Identifier: Apache-2.0
 * What a share weighs.  The same list of weights and vectors that shard/model binds, in the layout the
 * backend packs them in. */
#include <string.h>

#include "shard/partition/cut.h"

static int32_t count(struct phx_range r)
{
    return r.end - r.first;
}

static uint64_t matrix(const struct phx_partition_request *q, enum phx_dtype dtype, int32_t n, int32_t k,
                       int32_t n_experts, int32_t n_slices, const int32_t *slice_end)
{
    struct phx_weight_desc desc = {.dtype = dtype, .n = n, .k = k, .n_experts = n_experts,
                                   .n_slices = n_slices, .slice_end = {k}};

    if (n_slices > 1)
        memcpy(desc.slice_end, slice_end, (size_t)n_slices * sizeof(*slice_end));
    return phx_weight_bytes(q->backend, &desc);
}

static uint64_t plain(const struct phx_partition_request *q, int32_t n, int32_t k)
{
    return matrix(q, q->config->dtype, n, k, 1, 1, NULL);
}

/* Norms, biases and sinks are widened to float32. */
static uint64_t vector(int64_t n)
{
    return (uint64_t)n * sizeof(float);
}

static uint64_t attention_bytes(const struct phx_partition_request *q, const struct phx_part *p)
{
    const struct phx_model_config *c = q->config;
    int32_t  k = count(p->heads) * c->head_dim, kv = count(p->kv_heads) * c->head_dim;
    uint64_t bytes = vector(c->dim); /* the norm */

    bytes += plain(q, k + 2 * kv, c->dim);
    bytes += matrix(q, c->dtype, c->dim, k, 1, p->n_slices, p->attn_slice_end);
    if (c->has_attn_bias)
        bytes += vector(k + 2 * kv) + vector(c->dim);
    if (c->has_sinks)
        bytes += vector(count(p->heads));
    return bytes;
}

/* Everything of the ffn but the stacks of experts. */
static uint64_t ffn_fixed_bytes(const struct phx_partition_request *q, const struct phx_part *p)
{
    const struct phx_model_config *c = q->config;
    uint64_t                       bytes = vector(c->dim); /* the norm */
    int32_t                        n = count(p->ffn);

    if (c->n_experts > 0)
        return bytes + matrix(q, PHX_DTYPE_F32, c->n_experts, c->dim, 1, 1, NULL) + vector(c->n_experts);
    bytes += plain(q, 2 * n, c->dim);
    bytes += matrix(q, c->dtype, c->dim, n, 1, p->n_slices, p->ffn_slice_end);
    if (c->has_mlp_bias)
        bytes += vector(2 * (int64_t)n) + vector(c->dim);
    return bytes;
}

static uint64_t experts_bytes(const struct phx_partition_request *q, const struct phx_part *p)
{
    const struct phx_model_config *c = q->config;
    int32_t                        n = count(p->ffn);

    if (c->n_experts == 0)
        return 0;
    return matrix(q, c->expert_dtype, 2 * n, c->dim, c->n_experts, 1, NULL) +
           matrix(q, c->expert_dtype, c->dim, n, c->n_experts, p->n_slices, p->ffn_slice_end) +
           vector((int64_t)c->n_experts * 2 * n) + vector((int64_t)c->n_experts * c->dim);
}

void phx_share_bytes(const struct phx_partition_request *q, const struct phx_part *p,
                     struct phx_share_bytes *bytes)
{
    const struct phx_model_config *c = q->config;
    uint64_t fixed = attention_bytes(q, p) + ffn_fixed_bytes(q, p), experts = experts_bytes(q, p);

    bytes->layer = fixed + experts;
    bytes->layer_read = fixed;
    if (c->n_experts > 0)
        bytes->layer_read += experts / (uint64_t)c->n_experts * (uint64_t)c->experts_per_token;
    bytes->embedding = plain(q, count(p->vocab), c->dim);
    bytes->head = bytes->embedding + vector(c->dim);
    bytes->row = bytes->embedding / (uint64_t)count(p->vocab);
}

static uint64_t scratch_bytes(const struct phx_partition_request *q, const struct phx_part *p)
{
    const struct phx_model_config *c = q->config;
    int64_t rows = q->max_step_rows, q_dim = (int64_t)count(p->heads) * c->head_dim;
    int64_t kv_dim = (int64_t)count(p->kv_heads) * c->head_dim, ffn = count(p->ffn);
    int64_t context = q->max_context > 0 ? q->max_context : c->max_position;
    int64_t logits = q->max_logits > 0 ? q->max_logits : q->max_seqs;
    int64_t width = 3 * (int64_t)c->dim + (q_dim + 2 * kv_dim) + q_dim; /* x, norm, out, qkv, attn */
    uint64_t bytes = vector(context * c->head_dim);                     /* cos and sin */

    width += c->n_experts > 0 ? c->n_experts + 2 * (int64_t)c->experts_per_token : 3 * ffn;
    bytes += vector(rows * width);
    if (p->has_head)
        bytes += vector(logits * c->dim) + (p->tp_size > 1 ? vector(logits * count(p->vocab)) : 0);
    return bytes;
}

void phx_part_bytes(const struct phx_partition_request *q, struct phx_part *p)
{
    struct phx_kv_desc     kv = {.n_layers = count(p->layers), .n_blocks = 1,
                                 .block_tokens = q->block_tokens, .kv_heads = count(p->kv_heads),
                                 .head_dim = q->config->head_dim, .dtype = q->kv_dtype};
    struct phx_share_bytes share;
    bool                   is_first = p->pp == 0, is_last = p->pp == p->pp_size - 1;

    phx_share_bytes(q, p, &share);
    p->weights_bytes = share.layer * (uint64_t)count(p->layers);
    if (is_first)
        p->weights_bytes += share.embedding;
    if (is_last) /* a tied table on one stage is both, once */
        p->weights_bytes += share.head - (is_first && q->config->is_tied ? share.embedding : 0);
    p->kv_bytes_per_block = phx_kv_bytes(q->backend, &kv);
    p->scratch_bytes = scratch_bytes(q, p);
}
