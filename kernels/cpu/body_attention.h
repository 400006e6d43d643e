/* SPDX-License-Identifier: Apache-2.0
 * Paged causal attention.  Per query (a row and a head): an online softmax over blocks of 16 positions
 * aligned to position 0, ascending from the block of the first visible key; scores are chains over d, values
 * chains over the visible positions.  A sink starts the running maximum with a running sum of 1.  Up to
 * QUERIES queries of one kv head pass a block together, so that it is loaded once for all of them and their
 * chains hide each other's latency; no bit of a query depends on its neighbours. */

enum { QUERIES = 8 };

/* What the cache holds. */
enum { KV_F32, KV_BF16, KV_I8, KV_F8, KV_KINDS };

/* What one block does to n queries that see the same positions of it. */
struct block_step {
    const unsigned char *keys, *values;           /* [Dh][16], [16][Dh]; of bytes, 16 floats of scales behind each */
    const unsigned char *next_keys, *next_values; /* read soon: brought near */
    const float         *q[QUERIES];
    float               *acc[QUERIES];
    float                p[QUERIES][SUB_TOKENS];
    float                shrink[SUB_TOKENS];
    int32_t              head_dim, begin, end; /* positions of the block */
};

INLINE bool has_scales(const int kind)
{
    return kind == KV_I8 || kind == KV_F8;
}

INLINE v16 load_sixteen(const void *from, const int kind)
{
    return kind == KV_F32 ? v16_load(from) : kind == KV_BF16 ? v16_load_bf16(from) : kind == KV_I8 ? v16_load_i8(from)
                                                                                                   : v16_load_f8(from);
}

/* Of the 16 positions of a block that has them. */
INLINE v16 load_scales(const unsigned char *block, int32_t head_dim)
{
    return v16_load((const float *)(const void *)(block + (size_t)head_dim * SUB_TOKENS));
}

/* p[h] = q_h . k for the 16 positions of a block. */
INLINE void score_block(const int n, const int kind, struct block_step *b)
{
    const size_t bytes = kind == KV_F32 ? 4 : kind == KV_BF16 ? 2 : 1;
    v16          s[QUERIES];

    for (int h = 0; h < n; h++)
        s[h] = v16_zero();
    for (int32_t d = 0; d < b->head_dim; d++) {
        size_t at = (size_t)d * SUB_TOKENS * bytes;
        v16    k = load_sixteen(b->keys + at, kind);

        __builtin_prefetch(b->next_keys + at);
        for (int h = 0; h < n; h++)
            s[h] = v16_fma(v16_set(b->q[h][d]), k, s[h]);
    }
    for (int h = 0; h < n; h++)
        v16_store(b->p[h], has_scales(kind) ? v16_mul(s[h], load_scales(b->keys, b->head_dim)) : s[h]);
}

/* n numbers from number `at` on; behind them zeros. */
INLINE v16 load_values(const unsigned char *values, size_t at, const int kind, int n)
{
    const size_t         bytes = kind == KV_F32 ? 4 : kind == KV_BF16 ? 2 : 1;
    const unsigned char *from = values + at * bytes;
    unsigned char        some[LANES * sizeof(float)] = {0};

    if (n == LANES)
        return load_sixteen(from, kind);
    if (kind == KV_F32)
        return v16_load_n((const float *)(const void *)from, n);
    memcpy(some, from, (size_t)n * bytes);
    return load_sixteen(some, kind);
}

/* acc[h] = acc[h] * shrink[h] + sum over the visible positions of p[h][i] * v[i] */
INLINE void add_values(const int n, const int kind, struct block_step *b)
{
    const size_t bytes = kind == KV_F32 ? 4 : kind == KV_BF16 ? 2 : 1;

    for (int h = 0; h < n && has_scales(kind); h++)
        v16_store(b->p[h], v16_mul(v16_load(b->p[h]), load_scales(b->values, b->head_dim)));
    for (int32_t d = 0; d < b->head_dim; d += LANES) {
        int m = b->head_dim - d < LANES ? (int)(b->head_dim - d) : LANES;
        v16 a[QUERIES];

        for (int h = 0; h < n; h++)
            a[h] = v16_mul(v16_load(b->acc[h] + d), v16_set(b->shrink[h]));
        for (int32_t i = b->begin; i < b->end; i++) {
            size_t at = (size_t)i * (size_t)b->head_dim + (size_t)d;
            v16    v = load_values(b->values, at, kind, m);

            __builtin_prefetch(b->next_values + at * bytes);
            for (int h = 0; h < n; h++)
                a[h] = v16_fma(v16_set(b->p[h][i]), v, a[h]);
        }
        for (int h = 0; h < n; h++)
            v16_store(b->acc[h] + d, a[h]);
    }
}

typedef void (*block_fn)(struct block_step *b);

#define BLOCK_FN(n)                                                                                \
    static void score_f32_##n(struct block_step *b) { score_block(n, KV_F32, b); }                 \
    static void score_bf16_##n(struct block_step *b) { score_block(n, KV_BF16, b); }               \
    static void score_i8_##n(struct block_step *b) { score_block(n, KV_I8, b); }                   \
    static void score_f8_##n(struct block_step *b) { score_block(n, KV_F8, b); }                   \
    static void values_f32_##n(struct block_step *b) { add_values(n, KV_F32, b); }                 \
    static void values_bf16_##n(struct block_step *b) { add_values(n, KV_BF16, b); }               \
    static void values_i8_##n(struct block_step *b) { add_values(n, KV_I8, b); }                   \
    static void values_f8_##n(struct block_step *b) { add_values(n, KV_F8, b); }
#define EACH_N(kind)                                                                               \
    {                                                                                              \
        kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6, kind##_7, kind##_8             \
    }

BLOCK_FN(1)
BLOCK_FN(2)
BLOCK_FN(3)
BLOCK_FN(4)
BLOCK_FN(5)
BLOCK_FN(6)
BLOCK_FN(7)
BLOCK_FN(8)
static const block_fn score_fns[KV_KINDS][QUERIES] = {EACH_N(score_f32), EACH_N(score_bf16), EACH_N(score_i8),
                                                        EACH_N(score_f8)};
static const block_fn value_fns[KV_KINDS][QUERIES] = {EACH_N(values_f32), EACH_N(values_bf16), EACH_N(values_i8),
                                                        EACH_N(values_f8)};

/* The queries of one pass: n_rows rows of one sequence times n_heads heads of one kv head. */
struct attention_tile {
    int32_t      seq, row, n_rows, head, n_heads, kv_head;
    int          n;
    const float *q[QUERIES];
    float       *acc[QUERIES];
    int32_t      first[QUERIES], last[QUERIES]; /* visible positions */
    float        m[SUB_TOKENS], l[SUB_TOKENS];  /* running maximum and sum */
    float        sums[QUERIES][HEAD_DIM_MAX];
};

/* Scores of n queries become weights: p = exp(s - m), shrink = exp(old m - m), and the sums go on. */
INLINE void weigh_block(int n, struct block_step *b, float *m, float *l, float scale)
{
    float top[SUB_TOKENS] = {0}, sum[SUB_TOKENS] = {0};

    for (int h = 0; h < n; h++) {
        v16 s = v16_mul(v16_load(b->p[h]), v16_set(scale));

        v16_store(b->p[h], s);
        if (b->begin > 0 || b->end < SUB_TOKENS) {
            for (int i = 0; i < SUB_TOKENS; i++)
                b->p[h][i] = i < b->begin || i >= b->end ? -INFINITY : b->p[h][i];
            s = v16_load(b->p[h]);
        }
        top[h] = v16_largest(s);
        top[h] = top[h] > m[h] ? top[h] : m[h];
    }
    v16_store(b->shrink, v16_exp(v16_sub(v16_load(m), v16_load(top))));
    for (int h = 0; h < n; h++) {
        v16 e = v16_exp(v16_sub(v16_load(b->p[h]), v16_set(top[h])));

        v16_store(b->p[h], e);
        sum[h] = v16_sum(e);
        m[h] = top[h];
    }
    v16_store(l, v16_fma(v16_load(l), v16_load(b->shrink), v16_load(sum)));
}

static void attend_block(struct attention_tile *t, struct block_step *b, int from, int n,
                         int kind, float scale)
{
    float m[SUB_TOKENS] = {0}, l[SUB_TOKENS] = {0};

    for (int h = 0; h < n; h++) {
        b->q[h] = t->q[from + h];
        b->acc[h] = t->acc[from + h];
        m[h] = t->m[from + h];
        l[h] = t->l[from + h];
    }
    score_fns[kind][n - 1](b);
    weigh_block(n, b, m, l, scale);
    value_fns[kind][n - 1](b);
    memcpy(t->m + from, m, (size_t)n * sizeof(float));
    memcpy(t->l + from, l, (size_t)n * sizeof(float));
}

/* The positions of the block at `pos` that query i sees: [*begin, *end), empty when none. */
static void visible_part(const struct attention_tile *t, int i, int32_t pos, int32_t *begin,
                         int32_t *end)
{
    *begin = t->first[i] > pos ? t->first[i] - pos : 0;
    *end = t->last[i] - pos + 1 < SUB_TOKENS ? t->last[i] - pos + 1 : SUB_TOKENS;
    if (*begin >= *end)
        *begin = *end = 0;
}

/* Runs of queries that see the same part of the block go together. */
static void attend_runs(struct attention_tile *t, struct block_step *b, int32_t pos, int kind,
                        float scale)
{
    for (int i = 0, n; i < t->n; i += n) {
        visible_part(t, i, pos, &b->begin, &b->end);
        for (n = 1; i + n < t->n; n++) {
            int32_t begin, end;

            visible_part(t, i + n, pos, &begin, &end);
            if (begin != b->begin || end != b->end)
                break;
        }
        if (b->begin < b->end)
            attend_block(t, b, i, n, kind, scale);
    }
}

/* Fills in what the position in the batch determines. */
static void open_tile(struct attention_tile *t, const struct attention_job *job)
{
    const struct phx_attention_args *a = job->args;
    const float                     *sinks = a->sinks.data;
    int32_t                          head_dim = job->kv->desc.head_dim;

    t->n = (int)(t->n_rows * t->n_heads);
    memset(t->m, 0, sizeof(t->m));
    memset(t->l, 0, sizeof(t->l));
    for (int i = 0; i < t->n; i++) {
        int32_t row = t->row + i / t->n_heads, head = t->head + i % t->n_heads;
        int32_t pos = a->spans->pos[t->seq] + (row - a->spans->row[t->seq]);

        t->last[i] = pos;
        t->first[i] = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
        t->q[i] = (const float *)a->q.data + row * a->q.stride0 + (size_t)head * (size_t)head_dim;
        t->m[i] = sinks != NULL ? sinks[head] : -INFINITY;
        t->l[i] = sinks != NULL && sinks[head] > -INFINITY ? 1.0f : 0.0f;
        t->acc[i] = t->sums[i];
        memset(t->sums[i], 0, ((size_t)head_dim + LANES - 1) / LANES * LANES * sizeof(float));
    }
}

/* Where the 16 positions from pos on lie in the pools, in bytes. */
static size_t find_block(const struct attention_job *job, const struct attention_tile *t, int32_t pos)
{
    const struct cpu_kv    *kv = job->kv;
    const struct phx_spans *s = job->args->spans;
    int32_t block = s->table[(size_t)t->seq * (size_t)s->table_stride +
                             (size_t)(pos / kv->desc.block_tokens)];

    return ((size_t)job->args->layer * kv->layer_stride + (size_t)block * kv->block_stride +
            (size_t)t->kv_head * kv->head_stride +
            (size_t)(pos % kv->desc.block_tokens) * kv->token_stride) *
           kv->element_bytes;
}

static void attend(struct attention_tile *t, const struct attention_job *job)
{
    const struct phx_attention_args *a = job->args;
    int32_t           head_dim = job->kv->desc.head_dim;
    enum phx_dtype    dtype = job->kv->desc.dtype;
    int               kind = dtype == PHX_DTYPE_F32 ? KV_F32 : dtype == PHX_DTYPE_BF16 ? KV_BF16
                               : dtype == PHX_DTYPE_I8                             ? KV_I8 : KV_F8;
    struct block_step b = {.head_dim = head_dim};
    int32_t           pos, last;
    size_t            at;

    open_tile(t, job);
    pos = t->first[0] / SUB_TOKENS * SUB_TOKENS;
    last = t->last[t->n - 1];
    at = find_block(job, t, pos);
    for (; pos <= last; pos += SUB_TOKENS) {
        size_t next = pos + SUB_TOKENS <= last ? find_block(job, t, pos + SUB_TOKENS) : at;

        b.keys = job->kv->k + at;
        b.values = job->kv->v + at;
        b.next_keys = job->kv->k + next;
        b.next_values = job->kv->v + next;
        attend_runs(t, &b, pos, kind, a->scale);
        at = next;
    }
    for (int i = 0; i < t->n; i++) {
        int32_t row = t->row + i / t->n_heads, head = t->head + i % t->n_heads;
        float  *out = (float *)a->out.data + row * a->out.stride0 + (size_t)head * (size_t)head_dim;
        v16     sum = v16_set(t->l[i]);

        for (int32_t d = 0; d < head_dim; d += LANES)
            v16_store_n(out + d, v16_div(v16_load(t->acc[i] + d), sum),
                        head_dim - d < LANES ? (int)(head_dim - d) : LANES);
    }
}

/* Blocks that the tile's last row reads, times its queries: about the time that it takes. */
static int64_t cost_of(const struct attention_job *job, const struct attention_tile *t)
{
    const struct phx_attention_args *a = job->args;
    int32_t last = a->spans->pos[t->seq] + (t->row - a->spans->row[t->seq]) + t->n_rows - 1;
    int32_t visible = a->window > 0 && a->window < last + 1 ? a->window : last + 1;

    return (int64_t)(visible / SUB_TOKENS + 2) * (t->n_rows * t->n_heads + 2);
}

/* Runs the tiles whose cost begins in [begin, end) and returns the cost of all: the share of a thread is cut
 * by what the work takes, since late rows see more. */
static int64_t visit_tiles(const struct attention_job *job, int64_t begin, int64_t end)
{
    const struct phx_attention_args *a = job->args;
    int64_t                          cost = 0;
    struct attention_tile            t;

    for (t.seq = 0; t.seq < a->spans->n_seqs; t.seq++)
        for (t.head = 0; t.head < a->n_heads; t.head += t.n_heads) {
            int32_t row_end = a->spans->row[t.seq] + a->spans->n_rows[t.seq], rows;
            int32_t in_group = (a->head_first + t.head) % a->group;

            t.kv_head = (a->head_first + t.head) / a->group - a->kv_first;
            t.n_heads = a->group - in_group < QUERIES ? a->group - in_group : QUERIES;
            t.n_heads = t.n_heads < a->n_heads - t.head ? t.n_heads : a->n_heads - t.head;
            rows = QUERIES / t.n_heads;
            for (t.row = a->spans->row[t.seq]; t.row < row_end; t.row += rows) {
                t.n_rows = rows < row_end - t.row ? rows : row_end - t.row;
                if (cost >= begin && cost < end)
                    attend(&t, job);
                cost += cost_of(job, &t);
            }
        }
    return cost;
}

/* The part of the work that shares [first, end) of n_shares stand for. */
static void attention(const struct attention_job *job, int32_t first, int32_t end, int32_t n_shares)
{
    int64_t total = visit_tiles(job, 0, 0);

    (void)visit_tiles(job, total * first / n_shares, total * end / n_shares);
}
