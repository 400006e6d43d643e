/* SPDX-License-Identifier: Apache-2.0
 * What must not change a bit: how the text is cut into steps, who else is in the batch, which blocks of
 * the cache are used and how large they are, the instruction set and the number of threads. */
#include <setjmp.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/model/harness.h"

/* Runs fn for each golden case with the bits of the plainest run. */
static void each_case(void (*fn)(const struct golden *g, const float *want, const char *name))
{
    for (int32_t i = 0; i < CASES; i++) {
        struct golden            g = golden_load(case_names[i]);
        struct phx_ranks_options o = harness_options(&g, 1, 1);
        float                   *want = harness_text(&g, &o, g.T);
        fn(&g, want, case_names[i]);
        phx_mem_free(want);
        golden_free(&g);
    }
}

static void check(const struct golden *g, const struct phx_ranks_options *o, int32_t chunk,
                  const float *want, const char *what)
{
    float *got = harness_text(g, o, chunk);
    assert_same_bits(got, want, g->T, g->V, what);
    phx_mem_free(got);
}

static void chunk_case(const struct golden *g, const float *want, const char *name)
{
    static const int32_t chunks[] = {1, 3, 7, 16, 17};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        struct phx_ranks_options o = harness_options(g, 1, 1);
        char                     what[96];
        (void)snprintf(what, sizeof what, "%s in chunks of %d", name, chunks[i]);
        check(g, &o, chunks[i], want, what);
        o = harness_options(g, 2, 2);
        check(g, &o, chunks[i], want, what);
    }
}

static void chunks_change_no_bit(void **state)
{
    (void)state;
    each_case(chunk_case);
}

static void isa_case(const struct golden *g, const float *want, const char *name)
{
    static const char *const isas[] = {"ref", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        struct phx_backend_options options = {.isa = isas[i], .n_threads = 1};
        char                       why[200];
        struct phx_backend        *b = phx_backend_open("cpu", &options, why, sizeof why);
        if (b == NULL) { /* this machine cannot */
            print_message("%s: %s\n", isas[i], why);
            continue;
        }
        phx_backend_close(b);
        /* the faster modes split their work as the plain one does: one number of threads will do */
        bool is_plain = harness_compute == PHX_COMPUTE_F32 && !harness_is_int8;
        for (int32_t threads = is_plain ? 1 : 2; threads <= (is_plain ? 3 : 2); threads++) {
            struct phx_ranks_options o = harness_options(g, 1, 1);
            char                     what[96];
            (void)snprintf(what, sizeof what, "%s on %s, %d threads", name, isas[i], threads);
            o.isa = isas[i];
            o.n_threads = threads;
            check(g, &o, g->T, want, what);
            check(g, &o, 5, want, what);
        }
    }
}

static void instruction_sets_and_threads_change_no_bit(void **state)
{
    (void)state;
    each_case(isa_case);
}

/* The text and its reverse, one ahead of the other, decoding beside prefill. */
static void neighbour_case(const struct golden *g, const float *want, const char *name)
{
    struct phx_ranks_options o = harness_options(g, 1, 1);
    struct phx_err           err = {0};
    int32_t                  half = g->T / 2, n_blocks = o.n_blocks;
    int32_t *reverse = phx_mem_calloc((size_t)g->T, sizeof *reverse);
    int32_t *blocks = phx_mem_calloc((size_t)n_blocks * 2, sizeof *blocks);
    size_t   n = (size_t)g->T * (size_t)g->V;
    float   *a = phx_mem_calloc(n, sizeof *a), *b = phx_mem_calloc(n, sizeof *b);
    float   *alone = phx_mem_calloc(n, sizeof *alone);
    for (int32_t i = 0; i < g->T; i++)
        reverse[i] = g->tokens[g->T - 1 - i];
    for (int32_t i = 0; i < n_blocks; i++) { /* interleaved and backwards */
        blocks[i] = n_blocks - 1 - 2 * i;
        blocks[n_blocks + i] = n_blocks - 2 - 2 * i;
    }
    struct step_plan single[] = {{1, {0}, {g->T}}};
    struct plan      lonely = {.seqs = {{reverse, g->T, blocks, alone}}, .steps = single, .n_steps = 1};
    struct step_plan steps[] = {{1, {0}, {half}},
                                {2, {1, 0}, {g->T - 3, 1}},
                                {2, {0, 1}, {1, 1}},
                                {2, {0, 1}, {g->T - half - 2, 2}}};
    struct plan together = {.seqs = {{g->tokens, g->T, blocks, a},
                                     {reverse, g->T, blocks + n_blocks, b}},
                            .steps = steps, .n_steps = 4};
    if (harness_run(&o, &lonely, &err) != 0 || harness_run(&o, &together, &err) != 0)
        fail_msg("%s: %s", name, err.text);
    assert_same_bits(a, want, g->T, g->V, name);
    assert_same_bits(b, alone, g->T, g->V, name);
    o = harness_options(g, 4, 1);
    if (harness_run(&o, &together, &err) == 0) /* four ranks, where they divide */
        assert_same_bits(b, alone, g->T, g->V, name);
    phx_mem_free(reverse);
    phx_mem_free(blocks);
    phx_mem_free(a);
    phx_mem_free(b);
    phx_mem_free(alone);
}

static void batch_neighbours_and_block_order_change_no_bit(void **state)
{
    (void)state;
    each_case(neighbour_case);
}

/* A second sequence whose first block is the first one's. */
static void prefix_case(const struct golden *g, const float *want, const char *name)
{
    enum { BLOCK = 16 };
    struct phx_ranks_options o = harness_options(g, 1, 1);
    struct phx_err           err = {0};
    int32_t  first[] = {0, 1, 2, 3}, second[] = {0, 4, 5, 6};
    float   *logits = phx_mem_calloc((size_t)g->T * (size_t)g->V, sizeof *logits);
    struct step_plan steps[] = {{1, {0}, {g->T - 1}}, {2, {1, 0}, {g->T - BLOCK, 1}}};
    struct plan      plan = {.seqs = {{g->tokens, g->T, first, NULL, 0},
                                      {g->tokens, g->T, second, logits, BLOCK}},
                             .steps = steps, .n_steps = 2};
    o.block_tokens = BLOCK;
    if (harness_run(&o, &plan, &err) != 0)
        fail_msg("%s: %s", name, err.text);
    ptrdiff_t at = (ptrdiff_t)BLOCK * g->V;
    assert_same_bits(logits + at, want + at, g->T - BLOCK, g->V, name);
    phx_mem_free(logits);
}

static void a_shared_prefix_changes_no_bit(void **state)
{
    (void)state;
    each_case(prefix_case);
}

static void block_size_case(const struct golden *g, const float *want, const char *name)
{
    struct phx_ranks_options o = harness_options(g, 1, 1);
    o.block_tokens = 32;
    check(g, &o, 9, want, name);
}

static void blocks_of_32_positions_change_no_bit(void **state)
{
    (void)state;
    each_case(block_size_case);
}

/* Of all logits together: a mixture of tiny experts chooses another one now and then. */
static double mean_error(const float *a, const float *b, size_t n)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        error += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(error / size);
}

/* A narrower cache changes the logits a little, by the same bits in every layout. */
static void check_cache(const struct golden *g, const float *want, const char *name, enum phx_dtype dtype, double most)
{
    struct phx_ranks_options o = harness_options(g, 1, 1);
    o.kv_dtype = dtype;
    float *rounded = harness_text(g, &o, g->T);
    double error = mean_error(rounded, want, (size_t)g->T * (size_t)g->V);
    if (!(error > 0 && error < most))
        fail_msg("%s: the cache changes the logits by %g", name, error);
    check(g, &o, 5, rounded, name);
    o = harness_options(g, 2, 1);
    o.kv_dtype = dtype;
    check(g, &o, g->T, rounded, name);
    o = harness_options(g, 1, 2);
    o.kv_dtype = dtype;
    o.block_tokens = 32;
    check(g, &o, 3, rounded, name);
    phx_mem_free(rounded);
}

static void bf16_case(const struct golden *g, const float *want, const char *name)
{
    check_cache(g, want, name, PHX_DTYPE_BF16, 1e-2);
}

static void a_bf16_cache_is_close_and_just_as_invariant(void **state)
{
    (void)state;
    each_case(bf16_case);
}

static void int8_case(const struct golden *g, const float *want, const char *name)
{
    check_cache(g, want, name, PHX_DTYPE_I8, 0.2); /* experts change now and then */
}

static void an_int8_cache_is_close_and_just_as_invariant(void **state)
{
    (void)state;
    each_case(int8_case);
}

static void fp8_case(const struct golden *g, const float *want, const char *name)
{
    check_cache(g, want, name, PHX_DTYPE_F8_E4M3, 0.5); /* three bits of fraction */
}

static void an_fp8_cache_is_close_and_just_as_invariant(void **state)
{
    (void)state;
    each_case(fp8_case);
}

/* The same answer from every layout, and close to that of exact products. */
static void mode_case(const struct golden *g, const float *want, const char *name)
{
    struct phx_ranks_options o = harness_options(g, 1, 1);
    o.compute = PHX_COMPUTE_F32;
    o.is_int8 = false;
    float *exact = harness_text(g, &o, g->T);
    double error = mean_error(want, exact, (size_t)g->T * (size_t)g->V);
    print_message("%s: %s changes the logits by %.4f (root of mean squares)\n", name,
                  harness_is_int8 ? "int8" : "rounding", error);
    /* a mixture of tiny random experts changes its choice easily */
    if (!(error < (strncmp(name, "gpt-oss", 7) != 0 ? 0.05 : harness_is_int8 ? 0.5 : 0.1)))
        fail_msg("%s: the logits change by %g", name, error);
    for (int32_t tp = 1; tp <= 4; tp *= 2)
        for (int32_t pp = 1; pp <= 2; pp++) {
            char what[96];
            (void)snprintf(what, sizeof what, "%s at %dx%d", name, tp, pp);
            o = harness_options(g, tp, pp);
            check(g, &o, g->T, want, what);
        }
    phx_mem_free(exact);
}

static void a_faster_mode_is_close_and_just_as_invariant(void **state)
{
    (void)state;
    each_case(mode_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_change_no_bit),
        cmocka_unit_test(instruction_sets_and_threads_change_no_bit),
        cmocka_unit_test(batch_neighbours_and_block_order_change_no_bit),
        cmocka_unit_test(a_shared_prefix_changes_no_bit),
        cmocka_unit_test(blocks_of_32_positions_change_no_bit),
        cmocka_unit_test(a_bf16_cache_is_close_and_just_as_invariant),
        cmocka_unit_test(an_int8_cache_is_close_and_just_as_invariant),
        cmocka_unit_test(an_fp8_cache_is_close_and_just_as_invariant),
    };
    const struct CMUnitTest modes[] = {
        cmocka_unit_test(a_faster_mode_is_close_and_just_as_invariant),
        cmocka_unit_test(chunks_change_no_bit),
        cmocka_unit_test(instruction_sets_and_threads_change_no_bit),
        cmocka_unit_test(batch_neighbours_and_block_order_change_no_bit),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    harness_compute = PHX_COMPUTE_BF16;
    rc += cmocka_run_group_tests(modes, NULL, NULL);
    harness_is_int8 = true;
    return rc + cmocka_run_group_tests(modes, NULL, NULL);
}
