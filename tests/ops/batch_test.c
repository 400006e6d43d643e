/* SPDX-License-Identifier: Apache-2.0
 * Attention over batches as a scheduler makes them: sequences of unlike lengths, prefill beside decode, any
 * ratio of query to kv heads, head sizes that fill no vector, blocks of 16 and 32, windows, and block-table
 * entries before the window given back.  Each row must equal what it gives alone, on every path. */
#include <math.h>
#include <stdio.h>

#include "tests/ops/support.h"

enum { SEQS = 4, ROWS = 40, BLOCKS = 24, TABLE = 8 };

struct shape {
    int32_t        heads, group, dim, window, block_tokens;
    enum phx_dtype dtype;
};

static const struct shape shapes[] = {
    {1, 1, 2, 0, 16, PHX_DTYPE_F32},    {3, 1, 18, 5, 32, PHX_DTYPE_F32},
    {6, 3, 80, 0, 16, PHX_DTYPE_BF16},  {10, 5, 48, 33, 32, PHX_DTYPE_F32},
    {16, 8, 64, 17, 16, PHX_DTYPE_F32}, {9, 9, 40, 0, 16, PHX_DTYPE_F32},
    {14, 7, 34, 1, 16, PHX_DTYPE_BF16}, {16, 16, 128, 0, 32, PHX_DTYPE_F32},
    {2, 1, 512, 20, 16, PHX_DTYPE_F32}, {4, 2, 256, 0, 16, PHX_DTYPE_BF16},
};

/* Sequence s has `before` positions in the cache and n new rows. */
static const int32_t before[SEQS] = {0, 37, 3, 95}, n_new[SEQS] = {21, 1, 17, 1};

struct batch {
    struct phx_spans spans;
    int32_t          row[SEQS], n[SEQS], pos[SEQS], table[SEQS * TABLE];
    float           *q, *k, *v, *old_k, *old_v, *sinks; /* old: [SEQS][96] rows */
};

static void make_batch(struct batch *b, const struct shape *s)
{
    int32_t kv = s->heads / s->group * s->dim, row = 0;

    b->spans = (struct phx_spans){SEQS, b->row, b->n, b->pos, b->table, TABLE};
    for (int32_t i = 0; i < SEQS; i++) {
        b->row[i] = row;
        b->n[i] = n_new[i];
        b->pos[i] = before[i];
        row += n_new[i];
        for (int32_t j = 0; j < TABLE; j++) /* blocks lie anywhere; those past the end are not there */
            b->table[i * TABLE + j] = j * s->block_tokens < before[i] + n_new[i] ? (i + j * 5) % BLOCKS : -1;
    }
    assert_int_equal(row, ROWS);
    b->q = take((size_t)ROWS * (size_t)(s->heads * s->dim), sizeof(float));
    b->k = take((size_t)ROWS * (size_t)kv, sizeof(float));
    b->v = take((size_t)ROWS * (size_t)kv, sizeof(float));
    b->old_k = take((size_t)(SEQS * 96 * kv), sizeof(float));
    b->old_v = take((size_t)(SEQS * 96 * kv), sizeof(float));
    b->sinks = take((size_t)s->heads, sizeof(float));
    fill_random(b->q, (size_t)ROWS * (size_t)(s->heads * s->dim));
    fill_random(b->k, (size_t)ROWS * (size_t)kv);
    fill_random(b->v, (size_t)ROWS * (size_t)kv);
    fill_random(b->old_k, (size_t)(SEQS * 96 * kv));
    fill_random(b->old_v, (size_t)(SEQS * 96 * kv));
    fill_random(b->sinks, (size_t)s->heads);
    b->sinks[0] = -INFINITY;
}

static void free_batch(struct batch *b)
{
    drop(b->q);
    drop(b->k);
    drop(b->v);
    drop(b->old_k);
    drop(b->old_v);
    drop(b->sinks);
}

static struct phx_kv *fill_cache(struct phx_backend *be, const struct shape *s, const struct batch *b)
{
    int32_t            kv_heads = s->heads / s->group, width = kv_heads * s->dim;
    struct phx_kv_desc d = {1, BLOCKS, s->block_tokens, kv_heads, s->dim, s->dtype};
    struct phx_kv     *kv = phx_kv_create(be, &d);

    expect_ok(be);
    for (int32_t i = 0; i < SEQS; i++) {
        int32_t          zero = 0;
        struct phx_spans old = {1, &zero, &before[i], &zero, b->table + i * TABLE, TABLE};

        phx_kv_write(be, kv, 0, phx_view(b->old_k + i * 96 * width, before[i], width),
                     phx_view(b->old_v + i * 96 * width, before[i], width), &old);
    }
    phx_kv_write(be, kv, 0, phx_view(b->k, ROWS, width), phx_view(b->v, ROWS, width), &b->spans);
    expect_ok(be);
    return kv;
}

static void attend(struct phx_backend *be, const struct shape *s, const struct batch *b,
                   const struct phx_kv *kv, const struct phx_spans *spans, float *out)
{
    int32_t                   width = s->heads * s->dim;
    struct phx_attention_args args = {.out = phx_view(out, ROWS, width), .q = phx_view(b->q, ROWS, width),
                                      .kv = kv, .n_heads = s->heads, .group = s->group,
                                      .window = s->window, .scale = 0.3f,
                                      .sinks = phx_view(b->sinks, 1, s->heads), .spans = spans};

    phx_attention(be, &args);
    expect_ok(be);
}

/* The head's output of one row in double precision; a bf16 cache rounds what it keeps. */
static void check_row(const struct shape *s, const struct batch *b, int32_t seq, int32_t i, int32_t head,
                      const float *out)
{
    int32_t width = s->heads / s->group * s->dim, at = head / s->group * s->dim;
    int32_t last = before[seq] + i, first = s->window > 0 && last - s->window + 1 > 0 ? last - s->window + 1 : 0;
    double  score[128], top = (double)b->sinks[head], sum, want;
    const float *q = b->q + (b->row[seq] + i) * s->heads * s->dim + head * s->dim;
    bool    is_bf16 = s->dtype == PHX_DTYPE_BF16;

    for (int32_t j = first; j <= last; j++) {
        const float *k = j < before[seq] ? b->old_k + (seq * 96 + j) * width + at
                                         : b->k + (b->row[seq] + j - before[seq]) * width + at;

        score[j] = 0;
        for (int32_t d = 0; d < s->dim; d++)
            score[j] += (double)q[d] * (double)(is_bf16 ? from_bf16(to_bf16(k[d])) : k[d]);
        score[j] *= (double)0.3f;
        top = score[j] > top ? score[j] : top;
    }
    sum = exp((double)b->sinks[head] - top);
    for (int32_t j = first; j <= last; j++)
        sum += exp(score[j] - top);
    for (int32_t d = 0; d < s->dim; d++) {
        want = 0;
        for (int32_t j = first; j <= last; j++) {
            const float *v = j < before[seq] ? b->old_v + (seq * 96 + j) * width + at
                                             : b->v + (b->row[seq] + j - before[seq]) * width + at;

            want += exp(score[j] - top) / sum * (double)(is_bf16 ? from_bf16(to_bf16(v[d])) : v[d]);
        }
        if (!(fabs((double)out[d] - want) < 1e-4 * (1 + fabs(want))))
            fail_msg("sequence %d row %d head %d: %g, exactly %g", seq, i, head, (double)out[d], want);
    }
}

/* One sequence and one row of it at a time, and what lies before the window taken from the table. */
static void attend_alone(struct phx_backend *be, const struct shape *s, struct batch *b,
                         const struct phx_kv *kv, float *out)
{
    for (int32_t i = 0; i < SEQS; i++)
        for (int32_t r = 0; r < n_new[i]; r++) {
            int32_t          row = b->row[i] + r, one = 1, pos = before[i] + r, table[TABLE];
            struct phx_spans spans = {1, &row, &one, &pos, table, TABLE};

            for (int32_t j = 0; j < TABLE; j++) {
                bool is_gone = s->window > 0 && (j + 1) * s->block_tokens - 1 < pos - s->window + 1;

                table[j] = is_gone ? -1 : b->table[i * TABLE + j];
            }
            attend(be, s, b, kv, &spans, out);
        }
}

static void rows_of_a_batch_equal_rows_alone(void **state)
{
    (void)state;
    seed_random(31);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *s = &shapes[i];
        size_t              bytes = (size_t)ROWS * (size_t)(s->heads * s->dim) * sizeof(float);
        float              *ref = take(1, bytes), *out = take(1, bytes);
        int                 cursor = 0;
        struct batch        b;
        struct phx_backend *be;

        make_batch(&b, s);
        while ((be = next_backend(&cursor)) != NULL) {
            struct phx_kv *kv = fill_cache(be, s, &b);

            attend(be, s, &b, kv, &b.spans, cursor == 1 ? ref : out);
            if (cursor == 1) /* the reference itself */
                for (int32_t q = 0; q < SEQS; q++)
                    for (int32_t r = 0; r < n_new[q]; r++)
                        for (int32_t h = 0; h < s->heads; h++)
                            check_row(s, &b, q, r, h, ref + ((b.row[q] + r) * s->heads + h) * s->dim);
            else if (memcmp(ref, out, bytes) != 0)
                fail_msg("shape %zu: %s differs from ref", i, backend_label(be));
            memset(out, 0xff, bytes);
            attend_alone(be, s, &b, kv, out);
            if (memcmp(ref, out, bytes) != 0)
                fail_msg("shape %zu: %s alone differs", i, backend_label(be));
            phx_kv_destroy(be, kv);
            phx_backend_close(be);
        }
        free_batch(&b);
        drop(ref);
        drop(out);
    }
}

/* What a block held before, or holds of a position out of sight, must not leak in: not even a NaN. */
static void what_is_out_of_sight_does_not_count(void **state)
{
    enum { N = 20, DIM = 16 };
    int                 cursor = 0;
    struct phx_backend *be;
    float               k[N * DIM], v[N * DIM], q[DIM], out[2][DIM];

    (void)state;
    seed_random(32);
    fill_random(q, DIM);
    while ((be = next_backend(&cursor)) != NULL) {
        struct phx_kv_desc d = {1, 2, 16, 1, DIM, PHX_DTYPE_F32};
        struct phx_kv     *kv = phx_kv_create(be, &d);
        int32_t            row = 0, n = N, pos = 0, table[2] = {0, 1}, one = 1, last = 17;
        struct phx_spans   all = {1, &row, &n, &pos, table, 2}, now = {1, &row, &one, &last, table, 2};

        for (int way = 0; way < 2; way++) {
            struct phx_attention_args args = {.out = phx_view(out[way], 1, DIM), .q = phx_view(q, 1, DIM),
                                              .kv = kv, .n_heads = 1, .group = 1, .window = 4,
                                              .scale = 1, .spans = &now};

            fill_random(k, N * DIM); /* the same visible rows 14 .. 17 in both ways */
            fill_random(v, N * DIM);
            seed_random(33);
            fill_random(k + 14 * DIM, 4 * DIM);
            fill_random(v + 14 * DIM, 4 * DIM);
            for (int i = 0; i < N * DIM && way == 1; i++)
                if (i < 14 * DIM || i >= 18 * DIM)
                    k[i] = v[i] = NAN;
            phx_kv_write(be, kv, 0, phx_view(k, N, DIM), phx_view(v, N, DIM), &all);
            phx_attention(be, &args);
            expect_ok(be);
        }
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        phx_kv_destroy(be, kv);
        phx_backend_close(be);
    }
}

const struct CMUnitTest batch_tests[] = {
    cmocka_unit_test(rows_of_a_batch_equal_rows_alone),
    cmocka_unit_test(what_is_out_of_sight_does_not_count),
};
const size_t n_batch_tests = sizeof(batch_tests) / sizeof(batch_tests[0]);
