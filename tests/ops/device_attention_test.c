/* SPDX-License-Identifier: Apache-2.0
 * Attention on every kind of backend: near double precision, and the same bits for a row alone, in chunks of any
 * size, beside any neighbour, on a rank that has some of the heads, and however the device shares out the keys. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/emu/control.h"
#include "tests/ops/rig.h"

enum { PIECES_MAX = 8, LAYERS = 2, LAYER = 1, PAD = 3, HEADS_MAX = 40, GRAIN = 16 };

struct shape {
    int32_t        length, heads, kv_heads, dim, block_tokens, window;
    bool           has_sinks;
    float          scale;
    enum phx_dtype dtype;
    enum phx_compute compute;
};

#define TILED PHX_DTYPE_BF16, PHX_COMPUTE_BF16
#define MIXED PHX_DTYPE_F32, PHX_COMPUTE_BF16
#define EXACT PHX_DTYPE_F32, PHX_COMPUTE_F32
#define NARROW PHX_DTYPE_BF16, PHX_COMPUTE_F32
static const struct shape shapes[] = {
    {150, 8, 1, 64, 16, 0, true, 0.125f, TILED},  {140, 4, 2, 64, 32, 70, true, 0.125f, TILED},
    {133, 6, 2, 128, 16, 0, false, 0.09f, TILED}, {97, 2, 2, 128, 32, 40, true, 0.09f, TILED},
    {90, 18, 1, 40, 16, 50, false, 0.16f, TILED}, {66, 34, 1, 16, 32, 0, true, 0.25f, TILED},
    {100, 3, 1, 80, 32, 1, false, 0.11f, TILED},  {70, 4, 4, 8, 16, 17, true, 0.4f, TILED},
    {70, 5, 1, 2, 32, 0, true, 1, TILED},         {60, 6, 2, 36, 16, 33, false, 0.2f, TILED},
    {40, 1, 1, 200, 16, 0, true, 0.05f, TILED},   {30, 2, 1, 512, 16, 0, false, 0.04f, TILED},
    {150, 8, 2, 64, 16, 0, true, 0.125f, EXACT},  {97, 6, 3, 24, 32, 33, true, 0.2f, EXACT},
    {33, 2, 1, 256, 16, 7, false, 0.06f, EXACT},  {70, 4, 2, 64, 16, 0, true, 0.125f, MIXED},
    {70, 4, 2, 64, 32, 20, false, 0.125f, NARROW}};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

/* Two sequences: q [length][heads * dim], k and v [length][kv_heads * dim]. */
struct input {
    float *q[2], *k[2], *v[2];
    float  sinks[HEADS_MAX];
};

/* The heads of a rank. */
struct part {
    int32_t head_first, n_heads, kv_first, n_kv;
};

/* Rows pos .. pos + n of a sequence. */
struct piece {
    int32_t seq, pos, n;
};

static float tame_float(void)
{
    float x = random_float();

    return fabsf(x) > 4 ? x / 50 : x;
}

static float *make_rows(const struct shape *s, int32_t heads)
{
    size_t n = (size_t)s->length * (size_t)heads * (size_t)s->dim;
    float *x = take(n, sizeof(float));

    for (size_t i = 0; i < n; i++)
        x[i] = tame_float();
    return x;
}

static void make_input(struct input *in, const struct shape *s)
{
    for (int i = 0; i < 2; i++) {
        in->q[i] = make_rows(s, s->heads);
        in->k[i] = make_rows(s, s->kv_heads);
        in->v[i] = make_rows(s, s->kv_heads);
    }
    for (int i = 0; i < s->heads; i++)
        in->sinks[i] = i == 1 ? -INFINITY : tame_float();
}

static void drop_input(struct input *in)
{
    for (int i = 0; i < 2; i++) {
        drop(in->q[i]);
        drop(in->k[i]);
        drop(in->v[i]);
    }
}

static struct part all_of(const struct shape *s)
{
    return (struct part){0, s->heads, 0, s->kv_heads};
}

static int32_t count_blocks(const struct shape *s)
{
    return (s->length + s->block_tokens - 1) / s->block_tokens;
}

/* Blocks of the two sequences in turns, backwards. */
static int32_t block_of(const struct shape *s, int32_t seq, int32_t i)
{
    return 2 * (count_blocks(s) - 1 - i) + seq;
}

/* ---- the cache ------------------------------------------------------------------------------- */

/* Columns of the rows [pos, pos + n) that a rank has, in device memory. */
static struct phx_tensor put_columns(struct rig *r, const float *x, int32_t width, int32_t first, int32_t n_columns,
                                     int32_t pos, int32_t n)
{
    float *rows = take((size_t)n * (size_t)n_columns, sizeof(float)), *device;

    for (int32_t i = 0; i < n; i++)
        memcpy(rows + i * n_columns, x + (pos + i) * width + first, (size_t)n_columns * sizeof(float));
    device = rig_floats(r, rows, (size_t)(n * n_columns));
    drop(rows);
    return phx_view(device, n, n_columns);
}

/* A block's earlier owner left nothing but NaN. */
static void poison(struct rig *r, struct phx_kv *kv, const struct shape *s, int32_t n_kv)
{
    int32_t columns = n_kv * s->dim, row = 0, pos = 0, n = s->block_tokens;
    float  *x = rig_blank(r, (size_t)(n * columns) * sizeof(float));

    for (int32_t block = 0; block < 2 * count_blocks(s); block++) {
        struct phx_spans spans = {1, &row, &n, &pos, &block, 1};

        phx_kv_write(r->b, kv, LAYER, phx_view(x, n, columns), phx_view(x, n, columns), &spans);
        expect_ok(r->b);
    }
}

/* Both sequences as a whole. */
static struct phx_kv *fill_cache(struct rig *r, const struct shape *s, const struct input *in, struct part p)
{
    struct phx_kv_desc desc = {LAYERS, 2 * count_blocks(s), s->block_tokens, p.n_kv, s->dim, s->dtype};
    struct phx_kv     *kv = phx_kv_create(r->b, &desc);
    int32_t           *table = take((size_t)count_blocks(s), sizeof(int32_t)), row = 0, pos = 0, n = s->length;
    int32_t            width = s->kv_heads * s->dim;

    assert_non_null(kv);
    poison(r, kv, s, p.n_kv);
    for (int32_t seq = 0; seq < 2; seq++) {
        struct phx_spans spans = {1, &row, &n, &pos, table, count_blocks(s)};

        for (int32_t i = 0; i < count_blocks(s); i++)
            table[i] = block_of(s, seq, i);
        phx_kv_write(r->b, kv, LAYER,
                     put_columns(r, in->k[seq], width, p.kv_first * s->dim, p.n_kv * s->dim, 0, n),
                     put_columns(r, in->v[seq], width, p.kv_first * s->dim, p.n_kv * s->dim, 0, n), &spans);
        expect_ok(r->b);
    }
    drop(table);
    rig_back(r, 0);
    return kv;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* The host arrays of a step; a row that no sequence owns lies behind each piece. */
struct step {
    int32_t          row[PIECES_MAX], n_rows[PIECES_MAX], pos[PIECES_MAX], n_rows_all;
    int32_t         *table; /* nowhere before the first window and behind the last row */
    struct phx_spans spans;
};

static void plan_step(struct step *st, const struct shape *s, const struct piece *pieces, int32_t n)
{
    int32_t stride = count_blocks(s) + 2;

    st->n_rows_all = 0;
    st->table = take((size_t)(n * stride), sizeof(int32_t));
    for (int32_t i = 0; i < n; i++) {
        int32_t pos = pieces[i].pos, last = pos + pieces[i].n - 1;
        int32_t first = s->window > 0 && pos - s->window + 1 > 0 ? pos - s->window + 1 : 0;

        st->row[i] = st->n_rows_all;
        st->n_rows[i] = pieces[i].n;
        st->pos[i] = pos;
        st->n_rows_all += pieces[i].n + 1;
        for (int32_t j = 0; j < stride; j++)
            st->table[i * stride + j] = j < first / s->block_tokens || j > last / s->block_tokens
                                            ? -1
                                            : block_of(s, pieces[i].seq, j);
    }
    st->spans = (struct phx_spans){n, st->row, st->n_rows, st->pos, st->table, stride};
}

static struct phx_tensor put_queries(struct rig *r, const struct shape *s, const struct input *in, struct part p,
                                     const struct step *st, const struct piece *pieces)
{
    int32_t           columns = p.n_heads * s->dim, stride = columns + PAD;
    float            *x = take((size_t)(st->n_rows_all * stride), sizeof(float));
    struct phx_tensor t;

    for (int32_t i = 0; i < st->spans.n_seqs; i++)
        for (int32_t j = 0; j < pieces[i].n; j++)
            memcpy(x + (st->row[i] + j) * stride,
                   in->q[pieces[i].seq] + (pieces[i].pos + j) * s->heads * s->dim + p.head_first * s->dim,
                   (size_t)columns * sizeof(float));
    t = phx_view(rig_floats(r, x, (size_t)(st->n_rows_all * stride)), st->n_rows_all, columns);
    t.stride0 = stride;
    drop(x);
    return t;
}

/* The emulated device's facts, NULL on a real one. */
static struct phx_emu *find_emulator(void)
{
    static void *module; /* stays loaded, and so do the facts */
    char         path[512] = {0};
    ssize_t      n = readlink("/proc/self/exe", path, sizeof(path) - 40);

    assert_true(n > 0);
    (void)snprintf(strrchr(path, '/'), 32, "/phalanx_cuda.so");
    if (module == NULL)
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return module != NULL ? dlsym(module, "phx_emu") : NULL;
}

/* Attention of the pieces into out[seq] [length][heads * dim]; what is not theirs stays as it is. */
static void attend(struct rig *r, struct phx_kv *kv, const struct shape *s, const struct input *in, struct part p,
                   const struct piece *pieces, int32_t n, float *const *out)
{
    int32_t     columns = p.n_heads * s->dim, stride = columns + PAD;
    struct step st;
    float      *got;
    struct phx_emu *emu = find_emulator();
    int64_t     n_mallocs;
    struct phx_attention_args args = {.kv = kv, .layer = LAYER, .n_heads = p.n_heads, .group = s->heads / s->kv_heads,
                                      .head_first = p.head_first, .kv_first = p.kv_first, .window = s->window,
                                      .scale = s->scale, .spans = &st.spans};

    plan_step(&st, s, pieces, n);
    args.q = put_queries(r, s, in, p, &st, pieces);
    args.out = args.q;
    args.out.data = rig_blank(r, (size_t)(st.n_rows_all * stride) * sizeof(float));
    args.sinks = phx_view(s->has_sinks ? rig_floats(r, in->sinks + p.head_first, (size_t)p.n_heads) : NULL, 1, p.n_heads);
    n_mallocs = emu != NULL ? emu->n_mallocs : 0;
    phx_attention(r->b, &args);
    expect_ok(r->b);
    assert_true(emu == NULL || emu->n_mallocs == n_mallocs); /* a step takes nothing */
    got = take((size_t)(st.n_rows_all * stride), sizeof(float));
    rig_get(r, got, args.out.data, (size_t)(st.n_rows_all * stride) * sizeof(float));
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < pieces[i].n; j++) {
            assert_true(isnan(got[(st.row[i] + j) * stride + columns]));
            memcpy(out[pieces[i].seq] + (pieces[i].pos + j) * s->heads * s->dim + p.head_first * s->dim,
                   got + (st.row[i] + j) * stride, (size_t)columns * sizeof(float));
        }
        assert_true(isnan(got[(st.row[i] + pieces[i].n) * stride]));
    }
    drop(got);
    drop(st.table);
    rig_back(r, 0);
}

/* ---- what is expected ------------------------------------------------------------------------ */

static double rounded_if(bool is_rounded, float x)
{
    return is_rounded ? (double)from_bf16(to_bf16(x)) : (double)x;
}

static double exact_score(const struct shape *s, const struct input *in, int32_t seq, int32_t t, int32_t h, int32_t j)
{
    bool    is_bf16 = s->dtype == PHX_DTYPE_BF16, is_rounded = is_bf16 && s->compute == PHX_COMPUTE_BF16;
    int32_t g = h / (s->heads / s->kv_heads);
    double  sum = 0;

    for (int32_t d = 0; d < s->dim; d++) {
        float q = in->q[seq][(t * s->heads + h) * s->dim + d];

        sum += (is_rounded ? rounded_if(true, q * s->scale) : (double)q * (double)s->scale) *
               rounded_if(is_bf16, in->k[seq][(j * s->kv_heads + g) * s->dim + d]);
    }
    return sum;
}

/* One query exactly; returns the largest value that it sees. */
static double exact_query(const struct shape *s, const struct input *in, int32_t seq, int32_t t, int32_t h, double *out)
{
    int32_t first = s->window > 0 && t - s->window + 1 > 0 ? t - s->window + 1 : 0, g = h / (s->heads / s->kv_heads);
    double *score = take((size_t)t + 1, sizeof(double)), m = s->has_sinks ? (double)in->sinks[h] : -INFINITY, z, largest = 0;

    for (int32_t j = first; j <= t; j++) {
        score[j] = exact_score(s, in, seq, t, h, j);
        m = fmax(m, score[j]);
    }
    z = s->has_sinks ? exp((double)in->sinks[h] - m) : 0;
    for (int32_t j = first; j <= t; j++)
        z += exp(score[j] - m);
    for (int32_t d = 0; d < s->dim; d++) {
        out[d] = 0;
        for (int32_t j = first; j <= t; j++) {
            double v = rounded_if(s->dtype == PHX_DTYPE_BF16, in->v[seq][(j * s->kv_heads + g) * s->dim + d]);

            out[d] += exp(score[j] - m) / z * v;
            largest = fmax(largest, fabs(v));
        }
    }
    drop(score);
    return largest;
}

static void expect_row(const struct rig *r, const struct shape *s, const struct input *in, int32_t seq, int32_t t,
                       const float *out)
{
    bool   is_rounded = s->dtype == PHX_DTYPE_BF16 && s->compute == PHX_COMPUTE_BF16;
    double exact[512], scale[512];

    for (int32_t h = 0; h < s->heads; h++) {
        double largest = exact_query(s, in, seq, t, h, exact);

        for (int32_t d = 0; d < s->dim; d++)
            scale[d] = largest;
        /* a weight is rounded by at most 2^-9 of itself; the matrix units of a CPU round the sum as well */
        expect_near("attention", r, out + (t * s->heads + h) * s->dim, exact, scale, (size_t)s->dim,
                    !is_rounded ? 1e-5 : r->is_cuda ? 2e-3 : 1.0 / 256);
    }
}

static void expect_same(const struct rig *r, const struct shape *s, const float *want, const float *got, int32_t first,
                        int32_t end, const char *what)
{
    int32_t width = s->heads * s->dim;

    for (int32_t i = first * width; i < end * width; i++)
        if (memcmp(want + i, got + i, sizeof(float)) != 0)
            fail_msg("%s, heads %d/%d of %d, blocks of %d, window %d: %s: row %d differs at %d: %a, not %a",
                     phx_backend_name(r->b), s->heads, s->kv_heads, s->dim, s->block_tokens, s->window, what, i / width,
                     i % width, (double)got[i], (double)want[i]);
}

static float *take_out(const struct shape *s)
{
    return take((size_t)s->length * (size_t)s->heads * (size_t)s->dim, sizeof(float));
}

/* ---- tests ----------------------------------------------------------------------------------- */

/* All rows of sequence 0 in chunks, the rows of sequence 1 beside them in chunks of another size. */
static void attend_in_chunks(struct rig *r, struct phx_kv *kv, const struct shape *s, const struct input *in, struct part p,
                             int32_t chunk, int32_t other, float *const *out)
{
    for (int32_t a = 0, b = 0; a < s->length || b < s->length;) {
        struct piece pieces[3];
        int32_t      n = 0;

        if (a < s->length)
            pieces[n++] = (struct piece){0, a, s->length - a < chunk ? s->length - a : chunk};
        if (b < s->length) {
            pieces[n++] = (struct piece){1, b, 0}; /* a sequence without rows */
            pieces[n++] = (struct piece){1, b, s->length - b < other ? s->length - b : other};
        }
        attend(r, kv, s, in, p, pieces, n, out);
        a += chunk;
        b += other;
    }
}

static void check_shape(struct rig *r, const struct shape *s, const struct input *in)
{
    struct phx_kv     *kv = fill_cache(r, s, in, all_of(s));
    const struct piece whole[] = {{1, 0, s->length}, {0, 0, s->length}};
    float             *want[2] = {take_out(s), take_out(s)}, *got[2] = {take_out(s), take_out(s)};

    attend(r, kv, s, in, all_of(s), whole, 2, want);
    for (int32_t t = 0; t < s->length; t += t % 16 == 0 || t == 62 ? 1 : 7)
        expect_row(r, s, in, 0, t, want[0]);
    expect_row(r, s, in, 1, s->length - 1, want[1]);
    attend_in_chunks(r, kv, s, in, all_of(s), 19, 33, got);
    expect_same(r, s, want[0], got[0], 0, s->length, "chunks of 19");
    expect_same(r, s, want[1], got[1], 0, s->length, "chunks of 33");
    for (int32_t t = s->length - GRAIN - 2; t < s->length; t++) {
        const struct piece one[] = {{0, t, 1}, {1, t - 3, 4}};

        attend(r, kv, s, in, all_of(s), one, 2, got);
    }
    expect_same(r, s, want[0], got[0], 0, s->length, "one by one");
    expect_same(r, s, want[1], got[1], 0, s->length, "four by four");
    phx_kv_destroy(r->b, kv);
    for (int i = 0; i < 2; i++) {
        drop(want[i]);
        drop(got[i]);
    }
}

static void attention_is_near_and_equal_however_it_is_cut(void **state)
{
    (void)state;
    seed_random(61);
    for (int i = 0; i < N_SHAPES; i++) {
        struct rig   r;
        struct input in;
        int          cursor = 0;

        make_input(&in, &shapes[i]);
        while (next_rig(&r, &cursor, shapes[i].compute)) {
            check_shape(&r, &shapes[i], &in);
            close_rig(&r);
        }
        drop_input(&in);
    }
}

/* Ranks that begin or end inside a group. */
static void heads_of_a_rank_have_the_bits_of_the_whole(void **state)
{
    static const struct shape split[] = {{80, 12, 2, 64, 16, 0, true, 0.125f, TILED},
                                         {80, 12, 2, 128, 32, 30, true, 0.1f, TILED},
                                         {50, 12, 2, 24, 16, 0, true, 0.2f, EXACT}};
    static const struct part  parts[] = {{0, 4, 0, 1}, {4, 4, 0, 2}, {8, 4, 1, 1}, {5, 2, 0, 2}, {7, 1, 1, 1}, {6, 5, 0, 2}};

    (void)state;
    seed_random(62);
    for (size_t i = 0; i < sizeof(split) / sizeof(split[0]); i++) {
        const struct shape *s = &split[i];
        struct rig          r;
        struct input        in;
        int                 cursor = 0;

        make_input(&in, s);
        while (next_rig(&r, &cursor, s->compute)) {
            const struct piece whole[] = {{0, 0, s->length}}, late[] = {{0, s->length - 2, 2}};
            float             *want[1] = {take_out(s)}, *got[1] = {take_out(s)};
            struct phx_kv     *kv = fill_cache(&r, s, &in, all_of(s));

            attend(&r, kv, s, &in, all_of(s), whole, 1, want);
            phx_kv_destroy(r.b, kv);
            for (size_t j = 0; j < sizeof(parts) / sizeof(parts[0]); j++) {
                memcpy(got[0], want[0], (size_t)(s->length * s->heads * s->dim) * sizeof(float));
                kv = fill_cache(&r, s, &in, parts[j]);
                attend(&r, kv, s, &in, parts[j], whole, 1, got);
                expect_same(&r, s, want[0], got[0], 0, s->length, "heads of a rank");
                attend(&r, kv, s, &in, parts[j], late, 1, got);
                expect_same(&r, s, want[0], got[0], 0, s->length, "heads of a rank, decoding");
                phx_kv_destroy(r.b, kv);
            }
            drop(want[0]);
            drop(got[0]);
            close_rig(&r);
        }
        drop_input(&in);
    }
}

/* Values that are no numbers reach those who see them, and nobody else. */
static void wild_values_stay_where_they_are_seen(void **state)
{
    static const float wild[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    seed_random(63);
    for (int i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        int32_t             at = s->length - 21, width = s->heads * s->dim, cursor = 0;
        struct input        in;
        struct rig          r;

        if (s->compute != PHX_COMPUTE_BF16 || s->dtype != PHX_DTYPE_BF16)
            continue;
        make_input(&in, s);
        while (next_rig(&r, &cursor, s->compute)) {
            const struct piece whole[] = {{0, 0, s->length}};
            float             *tame[2] = {take_out(s), take_out(s)}, *want[2] = {take_out(s), take_out(s)}, *saved = take_out(s);
            struct phx_kv     *kv = fill_cache(&r, s, &in, all_of(s));
            size_t             bytes = (size_t)(s->length * s->kv_heads * s->dim) * sizeof(float);

            attend(&r, kv, s, &in, all_of(s), whole, 1, tame);
            phx_kv_destroy(r.b, kv);
            memcpy(saved, in.v[0], bytes);
            for (int32_t d = 0; d < s->kv_heads * s->dim; d++)
                in.v[0][at * s->kv_heads * s->dim + d] = wild[i % 3];
            kv = fill_cache(&r, s, &in, all_of(s));
            attend(&r, kv, s, &in, all_of(s), whole, 1, want);
            expect_same(&r, s, tame[0], want[0], 0, at, "before a wild value");
            assert_false(isfinite(want[0][at * width]));
            if (s->window > 0 && at + s->window < s->length)
                expect_same(&r, s, tame[0], want[0], at + s->window, s->length, "behind a wild value's window");
            attend_in_chunks(&r, kv, s, &in, all_of(s), 11, 40, tame);
            expect_same(&r, s, want[0], tame[0], 0, s->length, "a wild value in chunks of 11");
            phx_kv_destroy(r.b, kv);
            memcpy(in.v[0], saved, bytes);
            drop(saved);
            for (int j = 0; j < 2; j++) {
                drop(tame[j]);
                drop(want[j]);
            }
            close_rig(&r);
        }
        drop_input(&in);
    }
}

/* One long sequence on a large and a small device: keys in leaves, in parts, or not shared out at all. */
static void long_sequences_have_one_result(void **state)
{
    static const struct shape longs[] = {{1100, 8, 1, 64, 16, 0, true, 0.125f, TILED},
                                         {1100, 3, 1, 128, 32, 0, false, 0.09f, TILED},
                                         {1100, 8, 1, 64, 32, 700, true, 0.125f, TILED},
                                         {900, 2, 1, 24, 16, 0, true, 0.2f, EXACT}};
    static const int32_t      sizes[] = {132, 2, 1};
    struct phx_emu           *emu = find_emulator();

    (void)state;
    seed_random(64);
    for (size_t i = 0; i < sizeof(longs) / sizeof(longs[0]); i++) {
        const struct shape *s = &longs[i];
        const struct piece  late[] = {{0, s->length - 60, 60}}, rest[] = {{0, s->length - 80, 20}};
        const struct piece  few[] = {{0, s->length - 1, 1}, {1, 530, 1}, {0, 511, 2}, {1, 320, 1}, {0, 63, 2}};
        float              *want[2] = {take_out(s), take_out(s)};
        struct input        in;
        bool                is_first = true;

        make_input(&in, s);
        for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
            struct rig r;
            int        cursor = 0;

            if (emu != NULL)
                emu->sm_count = sizes[j];
            while (next_rig(&r, &cursor, s->compute)) {
                float         *got[2] = {take_out(s), take_out(s)};
                struct phx_kv *kv;

                if (!r.is_cuda) { /* has its own tests of this */
                    drop(got[0]);
                    drop(got[1]);
                    close_rig(&r);
                    continue;
                }
                kv = fill_cache(&r, s, &in, all_of(s));
                attend(&r, kv, s, &in, all_of(s), late, 1, got);
                attend(&r, kv, s, &in, all_of(s), rest, 1, got);
                attend(&r, kv, s, &in, all_of(s), few + 1, 4, got);
                if (is_first) {
                    memcpy(want[0], got[0], (size_t)(s->length * s->heads * s->dim) * sizeof(float));
                    memcpy(want[1], got[1], (size_t)(s->length * s->heads * s->dim) * sizeof(float));
                    for (size_t k = 0; k < sizeof(few) / sizeof(few[0]); k++)
                        expect_row(&r, s, &in, few[k].seq, few[k].pos, want[few[k].seq]);
                }
                is_first = false;
                attend(&r, kv, s, &in, all_of(s), few, 5, got);
                for (int32_t t = s->length - 66; t < s->length; t += 13) {
                    const struct piece one[] = {{0, t, 1}};

                    attend(&r, kv, s, &in, all_of(s), one, 1, got);
                }
                expect_same(&r, s, want[0], got[0], 0, s->length, "sequence 0");
                expect_same(&r, s, want[1], got[1], 0, s->length, "sequence 1");
                phx_kv_destroy(r.b, kv);
                drop(got[0]);
                drop(got[1]);
                close_rig(&r);
            }
        }
        if (emu != NULL)
            emu->reset();
        drop_input(&in);
        drop(want[0]);
        drop(want[1]);
    }
}

const struct CMUnitTest device_attention_tests[] = {
    cmocka_unit_test(attention_is_near_and_equal_however_it_is_cut),
    cmocka_unit_test(heads_of_a_rank_have_the_bits_of_the_whole),
    cmocka_unit_test(wild_values_stay_where_they_are_seen),
    cmocka_unit_test(long_sequences_have_one_result),
};
const size_t n_device_attention_tests = sizeof(device_attention_tests) / sizeof(device_attention_tests[0]);
