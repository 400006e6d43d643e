/* SPDX-License-Identifier: Apache-2.0
 * The logits of every golden checkpoint against the reference implementation, and in every layout
 * against the single rank, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/model/harness.h"

static int32_t best_id(const float *row, int32_t V)
{
    int32_t best = 0;
    for (int32_t v = 1; v < V; v++)
        best = row[v] > row[best] ? v : best;
    return best;
}

static void logits_agree_with_the_reference(void **state)
{
    (void)state;
    for (int32_t i = 0; i < CASES; i++) {
        struct golden            g = golden_load(case_names[i]);
        struct phx_ranks_options o = harness_options(&g, 1, 1);
        float                   *logits = harness_text(&g, &o, g.T);
        double error = relative_error(logits, g.logits, (size_t)g.T * (size_t)g.V);
        print_message("%-26s relative error %.2e\n", case_names[i], error);
        if (!(error < 1e-4))
            fail_msg("%s: relative error %g", case_names[i], error);
        for (int32_t t = 0; t < g.T; t++)
            assert_int_equal(best_id(logits + (ptrdiff_t)t * g.V, g.V),
                             best_id(g.logits + (ptrdiff_t)t * g.V, g.V));
        phx_mem_free(logits);
        golden_free(&g);
    }
}

static void every_layout_gives_the_same_bits(void **state)
{
    static const int32_t sizes[] = {1, 2, 4, 8};
    int32_t              n_layouts = 0;
    (void)state;
    for (int32_t i = 0; i < CASES; i++) {
        struct golden            g = golden_load(case_names[i]);
        struct phx_ranks_options one = harness_options(&g, 1, 1);
        float                   *want = harness_text(&g, &one, g.T);
        for (int32_t j = 1; j < 16; j++) {
            struct phx_ranks_options o = harness_options(&g, sizes[j / 4], sizes[j % 4]);
            struct plan              nothing = {.n_steps = 0};
            struct phx_err           err = {0};
            char                     what[128];
            if (o.tp * o.pp > 16)
                continue;
            if (harness_run(&o, &nothing, &err) == PHX_E_INVALID)
                continue; /* does not divide: the partition says so by name */
            (void)snprintf(what, sizeof what, "%s at tp %d, pp %d", case_names[i], o.tp, o.pp);
            float *got = harness_text(&g, &o, g.T);
            assert_same_bits(got, want, g.T, g.V, what);
            phx_mem_free(got);
            n_layouts++;
        }
        phx_mem_free(want);
        golden_free(&g);
    }
    print_message("%d layouts\n", n_layouts);
    assert_true(n_layouts >= 50);
}

static int count_memory(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct phx_model_memory m;
    const char             *name = ctx;
    uint64_t kv = rank->part->kv_bytes_per_block * (uint64_t)rank->options->n_blocks;
    phx_model_memory(rank->model, &m);
    if (m.weights_bytes != rank->part->weights_bytes || m.kv_bytes != kv ||
        m.scratch_bytes != rank->part->scratch_bytes)
        return phx_fail(err, PHX_E_STATE,
                        "%s, rank %d: %llu + %llu + %llu planned, %llu + %llu + %llu used", name,
                        rank->part->rank, (unsigned long long)rank->part->weights_bytes,
                        (unsigned long long)kv, (unsigned long long)rank->part->scratch_bytes,
                        (unsigned long long)m.weights_bytes, (unsigned long long)m.kv_bytes,
                        (unsigned long long)m.scratch_bytes);
    return 0;
}

static void the_partition_counts_what_is_allocated(void **state)
{
    (void)state;
    for (int32_t i = 0; i < CASES; i++)
        for (int32_t j = 0; j < 8; j++) {
            struct golden            g = golden_load(case_names[i]);
            struct phx_ranks_options o = harness_options(&g, 1 + j % 2, 1 + j / 2 % 2);
            o.is_int8 = j >= 4;
            struct phx_err           err = {0};
            if (phx_ranks_run(&o, count_memory, (void *)(uintptr_t)case_names[i], &err) != 0)
                fail_msg("%s", err.text);
            golden_free(&g);
        }
}

struct progress {
    uint64_t done, total, n_calls, before_last; /* before_last: what was done one call earlier */
};

static void note_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;
    assert_true(done >= p->done && done <= total && total > 0);
    assert_true(p->n_calls == 0 || total == p->total);
    *p = (struct progress){done, total, p->n_calls + 1, p->done};
}

static int do_nothing(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    (void)rank;
    (void)ctx;
    (void)err;
    return 0;
}

/* Whatever the weights become, their bytes in the checkpoint are what is counted. */
static void loading_ends_at_what_it_announced(void **state)
{
    (void)state;
    for (int32_t i = 0; i < CASES; i++)
        for (int32_t j = 0; j < 8; j++) {
            struct golden            g = golden_load(case_names[i]);
            struct phx_ranks_options o = harness_options(&g, 1 + j % 2, 1 + j / 2 % 2);
            struct progress          p = {0};
            struct phx_err           err = {0};
            o.is_int8 = j >= 4;
            o.progress = note_progress;
            o.progress_ctx = &p;
            if (phx_ranks_run(&o, do_nothing, NULL, &err) != 0)
                fail_msg("%s", err.text);
            assert_true(p.n_calls > 2);
            assert_int_equal(p.done, p.total);
            assert_int_equal(p.before_last, p.total); /* the call at the end adds nothing */
            golden_free(&g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_agree_with_the_reference),
        cmocka_unit_test(the_partition_counts_what_is_allocated),
        cmocka_unit_test(loading_ends_at_what_it_announced),
        cmocka_unit_test(every_layout_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
