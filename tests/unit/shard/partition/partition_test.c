/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shard/partition/partition.h"

static struct phx_part parts[PHX_RANKS_MAX];
static struct phx_err  err;

static struct phx_model_config model(int32_t L, int32_t D, int32_t H, int32_t K, int32_t Dh, int32_t F,
                                     int32_t V, int32_t E)
{
    struct phx_model_config c = {.arch = E > 0 ? PHX_ARCH_GPT_OSS : PHX_ARCH_LLAMA,
                                 .n_layers = L, .dim = D, .n_heads = H, .n_kv_heads = K,
                                 .head_dim = Dh, .ffn_dim = F, .vocab_size = V, .n_experts = E,
                                 .experts_per_token = E > 0 ? 2 : 0, .max_position = 4096,
                                 .has_attn_bias = E > 0, .has_mlp_bias = E > 0, .has_sinks = E > 0,
                                 .dtype = PHX_DTYPE_BF16,
                                 .expert_dtype = E > 0 ? PHX_DTYPE_MXFP4 : PHX_DTYPE_NONE};

    return c;
}

#define OSS_20B model(24, 2880, 64, 8, 64, 2880, 201088, 32)
#define OSS_120B model(36, 2880, 64, 8, 64, 2880, 201088, 128)
#define LLAMA_8B model(32, 4096, 32, 8, 128, 14336, 128256, 0)
#define LLAMA_1B model(16, 2048, 32, 8, 64, 8192, 128256, 0)

static int cut(const struct phx_model_config *c, int32_t tp, int32_t pp,
               const struct phx_rank_resource *resources)
{
    struct phx_partition_request q = {.config = c, .tp = tp, .pp = pp, .resources = resources,
                                      .block_tokens = 16, .kv_dtype = PHX_DTYPE_F32,
                                      .max_step_rows = 64, .max_seqs = 16, .max_context = 1024};

    err.text[0] = '\0';
    return phx_partition(&q, parts, &err);
}

static int32_t size_of(struct phx_range r)
{
    return r.end - r.first;
}

/* The ranges of a group follow each other from 0 to n and none is empty. */
static void check_tiling(const struct phx_part *group, int32_t tp, size_t offset, int32_t n)
{
    int32_t at = 0;

    for (int32_t i = 0; i < tp; i++) {
        struct phx_range r;

        memcpy(&r, (const char *)&group[i] + offset, sizeof(r));
        assert_int_equal(r.first, at);
        assert_true(r.end > r.first);
        at = r.end;
    }
    assert_int_equal(at, n);
}

static void check_slices(const struct phx_model_config *c, const struct phx_part *p)
{
    int32_t attn = 0, ffn = 0;

    assert_int_equal(p->is_layout_invariant, 8 % p->tp_size == 0);
    assert_int_equal(p->n_slices, p->is_layout_invariant ? 8 / p->tp_size : 1);
    for (int32_t i = 0; i < p->n_slices; i++) {
        assert_true(p->attn_slice_end[i] >= attn && p->ffn_slice_end[i] >= ffn);
        attn = p->attn_slice_end[i];
        ffn = p->ffn_slice_end[i];
        if (c->expert_dtype == PHX_DTYPE_MXFP4)
            assert_int_equal(ffn % 32, 0);
        if (c->n_heads % 8 == 0 && p->is_layout_invariant)
            assert_int_equal(attn % c->head_dim, 0);
    }
    assert_int_equal(attn, size_of(p->heads) * c->head_dim);
    assert_int_equal(ffn, size_of(p->ffn));
}

static void check_parts(const struct phx_model_config *c, int32_t tp, int32_t pp)
{
    int32_t group = c->n_heads / c->n_kv_heads, layer = 0;

    for (int32_t s = 0; s < pp; s++) {
        const struct phx_part *g = &parts[s * tp];

        check_tiling(g, tp, offsetof(struct phx_part, heads), c->n_heads);
        check_tiling(g, tp, offsetof(struct phx_part, ffn), c->ffn_dim);
        check_tiling(g, tp, offsetof(struct phx_part, vocab), c->vocab_size);
        assert_int_equal(g->layers.first, layer);
        assert_true(g->layers.end > layer);
        layer = g->layers.end;
        for (int32_t i = 0; i < tp; i++) {
            const struct phx_part *p = &g[i];

            assert_int_equal(p->rank, s * tp + i);
            assert_int_equal(p->pp, s);
            assert_int_equal(p->tp, i);
            assert_memory_equal(&p->layers, &g->layers, sizeof(p->layers));
            assert_int_equal(p->kv_heads.first, p->heads.first / group);
            assert_int_equal(p->kv_heads.end, (p->heads.end - 1) / group + 1);
            assert_int_equal(p->has_head, s == pp - 1);
            assert_int_equal(p->has_embedding, s == 0 || (c->is_tied && s == pp - 1));
            assert_true(p->weights_bytes > 0 && p->scratch_bytes > 0);
            assert_int_equal(p->kv_bytes_per_block, 2LL * size_of(p->layers) * 16 *
                                                        size_of(p->kv_heads) * c->head_dim * 4);
            check_slices(c, p);
        }
    }
    assert_int_equal(layer, c->n_layers);
}

static void test_everything_is_owned_once_at_every_size(void **state)
{
    struct phx_model_config models[] = {OSS_20B, OSS_120B, LLAMA_8B, LLAMA_1B,
                                        model(4, 64, 8, 2, 16, 256, 288, 8),
                                        model(5, 48, 8, 1, 24, 172, 129, 0),
                                        model(3, 40, 12, 4, 10, 345, 1000, 0),
                                        model(80, 8192, 64, 8, 128, 28672, 32000, 0)};
    int32_t n_cut = 0;

    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        models[m].is_tied = m % 2 == 1;
        for (int32_t tp = 1; tp <= PHX_TP_MAX; tp++)
            for (int32_t pp = 1; pp <= models[m].n_layers && tp * pp <= PHX_RANKS_MAX;
                 pp += pp < 5 ? 1 : 7) {
                int rc = cut(&models[m], tp, pp, NULL);

                if (models[m].n_heads % tp != 0) {
                    assert_int_equal(rc, PHX_E_INVALID);
                    continue;
                }
                if (rc != 0) { /* only where pieces of the ffn run out */
                    assert_int_equal(rc, PHX_E_INVALID);
                    assert_non_null(strstr(err.text, "leaves a rank without ffn columns"));
                    continue;
                }
                check_parts(&models[m], tp, pp);
                n_cut++;
            }
    }
    assert_true(n_cut > 200);
}

/* Every layout whose tp divides 8 has the same borders between slices. */
static void test_slices_do_not_move_with_tp(void **state)
{
    struct phx_model_config models[] = {OSS_20B, LLAMA_8B, model(4, 64, 8, 2, 16, 256, 288, 8),
                                        model(2, 32, 4, 4, 8, 128, 131, 4),
                                        model(2, 32, 8, 1, 24, 172, 129, 0)};

    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        const struct phx_model_config *c = &models[m];
        int32_t                        attn[8], ffn[8];

        assert_int_equal(cut(c, 1, 1, NULL), 0);
        memcpy(attn, parts[0].attn_slice_end, sizeof(attn));
        memcpy(ffn, parts[0].ffn_slice_end, sizeof(ffn));
        for (int32_t tp = 2; tp <= 8; tp *= 2) {
            if (cut(c, tp, 1, NULL) != 0)
                continue;
            for (int32_t i = 0; i < tp; i++)
                for (int32_t s = 0; s < 8 / tp; s++) {
                    assert_int_equal(parts[i].heads.first * c->head_dim + parts[i].attn_slice_end[s],
                                     attn[i * 8 / tp + s]);
                    assert_int_equal(parts[i].ffn.first + parts[i].ffn_slice_end[s],
                                     ffn[i * 8 / tp + s]);
                }
        }
    }
}

static void test_gpt_oss_blocks_are_cut_unevenly(void **state)
{
    static const int32_t ends[8] = {11, 22, 33, 45, 56, 67, 78, 90}; /* blocks of 2880 / 32 */
    struct phx_model_config c = OSS_20B;

    (void)state;
    assert_int_equal(cut(&c, 8, 1, NULL), 0);
    for (int32_t i = 0; i < 8; i++)
        assert_int_equal(parts[i].ffn.end, ends[i] * 32);
    assert_int_equal(cut(&c, 4, 1, NULL), 0);
    assert_int_equal(size_of(parts[0].ffn), 22 * 32);
    assert_int_equal(size_of(parts[1].ffn), 23 * 32);
    assert_int_equal(cut(&c, 16, 1, NULL), 0); /* more ranks than kv heads: two read each */
    assert_int_equal(parts[1].kv_heads.first, 0);
    assert_int_equal(size_of(parts[1].kv_heads), 1);
    assert_int_equal(parts[2].kv_heads.first, 1);
    assert_int_equal(parts[0].is_layout_invariant, 0);
}

static void test_the_head_weighs_layers(void **state)
{
    struct phx_model_config c = OSS_20B;

    (void)state;
    /* per token a layer reads about 106 MB, the head 1158 MB: eleven layers */
    c.experts_per_token = 4;
    assert_int_equal(cut(&c, 1, 2, NULL), 0);
    assert_int_equal(parts[0].layers.end, 17);
    c = LLAMA_8B;
    assert_int_equal(cut(&c, 1, 4, NULL), 0);
    assert_true(size_of(parts[3].layers) < size_of(parts[0].layers));
    assert_true(size_of(parts[0].layers) - size_of(parts[2].layers) <= 1);
    assert_int_equal(cut(&c, 1, 32, NULL), 0);
    for (int32_t i = 0; i < 32; i++)
        assert_int_equal(size_of(parts[i].layers), 1);
}

static void test_speed_and_memory_move_layers(void **state)
{
    struct phx_model_config  c = LLAMA_8B;
    struct phx_rank_resource r[4] = {{0, 1}, {0, 2}, {0, 1}, {0, 1}};
    uint64_t                 all;

    (void)state;
    assert_int_equal(cut(&c, 1, 4, r), 0);
    assert_true(size_of(parts[1].layers) >= 2 * size_of(parts[0].layers) - 1);
    assert_int_equal(cut(&c, 1, 1, NULL), 0);
    all = parts[0].weights_bytes;
    r[1] = (struct phx_rank_resource){all / 8, 1}; /* half of an even share */
    assert_int_equal(cut(&c, 1, 4, r), 0);
    check_parts(&c, 1, 4);
    assert_true(parts[1].weights_bytes + parts[1].scratch_bytes + parts[1].kv_bytes_per_block <= all / 8);
    assert_true(size_of(parts[1].layers) < size_of(parts[0].layers));
}

static void test_too_little_memory_names_the_rank(void **state)
{
    struct phx_model_config  c = LLAMA_8B;
    struct phx_rank_resource r[4] = {{0, 0}, {0, 0}, {1000000, 0}, {0, 0}};

    (void)state;
    assert_int_equal(cut(&c, 1, 4, r), PHX_E_NOMEM);
    assert_non_null(strstr(err.text, "rank 2"));
    assert_non_null(strstr(err.text, "more than it has"));
    for (int32_t i = 0; i < 4; i++)
        r[i].memory_bytes = UINT64_C(3000000000); /* 12 GB for 16 */
    assert_int_equal(cut(&c, 1, 4, r), PHX_E_NOMEM);
    assert_non_null(strstr(err.text, "rank "));
}

static void test_bytes_do_not_depend_on_the_cut(void **state)
{
    struct phx_model_config c = LLAMA_8B;
    uint64_t                whole, sum;

    (void)state;
    assert_int_equal(cut(&c, 1, 1, NULL), 0);
    whole = parts[0].weights_bytes;
    /* all shapes are multiples of the packing: what is stored is what is packed, norms in float32 */
    assert_int_equal(whole, 16060522496 + UINT64_C(65 * 4096) * 2);
    for (int32_t tp = 2; tp <= 8; tp *= 2) {
        assert_int_equal(cut(&c, tp, 4, NULL), 0);
        sum = 0;
        for (int32_t i = 0; i < 4 * tp; i++)
            sum += parts[i].weights_bytes;
        assert_int_equal(sum, whole + (uint64_t)(tp - 1) * 65 * 4096 * 4); /* norms are replicated */
    }
    /* a tied table is held once where both ends meet */
    c = LLAMA_1B;
    assert_int_equal(cut(&c, 1, 1, NULL), 0);
    whole = parts[0].weights_bytes;
    c.is_tied = true;
    assert_int_equal(cut(&c, 1, 1, NULL), 0);
    assert_int_equal(whole - parts[0].weights_bytes, UINT64_C(128256) * 2048 * 2);
}

static void test_bad_requests_name_what_would_fit(void **state)
{
    struct phx_model_config c = LLAMA_8B;

    (void)state;
    assert_int_equal(cut(&c, 5, 1, NULL), PHX_E_INVALID);
    assert_string_equal(err.text, "tp 5 does not divide the 32 query heads; nearest: 4, 8");
    assert_int_equal(cut(&c, 64, 1, NULL), PHX_E_INVALID);
    assert_string_equal(err.text, "tp 64 does not divide the 32 query heads; nearest: 32");
    assert_int_equal(cut(&c, 0, 1, NULL), PHX_E_INVALID);
    assert_int_equal(cut(&c, 65, 1, NULL), PHX_E_INVALID);
    assert_int_equal(cut(&c, 1, 33, NULL), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "32"));
    c = model(4, 64, 8, 2, 16, 128, 288, 8); /* four blocks */
    assert_int_equal(cut(&c, 4, 1, NULL), 0);
    assert_int_equal(cut(&c, 8, 1, NULL), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "at most tp 4"));
    c.ffn_dim = 100;
    assert_int_equal(cut(&c, 1, 1, NULL), PHX_E_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_owned_once_at_every_size),
        cmocka_unit_test(test_slices_do_not_move_with_tp),
        cmocka_unit_test(test_gpt_oss_blocks_are_cut_unevenly),
        cmocka_unit_test(test_the_head_weighs_layers),
        cmocka_unit_test(test_speed_and_memory_move_layers),
        cmocka_unit_test(test_too_little_memory_names_the_rank),
        cmocka_unit_test(test_bytes_do_not_depend_on_the_cut),
        cmocka_unit_test(test_bad_requests_name_what_would_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
