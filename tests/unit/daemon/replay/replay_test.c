/* SPDX-License-Identifier: Apache-2.0
 * Replays of answers that admission recorded; the engine is this file: it keeps what it was asked and says what a
 * test tells it to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/daemon.h"
#include "daemon/queue/queue.h"
#include "daemon/replay/replay.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/admission/world.h"

enum { PROMPT = 4, N = 6, STOP = 50, CHOICES = 2 };

static const int32_t prompt[PROMPT] = {7, 8, 9, 10};
static const int32_t answers[CHOICES][N] = {{11, 12, 13, 14, 15, 16}, {21, 22, 23, 24, 25, STOP}};

/* ---- the engine ------------------------------------------------------------------------------------ */

struct phx_engine_seq {
    struct phx_engine_callbacks callbacks;
    void                       *ctx;
    int32_t                     tokens[PROMPT + N], n_tokens, n_check, max_new;
    struct phx_sampling         sampling;
    bool                        is_cancelled;
};

static struct phx_engine_seq seqs[CHOICES];
static int                   n_seqs, n_refused_from; /* submits from that one on are refused; 0 = none */

int phx_engine_submit(struct phx_engine *e, const struct phx_engine_request *r,
                      const struct phx_engine_callbacks *callbacks, void *ctx, struct phx_engine_seq **out,
                      struct phx_err *err)
{
    struct phx_engine_seq *s = &seqs[n_seqs];

    (void)e;
    if (n_refused_from > 0 && n_seqs + 1 >= n_refused_from)
        return phx_fail(err, PHX_E_BUSY, "the queue is full");
    assert_string_equal(r->tenant, "acme");
    assert_true(n_seqs < CHOICES && r->n_tokens <= PROMPT + N);
    *s = (struct phx_engine_seq){.callbacks = *callbacks, .ctx = ctx, .n_tokens = r->n_tokens,
                                 .n_check = r->n_check, .max_new = r->max_new, .sampling = *r->sampling};
    memcpy(s->tokens, r->tokens, (size_t)r->n_tokens * sizeof(*s->tokens));
    n_seqs++;
    *out = s;
    return 0;
}

void phx_engine_cancel(struct phx_engine_seq *s)
{
    s->is_cancelled = true;
}

/* Tells tokens with their gaps (NULL = 0) until one is cancelled, then the end. */
static void play(struct phx_engine_seq *s, const int32_t *tokens, const float *gaps, int32_t n, enum phx_finish end)
{
    for (int32_t i = 0; i < n && !s->is_cancelled; i++) {
        struct phx_token_out t = {.token = tokens[i], .index = i, .gap = gaps != NULL ? gaps[i] : 0};

        s->callbacks.on_token(s->ctx, &t);
    }
    s->callbacks.on_end(s->ctx, s->is_cancelled ? PHX_FINISH_CANCELLED : end, NULL);
}

/* ---- recorded answers ------------------------------------------------------------------------------- */

struct fixture {
    struct world              w;
    struct phx_daemon         d;
    struct phx_replay_verdict verdict;
    struct phx_err            err;
    int                       n_done;
    char                      receipt[64];
};

static int set_up_class(void **state, const char *class)
{
    struct fixture *f = phx_mem_calloc(1, sizeof(*f));

    memset(seqs, 0, sizeof(seqs));
    n_seqs = n_refused_from = 0;
    world_make(&f->w, NULL);
    f->w.options.engine.replay_class = class;
    world_open(&f->w);
    scratch_sql(&f->w.scratch, "INSERT INTO tenant(tenant, privacy) VALUES('acme', 'clear')");
    f->d = (struct phx_daemon){.base = f->w.base, .store = f->w.store, .time = f->w.time, .model_name = "m"};
    memcpy(f->d.site_key, f->w.options.site_key, sizeof(f->d.site_key));
    *state = f;
    return 0;
}

static int set_up_a(void **state)
{
    return set_up_class(state, "A");
}

static int set_up_b(void **state)
{
    return set_up_class(state, "B");
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    world_close(&f->w);
    world_remove(&f->w);
    phx_mem_free(f);
    return 0;
}

static void on_begun(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal)
{
    struct call *c = ctx;

    assert_null(refusal);
    c->lease = lease;
    c->n_begun++;
}

static void on_settled(void *ctx, const struct phx_err *err)
{
    struct call *c = ctx;

    assert_null(err);
    c->n_settled++;
}

/* An answer of the tenant, first choices of `answers`, at a temperature; its receipt in the fixture. */
static void record_stopping(struct fixture *f, float temperature, int32_t n_choices, int32_t stop)
{
    const struct phx_choice_ids choices[CHOICES] = {{answers[0], N}, {answers[1], N}};
    const struct phx_outcome    o = {.finish = "length", .choices = choices, .n_choices = n_choices};
    struct phx_identity         id = {.auth = PHX_AUTH_KEY, .is_person = true, .issuer = "phalanx",
                                      .tenant = "acme", .user = "ann", .key_id = "k1", .roles = PHX_ROLE_BIT_USER};
    struct phx_sampling         sampling;
    struct phx_admission_facts  facts = {.identity = &id, .request_id = "req-1", .endpoint = "completions",
                                         .prompt = prompt, .n_prompt = PROMPT, .max_new = N,
                                         .n_choices = n_choices, .sampling = &sampling};
    struct call                 c = {0};

    phx_sampling_init(&sampling);
    sampling.temperature = temperature;
    sampling.seed = 70;
    sampling.stop_ids = &stop;
    sampling.n_stop_ids = 1;
    (void)phx_admission_begin(f->w.admission, &facts, on_begun, &c);
    world_turn(&f->w, &c.n_begun, 1);
    (void)snprintf(f->receipt, sizeof(f->receipt), "%s", phx_lease_receipt(c.lease));
    phx_lease_end(c.lease, &o, on_settled, &c);
    world_turn(&f->w, &c.n_settled, 1);
}

static void record(struct fixture *f, float temperature, int32_t n_choices)
{
    record_stopping(f, temperature, n_choices, STOP);
}

static void on_verdict(void *ctx, const struct phx_replay_verdict *verdict, const struct phx_err *err)
{
    struct fixture *f = ctx;

    assert_true((verdict == NULL) != (err == NULL));
    if (verdict != NULL)
        f->verdict = *verdict;
    else
        f->err = *err;
    f->n_done++;
}

/* Starts a replay and waits for what it submits. */
static void begin(struct fixture *f, const char *as_class, int n)
{
    phx_replay_run(&f->d, f->receipt, as_class, "op", on_verdict, f);
    world_turn(&f->w, &n_seqs, n);
}

static void expect_refused(struct fixture *f, const char *as_class, int code, const char *words)
{
    phx_replay_run(&f->d, f->receipt, as_class, "op", on_verdict, f);
    world_turn(&f->w, &f->n_done, 1);
    assert_int_equal(f->err.code, code);
    if (strstr(f->err.text, words) == NULL)
        fail_msg("'%s' does not say %s", f->err.text, words);
    assert_int_equal(n_seqs, 0);
}

/* ---- class A ------------------------------------------------------------------------------------------- */

static void class_a_generates_again(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 2);
    begin(f, "", 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(seqs[i].n_check, 0);
        assert_int_equal(seqs[i].n_tokens, PROMPT);
        assert_int_equal(seqs[i].max_new, N);
        assert_int_equal(seqs[i].sampling.seed, 70 + i);
        play(&seqs[i], answers[i], NULL, N, PHX_FINISH_LENGTH);
    }
    world_turn(&f->w, &f->n_done, 1);
    assert_true(f->verdict.is_equal);
    assert_string_equal(f->verdict.replay_class, "A");
    assert_string_equal(f->verdict.run_class, "A");
    assert_int_equal(f->verdict.n_checked, 2 * N);
    assert_int_equal(f->verdict.first_difference, -1);
}

static void class_a_ends_at_the_first_difference(void **state)
{
    const int32_t   other[N] = {21, 22, 99, 24, 25, STOP};
    struct fixture *f = *state;

    record(f, 1, 2);
    begin(f, "A", 2);
    play(&seqs[0], answers[0], NULL, N, PHX_FINISH_LENGTH);
    play(&seqs[1], other, NULL, N, PHX_FINISH_STOP);
    world_turn(&f->w, &f->n_done, 1);
    assert_false(f->verdict.is_equal);
    assert_true(seqs[1].is_cancelled);
    assert_int_equal(f->verdict.n_checked, N + 2);
    assert_int_equal(f->verdict.first_difference, N + 2);
}

/* ---- class B ------------------------------------------------------------------------------------------- */

static void class_b_reads_prompt_and_answer(void **state)
{
    const int32_t   drawn[N] = {1, 12, 13, 14, 15, 16};
    const float     gaps[N] = {0.004f};
    struct fixture *f = *state;

    record(f, 1, 2);
    begin(f, "", 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(seqs[i].n_check, N);
        assert_int_equal(seqs[i].n_tokens, PROMPT + N);
        assert_memory_equal(seqs[i].tokens, prompt, sizeof(prompt));
        assert_memory_equal(seqs[i].tokens + PROMPT, answers[i], sizeof(answers[i]));
        assert_int_equal(seqs[i].sampling.seed, 70 + i);
        assert_int_equal(seqs[i].sampling.n_stop_ids, 1);
    }
    play(&seqs[0], drawn, gaps, N, PHX_FINISH_LENGTH);
    play(&seqs[1], answers[1], NULL, N, PHX_FINISH_LENGTH);
    world_turn(&f->w, &f->n_done, 1);
    assert_true(f->verdict.is_equal);
    assert_string_equal(f->verdict.replay_class, "B");
    assert_string_equal(f->verdict.run_class, "B");
    assert_int_equal(f->verdict.n_checked, 2 * N);
    assert_int_equal(f->verdict.n_over, 0);
    assert_true(f->verdict.max_gap > 0.0039 && f->verdict.max_gap < 0.0041);
    assert_int_equal(world_int(&f->w, "SELECT count(*) FROM audit WHERE kind = 'replay' AND instr(record, "
                                      "'class B, 12 of 12 tokens, first difference -1, largest gap 0.004')"), 1);
}

/* Each tolerance holds for its own kind of sampler; all tokens are judged, the verdict names the first. */
static void class_b_counts_what_is_over_the_tolerance(void **state)
{
    const float     gaps[N] = {0, 0.006f, 0.04f, 0.06f, 0, 0.9f};
    struct fixture *f = *state;

    for (int is_draw = 0; is_draw < 2; is_draw++) {
        n_seqs = f->n_done = 0;
        record(f, is_draw ? 0.5f : 0.0f, 1);
        begin(f, "B", 1);
        play(&seqs[0], answers[0], gaps, N, PHX_FINISH_LENGTH);
        world_turn(&f->w, &f->n_done, 1);
        assert_false(f->verdict.is_equal);
        assert_int_equal(f->verdict.n_over, is_draw ? 4 : 2);
        assert_int_equal(f->verdict.n_checked, is_draw ? 2 : 4);
        assert_int_equal(f->verdict.first_difference, is_draw ? 1 : 3);
    }
    assert_int_equal(world_int(&f->w, "SELECT count(*) FROM audit WHERE kind = 'replay' AND "
                                      "instr(record, 'replay.differs')"), 2);
}

/* However likely: an engine would have ended. */
static void class_b_refuses_what_stands_behind_a_stop_id(void **state)
{
    struct fixture *f = *state;

    record_stopping(f, 1, 2, 23); /* the third of the second choice */
    begin(f, "B", 2);
    for (int i = 0; i < 2; i++)
        play(&seqs[i], answers[i], NULL, N, PHX_FINISH_LENGTH);
    world_turn(&f->w, &f->n_done, 1);
    assert_false(f->verdict.is_equal);
    assert_int_equal(f->verdict.n_over, 1);
    assert_int_equal(f->verdict.first_difference, N + 3);
}

static void a_check_that_ends_early_is_no_proof(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 1);
    begin(f, "B", 1);
    play(&seqs[0], answers[0], NULL, N - 2, PHX_FINISH_LENGTH);
    world_turn(&f->w, &f->n_done, 1);
    assert_false(f->verdict.is_equal);
    assert_int_equal(f->verdict.first_difference, N - 2);
}

/* ---- refusals ------------------------------------------------------------------------------------------ */

static void an_answer_may_be_checked_in_the_other_way(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 1);
    begin(f, "B", 1);
    assert_int_equal(seqs[0].n_check, N);
    play(&seqs[0], answers[0], NULL, N, PHX_FINISH_LENGTH);
    world_turn(&f->w, &f->n_done, 1);
    assert_string_equal(f->verdict.replay_class, "A");
    assert_string_equal(f->verdict.run_class, "B");
    assert_true(f->verdict.is_equal);
}

static void an_unknown_class_is_refused(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 1);
    expect_refused(f, "C", PHX_E_INVALID, "class 'C'");
    f->n_done = 0;
    expect_refused(f, "AAAAAAAAAAAAAAAA", PHX_E_INVALID, "is not A, B or nothing");
}

static void another_model_is_refused(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 1);
    (void)snprintf(f->d.manifest_root, sizeof(f->d.manifest_root), "sha256:ab");
    expect_refused(f, "B", PHX_E_STATE, "this cluster serves");
}

static void a_full_queue_is_told_and_the_other_choice_cancelled(void **state)
{
    struct fixture *f = *state;

    record(f, 1, 2);
    n_refused_from = 2;
    begin(f, "B", 1);
    assert_true(seqs[0].is_cancelled);
    play(&seqs[0], answers[0], NULL, N, PHX_FINISH_LENGTH);
    world_turn(&f->w, &f->n_done, 1);
    assert_int_equal(f->err.code, PHX_E_BUSY);
}

#define CLASS_A(test) cmocka_unit_test_setup_teardown(test, set_up_a, tear_down)
#define CLASS_B(test) cmocka_unit_test_setup_teardown(test, set_up_b, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLASS_A(class_a_generates_again),
        CLASS_A(class_a_ends_at_the_first_difference),
        CLASS_B(class_b_reads_prompt_and_answer),
        CLASS_B(class_b_counts_what_is_over_the_tolerance),
        CLASS_B(class_b_refuses_what_stands_behind_a_stop_id),
        CLASS_B(a_check_that_ends_early_is_no_proof),
        CLASS_A(an_answer_may_be_checked_in_the_other_way),
        CLASS_A(an_unknown_class_is_refused),
        CLASS_B(another_model_is_refused),
        CLASS_B(a_full_queue_is_told_and_the_other_choice_cancelled),
    };

    return cmocka_run_group_tests_name("daemon/replay", tests, NULL, NULL);
}
