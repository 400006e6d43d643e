/* SPDX-License-Identifier: Apache-2.0
 * The head of a replica of one rank, in this process, over a small checkpoint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/step/stage.h"

struct fixture {
    struct phx_step_options options;
    struct phx_step         step;
    struct phx_head        *head;
    struct phx_link_step    out;
    struct phx_err          err;
};

static int set_up(void **state)
{
    struct fixture *f = phx_mem_calloc(1, sizeof(*f));

    f->options = (struct phx_step_options){
        .model_key = "",
        .model_dir = PHX_SOURCE_DIR "/tests/golden/llama3-tied-bf16",
        .tp = 1, .pp = 1, .backend = "cpu", .n_threads = 1, .n_shares = 1, .kv_dtype = PHX_DTYPE_F32,
        .kv_blocks = 8, .block_tokens = 16, .max_seqs = 2, .max_rows = 32, .max_context = 64,
        .has_prefix_cache = true,
    };
    if (phx_step_open(&f->options, &f->step, &f->err) != 0 ||
        phx_step_load(&f->step, NULL, NULL, &f->err) != 0 ||
        phx_head_create(&f->step, &f->head, &f->err) != 0)
        fail_msg("%s", f->err.text);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    phx_head_stop(f->head);
    phx_head_destroy(f->head);
    phx_step_close(&f->step);
    phx_mem_free(f);
    return 0;
}

static void submit(struct fixture *f, uint64_t id, int32_t max_new, int32_t n_logprobs)
{
    const int32_t     tokens[] = {5, 6, 7};
    struct phx_submit r = {.seq_id = id, .tokens = tokens, .n_tokens = 3, .n_prompt = 3,
                           .max_new = max_new};

    phx_sampling_init(&r.sampling);
    r.sampling.temperature = 0;
    r.sampling.n_logprobs = n_logprobs;
    phx_head_submit(f->head, &r);
}

static void run(struct fixture *f)
{
    if (phx_head_run(f->head, &f->out, &f->err) != 0)
        fail_msg("%s", f->err.text);
}

static void one_message_tells_all_of_a_step(void **state)
{
    struct fixture *f = *state;

    submit(f, 11, 2, 3);
    submit(f, 12, 5, -1);
    run(f);
    assert_int_equal(f->out.step, 1);
    assert_int_equal(f->out.n_tokens, 2);
    assert_int_equal(f->out.tokens[0].seq_id, 11);
    assert_int_equal(f->out.tokens[0].n_top, 3);
    assert_int_equal(f->out.tokens[0].top[0].token, f->out.tokens[0].token);
    assert_true(f->out.tokens[0].top[0].logprob == f->out.tokens[0].logprob);
    assert_true(f->out.tokens[0].logprob < 0);
    assert_int_equal(f->out.tokens[1].n_top, 0);
    assert_int_equal(f->out.tokens[1].token, f->out.tokens[0].token); /* the same prompt */
    assert_int_equal(f->out.stats.n_prefill_tokens, 6);
    assert_int_equal(f->out.stats.n_running, 2);
    assert_int_equal(f->out.stats.kv_blocks_used, 2);
    run(f);
    assert_int_equal(f->out.tokens[0].finish, PHX_FINISH_LENGTH);
    assert_int_equal(f->out.tokens[0].index, 1);
    assert_int_equal(f->out.stats.n_decode_tokens, 2);
    assert_int_equal(f->out.stats.n_running, 1);
    assert_true(phx_head_has_work(f->head));
}

/* The queue's last sequence may be cancelled while nothing runs: its end must not wait for other work. */
static void a_cancelled_sequence_that_waits_is_answered_though_nothing_runs(void **state)
{
    struct fixture *f = *state;

    submit(f, 21, 2, -1);
    phx_head_cancel(f->head, 21);
    assert_true(phx_head_has_work(f->head));
    run(f);
    assert_int_equal(f->out.n_tokens, 1);
    assert_int_equal(f->out.tokens[0].seq_id, 21);
    assert_int_equal(f->out.tokens[0].finish, PHX_FINISH_CANCELLED);
    assert_int_equal(f->out.tokens[0].token, -1);
    assert_int_equal(f->out.stats.n_prefill_tokens, 0);
    assert_false(phx_head_has_work(f->head));
}

static void a_refusal_names_its_code_and_leaves_the_others_alone(void **state)
{
    struct fixture *f = *state;

    submit(f, 31, 2, -1);
    submit(f, 32, 2, 21);
    phx_head_refuse(f->head, 33, PHX_E_BUSY, "leaving");
    run(f);
    assert_int_equal(f->out.n_tokens, 3);
    assert_int_equal(f->out.tokens[0].seq_id, 32);
    assert_int_equal(f->out.tokens[0].finish, PHX_FINISH_ERROR);
    assert_int_equal(f->out.tokens[0].error_code, PHX_E_INVALID);
    assert_int_equal(f->out.tokens[1].error_code, PHX_E_BUSY);
    assert_string_equal(f->out.tokens[1].error_text, "leaving");
    assert_int_equal(f->out.tokens[2].seq_id, 31);
    assert_true(f->out.tokens[2].token >= 0);
}

static void an_idle_run_repeats_no_numbers_of_an_old_step(void **state)
{
    struct fixture *f = *state;

    submit(f, 41, 1, -1);
    run(f);
    assert_int_equal(f->out.stats.n_prefill_tokens, 3);
    run(f);
    assert_int_equal(f->out.n_tokens, 0);
    assert_int_equal(f->out.stats.n_prefill_tokens, 0);
    assert_int_equal(f->out.stats.kv_blocks_total, 8);
}

static void run_until(struct fixture *f, uint64_t id, int32_t *tokens, float *gaps, int32_t n)
{
    for (int32_t i = 0; i < n;) {
        run(f);
        for (int32_t j = 0; j < f->out.n_tokens; j++) {
            const struct phx_token_out *t = &f->out.tokens[j];

            assert_int_equal(t->seq_id, id);
            assert_int_equal(t->index, i);
            assert_int_equal(t->finish, i == n - 1 ? PHX_FINISH_LENGTH : PHX_FINISH_NONE);
            gaps[i] = t->gap;
            tokens[i++] = t->token;
        }
    }
}

/* 2 results in a step, so that an answer of 5 takes 3 steps. */
static void an_answer_is_read_back_without_a_gap(void **state)
{
    struct fixture   *f = *state;
    int32_t           tokens[8] = {5, 6, 7}, drawn[5];
    float             gaps[5];
    struct phx_submit r = {.seq_id = 52, .tokens = tokens, .n_tokens = 8, .n_prompt = 3, .max_new = 1,
                           .n_check = 5};

    phx_sampling_init(&r.sampling);
    r.sampling.temperature = 0;
    submit(f, 51, 5, -1);
    run_until(f, 51, tokens + 3, gaps, 5);
    for (int32_t wrong = -1; wrong < 5; wrong++, r.seq_id++) {
        int32_t right = wrong >= 0 ? tokens[3 + wrong] : 0;

        if (wrong >= 0)
            tokens[3 + wrong] = (right + 1) % 100;
        phx_head_submit(f->head, &r);
        run_until(f, r.seq_id, drawn, gaps, 5);
        for (int32_t i = 0; i < (wrong >= 0 ? wrong : 5); i++)
            assert_true(drawn[i] == tokens[3 + i] && gaps[i] == 0);
        if (wrong >= 0) {
            assert_int_equal(drawn[wrong], right);
            assert_true(gaps[wrong] > 0);
            tokens[3 + wrong] = right;
        }
    }
    assert_int_equal(f->out.stats.n_decode_tokens, 0);
}

/* A plan whose checked rows have no token behind them, or are the prompt's own, would read what is not there. */
static void a_plan_that_checks_nothing_is_refused(void **state)
{
    struct fixture          *f = *state;
    const int32_t            cases[][3] = {{4, 2, 3}, {2, 2, 3}, {3, 2, 3}}; /* rows, checked, prompt; of 4 tokens */
    const struct phx_result *result;
    bool                     is_stop;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const int32_t plan[] = {0x31584850, 1, 1, 0, 1, cases[i][0], /* header: one sequence */
                                0, 1 | 4, 0, cases[i][0], cases[i][1], 4, 5, 6, 7, 8, 1, 0, cases[i][2],
                                0, 0x3f800000, 0, 0, 0, 0x3f800000, 0, 0, 0, -1, 0};

        assert_int_equal(phx_stage_run(f->step.stage, plan, sizeof(plan), &is_stop, &result, &f->err),
                         PHX_E_FORMAT);
        if (strstr(f->err.text, "do not fit its tokens") == NULL)
            fail_msg("%s", f->err.text);
    }
}

static const struct phx_result *run_plan(struct fixture *f, const int32_t *plan, size_t size)
{
    const struct phx_result *result;
    bool                     is_stop;

    if (phx_stage_run(f->step.stage, plan, size, &is_stop, &result, &f->err) != 0)
        fail_msg("%s", f->err.text);
    return result;
}

/* Behind a wrong guess nothing is sampled, and it leaves nothing behind. */
static void a_guess_counts_when_it_is_right(void **state)
{
    struct fixture          *f = *state;
    const int32_t            first[] = {0x31584850, 1, 1, 0, 1, 3, 0, 1 | 2, 0, 3, 3, 5, 6, 7, 1, 0, 3,
                                        0, 0x3f800000, 0, 0, 0, 0x3f800000, 0, 0, 0, -1, 0};
    int32_t                  drawn[3] = {run_plan(f, first, sizeof(first))->tokens[0].token};
    int32_t                  next[] = {0x31584850, 1, 2, 0, 1, 1, 0, 2, 3, 1, 1, drawn[0], 0};
    int32_t                  guess[] = {0x31584850, 1, 3, 0, 1, 2, 0, 2 | 8, 3, 2, 1, 0, 0, 0};
    const struct phx_result *result;
    bool                     is_stop;

    drawn[1] = run_plan(f, next, sizeof(next))->tokens[0].token;
    for (int32_t off = 1; off >= 0; off--) {
        guess[11] = (drawn[1] + off) % f->step.config.vocab_size;
        result = run_plan(f, guess, sizeof(guess));
        assert_int_equal(result->n_tokens, off == 0 ? 2 : 1);
        assert_int_equal(result->tokens[0].token, drawn[1]);
    }
    drawn[2] = result->tokens[1].token;
    next[8] = 4;
    next[11] = drawn[1];
    assert_int_equal(run_plan(f, next, sizeof(next))->tokens[0].token, drawn[2]);
    guess[8] = 3; /* one token more is known by now */
    assert_int_equal(phx_stage_run(f->step.stage, guess, sizeof(guess), &is_stop, &result, &f->err), PHX_E_FORMAT);
    assert_non_null(strstr(f->err.text, "do not fit its tokens"));
}

static void many_answers_make_the_head_full_but_none_is_lost(void **state)
{
    struct fixture *f = *state;
    uint64_t        id = 100;

    while (!phx_head_is_full(f->head))
        phx_head_refuse(f->head, id++, PHX_E_BUSY, "leaving");
    for (int i = 0; i < PHX_RPC_CANCELS_MAX; i++)
        phx_head_refuse(f->head, id++, PHX_E_BUSY, "leaving");
    run(f);
    assert_int_equal(f->out.n_tokens, id - 100);
    assert_true(f->out.n_tokens <= PHX_RPC_STEP_TOKENS_MAX);
    assert_false(phx_head_is_full(f->head));
}

#define WITH_HEAD(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_HEAD(one_message_tells_all_of_a_step),
        WITH_HEAD(a_cancelled_sequence_that_waits_is_answered_though_nothing_runs),
        WITH_HEAD(a_refusal_names_its_code_and_leaves_the_others_alone),
        WITH_HEAD(an_idle_run_repeats_no_numbers_of_an_old_step),
        WITH_HEAD(an_answer_is_read_back_without_a_gap),
        WITH_HEAD(a_plan_that_checks_nothing_is_refused),
        WITH_HEAD(a_guess_counts_when_it_is_right),
        WITH_HEAD(many_answers_make_the_head_full_but_none_is_lost),
    };

    return cmocka_run_group_tests_name("shard/step/head", tests, NULL, NULL);
}
