/* SPDX-License-Identifier: Apache-2.0
 * What tenants get of a replica that is never idle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "daemon/queue/queue.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/queue/fake_fleet.h"

enum { SURPLUS = FAKE_SEQS / 4 + 1 /* sent beyond what the replica runs at once */ };

struct world {
    struct event_base *base;
    struct phx_fleet   fleet;
    struct phx_engine *engine;
    int32_t            n_started; /* requests that have given a token */
};

/* Requests of one tenant, all alike. */
struct client {
    struct world *w;
    const char   *name;
    int32_t       n_prompt, max_new, priority;
    int32_t       n_open, n_done;
    int64_t       n_prompt_served, n_new_served;
};

struct request {
    struct client *client;
    int32_t        n_told;
    int32_t        started_as; /* the how manieth of all that gave a token; 0 = not yet */
    int32_t       *started;    /* where the test wants that, or NULL */
};

static void world_open(struct world *w)
{
    const struct phx_engine_options options = {
        .max_waiting = 4000, .max_waiting_per_tenant = 2000, .max_resumes = 2};

    *w = (struct world){.base = event_base_new()};
    fake_fleet_open(&w->fleet, w->base);
    assert_int_equal(phx_engine_open(&w->fleet, &options, &w->engine, NULL), 0);
    fake_fleet_ready(&w->fleet);
}

static void settle(struct world *w)
{
    for (int i = 0; i < 3; i++)
        (void)event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void world_close(struct world *w)
{
    phx_engine_close(w->engine);
    event_base_free(w->base);
}

static void on_token(void *ctx, const struct phx_token_out *token)
{
    struct request *r = ctx;

    assert_int_equal(token->index, r->n_told++);
    if (token->index == 0) {
        r->client->n_prompt_served += r->client->n_prompt;
        r->started_as = ++r->client->w->n_started;
        if (r->started != NULL)
            *r->started = r->started_as;
    }
    r->client->n_new_served++;
}

static void on_end(void *ctx, enum phx_finish finish, const struct phx_err *err)
{
    struct request *r = ctx;

    (void)finish;
    (void)err;
    r->client->n_open--;
    r->client->n_done++;
    phx_mem_free(r);
}

static void submit(struct client *c, int32_t *started)
{
    static const struct phx_engine_callbacks callbacks = {on_token, on_end};
    static const int32_t                     tokens[FAKE_CONTEXT];
    struct phx_sampling                      sampling;
    struct phx_engine_request                r = {.tenant = c->name, .tokens = tokens, .n_tokens = c->n_prompt,
                                                  .max_new = c->max_new, .priority = c->priority,
                                                  .sampling = &sampling};
    struct request        *request = phx_mem_calloc(1, sizeof(*request));
    struct phx_engine_seq *seq;

    phx_sampling_init(&sampling);
    request->client = c;
    request->started = started;
    c->n_open++;
    assert_int_equal(phx_engine_submit(c->w->engine, &r, &callbacks, request, &seq, NULL), 0);
}

static void submit_many(struct client *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        submit(c, NULL);
}

static void step(struct world *w)
{
    settle(w);
    fake_fleet_step(&w->fleet);
}

static void step_until_done(struct client *c)
{
    for (int i = 0; i < 100000 && c->n_open > 0; i++)
        step(c->w);
    assert_int_equal(c->n_open, 0);
    settle(c->w);
}

static int64_t weighed(const struct client *c)
{
    return c->n_prompt_served + 2 * c->n_new_served;
}

static int64_t plain(const struct client *c)
{
    return c->n_prompt_served + c->n_new_served;
}

/* Both always have requests waiting, for so many steps. */
static void compete(struct client *a, struct client *b, int n_steps)
{
    for (int i = 0; i < n_steps; i++) {
        submit_many(a, a->n_open < 30 ? 30 - a->n_open : 0);
        submit_many(b, b->n_open < 30 ? 30 - b->n_open : 0);
        step(a->w);
    }
}

static void assert_equal_within(int64_t a, int64_t b, int percent)
{
    if (a * 100 < b * (100 - percent) || b * 100 < a * (100 - percent))
        fail_msg("%lld and %lld differ by more than %d %%", (long long)a, (long long)b, percent);
}

static void sizes_of_requests_do_not_matter(void **state)
{
    struct world  w;
    struct client small = {&w, "small", 8, 8, 0, 0, 0, 0, 0}, large = {&w, "large", 64, 64, 0, 0, 0, 0, 0};

    (void)state;
    world_open(&w);
    compete(&small, &large, 10000);
    assert_equal_within(plain(&small), plain(&large), 10);
    assert_true(small.n_done > 7 * large.n_done);
    world_close(&w);
}

static void output_weighs_twice(void **state)
{
    struct world  w;
    struct client reader = {&w, "reader", 200, 5, 0, 0, 0, 0, 0}, writer = {&w, "writer", 5, 50, 0, 0, 0, 0, 0};

    (void)state;
    world_open(&w);
    compete(&reader, &writer, 10000);
    assert_equal_within(weighed(&reader), weighed(&writer), 10);
    world_close(&w);
}

static void priorities_are_a_tenants_own(void **state)
{
    struct world  w;
    struct client a = {&w, "a", 8, 8, 0, 0, 0, 0, 0}, b = {&w, "b", 8, 8, 100, 0, 0, 0, 0};

    (void)state;
    world_open(&w);
    compete(&a, &b, 2000);
    assert_equal_within(plain(&a), plain(&b), 10);
    world_close(&w);
}

/* What a tenant had while another was idle is not held against it, whether it goes on meanwhile, has ended, or the
 * other has something that runs all the time. */
static void idling_earns_nothing(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct world  w;
        struct client a = {&w, "a", 8, 8, 0, 0, 0, 0, 0}, b = {&w, "b", 8, 8, 0, 0, 0, 0, 0};
        struct client trickle = {&w, "b", 1, 900, 0, 0, 0, 0, 0};

        world_open(&w);
        if (way == 2)
            submit(&trickle, NULL);
        submit_many(&a, 120);
        if (way == 1)
            step_until_done(&a);
        for (int i = 0; way != 1 && i < 200; i++)
            step(&w);
        if (way == 1)
            submit(&b, NULL); /* comes when nobody is there, and goes on when a is back */
        a.n_prompt_served = a.n_new_served = b.n_prompt_served = b.n_new_served = 0;
        compete(&a, &b, 300);
        if (way < 2)
            assert_equal_within(plain(&a), plain(&b), 10);
        else /* what runs all the time counts, too */
            assert_equal_within(weighed(&a), weighed(&b) + 2 * 300, 10);
        assert_int_equal(trickle.n_done, 0);
        world_close(&w);
    }
}

static void a_thousand_requests_delay_nobody(void **state)
{
    struct world  w;
    struct client many = {&w, "many", 20, 20, 0, 0, 0, 0, 0}, one = {&w, "one", 20, 20, 0, 0, 0, 0, 0};
    int32_t       n_before, started = 0;

    (void)state;
    world_open(&w);
    submit_many(&many, 1000);
    for (int i = 0; i < 90; i++)
        step(&w);
    n_before = w.n_started;
    submit(&one, &started);
    for (int i = 0; i < 100 && started == 0; i++)
        step(&w);
    /* what the replica was sent already, and one more */
    assert_in_range(started, n_before + 1, n_before + SURPLUS + 2);
    assert_true(many.n_open > 900);
    world_close(&w);
}

static void priorities_order_a_tenants_requests(void **state)
{
    struct world  w;
    struct client low = {&w, "t", 4, 4, 0, 0, 0, 0, 0}, high = {&w, "t", 4, 4, 1, 0, 0, 0, 0};
    int32_t       low_started = 0, high_started = 0;

    (void)state;
    world_open(&w);
    submit_many(&low, FAKE_SEQS + SURPLUS + 1); /* so many are sent, one waits */
    settle(&w);
    submit(&low, &low_started);
    submit(&high, &high_started);
    step_until_done(&low);
    step_until_done(&high);
    assert_in_range(high_started, 1, low_started - 1);
    world_close(&w);
}

static void low_priorities_do_not_starve(void **state)
{
    struct world  w;
    struct client low = {&w, "t", 4, 4, 0, 0, 0, 0, 0}, high = {&w, "t", 4, 4, 1, 0, 0, 0, 0};
    int32_t       n_before, started = 0;

    (void)state;
    world_open(&w);
    submit_many(&high, FAKE_SEQS + SURPLUS); /* so many are sent */
    settle(&w);
    n_before = w.n_started;
    submit(&low, &started);
    for (int i = 0; i < 1000 && started == 0; i++) {
        submit_many(&high, 20 - high.n_open);
        step(&w);
    }
    assert_in_range(started, 1, n_before + FAKE_SEQS + SURPLUS + 8);
    world_close(&w);
}

/* What was lost goes on before anything else, of any tenant and priority. */
static void lost_sequences_come_first(void **state)
{
    struct world  w;
    struct client a = {&w, "a", 4, 50, 0, 0, 0, 0, 0}, b = {&w, "b", 4, 4, 9, 0, 0, 0, 0};

    (void)state;
    world_open(&w);
    submit_many(&a, FAKE_SEQS);
    step(&w);
    submit_many(&b, 30);
    fake_fleet_lose(&w.fleet);
    settle(&w);
    for (int i = 0; i < FAKE_SEQS; i++) {
        assert_int_equal(w.fleet.sent[i].n_tokens, 5);
        assert_int_equal(w.fleet.sent[i].priority, 1);
    }
    assert_int_equal(w.fleet.sent[FAKE_SEQS].priority, 0);
    step_until_done(&a);
    step_until_done(&b);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_requests_do_not_matter),
        cmocka_unit_test(output_weighs_twice),
        cmocka_unit_test(priorities_are_a_tenants_own),
        cmocka_unit_test(idling_earns_nothing),
        cmocka_unit_test(a_thousand_requests_delay_nobody),
        cmocka_unit_test(priorities_order_a_tenants_requests),
        cmocka_unit_test(low_priorities_do_not_starve),
        cmocka_unit_test(lost_sequences_come_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
