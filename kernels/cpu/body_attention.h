/* SPDX-License-Identifier: Apache-2.0
 * Paged causal attention, one (row, kv head) at a time, the query heads of a group together.
 * Per query and head: an online softmax over blocks of 16 positions aligned to position 0, ascending from
 * the block of the first visible key; scores are chains over d, values chains over positions.  A sink
 * starts the running maximum (and a running sum of 1).  Nothing depends on the neighbours. */

struct head_state {
    float m, l;
};

/* s[h] = scale * q_h . k for 16 positions; keys lie [d][16]. */
INLINE void score_block(const int heads, v16 *s, const float *const *q, const unsigned char *keys,
                        bool is_bf16, int32_t head_dim, float scale)
{
    for (int h = 0; h < heads; h++)
        s[h] = v16_zero();
    for (int32_t d = 0; d < head_dim; d++) {
        v16 k = is_bf16 ? v16_load_bf16((const uint16_t *)(const void *)keys + (size_t)d * SUB_TOKENS)
                        : v16_load((const float *)(const void *)keys + (size_t)d * SUB_TOKENS);

        for (int h = 0; h < heads; h++)
            s[h] = v16_fma(v16_set(q[h][d]), k, s[h]);
    }
    for (int h = 0; h < heads; h++)
        s[h] = v16_mul(s[h], v16_set(scale));
}

/* Positions of the block below `first` or above `last` get weight 0. */
INLINE v16 mask_block(v16 s, int32_t pos, int32_t first, int32_t last)
{
    float t[SUB_TOKENS];

    if (pos >= first && pos + SUB_TOKENS - 1 <= last)
        return s;
    v16_store(t, s);
    for (int i = 0; i < SUB_TOKENS; i++)
        if (pos + i < first || pos + i > last)
            t[i] = -INFINITY;
    return v16_load(t);
}

/* acc = acc * shrink + sum over the 16 positions of p[i] * v[i] */
INLINE void add_values(float *acc, const float *p, float shrink, const unsigned char *values,
                       bool is_bf16, int32_t head_dim, int32_t n_visible)
{
    for (int32_t d = 0; d < head_dim; d += LANES) {
        int m = head_dim - d < LANES ? head_dim - d : LANES;
        v16 a = v16_mul(v16_load(acc + d), v16_set(shrink));

        for (int32_t i = 0; i < n_visible; i++) {
            size_t at = (size_t)i * (size_t)head_dim + (size_t)d;
            v16    v;

            if (!is_bf16)
                v = v16_load_n((const float *)(const void *)values + at, m);
            else if (m == LANES)
                v = v16_load_bf16((const uint16_t *)(const void *)values + at);
            else {
                uint16_t t[LANES] = {0};

                memcpy(t, (const uint16_t *)(const void *)values + at, (size_t)m * sizeof(t[0]));
                v = v16_load_bf16(t);
            }
            a = v16_fma(v16_set(p[i]), v, a);
        }
        v16_store(acc + d, a);
    }
}

INLINE void attend_block(const int heads, struct head_state *state, float (*acc)[HEAD_DIM_MAX],
                         const float *const *q, const unsigned char *keys,
                         const unsigned char *values, bool is_bf16, int32_t head_dim, float scale,
                         int32_t pos, int32_t first, int32_t last)
{
    int32_t n_visible = last - pos + 1 < SUB_TOKENS ? last - pos + 1 : SUB_TOKENS;
    v16     s[ATTN_HEADS];

    score_block(heads, s, q, keys, is_bf16, head_dim, scale);
    for (int h = 0; h < heads; h++) {
        v16   masked = mask_block(s[h], pos, first, last);
        float top = v16_largest(masked), p[SUB_TOKENS], shrink;
        v16   e;

        top = top > state[h].m ? top : state[h].m;
        shrink = exp_one(state[h].m - top);
        e = v16_exp(v16_sub(masked, v16_set(top)));
        v16_store(p, e);
        state[h].m = top;
        state[h].l = fmaf(state[h].l, shrink, v16_sum(e));
        add_values(acc[h], p, shrink, values, is_bf16, head_dim, n_visible);
    }
}

/* `heads` query heads from local head h0 on, all of one kv head, for one row. */
INLINE void attend(const int heads, const struct attention_job *job, int32_t row, int32_t h0)
{
    const struct phx_attention_args *a = job->args;
    const struct cpu_kv             *kv = job->kv;
    int32_t      seq = job->row_seq[row], head_dim = kv->desc.head_dim;
    int32_t      last = a->spans->pos[seq] + (row - a->spans->row[seq]);
    int32_t      first = a->window > 0 && last - a->window + 1 > 0 ? last - a->window + 1 : 0;
    int32_t      kv_head = (a->head_first + h0) / a->group - a->kv_first;
    const int32_t *table = a->spans->table + (size_t)seq * (size_t)a->spans->table_stride;
    bool         is_bf16 = kv->desc.dtype == PHX_DTYPE_BF16;
    const float *q[ATTN_HEADS];
    float        acc[ATTN_HEADS][HEAD_DIM_MAX];
    struct head_state state[ATTN_HEADS];

    for (int h = 0; h < heads; h++) {
        const float *sinks = a->sinks.data;

        q[h] = (const float *)a->q.data + row * a->q.stride0 + (size_t)(h0 + h) * (size_t)head_dim;
        state[h].m = sinks != NULL ? sinks[h0 + h] : -INFINITY;
        state[h].l = sinks != NULL && sinks[h0 + h] > -INFINITY ? 1.0f : 0.0f;
        memset(acc[h], 0, ((size_t)head_dim + LANES - 1) / LANES * LANES * sizeof(float));
    }
    for (int32_t pos = first / SUB_TOKENS * SUB_TOKENS; pos <= last; pos += SUB_TOKENS) {
        int32_t block = table[pos / kv->desc.block_tokens];
        size_t  at = (size_t)a->layer * kv->layer_stride + (size_t)block * kv->block_stride +
                    (size_t)kv_head * kv->head_stride +
                    (size_t)(pos % kv->desc.block_tokens) * (size_t)head_dim;

        attend_block(heads, state, acc, q, kv->k + at * kv->element_bytes,
                     kv->v + at * kv->element_bytes, is_bf16, head_dim, a->scale, pos, first, last);
    }
    for (int h = 0; h < heads; h++) {
        float *out = (float *)a->out.data + row * a->out.stride0 + (size_t)(h0 + h) * (size_t)head_dim;
        v16    sum = v16_set(state[h].l);

        for (int32_t d = 0; d < head_dim; d += LANES)
            v16_store_n(out + d, v16_div(v16_load(acc[h] + d), sum),
                        head_dim - d < LANES ? head_dim - d : LANES);
    }
}

/* Units: (row, chunk of heads); the heads of a chunk share a kv head. */
static void attention(const struct attention_job *job, int32_t unit_first, int32_t unit_end)
{
    const struct phx_attention_args *a = job->args;

    for (int32_t unit = unit_first; unit < unit_end; unit++) {
        int32_t row = unit / a->n_heads, h = unit % a->n_heads;
        int32_t in_group = (a->head_first + h) % a->group, n;

        if (h > 0 && in_group % ATTN_HEADS != 0)
            continue; /* the chunk that began before it takes it */
        n = a->group - in_group;
        n = n < ATTN_HEADS - in_group % ATTN_HEADS ? n : ATTN_HEADS - in_group % ATTN_HEADS;
        n = n < a->n_heads - h ? n : a->n_heads - h;
        if (n == 8)
            attend(8, job, row, h);
        else if (n == 4)
            attend(4, job, row, h);
        else
            for (int32_t i = 0; i < n; i++)
                attend(1, job, row, h + i);
    }
}
