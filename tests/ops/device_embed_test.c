/* SPDX-License-Identifier: Apache-2.0
 * Rows of tables of every stored dtype: exact, so every backend gives the CPU's bits. */
#include <math.h>

#include "tests/ops/rig.h"

enum { N = 37, T = 29, FIRST = 100 };

/* Odd k, several slices, k behind a whole number of blocks. */
static const struct phx_weight_desc tables[] = {
    {PHX_DTYPE_F32, N, 45, 1, 1, {45}},          {PHX_DTYPE_F32, N, 130, 1, 3, {33, 33, 130}},
    {PHX_DTYPE_BF16, N, 151, 1, 1, {151}},       {PHX_DTYPE_BF16, N, 96, 1, 4, {5, 40, 41, 96}},
    {PHX_DTYPE_F16, N, 67, 1, 2, {31, 67}},      {PHX_DTYPE_MXFP4, N, 160, 1, 1, {160}},
    {PHX_DTYPE_MXFP4, N, 2880, 1, 3, {32, 32, 2880}}, {PHX_DTYPE_I8, N, 300, 1, 1, {300}},
    {PHX_DTYPE_I8, N, 1100, 1, 3, {257, 600, 1100}},
};
enum { N_TABLES = sizeof(tables) / sizeof(tables[0]) };

struct source {
    unsigned char *data;
    uint8_t       *scale;
};

static struct source make_source(const struct phx_weight_desc *d)
{
    size_t        n = (size_t)d->n * (size_t)d->k;
    struct source s = {take(n, 4), take(n / PHX_MX_BLOCK + 1, 1)};

    for (size_t i = 0; i < n; i++) {
        float    f = random_float();
        uint16_t h = d->dtype == PHX_DTYPE_F16 ? (uint16_t)random_u32() : to_bf16(f);

        if (d->dtype == PHX_DTYPE_F32 || d->dtype == PHX_DTYPE_I8) /* quantised from floats */
            memcpy(s.data + 4 * i, &f, 4);
        else
            memcpy(s.data + 2 * i, &h, 2); /* MXFP4: any bits are nibbles */
    }
    for (size_t i = 0; i < n / PHX_MX_BLOCK; i++)
        s.scale[i] = i % 7 == 0 ? (uint8_t)(i % 256) : (uint8_t)(100 + random_u32() % 50);
    return s;
}

static struct phx_weight *pack(struct rig *r, const struct phx_weight_desc *d, const struct source *from)
{
    bool                     is_mx = d->dtype == PHX_DTYPE_MXFP4, is_float = d->dtype == PHX_DTYPE_F32 || d->dtype == PHX_DTYPE_I8;
    struct phx_weight       *w = phx_weight_create(r->b, d);
    struct phx_weight_source s = {.dtype = d->dtype == PHX_DTYPE_I8 ? PHX_DTYPE_F32 : d->dtype, .k_stride = is_float ? 4 : 2,
                                  .scale_row_stride = d->k / PHX_MX_BLOCK};

    assert_non_null(w);
    s.row_stride = is_mx ? d->k / 2 : d->k * s.k_stride;
    for (int32_t row = 0; row < d->n; row += s.n_rows) { /* in two pieces */
        s.first_row = row;
        s.n_rows = row == 0 ? 11 : d->n - row;
        s.data = from->data + row * s.row_stride;
        s.scale = is_mx ? from->scale + row * s.scale_row_stride : NULL;
        phx_weight_pack(r->b, w, &s);
    }
    return w;
}

/* Rows inside the table, at its ends and outside. */
static void embed(struct rig *r, const struct phx_weight_desc *d, const struct phx_weight *w, float *out)
{
    struct phx_tensor t = phx_view(rig_blank(r, (size_t)T * (size_t)(d->k + 3) * sizeof(float)), T, d->k);
    int32_t           ids[T];

    for (int32_t i = 0; i < T; i++)
        ids[i] = i == 0 ? FIRST - 1 : i == 1 ? FIRST + N : i == 2 ? INT32_MIN : i == 3 ? FIRST + N - 1 : FIRST + i * 7 % N;
    t.stride0 = d->k + 3;
    phx_embed(r->b, t, ids, w, FIRST);
    memset(ids, 0, sizeof(ids)); /* they are ours again */
    for (int32_t i = 0; i < T; i++)
        rig_get(r, out + (size_t)i * (size_t)d->k, (float *)t.data + i * t.stride0, (size_t)d->k * sizeof(float));
}

static void tables_of_every_kind_give_the_same_rows(void **state)
{
    (void)state;
    seed_random(61);
    for (int i = 0; i < N_TABLES; i++) {
        const struct phx_weight_desc *d = &tables[i];
        struct source                 from = make_source(d);
        size_t                        n = (size_t)T * (size_t)d->k;
        float                        *ref = take(n, sizeof(float)), *out = take(n, sizeof(float));
        bool                          has_ref = false;
        struct rig                    r;

        for (int cursor = 0; next_rig(&r, &cursor, PHX_COMPUTE_BF16); close_rig(&r)) {
            struct phx_weight *w = pack(&r, d, &from);

            embed(&r, d, w, has_ref ? out : ref);
            phx_weight_destroy(r.b, w);
            for (int32_t k = 0; k < 3 * d->k && !has_ref; k++)
                assert_true(ref[k] == 0.0f);
            for (size_t j = 0; j < n && has_ref; j++)
                if (memcmp(&ref[j], &out[j], sizeof(float)) != 0 && !(isnan(ref[j]) && isnan(out[j])) &&
                    !(d->dtype == PHX_DTYPE_MXFP4 && !isfinite(ref[j]) && !isfinite(out[j]))) /* of scale 255 */
                    fail_msg("table %d on %s: [%zu, %zu] is %a, on the first %a", i, phx_backend_name(r.b), j / (size_t)d->k,
                             j % (size_t)d->k, (double)out[j], (double)ref[j]);
            has_ref = true;
        }
        drop(from.data);
        drop(from.scale);
        drop(ref);
        drop(out);
    }
}

const struct CMUnitTest device_embed_tests[] = {
    cmocka_unit_test(tables_of_every_kind_give_the_same_rows),
};
const size_t n_device_embed_tests = sizeof(device_embed_tests) / sizeof(device_embed_tests[0]);
