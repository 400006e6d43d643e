/* SPDX-License-Identifier: Apache-2.0
 * kernels_bench [threads [isa [filter [f32 | bf16]]]]: bytes and operations per second of each op that matters, as JSON,
 * each beside the read bandwidth and the multiply-adds that the same cores reached in the same second.
 * Shapes are those of published models; nothing in kernels/ is tuned to them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "tests/bench/ceiling.h"

enum { REPS = 5, ROWS_MAX = 512, SOURCE_MB = 512 };

struct bench {
    struct phx_backend *b;
    unsigned char      *source; /* SOURCE_MB of valid numbers of any dtype */
    float              *x, *out; /* device memory for ROWS_MAX wide rows */
    const char         *filter;
    bool                is_first;
};

static const size_t SOURCE_BYTES = (size_t)SOURCE_MB << 20, X_FLOATS = (size_t)ROWS_MAX * 32768;

static void must_work(struct phx_backend *b)
{
    const char *what;

    if (phx_backend_sync(b, &what) == 0)
        return;
    (void)fprintf(stderr, "kernels_bench: %s\n", what);
    exit(1);
}

/* One timed thing; bytes and operations of one run. */
struct work {
    void (*run)(struct bench *s, void *ctx);
    void  *ctx;
    double bytes, operations;
};

static bool is_wanted(const struct bench *s, const char *name)
{
    return s->filter == NULL || strstr(name, s->filter) != NULL;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Ceiling and op take turns, so that both see the same machine; medians of the reps. */
static void measure(struct bench *s, const char *name, const struct work *w)
{
    double seconds[REPS], read[REPS], fma[REPS];

    w->run(s, w->ctx); /* warm */
    for (int i = 0; i < REPS; i++) {
        struct ceiling c;
        double         start;
        int            n = 0;

        ceiling_measure(&c);
        read[i] = c.read_gb_s;
        fma[i] = c.fma_gflop_s;
        start = now_s();
        do {
            w->run(s, w->ctx);
            n++;
        } while (now_s() - start < 0.05);
        seconds[i] = (now_s() - start) / n;
    }
    must_work(s->b);
    qsort(seconds, REPS, sizeof(double), compare);
    qsort(read, REPS, sizeof(double), compare);
    qsort(fma, REPS, sizeof(double), compare);
    double gb = w->bytes / seconds[REPS / 2] / 1e9, gf = w->operations / seconds[REPS / 2] / 1e9;

    (void)printf("%s\n  {\"op\": \"%s\", \"us\": %.1f, \"gb_s\": %.2f, \"gflop_s\": %.1f, "
                 "\"read_gb_s\": %.2f, \"fma_gflop_s\": %.1f, \"of_read\": %.2f, \"of_fma\": %.2f}",
                 s->is_first ? "" : ",", name, seconds[REPS / 2] * 1e6, gb, gf, read[REPS / 2],
                 fma[REPS / 2], gb / read[REPS / 2], gf / fma[REPS / 2]);
    (void)fflush(stdout);
    s->is_first = false;
}

/* ---- packing and products -------------------------------------------------------------------- */

struct product {
    struct phx_weight       *w;
    struct phx_weight_source source;
    int32_t                  rows;
};

static void run_pack(struct bench *s, void *ctx)
{
    struct product *p = ctx;

    phx_weight_pack(s->b, p->w, &p->source);
}

static void run_matmul(struct bench *s, void *ctx)
{
    struct product               *p = ctx;
    const struct phx_weight_desc *d = phx_weight_describe(p->w);

    phx_matmul(s->b, phx_view(s->out, p->rows, d->n), phx_view(s->x, p->rows, d->k), p->w,
               phx_view(NULL, 1, d->n));
}

static const char *name_of(enum phx_dtype t)
{
    return t == PHX_DTYPE_F32    ? "f32"
           : t == PHX_DTYPE_BF16 ? "bf16"
           : t == PHX_DTYPE_F16  ? "f16"
           : t == PHX_DTYPE_I8   ? "int8"
                                 : "mxfp4";
}

static double bytes_of(const struct phx_weight_desc *d)
{
    double n = (double)d->n * d->k * d->n_experts;

    if (d->dtype == PHX_DTYPE_I8)
        return n * (1 + 4.0 / PHX_I8_GROUP);
    return d->dtype == PHX_DTYPE_F32 ? n * 4 : d->dtype == PHX_DTYPE_MXFP4 ? n * 4.25 / 8 : n * 2;
}

static struct phx_weight_source source_of(const struct bench *s, const struct phx_weight_desc *d)
{
    int64_t                  size = d->dtype == PHX_DTYPE_F32 ? 4 : 2;
    struct phx_weight_source source = {.data = s->source + 2, /* checkpoints are not aligned */
                                       .dtype = d->dtype == PHX_DTYPE_I8 ? PHX_DTYPE_BF16 : d->dtype,
                                       .row_stride = d->k * size,
                                       .k_stride = size,
                                       .n_rows = d->n};

    if (d->dtype == PHX_DTYPE_MXFP4) {
        source.row_stride = d->k / 2;
        source.scale = s->source + SOURCE_BYTES - (size_t)d->n * (size_t)d->k / 32;
        source.scale_row_stride = d->k / 32;
    }
    return source;
}

static void bench_products(struct bench *s, enum phx_dtype dtype, int32_t n, int32_t k)
{
    static const int32_t   rows[] = {1, 2, 4, 8, 32};
    struct phx_weight_desc d = {dtype, n, k, 1, 1, {k}};
    char                   name[80];
    struct product         p;

    (void)snprintf(name, sizeof(name), "%s", name_of(dtype));
    if (s->filter != NULL && strstr("pack matmul", s->filter) == NULL && !is_wanted(s, name))
        return;
    p = (struct product){.w = phx_weight_create(s->b, &d), .source = source_of(s, &d)};
    must_work(s->b);
    (void)snprintf(name, sizeof(name), "pack %s [%d, %d]", name_of(dtype), n, k);
    measure(s, name, &(struct work){run_pack, &p, bytes_of(&d), 0});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        p.rows = rows[i];
        (void)snprintf(name, sizeof(name), "matmul %s [%d, %d] x %d", name_of(dtype), n, k, rows[i]);
        measure(s, name,
                &(struct work){run_matmul, &p, bytes_of(&d), 2.0 * n * k * (double)rows[i]});
    }
    phx_weight_destroy(s->b, p.w);
}

static void bench_prefill(struct bench *s, enum phx_dtype dtype, int32_t n, int32_t k, int32_t slices)
{
    struct phx_weight_desc d = {dtype, n, k, 1, slices, {0}};
    struct product         p;
    char                   name[80];

    (void)snprintf(name, sizeof(name), "prefill %s [%d, %d] x %d, %d slices", name_of(dtype), n, k,
                   ROWS_MAX, slices);
    if (!is_wanted(s, name))
        return;
    for (int i = 0; i < slices; i++)
        d.slice_end[i] = k / 32 * (i + 1) / slices * 32;
    p = (struct product){.w = phx_weight_create(s->b, &d), .source = source_of(s, &d),
                         .rows = ROWS_MAX};
    phx_weight_pack(s->b, p.w, &p.source);
    measure(s, name, &(struct work){run_matmul, &p, bytes_of(&d), 2.0 * n * k * ROWS_MAX});
    phx_weight_destroy(s->b, p.w);
}

/* A [k, n] source: the orientation of dequantised expert tensors. */
static void bench_transposed_pack(struct bench *s, int32_t n, int32_t k)
{
    struct phx_weight_desc d = {PHX_DTYPE_BF16, n, k, 1, 1, {k}};
    struct product         p;

    if (!is_wanted(s, "pack bf16 transposed"))
        return;
    p = (struct product){.w = phx_weight_create(s->b, &d), .source = source_of(s, &d)};
    p.source.row_stride = 2;
    p.source.k_stride = 2 * (int64_t)n;
    measure(s, "pack bf16 transposed", &(struct work){run_pack, &p, bytes_of(&d), 0});
    phx_weight_destroy(s->b, p.w);
}

/* ---- mixture --------------------------------------------------------------------------------- */

struct mixture {
    struct phx_moe_args args;
};

static void run_moe(struct bench *s, void *ctx)
{
    const struct mixture *m = ctx;

    phx_moe_ffn(s->b, &m->args);
}

static struct phx_weight *make_experts(struct bench *s, int32_t n, int32_t k, int32_t e, int32_t slices)
{
    struct phx_weight_desc d = {PHX_DTYPE_MXFP4, n, k, e, slices, {0}};
    struct phx_weight     *w;

    for (int i = 0; i < slices; i++)
        d.slice_end[i] = k / 32 * (i + 1) / slices * 32;
    w = phx_weight_create(s->b, &d);
    must_work(s->b);
    for (int32_t i = 0; i < e; i++) {
        struct phx_weight_source source = source_of(s, &d);

        source.expert = i;
        phx_weight_pack(s->b, w, &source);
    }
    return w;
}

static void bench_mixture(struct bench *s, int32_t d, int32_t f, int32_t e, int32_t top_k)
{
    static const int32_t rows[] = {1, 2, 8, 32, ROWS_MAX};
    struct mixture       m;
    int32_t             *ids;
    float               *gates;

    if (!is_wanted(s, "mixture mxfp4"))
        return;
    ids = phx_backend_alloc(s->b, (size_t)ROWS_MAX * (size_t)top_k * sizeof(int32_t));
    gates = phx_backend_alloc(s->b, (size_t)ROWS_MAX * (size_t)top_k * sizeof(float));
    m.args = (struct phx_moe_args){.gate_up = make_experts(s, 2 * f, d, e, 1),
                                   .down = make_experts(s, d, f, e, 8),
                                   .kind = PHX_GLU_OAI,
                                   .limit = 7.0f};
    phx_moe_reserve(s->b, ROWS_MAX, top_k, m.args.gate_up, m.args.down);
    for (int32_t i = 0; i < ROWS_MAX * top_k; i++) {
        ids[i] = (i / top_k * 7 + i % top_k * 5) % e;
        gates[i] = 0.25f;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double active = 0, pairs = (double)rows[i] * top_k;
        bool   is_active[256] = {false};
        char   name[80];

        for (int32_t j = 0; j < rows[i] * top_k; j++)
            is_active[ids[j]] = true;
        for (int32_t j = 0; j < e; j++)
            active += is_active[j] ? 1 : 0;
        m.args.out = phx_view(s->out, rows[i], d);
        m.args.x = phx_view(s->x, rows[i], d);
        m.args.ids = (struct phx_tensor){ids, PHX_DTYPE_I32, {rows[i], top_k}, top_k};
        m.args.gates = phx_view(gates, rows[i], top_k);
        (void)snprintf(name, sizeof(name), "mixture mxfp4 D %d F %d E %d top %d x %d", d, f, e, top_k,
                       rows[i]);
        measure(s, name,
                &(struct work){run_moe, &m, active * 3.0 * d * f * 4.25 / 8, pairs * 6.0 * d * f});
    }
    phx_weight_destroy(s->b, (struct phx_weight *)m.args.gate_up);
    phx_weight_destroy(s->b, (struct phx_weight *)m.args.down);
    phx_backend_free(s->b, ids);
    phx_backend_free(s->b, gates);
}

/* ---- attention ------------------------------------------------------------------------------- */

static void run_attention(struct bench *s, void *ctx)
{
    phx_attention(s->b, ctx);
}

/* `rows` last positions of a context of `length`. */
static void bench_attention(struct bench *s, int32_t heads, int32_t kv_heads, int32_t dim,
                            int32_t rows, int32_t length, int32_t window, enum phx_dtype dtype)
{
    struct phx_kv_desc d = {1, length / 16, 16, kv_heads, dim, dtype};
    int32_t            row = 0, pos = 0, n = ROWS_MAX, table[4096];
    struct phx_spans   spans = {1, &row, &n, &pos, table, 4096};
    struct phx_kv     *kv;
    char               name[96];
    double             keys = 0;

    (void)snprintf(name, sizeof(name), "attention %s %d/%d heads of %d, %d rows at %d, window %d",
                   name_of(dtype), heads, kv_heads, dim, rows, length, window);
    if (!is_wanted(s, name))
        return;
    kv = phx_kv_create(s->b, &d);
    must_work(s->b);
    for (int32_t i = 0; i < length / 16; i++)
        table[i] = i;
    for (pos = 0; pos < length; pos += ROWS_MAX)
        phx_kv_write(s->b, kv, 0, phx_view(s->x, ROWS_MAX, kv_heads * dim),
                     phx_view(s->x + 999, ROWS_MAX, kv_heads * dim), &spans);
    pos = length - rows;
    n = rows;
    for (int32_t t = pos; t < length; t++)
        keys += window > 0 && t + 1 > window ? window : t + 1;
    struct phx_attention_args args = {.out = phx_view(s->out, rows, heads * dim),
                                      .q = phx_view(s->x, rows, heads * dim), .kv = kv,
                                      .n_heads = heads, .group = heads / kv_heads, .window = window,
                                      .scale = 0.125f, .spans = &spans};

    measure(s, name,
            &(struct work){run_attention, &args,
                           keys / rows * 2.0 * kv_heads * dim * (dtype == PHX_DTYPE_F32 ? 4 : 2),
                           keys * 4.0 * heads * dim});
    phx_kv_destroy(s->b, kv);
}

static void fill(struct bench *s)
{
    uint64_t r = 88172645463325252u;
    float   *x = malloc(X_FLOATS * sizeof(float));

    s->source = malloc(SOURCE_BYTES);
    s->x = phx_backend_alloc(s->b, X_FLOATS * sizeof(float));
    s->out = phx_backend_alloc(s->b, X_FLOATS * sizeof(float) * 4);
    if (x == NULL || s->source == NULL || s->x == NULL || s->out == NULL)
        exit(1);
    for (size_t i = 0; i < SOURCE_BYTES; i += 8) {
        uint64_t v;

        r ^= r << 13;
        r ^= r >> 7;
        r ^= r << 17;
        v = (r & 0x83ff83ff83ff83ffu) | 0x3800380038003800u; /* small as bf16, f16, f32; legal scales */
        memcpy(s->source + i, &v, 8);
    }
    for (size_t i = 0; i < X_FLOATS; i++)
        x[i] = (float)(i * 2654435761u % 2001) / 1000.0f - 1.0f;
    phx_upload(s->b, s->x, x, X_FLOATS * sizeof(float));
    free(x);
}

int main(int argc, char **argv)
{
    struct phx_backend_options options = {.isa = argc > 2 ? argv[2] : NULL,
                                          .n_threads = argc > 1 ? atoi(argv[1]) : 0,
                                          .compute = argc > 4 && strcmp(argv[4], "bf16") == 0 ? PHX_COMPUTE_BF16
                                                                                              : PHX_COMPUTE_F32,
                                          .is_pinned = true};
    char         why[240];
    struct bench s = {.filter = argc > 3 ? argv[3] : NULL, .is_first = true};

    s.b = phx_backend_open("cpu", &options, why, sizeof(why));
    if (s.b == NULL) {
        (void)fprintf(stderr, "kernels_bench: %s\n", why);
        return 1;
    }
    ceiling_open(phx_backend_threads(s.b));
    fill(&s);
    (void)printf("{\"isa\": \"%s\", \"threads\": %d, \"ops\": [", phx_backend_isa(s.b),
                 phx_backend_threads(s.b));
    bench_products(&s, PHX_DTYPE_BF16, 65536, 2048);
    bench_products(&s, PHX_DTYPE_I8, 65536, 2048);
    bench_products(&s, PHX_DTYPE_F16, 65536, 2048);
    bench_products(&s, PHX_DTYPE_F32, 32768, 2048);
    bench_products(&s, PHX_DTYPE_MXFP4, 131072, 2880);
    bench_transposed_pack(&s, 5760, 2880);
    bench_prefill(&s, PHX_DTYPE_BF16, 2048, 2048, 1);
    bench_prefill(&s, PHX_DTYPE_BF16, 2048, 8192, 8);
    bench_prefill(&s, PHX_DTYPE_I8, 2048, 2048, 1);
    bench_prefill(&s, PHX_DTYPE_I8, 2048, 8192, 8);
    bench_prefill(&s, PHX_DTYPE_F16, 2048, 2048, 1);
    bench_prefill(&s, PHX_DTYPE_F32, 2048, 2048, 1);
    bench_prefill(&s, PHX_DTYPE_MXFP4, 5760, 2880, 1);
    bench_prefill(&s, PHX_DTYPE_MXFP4, 2880, 2880, 8);
    bench_mixture(&s, 2880, 2880, 32, 4);
    bench_attention(&s, 64, 8, 64, 1, 4096, 0, PHX_DTYPE_F32);
    bench_attention(&s, 64, 8, 64, ROWS_MAX, 2048, 0, PHX_DTYPE_F32);
    bench_attention(&s, 64, 8, 64, ROWS_MAX, 2048, 128, PHX_DTYPE_F32);
    bench_attention(&s, 32, 8, 64, ROWS_MAX, 512, 0, PHX_DTYPE_BF16);
    bench_attention(&s, 32, 8, 64, ROWS_MAX, 4096, 0, PHX_DTYPE_BF16);
    bench_attention(&s, 32, 8, 64, 1, 4096, 0, PHX_DTYPE_BF16);
    bench_attention(&s, 64, 8, 64, ROWS_MAX, 2048, 128, PHX_DTYPE_BF16);
    bench_attention(&s, 24, 8, 128, ROWS_MAX, 2048, 0, PHX_DTYPE_BF16);
    bench_attention(&s, 24, 8, 128, 1, 4096, 0, PHX_DTYPE_F32);
    bench_attention(&s, 32, 32, 128, 1, 4096, 0, PHX_DTYPE_F32);
    bench_attention(&s, 32, 32, 128, ROWS_MAX, 2048, 0, PHX_DTYPE_F32);
    (void)printf("\n]}\n");
    phx_backend_free(s.b, s.x);
    phx_backend_free(s.b, s.out);
    free(s.source);
    ceiling_close();
    phx_backend_close(s.b);
    return 0;
}
