/* SPDX-License-Identifier: Apache-2.0
 * Paged causal attention with rounded activations, over a tiled cache.  16 queries of one kv head are the 16
 * lanes of a vector, so maxima and sums over positions need no exchange between lanes.  Per query: an online
 * softmax over blocks of 64 positions aligned to position 0, ascending from the block of the first visible key.
 *
 *   s[i]  = sum of parts (even + odd), parts of 32 d; even and odd are chains of bf16 products over d
 *   m     = the largest so far;  p[i] = exp(s[i] - m) rounded to bf16, 0 where i is not visible
 *   acc[d] = acc[d] * exp(old m - m), then + (even + odd) per part of 32 positions: chains over positions
 *   l     = l * exp(old m - m) + (sum of the first part + sum of the second), each by the tree of halves
 *
 * A part with no visible position changes nothing, so which queries share a tile, and which part of it none of
 * them sees, changes no bit.  The includer defines the two products, score_part and add_parts. */

enum {
    PART_TOKENS = 32,
    BLOCK_PARTS = 2,
    BLOCK_TOKENS = PART_TOKENS * BLOCK_PARTS,
    BLOCK_SUBS = BLOCK_TOKENS / SUB_TOKENS,
    UNIT_TILES = 8,                    /* of 16 queries: what passes a block together */
    UNIT_DIMS = 1024,                  /* tiles * head_dim */
    PAIR_TILES = 2,
    MATRIX_BYTES = 1024                /* 16 rows of 16 pairs of bf16 */
};

/* 16 queries; lanes that are not there repeat the last query with q = 0. */
struct query_tile {
    float          m[LANES], l[LANES];
    int32_t        first[LANES], last[LANES]; /* visible positions */
    int32_t        first_min, first_max, last_min, last_max;
    int32_t        n; /* lanes that are there */
    unsigned char *q;   /* [Dh / 32] B tiles: 16 pairs of d x 16 lanes */
    float         *acc; /* [Dh][16] */
};

/* n_rows rows of one sequence times n_heads heads of one kv head. */
struct query_unit {
    int32_t           seq, row, n_rows, head, n_heads, kv_head;
    int32_t           n, n_tiles, key_blocks, dim_tiles; /* blocks of 32 d, tiles of 16 d */
    int32_t           first, last;                       /* the union of what its queries see */
    int32_t           first_max, last_min;               /* what all of them see */
    struct query_tile tile[UNIT_TILES];
    _Alignas(64) unsigned char q[(UNIT_DIMS / 32) * MATRIX_BYTES];
    _Alignas(64) float         acc[UNIT_DIMS * LANES];
    _Alignas(64) float         s[PAIR_TILES][BLOCK_TOKENS][LANES];
    _Alignas(64) unsigned char p[PAIR_TILES][BLOCK_PARTS][MATRIX_BYTES];
    _Alignas(64) uint16_t      values[BLOCK_PARTS][HEAD_DIM_MAX][PART_TOKENS];
};

/* The 64 positions from pos on.  A sub of which the unit sees nothing may not exist: NULL. */
struct position_block {
    int32_t              pos;
    const unsigned char *keys[BLOCK_SUBS];   /* [Dh / 32][16 positions][32 d] */
    const unsigned char *values[BLOCK_SUBS]; /* [Dh][value_stride], its 16 positions in front */
    size_t               value_stride;       /* elements: block_tokens */
    const void          *part[BLOCK_PARTS];  /* [Dh][32] to read, or NULL: not copied yet */
    bool                 is_wild[BLOCK_PARTS]; /* the copy has an infinity or a NaN */
};

/* What one pair of tiles does with a block. */
struct pair_step {
    struct query_tile *tile[PAIR_TILES];
    int32_t            n;                      /* 1 or 2 tiles */
    int32_t            part_first, part_end;   /* parts of which some query sees something */
    bool               is_edge[BLOCK_PARTS];   /* some query does not see all of the part */
};

/* s of one part: keys of 16 positions each times the queries of each tile. */
static void score_part(struct query_unit *u, const struct pair_step *step, const unsigned char *low,
                       const unsigned char *high, int32_t part);
/* acc += values x weights of the parts [first, end), in this order. */
static void add_parts(struct query_unit *u, const struct pair_step *step, const struct position_block *b,
                       int32_t first, int32_t end);

/* ---- queries ---------------------------------------------------------------------------------- */

static void store_bf16(uint16_t *to, v16 rounded)
{
    uint32_t bits[LANES];

    v16_store((float *)(void *)bits, rounded);
    for (int i = 0; i < LANES; i++)
        to[i] = (uint16_t)(bits[i] >> 16);
}

/* 32 d of 16 queries, scaled and rounded, as a B tile. */
static void pack_queries(unsigned char *to, const float *const *q, int32_t d, int32_t n, float scale)
{
    _Alignas(64) uint16_t row[LANES][PART_TOKENS];
    v16                   r[LANES];

    for (int i = 0; i < LANES; i++) {
        for (int h = 0; h < 2; h++) {
            int32_t m = n - h * LANES < LANES ? n - h * LANES : LANES;
            v16     x = v16_zero();

            if (q[i] != NULL && m > 0)
                x = v16_load_n(q[i] + d + h * LANES, (int)m);
            store_bf16(row[i] + h * LANES, v16_round_bf16(v16_mul(x, v16_set(scale))));
        }
        r[i] = v16_load((const float *)(const void *)row[i]);
    }
    v16_transpose(r);
    for (int i = 0; i < LANES; i++)
        v16_store((float *)(void *)(to + (size_t)i * 64), r[i]);
}

static void open_lanes(struct query_unit *u, struct query_tile *t, const struct attention_job *job, int32_t from)
{
    const struct phx_attention_args *a = job->args;
    const float                     *sinks = a->sinks.data, *q[LANES];
    int32_t                          head_dim = job->kv->desc.head_dim;

    t->first_min = t->last_min = INT32_MAX;
    t->first_max = t->last_max = 0;
    t->n = u->n - from < LANES ? u->n - from : LANES;
    for (int32_t i = 0; i < LANES; i++) {
        int32_t at = from + i < u->n ? from + i : u->n - 1;
        int32_t row = u->row + at / u->n_heads, head = u->head + at % u->n_heads;
        int32_t pos = a->spans->pos[u->seq] + (row - a->spans->row[u->seq]);
        float   sink = sinks != NULL ? sinks[head] : -INFINITY;

        q[i] = NULL;
        if (from + i < u->n)
            q[i] = (const float *)a->q.data + row * a->q.stride0 + (size_t)head * (size_t)head_dim;
        t->last[i] = pos;
        t->first[i] = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
        t->m[i] = sink < -1e30f ? -1e30f : sink; /* finite: no block makes inf - inf of it */
        t->l[i] = sink > -INFINITY ? 1.0f : 0.0f;
        t->first_min = t->first[i] < t->first_min ? t->first[i] : t->first_min;
        t->first_max = t->first[i] > t->first_max ? t->first[i] : t->first_max;
        t->last_min = pos < t->last_min ? pos : t->last_min;
        t->last_max = pos > t->last_max ? pos : t->last_max;
    }
    for (int32_t b = 0; b < u->key_blocks; b++)
        pack_queries(t->q + (size_t)b * MATRIX_BYTES, q, b * 32, head_dim - b * 32, a->scale);
}

static void open_unit(struct query_unit *u, const struct attention_job *job)
{
    int32_t head_dim = job->kv->desc.head_dim;

    u->n = u->n_rows * u->n_heads;
    u->n_tiles = (u->n + LANES - 1) / LANES;
    u->key_blocks = (head_dim + 31) / 32;
    u->dim_tiles = (head_dim + LANES - 1) / LANES;
    u->first = INT32_MAX;
    u->last = u->first_max = 0;
    u->last_min = INT32_MAX;
    memset(u->acc, 0, (size_t)u->n_tiles * (size_t)u->dim_tiles * MATRIX_BYTES);
    for (int32_t i = 0; i < u->n_tiles; i++) {
        struct query_tile *t = &u->tile[i];

        t->q = u->q + (size_t)i * (size_t)u->key_blocks * MATRIX_BYTES;
        t->acc = u->acc + (size_t)i * (size_t)u->dim_tiles * LANES * LANES;
        open_lanes(u, t, job, i * LANES);
        u->first = t->first_min < u->first ? t->first_min : u->first;
        u->last = t->last_max > u->last ? t->last_max : u->last;
        u->first_max = t->first_max > u->first_max ? t->first_max : u->first_max;
        u->last_min = t->last_min < u->last_min ? t->last_min : u->last_min;
    }
}

/* -0 and +0 cannot be told apart before this, nor the NaN of one processor from that of another. */
INLINE v16 make_canonical(v16 x)
{
    v16 infinity = v16_set(INFINITY), nan = v16_set(NAN);

    x = v16_add(x, v16_zero());
    return v16_select_gt(x, v16_set(-INFINITY), x, v16_select_gt(infinity, x, x, nan));
}

static void close_unit(const struct query_unit *u, const struct attention_job *job)
{
    const struct phx_attention_args *a = job->args;
    int32_t                          head_dim = job->kv->desc.head_dim;

    for (int32_t i = 0; i < u->n_tiles; i++)
        for (int32_t d = 0; d < head_dim; d += LANES) {
            v16     sum = v16_load(u->tile[i].l), r[LANES];
            int32_t m = head_dim - d < LANES ? head_dim - d : LANES;

            for (int j = 0; j < LANES; j++)
                r[j] = make_canonical(v16_div(v16_load(u->tile[i].acc + (d + j) * LANES), sum));
            v16_transpose(r);
            for (int32_t j = 0; j < LANES && i * LANES + j < u->n; j++) {
                int32_t at = i * LANES + j, row = u->row + at / u->n_heads, head = u->head + at % u->n_heads;
                float  *out = (float *)a->out.data + row * a->out.stride0 + (size_t)head * (size_t)head_dim;

                v16_store_n(out + d, r[j], (int)m);
            }
        }
}

/* ---- positions -------------------------------------------------------------------------------- */

static void find_positions(struct position_block *b, const struct query_unit *u, const struct attention_job *job)
{
    const struct cpu_kv    *kv = job->kv;
    const struct phx_spans *spans = job->args->spans;
    const int32_t          *table = spans->table + (size_t)u->seq * (size_t)spans->table_stride;
    int32_t                 block_tokens = kv->desc.block_tokens;

    b->value_stride = (size_t)block_tokens;
    for (int32_t i = 0; i < BLOCK_SUBS; i++) {
        int32_t pos = b->pos + i * SUB_TOKENS, in = pos % block_tokens;
        size_t  at;

        b->keys[i] = b->values[i] = NULL;
        if (pos > u->last || pos + SUB_TOKENS <= u->first)
            continue;
        at = (size_t)job->args->layer * kv->layer_stride + (size_t)table[pos / block_tokens] * kv->block_stride +
             (size_t)u->kv_head * kv->head_stride;
        b->keys[i] = kv->k + (at + (size_t)in * (size_t)u->key_blocks * 32) * 2;
        b->values[i] = kv->v + (at + (size_t)in) * 2;
    }
    for (int32_t i = 0; i < BLOCK_PARTS; i++) {
        b->is_wild[i] = false;
        b->part[i] = block_tokens == PART_TOKENS ? b->values[2 * i] : NULL;
    }
}

static bool is_edge_of(const struct query_unit *u, int32_t pos)
{
    return pos < u->first_max || pos + PART_TOKENS - 1 > u->last_min;
}

/* The values of a part in one piece.  At an edge zeros where the unit sees nothing: memory that was never
 * written, or by an earlier owner of the block, may hold anything. */
static void copy_values(struct position_block *b, struct query_unit *u, int32_t part)
{
    static const unsigned char nothing[PART_TOKENS * 2] = {0};
    const unsigned char       *from[2] = {b->values[part * 2], b->values[part * 2 + 1]};
    size_t                     stride[2];
    uint16_t                   mask[PART_TOKENS];
    int32_t                    pos = b->pos + part * PART_TOKENS;
    bool                       is_edge = is_edge_of(u, pos);
    v16                        keep, wild = v16_zero();

    for (int i = 0; i < 2; i++) {
        stride[i] = from[i] != NULL ? b->value_stride * 2 : 0;
        from[i] = from[i] != NULL ? from[i] : nothing;
    }
    for (int32_t i = 0; i < PART_TOKENS; i++)
        mask[i] = pos + i >= u->first && pos + i <= u->last ? 0xffff : 0;
    keep = v16_load_halves(mask, mask + SUB_TOKENS);
    for (int32_t d = 0; d < u->dim_tiles * LANES; d++) {
        uint16_t *to = u->values[part][d];
        v16       v = v16_load_halves(from[0] + (size_t)d * stride[0], from[1] + (size_t)d * stride[1]);

        v16_store((float *)(void *)to, is_edge ? v16_and(v, keep) : v);
        if (is_edge) { /* what is not finite times 0 is not 0 */
            wild = v16_fma(v16_load_bf16_low(to), v16_zero(), wild);
            wild = v16_fma(v16_load_bf16_high(to), v16_zero(), wild);
        }
    }
    b->part[part] = u->values[part];
    b->is_wild[part] = v16_sum(wild) != 0;
}

/* ---- weights ---------------------------------------------------------------------------------- */

/* The first and the last visible position of each lane, counted from pos on. */
INLINE void find_limits(const struct query_tile *t, int32_t pos, v16 *first, v16 *last)
{
    float low[LANES], high[LANES];

    for (int i = 0; i < LANES; i++) {
        int32_t begin = t->first[i] - pos, end = t->last[i] - pos;

        low[i] = (float)(begin < 0 ? 0 : begin > PART_TOKENS ? PART_TOKENS : begin);
        high[i] = (float)(end < -1 ? -1 : end > PART_TOKENS ? PART_TOKENS : end);
    }
    *first = v16_load(low);
    *last = v16_load(high);
}

INLINE v16 if_visible(v16 first, v16 last, int i, v16 x, v16 otherwise)
{
    v16 at = v16_set((float)i);

    return v16_select_gt(first, at, otherwise, v16_select_gt(at, last, otherwise, x));
}

static void hide_scores(const struct query_tile *t, int32_t pos, float (*s)[LANES])
{
    v16 first, last, none = v16_set(-INFINITY);

    find_limits(t, pos, &first, &last);
    for (int i = 0; i < PART_TOKENS; i++)
        v16_store(s[i], if_visible(first, last, i, v16_load(s[i]), none));
}

INLINE v16 larger(v16 a, v16 b) { return v16_select_gt(a, b, a, b); }

INLINE v16 find_largest(float (*s)[LANES])
{
    v16 a = v16_load(s[0]), b = v16_load(s[1]), c = v16_load(s[2]), d = v16_load(s[3]);

    for (int i = 4; i < PART_TOKENS; i += 4) {
        a = larger(v16_load(s[i]), a);
        b = larger(v16_load(s[i + 1]), b);
        c = larger(v16_load(s[i + 2]), c);
        d = larger(v16_load(s[i + 3]), d);
    }
    return larger(larger(a, b), larger(c, d));
}

INLINE void bring_near(const unsigned char *p, size_t at, size_t size_bytes)
{
    for (size_t i = 0; p != NULL && i < size_bytes; i += 64)
        __builtin_prefetch(p + at + i, 0, 2);
}

/* What comes next is asked for little by little while weights are computed: step j of 16 of one part. */
INLINE void bring_slice_near(const struct position_block *next, const struct query_unit *u, int32_t part, int32_t j)
{
    size_t  n_keys = (size_t)u->key_blocks * (MATRIX_BYTES / 8), n_values = (size_t)u->dim_tiles * 64;
    int32_t sub = part * 2 + j / 8;

    bring_near(next->keys[sub], (size_t)(j % 8) * n_keys, n_keys);
    if (next->value_stride == SUB_TOKENS)
        bring_near(next->values[sub], (size_t)(j % 8) * n_values, n_values);
    else
        bring_near(next->values[part * 2], (size_t)j * n_values, n_values);
}

/* Scores of a part become rounded weights, as a B tile; returns their sum by the tree of halves 16, 8, 4, 2, 1. */
INLINE v16 weigh_part(struct query_unit *u, int32_t tile, int32_t part, v16 m, const struct position_block *next)
{
    float (*s)[LANES] = u->s[tile] + part * PART_TOKENS;
    unsigned char *p = u->p[tile][part];
    v16 sum[8];

    for (int j = 0; j < 8; j += 2) {
        v16 even[4], odd[4];

        for (int k = 0; k < 4; k++) {
            int i = j + k * 8;

            if (next != NULL)
                bring_slice_near(next, u, part, j * 2 + k);
            even[k] = v16_exp_weight(v16_sub(v16_load(s[i]), m));
            odd[k] = v16_exp_weight(v16_sub(v16_load(s[i + 1]), m));
            v16_store((float *)(void *)(p + (size_t)i * 32), v16_pair_bf16(even[k], odd[k]));
            even[k] = v16_load_bf16_low(p + (size_t)i * 32);
            odd[k] = v16_load_bf16_high(p + (size_t)i * 32);
        }
        sum[j] = v16_add(v16_add(even[0], even[2]), v16_add(even[1], even[3]));
        sum[j + 1] = v16_add(v16_add(odd[0], odd[2]), v16_add(odd[1], odd[3]));
    }
    for (int h = 4; h > 0; h /= 2)
        for (int j = 0; j < h; j++)
            sum[j] = v16_add(sum[j], sum[j + h]);
    return sum[0];
}

/* acc of one tile times the lanes of shrink; nearly always all of them are 1. */
INLINE void shrink_sums(float *acc, int32_t n, v16 shrink)
{
    if (v16_largest(v16_sub(v16_zero(), shrink)) == -1.0f)
        return;
    for (int32_t i = 0; i < n; i++)
        v16_store(acc + i * LANES, v16_mul(v16_load(acc + i * LANES), shrink));
}

static void weigh_tile(struct query_unit *u, const struct pair_step *step, int32_t i, int32_t pos,
                        const struct position_block *next)
{
    struct query_tile *t = step->tile[i];
    v16                old = v16_load(t->m), m = old, shrink, sum = v16_zero();

    for (int32_t part = step->part_first; part < step->part_end; part++) {
        float (*s)[LANES] = u->s[i] + part * PART_TOKENS;

        if (step->is_edge[part])
            hide_scores(t, pos + part * PART_TOKENS, s);
        m = larger(find_largest(s), m);
    }
    for (int32_t part = step->part_first; part < step->part_end; part++)
        sum = v16_add(sum, weigh_part(u, i, part, m, next));
    shrink = v16_select_gt(m, old, v16_exp_weight(v16_sub(old, m)), v16_set(1.0f));
    v16_store(t->m, m);
    v16_store(t->l, v16_fma(v16_load(t->l), shrink, sum));
    shrink_sums(t->acc, u->dim_tiles * LANES, shrink);
}

/* The values of a part that has an infinity or a NaN at a position that not every lane sees. */
static void add_wild(struct query_unit *u, const struct pair_step *step, int32_t i, const struct position_block *b,
                     int32_t part)
{
    const struct query_tile *t = step->tile[i];
    const unsigned char     *p = u->p[i][part];
    v16                      first, last, zero = v16_zero();

    find_limits(t, b->pos + part * PART_TOKENS, &first, &last);
    for (int32_t d = 0; d < u->dim_tiles * LANES; d++) {
        v16 even = v16_zero(), odd = v16_zero();

        for (int j = 0; j < PART_TOKENS; j += 2) {
            uint32_t low = (uint32_t)u->values[part][d][j] << 16, high = (uint32_t)u->values[part][d][j + 1] << 16;
            float    v[2];

            memcpy(&v[0], &low, sizeof(low));
            memcpy(&v[1], &high, sizeof(high));
            even = v16_fma(v16_load_bf16_low(p + j * 32), if_visible(first, last, j, v16_set(v[0]), zero), even);
            odd = v16_fma(v16_load_bf16_high(p + j * 32), if_visible(first, last, j + 1, v16_set(v[1]), zero), odd);
        }
        v16_store(t->acc + d * LANES, v16_add(v16_load(t->acc + d * LANES), v16_add(even, odd)));
    }
}

/* ---- the walk --------------------------------------------------------------------------------- */

/* Whether the pair sees anything of the block. */
static bool plan_pair(struct pair_step *step, const struct position_block *b)
{
    int32_t first_min = INT32_MAX, first_max = 0, last_min = INT32_MAX, last_max = 0;

    for (int32_t i = 0; i < step->n; i++) {
        const struct query_tile *t = step->tile[i];

        first_min = t->first_min < first_min ? t->first_min : first_min;
        first_max = t->first_max > first_max ? t->first_max : first_max;
        last_min = t->last_min < last_min ? t->last_min : last_min;
        last_max = t->last_max > last_max ? t->last_max : last_max;
    }
    step->part_first = BLOCK_PARTS;
    step->part_end = 0;
    for (int32_t part = 0; part < BLOCK_PARTS; part++) {
        int32_t pos = b->pos + part * PART_TOKENS;

        step->is_edge[part] = pos < first_max || pos + PART_TOKENS - 1 > last_min;
        if (pos > last_max || pos + PART_TOKENS <= first_min)
            continue;
        step->part_first = part < step->part_first ? part : step->part_first;
        step->part_end = part + 1;
    }
    return step->part_first < step->part_end;
}

static void add_pair(struct query_unit *u, const struct pair_step *step, const struct position_block *b)
{
    bool is_tame = true;

    for (int32_t part = step->part_first; part < step->part_end; part++)
        is_tame = is_tame && !(step->is_edge[part] && b->is_wild[part]);
    if (is_tame) {
        add_parts(u, step, b, step->part_first, step->part_end);
        return;
    }
    for (int32_t part = step->part_first; part < step->part_end; part++) {
        if (!step->is_edge[part] || !b->is_wild[part])
            add_parts(u, step, b, part, part + 1);
        else
            for (int32_t i = 0; i < step->n; i++)
                add_wild(u, step, i, b, part);
    }
}

static void attend_pair(struct query_unit *u, struct pair_step *step, struct position_block *b,
                        const struct position_block *next)
{
    if (!plan_pair(step, b))
        return;
    for (int32_t part = step->part_first; part < step->part_end; part++) {
        const unsigned char *low = b->keys[part * 2], *high = b->keys[part * 2 + 1];

        /* a sub that is not there is hidden whatever its scores are */
        score_part(u, step, low != NULL ? low : high, high != NULL ? high : low, part);
        if (b->part[part] == NULL || (step->is_edge[part] && b->part[part] != u->values[part]))
            copy_values(b, u, part);
    }
    for (int32_t i = 0; i < step->n; i++)
        weigh_tile(u, step, i, b->pos, i == 0 ? next : NULL);
    add_pair(u, step, b);
}

static void attend_unit(struct query_unit *u, const struct attention_job *job)
{
    struct position_block b, next;

    open_unit(u, job);
    b.pos = u->first / BLOCK_TOKENS * BLOCK_TOKENS;
    find_positions(&b, u, job);
    for (; b.pos <= u->last; b = next) {
        next.pos = b.pos + BLOCK_TOKENS;
        find_positions(&next, u, job);
        for (int32_t i = 0; i < u->n_tiles; i += PAIR_TILES) {
            struct pair_step step = {.n = u->n_tiles - i < PAIR_TILES ? u->n_tiles - i : PAIR_TILES};

            for (int32_t j = 0; j < step.n; j++)
                step.tile[j] = &u->tile[i + j];
            attend_pair(u, &step, &b, i == 0 ? &next : NULL);
        }
    }
    close_unit(u, job);
}

/* Blocks that the unit's last row reads, times its tiles: about the time that it takes. */
static int64_t cost_of_unit(const struct attention_job *job, const struct query_unit *u)
{
    const struct phx_attention_args *a = job->args;
    int32_t last = a->spans->pos[u->seq] + (u->row - a->spans->row[u->seq]) + u->n_rows - 1;
    int32_t visible = a->window > 0 && a->window < last + 1 ? a->window : last + 1;

    return (int64_t)(visible / BLOCK_TOKENS + 2) * ((u->n_rows * u->n_heads + LANES - 1) / LANES + 1);
}

/* Large units read a block once for many queries, small ones leave every share enough of them. */
static int32_t count_queries(const struct attention_job *job, int32_t n_shares)
{
    int32_t key_dims = (job->kv->desc.head_dim + 31) / 32 * 32;
    int32_t tiles = UNIT_DIMS / key_dims < UNIT_TILES ? UNIT_DIMS / key_dims : UNIT_TILES;
    int64_t all = (int64_t)job->args->q.dim[0] * job->args->n_heads / LANES;

    while (tiles > PAIR_TILES && all < (int64_t)tiles * n_shares * 8)
        tiles /= 2;
    return tiles * LANES;
}

/* As visit_tiles: runs the units whose cost begins in [begin, end), returns the cost of all. */
static int64_t visit_units(const struct attention_job *job, struct query_unit *u, int32_t queries, int64_t begin,
                           int64_t end)
{
    const struct phx_attention_args *a = job->args;
    int64_t                          cost = 0;

    for (u->seq = 0; u->seq < a->spans->n_seqs; u->seq++)
        for (u->head = 0; u->head < a->n_heads; u->head += u->n_heads) {
            int32_t row_end = a->spans->row[u->seq] + a->spans->n_rows[u->seq], rows;
            int32_t in_group = (a->head_first + u->head) % a->group;

            u->kv_head = (a->head_first + u->head) / a->group - a->kv_first;
            u->n_heads = a->group - in_group < queries ? a->group - in_group : queries;
            u->n_heads = u->n_heads < a->n_heads - u->head ? u->n_heads : a->n_heads - u->head;
            rows = queries / u->n_heads;
            for (u->row = a->spans->row[u->seq]; u->row < row_end; u->row += rows) {
                u->n_rows = rows < row_end - u->row ? rows : row_end - u->row;
                if (cost >= begin && cost < end)
                    attend_unit(u, job);
                cost += cost_of_unit(job, u);
            }
        }
    return cost;
}

static void attend_share(const struct attention_job *job, int32_t first, int32_t end, int32_t n_shares)
{
    struct query_unit u;
    unsigned          mode = enter_matrix_mode();
    int32_t           queries = count_queries(job, n_shares);
    int64_t           total = visit_units(job, &u, queries, 0, 0);

    (void)visit_units(job, &u, queries, total * first / n_shares, total * end / n_shares);
    leave_matrix_mode(mode);
}
