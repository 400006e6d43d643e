/* SPDX-License-Identifier: Apache-2.0
 * Fleet and engine with real processes and a real link: the ranks are fake_rank.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "daemon/fleet/replica.h"
#include "tests/unit/daemon/fleet/fake_rank.h"
#include "tests/unit/daemon/fleet/world.h"

enum { TOKENS_MAX = 600 };

struct answer { /* what one sequence got */
    struct phx_engine_seq *seq;
    int32_t                prompt[8], n_prompt;
    int32_t                tokens[TOKENS_MAX], n;
    float                  gaps[TOKENS_MAX];
    int                    n_ends;
    enum phx_finish        finish;
    struct phx_err         err;
    int32_t                cancel_at; /* cancels itself inside the callback of that token; 0 = never */
    int32_t               *order;     /* counts the ends of several */
    int32_t                ended_as;
};

/* ---- sequences -------------------------------------------------------------------------------- */

static void on_token(void *ctx, const struct phx_token_out *token)
{
    struct answer *a = ctx;

    assert_int_equal(a->n_ends, 0);
    assert_true(a->n < TOKENS_MAX);
    assert_int_equal(token->index, a->n);
    a->gaps[a->n] = token->gap;
    a->tokens[a->n++] = token->token;
    if (a->n == a->cancel_at)
        phx_engine_cancel(a->seq);
}

static void on_end(void *ctx, enum phx_finish finish, const struct phx_err *err)
{
    struct answer *a = ctx;

    a->n_ends++;
    a->finish = finish;
    if (err != NULL)
        a->err = *err;
    if (a->order != NULL)
        a->ended_as = ++*a->order;
}

static int submit_as(struct world *w, struct answer *a, const char *tenant, int32_t first,
                     int32_t max_new, int32_t priority, struct phx_err *err)
{
    static const struct phx_engine_callbacks callbacks = {on_token, on_end};
    struct phx_sampling                      sampling;
    struct phx_engine_request                r = {
                             .tenant = tenant,
                             .tokens = a->prompt,
                             .n_tokens = 3,
                             .max_new = max_new,
                             .priority = priority,
                             .sampling = &sampling,
    };

    phx_sampling_init(&sampling);
    a->prompt[0] = first;
    a->prompt[1] = 17;
    a->prompt[2] = 4;
    a->n_prompt = 3;
    return phx_engine_submit(w->engine, &r, &callbacks, a, &a->seq, err);
}

static void submit(struct world *w, struct answer *a, int32_t first, int32_t max_new)
{
    struct phx_err err = {0};

    if (submit_as(w, a, "t", first, max_new, 0, &err) != 0)
        fail_msg("%s", err.text);
}

static void expect_whole(const struct answer *a, int32_t n)
{
    if (a->err.code != 0)
        print_error("%s\n", a->err.text);
    assert_int_equal(a->finish, PHX_FINISH_LENGTH);
    assert_int_equal(a->n_ends, 1);
    assert_int_equal(a->n, n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(a->tokens[i], fake_token(a->prompt, a->n_prompt, i));
}

static int32_t restarts_of(struct world *w, int32_t index)
{
    struct phx_arena        *arena = phx_arena_create();
    struct phx_cluster_state state = {0};
    int32_t                  n;

    phx_fleet_state(w->fleet, arena, &state);
    n = state.replicas[index].restarts;
    phx_arena_destroy(arena);
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void sequences_run_and_end(void **state)
{
    struct world  w;
    struct answer a = {0}, b = {0};

    (void)state;
    world_open(&w, "plain", "");
    submit(&w, &a, FAKE_PLAIN, 40); /* before anything is ready */
    submit(&w, &b, FAKE_TWICE, 30);
    assert_true(world_run(&w, &a.n_ends, 1, 10) && world_run(&w, &b.n_ends, 1, 10));
    expect_whole(&a, 40);
    expect_whole(&b, 30);
    assert_int_equal(restarts_of(&w, 0), 0);
    world_close(&w);
}

/* Whatever happens to the replica, the stream is the unbroken one. */
static void resume_after(int32_t order)
{
    struct world  w;
    struct answer a = {0}, neighbour = {0};

    world_open(&w, "plain", "");
    submit(&w, &neighbour, FAKE_PLAIN, 300);
    submit(&w, &a, order, 30);
    assert_true(world_run(&w, &a.n_ends, 1, 20));
    expect_whole(&a, 30);
    assert_true(world_run(&w, &neighbour.n_ends, 1, 20));
    expect_whole(&neighbour, 300);
    assert_int_equal(restarts_of(&w, 0), 1);
    world_close(&w);
}

static void a_stream_survives_a_killed_replica(void **state)
{
    (void)state;
    resume_after(FAKE_DIE_ONCE);
}

static void a_stream_survives_a_silent_replica(void **state)
{
    (void)state;
    resume_after(FAKE_SILENT_ONCE);
}

static void a_stream_survives_a_stuck_replica(void **state)
{
    (void)state;
    resume_after(FAKE_STUCK_ONCE);
}

static void a_replica_that_skips_a_token_is_replaced(void **state)
{
    (void)state;
    resume_after(FAKE_SKIP_ONCE);
}

static void resumes_are_limited(void **state)
{
    struct world  w;
    struct answer a = {0};

    (void)state;
    world_open(&w, "plain", "");
    submit(&w, &a, FAKE_DIE_ALWAYS, 40);
    assert_true(world_run(&w, &a.n_ends, 1, 20));
    assert_int_equal(a.finish, PHX_FINISH_ERROR);
    assert_int_equal(a.err.code, PHX_E_PEER);
    assert_in_range(a.n, 1, 15); /* five tokens in each of three lives, at most */
    world_close(&w);
}

static void an_error_of_one_sequence_ends_that_one(void **state)
{
    struct world  w;
    struct answer a = {0}, b = {0};

    (void)state;
    world_open(&w, "plain", "");
    submit(&w, &a, FAKE_ERROR, 40);
    submit(&w, &b, FAKE_PLAIN, 40);
    assert_true(world_run(&w, &a.n_ends, 1, 10) && world_run(&w, &b.n_ends, 1, 10));
    assert_int_equal(a.finish, PHX_FINISH_ERROR);
    assert_non_null(strstr(a.err.text, "not finite"));
    expect_whole(&b, 40);
    assert_int_equal(restarts_of(&w, 0), 0);
    world_close(&w);
}

static void cancelling_ends_at_once_and_once(void **state)
{
    struct world  w;
    struct answer inside = {.cancel_at = 7}, waiting = {0}, after = {0};

    (void)state;
    world_open(&w, "plain", "");
    submit(&w, &waiting, FAKE_PLAIN, 400);
    phx_engine_cancel(waiting.seq); /* still queued */
    assert_int_equal(waiting.n_ends, 0);
    assert_true(world_run(&w, &waiting.n_ends, 1, 5));
    assert_int_equal(waiting.finish, PHX_FINISH_CANCELLED);
    submit(&w, &inside, FAKE_PLAIN, 400);
    assert_true(world_run(&w, &inside.n_ends, 1, 10));
    assert_int_equal(inside.finish, PHX_FINISH_CANCELLED);
    assert_int_equal(inside.n, 7);
    submit(&w, &after, FAKE_PLAIN, 20);
    assert_true(world_run(&w, &after.n_ends, 1, 10));
    expect_whole(&after, 20);
    assert_int_equal(inside.n_ends + waiting.n_ends, 2);
    world_close(&w);
}

static void the_queue_is_bounded(void **state)
{
    struct world   w;
    struct answer  a[10] = {{0}};
    struct phx_err err;
    struct phx_engine_facts facts;

    (void)state;
    world_open(&w, "never", "");
    for (int i = 0; i < 6; i++)
        assert_int_equal(submit_as(&w, &a[i], "one", FAKE_PLAIN, 5, 0, &err), 0);
    assert_int_not_equal(submit_as(&w, &a[6], "one", FAKE_PLAIN, 5, 0, &err), 0); /* the tenant's part */
    assert_true(phx_err_is_retryable(err.code));
    assert_int_equal(submit_as(&w, &a[6], "two", FAKE_PLAIN, 5, 0, &err), 0);
    assert_int_equal(submit_as(&w, &a[7], "two", FAKE_PLAIN, 5, 0, &err), 0);
    assert_int_equal(submit_as(&w, &a[8], "three", FAKE_PLAIN, 5, 0, &err), PHX_E_BUSY); /* the whole */
    phx_engine_facts(w.engine, &facts);
    assert_int_equal(facts.n_waiting, 8);
    assert_false(facts.is_ready);
    assert_true(facts.retry_after_ms >= 500);
    world_close(&w);
    for (int i = 0; i < 8; i++) { /* closing ends what waits, once */
        assert_int_equal(a[i].n_ends, 1);
        assert_int_equal(a[i].err.code, PHX_E_CANCELLED);
    }
}

/* With room for four at once, a tenant with many sequences does not keep another's single one waiting. */
static void tenants_share(void **state)
{
    struct world   w;
    struct answer  many[6] = {{0}}, one = {0}, urgent = {0};
    struct phx_err err;
    int32_t        order = 0;

    (void)state;
    world_open(&w, "plain", "");
    for (int i = 0; i < 6; i++) {
        many[i].order = &order;
        assert_int_equal(submit_as(&w, &many[i], "many", FAKE_PLAIN, 60, 0, &err), 0);
    }
    one.order = urgent.order = &order;
    assert_int_equal(submit_as(&w, &one, "one", FAKE_PLAIN, 60, 0, &err), 0);
    assert_int_equal(submit_as(&w, &urgent, "urgent", FAKE_PLAIN, 10, 5, &err), 0);
    for (int i = 0; i < 6; i++)
        assert_true(world_run(&w, &many[i].n_ends, 1, 20));
    assert_true(world_run(&w, &one.n_ends, 1, 10));
    assert_int_equal(urgent.ended_as, 1);
    assert_in_range(one.ended_as, 2, 6); /* behind what was sent ahead, not behind all of the other's */
    expect_whole(&one, 60);
    world_close(&w);
}

/* Three prompt tokens and an answer, of which one token is not what a fake rank draws. */
static int submit_check(struct world *w, struct answer *a, int32_t first, int32_t n_check, int32_t wrong,
                        struct phx_err *err)
{
    static const struct phx_engine_callbacks callbacks = {on_token, on_end};
    int32_t                                  tokens[TOKENS_MAX] = {first, 17, 4};
    struct phx_sampling                      sampling;
    const struct phx_engine_request          r = {.tenant = "t", .tokens = tokens, .n_tokens = 3 + n_check,
                                                  .n_check = n_check, .sampling = &sampling};

    phx_sampling_init(&sampling);
    memcpy(a->prompt, tokens, 3 * sizeof(*tokens));
    a->n_prompt = 3;
    for (int32_t i = 0; i < n_check; i++)
        tokens[3 + i] = (fake_token(tokens, 3, i) + (i == wrong)) % FAKE_VOCAB;
    return phx_engine_submit(w->engine, &r, &callbacks, a, &a->seq, err);
}

static void bad_requests_are_refused(void **state)
{
    struct world   w;
    struct answer  a = {0};
    struct phx_err err = {0};

    (void)state;
    world_open(&w, "plain", "");
    assert_int_equal(world_settle(&w, 1, 10).n_ready, 1);
    assert_int_equal(submit_as(&w, &a, "t", FAKE_PLAIN, 0, 0, &err), PHX_E_INVALID);
    assert_int_equal(submit_as(&w, &a, "t", FAKE_PLAIN, -1, 0, &err), PHX_E_INVALID);
    assert_int_equal(submit_check(&w, &a, FAKE_PLAIN, FAKE_CONTEXT - 2, -1, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "does not fit the context"));
    assert_null(a.seq);
    assert_int_equal(a.n_ends, 0);
    world_close(&w);
}

static void two_replicas_stand_in_for_each_other(void **state)
{
    struct world           w;
    struct answer          a = {0};
    struct phx_fleet_facts facts;

    (void)state;
    world_open(&w, "plain", "cluster: {replicas: 2}\n");
    facts = world_settle(&w, 2, 10);
    assert_int_equal(facts.n_ready, 2);
    assert_true(facts.is_settled);
    submit(&w, &a, FAKE_DIE_ONCE, 30);
    assert_true(world_run(&w, &a.n_ends, 1, 10));
    expect_whole(&a, 30);
    assert_int_equal(world_settle(&w, 2, 10).n_ready, 2); /* the lost one comes back */
    assert_int_equal(restarts_of(&w, 0) + restarts_of(&w, 1), 1);
    world_close(&w);
}

/* A check whose replica dies begins again on another one; each token is told once. */
static void a_check_is_told_once_though_its_replica_dies(void **state)
{
    static const int32_t orders[] = {FAKE_PLAIN, FAKE_DIE_ONCE, FAKE_TWICE};

    (void)state;
    for (size_t k = 0; k < sizeof(orders) / sizeof(*orders); k++) {
        struct world   w;
        struct answer  a = {0};
        struct phx_err err = {0};

        world_open(&w, "plain", "cluster: {replicas: 2}\n");
        assert_int_equal(world_settle(&w, 2, 10).n_ready, 2);
        assert_int_equal(submit_check(&w, &a, orders[k], 40, 33, &err), 0);
        assert_true(world_run(&w, &a.n_ends, 1, 10));
        expect_whole(&a, 40);
        for (int32_t i = 0; i < 40; i++)
            assert_true(a.gaps[i] == (i == 33 ? 0.5f : 0.0f));
        assert_int_equal(world_settle(&w, 2, 10).n_ready, 2);
        assert_int_equal(restarts_of(&w, 0) + restarts_of(&w, 1), orders[k] == FAKE_DIE_ONCE);
        world_close(&w);
    }
}

static void what_cannot_start_is_given_up(void **state)
{
    static const struct {
        const char *way, *part;
    } cases[] = {{"exit", "status 3"},
                 {"fatal", "tensor x is missing"},
                 {"dieinload", ""},
                 {"wrongtoken", "status 5"},
                 {"wronglayout", "status 5"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct world           w;
        struct phx_fleet_facts facts;

        world_open(&w, cases[i].way, "");
        facts = world_settle(&w, 1, 15);
        assert_int_equal(facts.n_ready, 0);
        assert_true(facts.is_hopeless);
        if (strstr(facts.last_error, cases[i].part) == NULL)
            fail_msg("%s: %s", cases[i].way, facts.last_error);
        world_close(&w);
    }
}

static void a_replica_that_never_joins_is_given_up(void **state)
{
    struct world           w;
    struct phx_fleet_facts facts;

    (void)state;
    world_open(&w, "never", "");
    facts = world_settle(&w, 1, 20);
    assert_true(facts.is_hopeless);
    assert_non_null(strstr(facts.last_error, "join"));
    world_close(&w);
}

static void requests_do_not_wait_for_a_fleet_without_hope(void **state)
{
    struct world  w;
    struct answer a = {0};

    (void)state;
    world_open(&w, "fatal", "");
    submit(&w, &a, FAKE_PLAIN, 5);
    assert_true(world_run(&w, &a.n_ends, 1, 15));
    assert_int_equal(a.finish, PHX_FINISH_ERROR);
    assert_non_null(strstr(a.err.text, "tensor x is missing"));
    world_close(&w);
}

static void draining_lets_sequences_end(void **state)
{
    struct world            w;
    struct answer           a = {0};
    struct phx_cluster_done done;
    struct phx_err          err;

    (void)state;
    world_open(&w, "plain", "");
    submit(&w, &a, FAKE_PLAIN, 200);
    assert_int_equal(world_settle(&w, 1, 10).n_ready, 1);
    assert_true(world_run(&w, &a.n, 5, 5));
    assert_int_equal(phx_fleet_drain(w.fleet, "r9", 0, &done, &err), PHX_E_NOTFOUND);
    assert_int_equal(phx_fleet_drain(w.fleet, "r0", 10000, &done, &err), 0);
    assert_int_equal(done.n_replicas, 1);
    assert_true(world_run(&w, &a.n_ends, 1, 10));
    expect_whole(&a, 200);
    assert_int_equal(restarts_of(&w, 0), 0);
    /* it stays away until an operator calls it back */
    assert_int_equal(world_settle(&w, 0, 5).n_ready, 0);
    assert_int_equal(phx_fleet_restart(w.fleet, "", &done, &err), 0);
    assert_int_equal(world_settle(&w, 1, 10).n_ready, 1);
    world_close(&w);
}

static void stopping_is_orderly(void **state)
{
    struct world w;
    int64_t      end;

    (void)state;
    world_open(&w, "plain", "");
    assert_int_equal(world_settle(&w, 1, 10).n_ready, 1);
    phx_fleet_stop(w.fleet, 3000);
    end = phx_clock_mono_ns() + INT64_C(5000000000);
    while (!phx_fleet_is_stopped(w.fleet) && phx_clock_mono_ns() < end) {
        struct timeval slice = {0, 10000};

        event_base_loopexit(w.base, &slice);
        event_base_dispatch(w.base);
    }
    assert_true(phx_fleet_is_stopped(w.fleet));
    world_close(&w);
}

static void a_missing_program_is_named(void **state)
{
    struct phx_config       *config = phx_config_create();
    struct phx_fleet_options o = {.config = config, .rank_program = "/nowhere/phalanx-rank"};
    struct phx_fleet        *fleet;
    struct phx_err           err = {0};

    (void)state;
    assert_int_equal(phx_fleet_open(&o, &fleet, &err), PHX_E_NOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/phalanx-rank"));
    assert_int_equal(phx_config_set(config, "cluster.tp", "2", NULL), 0);
    assert_int_equal(phx_config_set(config, "launcher.mpirun", "no-such-mpirun", NULL), 0);
    assert_int_equal(phx_fleet_open(&o, &fleet, &err), PHX_E_NOTFOUND);
    assert_non_null(strstr(err.text, "no-such-mpirun"));
    phx_config_destroy(config);
}

static void a_bar_says_how_far_and_how_fast(void **state)
{
    const struct phx_link_loading half = {0.5, 1200000000, 2400000000, 3.456}, odd = {7.0, 1, 0, 0};
    char                          text[160];

    (void)state;
    phx_loading_format("r0", &half, text, sizeof(text));
    assert_string_equal(text, "r0 [###############...............]  50%  1.2 of 2.4 GB  3.46 GB/s");
    phx_loading_format("r0", &odd, text, sizeof(text)); /* numbers from outside are kept in the bar */
    assert_non_null(strstr(text, "100%"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bar_says_how_far_and_how_fast),
        cmocka_unit_test(sequences_run_and_end),
        cmocka_unit_test(a_stream_survives_a_killed_replica),
        cmocka_unit_test(a_stream_survives_a_silent_replica),
        cmocka_unit_test(a_stream_survives_a_stuck_replica),
        cmocka_unit_test(a_replica_that_skips_a_token_is_replaced),
        cmocka_unit_test(resumes_are_limited),
        cmocka_unit_test(an_error_of_one_sequence_ends_that_one),
        cmocka_unit_test(cancelling_ends_at_once_and_once),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(tenants_share),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(two_replicas_stand_in_for_each_other),
        cmocka_unit_test(a_check_is_told_once_though_its_replica_dies),
        cmocka_unit_test(what_cannot_start_is_given_up),
        cmocka_unit_test(a_replica_that_never_joins_is_given_up),
        cmocka_unit_test(requests_do_not_wait_for_a_fleet_without_hope),
        cmocka_unit_test(draining_lets_sequences_end),
        cmocka_unit_test(stopping_is_orderly),
        cmocka_unit_test(a_missing_program_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
