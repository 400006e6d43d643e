/* SPDX-License-Identifier: Apache-2.0
 * Attention on every kind of backend: near double precision, and the same bits for a row alone, in chunks of any
 * size, beside any neighbour, on a rank that has some of the heads, and however the device shares out the keys. */
#include <math.h>

#include "tests/ops/attention_rig.h"

static const struct shape shapes[] = {
    {150, 8, 1, 64, 16, 0, true, 0.125f, TILED},  {140, 4, 2, 64, 32, 70, true, 0.125f, TILED},
    {133, 6, 2, 128, 16, 0, false, 0.09f, TILED}, {97, 2, 2, 128, 32, 40, true, 0.09f, TILED},
    {90, 18, 1, 40, 16, 50, false, 0.16f, TILED}, {66, 34, 1, 16, 32, 0, true, 0.25f, TILED},
    {100, 3, 1, 80, 32, 1, false, 0.11f, TILED},  {70, 4, 4, 8, 16, 17, true, 0.4f, TILED},
    {70, 5, 1, 2, 32, 0, true, 1, TILED},         {60, 6, 2, 36, 16, 33, false, 0.2f, TILED},
    {40, 1, 1, 200, 16, 0, true, 0.05f, TILED},   {30, 2, 1, 512, 16, 0, false, 0.04f, TILED},
    {150, 8, 2, 64, 16, 0, true, 0.125f, EXACT},  {97, 6, 3, 24, 32, 33, true, 0.2f, EXACT},
    {33, 2, 1, 256, 16, 7, false, 0.06f, EXACT},  {70, 4, 2, 64, 16, 0, true, 0.125f, MIXED},
    {70, 4, 2, 64, 32, 20, false, 0.125f, NARROW},
    {150, 8, 1, 64, 16, 0, true, 0.125f, BYTES},  {133, 6, 2, 128, 32, 40, true, 0.09f, BYTES},
    {90, 18, 1, 48, 16, 50, false, 0.16f, BYTES}, {66, 34, 1, 16, 32, 0, true, 0.25f, BYTES},
    {100, 3, 1, 80, 32, 1, false, 0.11f, BYTES},  {60, 6, 2, 40, 16, 33, false, 0.2f, BYTES},
    {70, 4, 2, 64, 32, 20, true, 0.125f, BYTES_F32}, {33, 2, 1, 512, 16, 0, false, 0.04f, BYTES_F32},
    {150, 8, 1, 64, 16, 0, true, 0.125f, F8},     {133, 6, 2, 128, 32, 40, true, 0.09f, F8},
    {90, 18, 1, 48, 16, 50, false, 0.16f, F8},    {60, 6, 2, 40, 16, 33, false, 0.2f, F8},
    {70, 4, 2, 64, 32, 20, true, 0.125f, F8_F32}};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

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

/* Who sees one value alone gets it as the cache has it: bytes and scale, to the bit, on every backend. */
static void caches_of_bytes_have_equal_bits(void **state)
{
    static const struct shape alone[] = {{40, 2, 2, 64, 16, 1, false, 0.125f, BYTES_F32},
                                         {33, 3, 3, 512, 32, 1, false, 0.125f, BYTES_F32},
                                         {33, 5, 5, 6, 32, 1, false, 0.125f, BYTES_F32},
                                         {40, 2, 2, 64, 16, 1, false, 0.125f, F8_F32},
                                         {33, 3, 3, 512, 32, 1, false, 0.125f, F8_F32},
                                         {33, 5, 5, 6, 32, 1, false, 0.125f, F8_F32}};

    (void)state;
    seed_random(65);
    for (size_t i = 0; i < sizeof(alone) / sizeof(alone[0]); i++) {
        const struct shape *s = &alone[i];
        const struct piece  whole[] = {{0, 0, s->length}};
        float              *got[1] = {take_out(s)};
        struct input        in;
        struct rig          r;
        int                 cursor = 0, width = s->heads * s->dim;

        make_input(&in, s);
        for (int32_t d = 0; d < width; d++) {
            in.v[0][d] = 0;
            in.v[0][width + d] = 0x1p-102f;
            in.v[0][2 * width + d] *= 0x1p-100f;
            in.v[0][3 * width + d] *= 0x1p100f;
        }
        in.v[0][4 * width + 1] = NAN;
        in.v[0][5 * width + width - 1] = -INFINITY;
        keep_rows(in.kept_v[0], in.v[0], s);
        while (next_rig(&r, &cursor, s->compute)) {
            struct phx_kv *kv = fill_cache(&r, s, &in, all_of(s));

            attend(&r, kv, s, &in, all_of(s), whole, 1, got);
            for (int32_t j = 0; j < s->length * width; j++)
                if (!(got[0][j] == in.kept_v[0][j] || (isnan(got[0][j]) && isnan(in.kept_v[0][j]))))
                    fail_msg("%s: %d of row %d is %a, not %a", phx_backend_name(r.b), j % width, j / width,
                             (double)got[0][j], (double)in.kept_v[0][j]);
            phx_kv_destroy(r.b, kv);
            close_rig(&r);
        }
        drop(got[0]);
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

        if (s->compute != PHX_COMPUTE_BF16 || s->dtype == PHX_DTYPE_F32)
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
                                         {1100, 8, 1, 64, 16, 0, true, 0.125f, BYTES},
                                         {1100, 2, 1, 128, 32, 700, false, 0.09f, BYTES},
                                         {1100, 8, 1, 64, 16, 0, true, 0.125f, F8},
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
    cmocka_unit_test(caches_of_bytes_have_equal_bits),
    cmocka_unit_test(wild_values_stay_where_they_are_seen),
    cmocka_unit_test(long_sequences_have_one_result),
};
const size_t n_device_attention_tests = sizeof(device_attention_tests) / sizeof(device_attention_tests[0]);
