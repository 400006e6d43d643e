/* SPDX-License-Identifier: Apache-2.0
 * A step that fails on one rank is dropped by its stage and by all later ones, nobody hangs, and the
 * next step is exact again.  A batch that no rank could run is refused by all of them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/model/harness.h"

enum { TP = 2, PP = 3, STEPS = 4, FAILED_STEP = 1 };

/* Makes one rank's backend fail in the middle of a step, and notes what every rank answered. */
struct sabotage {
    int32_t             rank;
    struct phx_backend *backend;
    int                 ops_left;
    int                 code[TP * PP][STEPS];
};

static void break_backend(void *ctx, const char *op, struct phx_tensor out)
{
    struct sabotage *s = ctx;
    (void)op;
    (void)out;
    if (s->ops_left-- != 0)
        return;
    float one[1] = {0}, two[2] = {0};
    phx_add(s->backend, phx_view(one, 1, 1), phx_view(two, 1, 2)); /* shapes differ: sticks */
}

static void before(struct phx_rank *rank, int32_t step, void *ctx)
{
    struct sabotage *s = ctx;
    if (rank->part->rank != s->rank)
        return;
    s->backend = rank->backend;
    s->ops_left = 5;
    phx_backend_set_trace(rank->backend, step == FAILED_STEP ? break_backend : NULL, s);
}

static void after(struct phx_rank *rank, int32_t step, int code, void *ctx)
{
    struct sabotage *s = ctx;
    s->code[rank->part->rank][step] = code;
}

static void fail_rank(const struct golden *g, const float *want, int32_t rank)
{
    struct phx_ranks_options o = harness_options(g, TP, PP);
    struct phx_err           err = {0};
    struct sabotage          s = {.rank = rank};
    int32_t                  blocks[] = {3, 1, 2, 0};
    float *logits = phx_mem_calloc((size_t)g->T * (size_t)g->V, sizeof *logits);
    /* the failed step is sent once more, as the scheduler would after dropping it */
    struct step_plan steps[STEPS] = {
        {1, {0}, {9}}, {1, {0}, {7}}, {1, {0}, {7}}, {1, {0}, {g->T - 16}}};
    struct plan      plan = {.seqs = {{g->tokens, g->T, blocks, logits, 0}}, .steps = steps,
                             .n_steps = STEPS, .dropped = FAILED_STEP + 1, .before = before,
                             .after = after, .ctx = &s};
    int code = harness_run(&o, &plan, &err);
    assert_int_equal(code, PHX_E_INTERNAL);
    for (int32_t r = 0; r < TP * PP; r++)
        for (int32_t i = 0; i < STEPS; i++) {
            int expected = i == FAILED_STEP && r / TP >= rank / TP ? PHX_E_INTERNAL : 0;
            if (s.code[r][i] != expected)
                fail_msg("rank %d broke: rank %d answers step %d with %d", rank, r, i, s.code[r][i]);
        }
    assert_same_bits(logits, want, g->T, g->V, "after a failed step");
    phx_mem_free(logits);
}

static void a_failed_rank_drops_the_step_for_all_and_nobody_hangs(void **state)
{
    (void)state;
    const char *const names[] = {"gpt-oss-window-f32", "llama-mha-f32"};
    for (int32_t i = 0; i < 2; i++) {
        struct golden            g = golden_load(names[i]);
        struct phx_ranks_options o = harness_options(&g, 1, 1);
        float                   *want = harness_text(&g, &o, g.T);
        for (int32_t rank = 0; rank < TP * PP; rank++)
            fail_rank(&g, want, rank);
        phx_mem_free(want);
        golden_free(&g);
    }
}

/* ---- refused batches ------------------------------------------------------------------------ */

struct bad_batch {
    const char      *why; /* a word of the message */
    struct phx_batch batch;
};

static int32_t zero = 0, one = 1, two = 2, far = 1 << 20, minus = -1, rows3[] = {0, 2, 1};
static int32_t tokens[] = {5, 6, 7}, big[] = {5, 1 << 20, 7}, table[] = {0, 1, 2, 3}, holed[] = {-1, 0};
static int32_t outside[] = {0, 1 << 20}, three = 3, top = 39;

static int try_bad(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    const struct bad_batch *bad = ctx;
    float *logits = phx_mem_calloc(3 * (size_t)rank->config->vocab_size, sizeof *logits);
    int    code = phx_model_step(rank->model, &bad->batch,
                                 phx_view(logits, bad->batch.n_logits, rank->config->vocab_size), err);
    phx_mem_free(logits);
    return code;
}

static void a_batch_that_cannot_run_is_refused_by_every_rank(void **state)
{
    const struct phx_spans good = {1, &zero, &three, &zero, table, 4};
    struct phx_spans       s[8] = {good, good, good, good, good, good, good, good};
    s[1].n_seqs = 0;
    s[2].n_rows = &two;
    s[3].pos = &far;
    s[4].table = outside;
    s[4].pos = &top; /* 39 + 3 > 40 positions */
    s[5].table_stride = 0;
    s[6].table = holed;
    s[7].row = &one;
    const struct bad_batch bad[] = {
        {"rows", {0, tokens, good, 0, &zero}},      {"vocabulary", {3, big, good, 0, &zero}},
        {"logits", {3, tokens, good, 3, rows3}},    {"logits", {3, tokens, good, 1, &minus}},
        {"logits", {3, tokens, good, -1, &zero}},   {"sequences", {3, tokens, s[1], 0, &zero}},
        {"owned", {3, tokens, s[2], 0, &zero}},     {"position", {3, tokens, s[3], 0, &zero}},
        {"position", {3, tokens, s[4], 0, &zero}},  {"table", {3, tokens, s[5], 0, &zero}},
        {"names block", {3, tokens, s[6], 0, &zero}}, {"in order", {3, tokens, s[7], 0, &zero}},
    };
    struct golden g = golden_load("gpt-oss-window-f32");
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct phx_ranks_options o = harness_options(&g, 2, 2);
        struct phx_err           err = {0};
        assert_int_equal(phx_ranks_run(&o, try_bad, (void *)(uintptr_t)&bad[i], &err), PHX_E_INVALID);
        if (strstr(err.text, bad[i].why) == NULL)
            fail_msg("batch %zu: \"%s\" does not say %s", i, err.text, bad[i].why);
    }
    golden_free(&g);
}

int main(int argc, char **argv)
{
    harness_backend = argc > 1 ? argv[1] : "cpu";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_rank_drops_the_step_for_all_and_nobody_hangs),
        cmocka_unit_test(a_batch_that_cannot_run_is_refused_by_every_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
