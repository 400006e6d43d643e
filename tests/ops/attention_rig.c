/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ops/attention_rig.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

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

/* The number of E4M3 nearest to x, by its definition: 8 steps from each power of two, from 2^-6 on. */
static float to_f8(float x)
{
    int   exponent = 0;
    float step;

    (void)frexpf(x, &exponent); /* |x| < 2^exponent */
    step = ldexpf(1, exponent < -5 ? -9 : exponent - 4);
    return fmaxf(-448, fminf(448, rintf(x / step) * step));
}

/* One scale for n numbers: the largest is 127, or 448. */
static void keep_bytes(float *to, const float *x, int32_t n, enum phx_dtype dtype)
{
    float top = 0, scale;

    for (int32_t i = 0; i < n; i++)
        top = fmaxf(top, isfinite(x[i]) ? fabsf(x[i]) : INFINITY);
    scale = top < 0x1p-100f ? 0 : isinf(top) ? NAN : top / (dtype == PHX_DTYPE_I8 ? 127.0f : 448.0f);
    for (int32_t i = 0; i < n; i++)
        to[i] = scale * (!(scale > 0) ? 0 : dtype == PHX_DTYPE_I8 ? rintf(x[i] * (1.0f / scale)) : to_f8(x[i] * (1.0f / scale)));
}

void keep_rows(float *to, const float *x, const struct shape *s)
{
    for (int32_t i = 0; i < s->length * s->kv_heads; i++, to += s->dim, x += s->dim) {
        if (phx_kv_has_scales(s->dtype))
            keep_bytes(to, x, s->dim, s->dtype);
        for (int32_t d = 0; d < s->dim && !phx_kv_has_scales(s->dtype); d++)
            to[d] = s->dtype == PHX_DTYPE_BF16 ? from_bf16(to_bf16(x[d])) : x[d];
    }
}

void make_input(struct input *in, const struct shape *s)
{
    for (int i = 0; i < 2; i++) {
        in->q[i] = make_rows(s, s->heads);
        in->k[i] = make_rows(s, s->kv_heads);
        in->v[i] = make_rows(s, s->kv_heads);
        in->kept_k[i] = make_rows(s, s->kv_heads);
        in->kept_v[i] = make_rows(s, s->kv_heads);
        keep_rows(in->kept_k[i], in->k[i], s);
        keep_rows(in->kept_v[i], in->v[i], s);
    }
    for (int i = 0; i < s->heads; i++)
        in->sinks[i] = i == 1 ? -INFINITY : tame_float();
}

void drop_input(struct input *in)
{
    for (int i = 0; i < 2; i++) {
        drop(in->q[i]);
        drop(in->k[i]);
        drop(in->v[i]);
        drop(in->kept_k[i]);
        drop(in->kept_v[i]);
    }
}

struct part all_of(const struct shape *s)
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
struct phx_kv *fill_cache(struct rig *r, const struct shape *s, const struct input *in, struct part p)
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
struct phx_emu *find_emulator(void)
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
void attend(struct rig *r, struct phx_kv *kv, const struct shape *s, const struct input *in, struct part p,
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

/* Whether queries and weights are rounded to bf16. */
static bool is_rounding(const struct rig *r, const struct shape *s)
{
    return s->compute == PHX_COMPUTE_BF16 && (s->dtype == PHX_DTYPE_BF16 || (phx_kv_has_scales(s->dtype) && r->is_cuda));
}

static double exact_score(const struct rig *r, const struct shape *s, const struct input *in, int32_t seq, int32_t t,
                          int32_t h, int32_t j)
{
    bool    is_rounded = is_rounding(r, s);
    int32_t g = h / (s->heads / s->kv_heads);
    double  sum = 0;

    for (int32_t d = 0; d < s->dim; d++) {
        float q = in->q[seq][(t * s->heads + h) * s->dim + d];

        sum += (is_rounded ? (double)from_bf16(to_bf16(q * s->scale)) : (double)q * (double)s->scale) *
               (double)in->kept_k[seq][(j * s->kv_heads + g) * s->dim + d];
    }
    return sum;
}

/* One query exactly; returns the largest value that it sees. */
static double exact_query(const struct rig *r, const struct shape *s, const struct input *in, int32_t seq, int32_t t,
                          int32_t h, double *out)
{
    int32_t first = s->window > 0 && t - s->window + 1 > 0 ? t - s->window + 1 : 0, g = h / (s->heads / s->kv_heads);
    double *score = take((size_t)t + 1, sizeof(double)), m = s->has_sinks ? (double)in->sinks[h] : -INFINITY, z, largest = 0;

    for (int32_t j = first; j <= t; j++) {
        score[j] = exact_score(r, s, in, seq, t, h, j);
        m = fmax(m, score[j]);
    }
    z = s->has_sinks ? exp((double)in->sinks[h] - m) : 0;
    for (int32_t j = first; j <= t; j++)
        z += exp(score[j] - m);
    for (int32_t d = 0; d < s->dim; d++) {
        out[d] = 0;
        for (int32_t j = first; j <= t; j++) {
            double v = (double)in->kept_v[seq][(j * s->kv_heads + g) * s->dim + d];

            out[d] += exp(score[j] - m) / z * v;
            largest = fmax(largest, fabs(v));
        }
    }
    drop(score);
    return largest;
}

void expect_row(const struct rig *r, const struct shape *s, const struct input *in, int32_t seq, int32_t t,
                       const float *out)
{
    double tolerance = s->dtype == PHX_DTYPE_BF16 && r->is_cuda ? 2e-3 : 1.0 / 256, exact[512], scale[512];

    for (int32_t h = 0; h < s->heads; h++) {
        double largest = exact_query(r, s, in, seq, t, h, exact);

        for (int32_t d = 0; d < s->dim; d++)
            scale[d] = largest;
        /* a weight is rounded by at most 2^-9 of itself; the matrix units of a CPU round the sum as well, and those
         * of int8 are rounded for the sum of weights and, times the scale, for that of values */
        expect_near("attention", r, out + (t * s->heads + h) * s->dim, exact, scale, (size_t)s->dim,
                    is_rounding(r, s) ? tolerance : 1e-5);
    }
}

void expect_same(const struct rig *r, const struct shape *s, const float *want, const float *got, int32_t first,
                        int32_t end, const char *what)
{
    int32_t width = s->heads * s->dim;

    for (int32_t i = first * width; i < end * width; i++)
        if (memcmp(want + i, got + i, sizeof(float)) != 0)
            fail_msg("%s, heads %d/%d of %d, blocks of %d, window %d: %s: row %d differs at %d: %a, not %a",
                     phx_backend_name(r->b), s->heads, s->kv_heads, s->dim, s->block_tokens, s->window, what, i / width,
                     i % width, (double)got[i], (double)want[i]);
}

float *take_out(const struct shape *s)
{
    return take((size_t)s->length * (size_t)s->heads * (size_t)s->dim, sizeof(float));
}
