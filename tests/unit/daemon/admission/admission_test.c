/* SPDX-License-Identifier: Apache-2.0
 * The way in: each rule refuses by name and leaves nothing behind; seats, budgets and idempotency keys hold at
 * their edges; what a killed process left open is settled. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/admission/rate.h"
#include "daemon/ledger/ledger.h"
#include "daemon/tenant/tenant.h"
#include "rpc/base/clock.h"
#include "tests/unit/daemon/admission/world.h"

static void setup(struct world *w, json_t *payload)
{
    world_make(w, payload);
    world_open(w);
}

static void teardown(struct world *w)
{
    world_close(w);
    world_remove(w);
}

static void expect_refusal(struct world *w, struct person p, int code, const char *rule)
{
    int64_t     n_refusals = world_int(w, "SELECT COUNT(*) FROM audit WHERE kind = 'refusal'");
    int64_t     n_rows = world_int(w, "SELECT COUNT(*) FROM ledger");
    struct call c;

    world_begin(w, &c, p);
    assert_null(c.lease);
    assert_string_equal(c.rule, rule);
    assert_int_equal(c.refusal, code);
    assert_int_equal(world_int(w, "SELECT COUNT(*) FROM audit WHERE kind = 'refusal'"), n_refusals + 1);
    assert_int_equal(world_int(w, "SELECT COUNT(*) FROM ledger"), n_rows);
}

static void a_request_is_metered_and_recorded(void **state)
{
    struct world w = {0};
    struct call  c;

    (void)state;
    setup(&w, NULL);
    world_begin(&w, &c, (struct person){0});
    assert_non_null(c.lease);
    assert_int_equal(strlen(c.receipt), 37);
    assert_int_equal(phx_admission_active(w.admission), 1);
    assert_int_equal(world_int(&w, "SELECT reserved FROM ledger WHERE kind = 'reserve'"), 14);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM seat"), 1);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM lease"), 1);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM audit WHERE kind = 'intent' AND record LIKE"
                                   " '%\"licence_serial\":7,%' AND record NOT LIKE '%ann%'"), 1);
    world_end(&w, &c, "stop", 3);
    assert_int_equal(phx_admission_active(w.admission), 0);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM lease"), 0);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit' AND prompt = 4 AND"
                                   " cached = 2 AND output = 3 AND reasoning = 1 AND outcome = 'stop'"), 1);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM audit WHERE kind = 'result' AND record LIKE"
                                   " '%\"output\":3%'"), 1);
    world_begin(&w, &c, (struct person){0}); /* the same person takes no second seat */
    world_end(&w, &c, "length", 10);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM seat"), 1);
    teardown(&w);
}

static void what_produced_nothing_is_void(void **state)
{
    struct world w = {0};
    struct call  c;

    (void)state;
    setup(&w, NULL);
    world_begin(&w, &c, (struct person){0});
    world_end(&w, &c, "cancelled", 0);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'void' AND prompt = 0"), 1);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"), 0);
    teardown(&w);
}

static void limits_hold_at_their_edge(void **state)
{
    struct world w = {0};
    struct call  a1, a2, b1;

    (void)state;
    setup(&w, NULL);
    world_begin(&w, &a1, (struct person){.tenant = "a"});
    world_begin(&w, &a2, (struct person){.tenant = "a"});
    assert_non_null(a2.lease);
    expect_refusal(&w, (struct person){.tenant = "a"}, PHX_E_LIMIT, "limit.active.tenant");
    world_begin(&w, &b1, (struct person){.tenant = "b"});
    assert_non_null(b1.lease);
    expect_refusal(&w, (struct person){.tenant = "c"}, PHX_E_LIMIT, "limit.active");
    world_end(&w, &a1, "stop", 1);
    world_begin(&w, &a1, (struct person){.tenant = "c"}); /* a place is free again */
    assert_non_null(a1.lease);
    world_end(&w, &a1, "stop", 1);
    world_end(&w, &a2, "stop", 1);
    world_end(&w, &b1, "stop", 1);
    expect_refusal(&w, (struct person){.roles = PHX_ROLE_BIT_AUDITOR}, PHX_E_DENIED, "role.user");
    expect_refusal(&w, (struct person){.max_new = 41}, PHX_E_TOOBIG, "limit.output");
    expect_refusal(&w, (struct person){.max_new = 21, .n_choices = 2}, PHX_E_TOOBIG, "limit.output");
    expect_refusal(&w, (struct person){.purpose = "mass-surveillance"}, PHX_E_DENIED, "licence.purpose");
    expect_refusal(&w, (struct person){.purpose = "Not A Code"}, PHX_E_INVALID, "request.purpose");
    teardown(&w);
}

static void policies_refuse_by_name(void **state)
{
    static const char aup[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct world      w = {0};
    struct call       c;

    (void)state;
    world_make(&w, NULL);
    w.options.aup_sha256 = aup;
    w.options.is_purpose_required = true;
    world_open(&w);
    expect_refusal(&w, (struct person){0}, PHX_E_DENIED, "policy.purpose");
    expect_refusal(&w, (struct person){.purpose = "support"}, PHX_E_DENIED, "policy.aup");
    scratch_sql(&w.scratch, "INSERT INTO tenant(tenant, aup_hash) VALUES('acme',"
                            " 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')");
    world_begin(&w, &c, (struct person){.purpose = "support"});
    assert_non_null(c.lease);
    world_end(&w, &c, "stop", 1);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM audit WHERE kind = 'intent' AND record LIKE"
                                   " '%\"purpose\":\"support\"%'"), 1);
    teardown(&w);
}

static json_t *with_seats(struct world *w, int seats, int overdraft_pct, int indirect)
{
    json_t *payload = world_payload(w), *limits = json_object_get(payload, "limits");

    json_object_set_new(limits, "seats", json_integer(seats));
    json_object_set_new(limits, "overdraft_pct", json_integer(overdraft_pct));
    json_object_set_new(limits, "indirect_users", json_integer(indirect));
    return payload;
}

static void ask_once(struct world *w, struct person p)
{
    struct call c;

    world_begin(w, &c, p);
    assert_non_null(c.lease);
    world_end(w, &c, "stop", 1);
}

static void seats_end_at_limit_and_overdraft(void **state)
{
    struct world w = {0};
    char         name[16];

    (void)state;
    setup(&w, with_seats(&w, 10, 20, 1));
    for (int i = 0; i < 12; i++) { /* ten seats and two of overdraft */
        (void)snprintf(name, sizeof(name), "u%d", i);
        ask_once(&w, (struct person){.user = name});
    }
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM seat WHERE is_overdraft = 1"), 2);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM audit WHERE kind = 'intent' AND record LIKE"
                                   " '%\"admission\":\"overdraft\"%'"), 2);
    expect_refusal(&w, (struct person){.user = "u12"}, PHX_E_LIMIT, "licence.seats");
    ask_once(&w, (struct person){.user = "u3"}); /* known users go on */
    ask_once(&w, (struct person){.user = "u11"});
    ask_once(&w, (struct person){.user = "robot", .is_service = true});
    expect_refusal(&w, (struct person){.user = "robot2", .is_service = true}, PHX_E_LIMIT, "licence.indirect");
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM seat WHERE is_indirect = 0"), 12);
    teardown(&w);
}

static void hosts_and_gpus_are_limited(void **state)
{
    struct world w = {0};
    json_t      *payload = world_payload(&w), *limits = json_object_get(payload, "limits");

    (void)state;
    json_object_set_new(limits, "nodes", json_integer(2));
    json_object_set_new(limits, "gpus", json_integer(8));
    setup(&w, payload);
    phx_admission_set_places(w.admission, 2, 8, "");
    ask_once(&w, (struct person){0});
    phx_admission_set_places(w.admission, 3, 8, "");
    expect_refusal(&w, (struct person){0}, PHX_E_LICENSE, "licence.nodes");
    phx_admission_set_places(w.admission, 2, 9, "");
    expect_refusal(&w, (struct person){0}, PHX_E_LICENSE, "licence.gpus");
    teardown(&w);
}

static void an_ended_licence_refuses_but_exempt_tenants(void **state)
{
    struct world w = {0};
    json_t      *payload = world_payload(&w);

    (void)state;
    json_object_set_new(payload, "not_after", json_string("2026-03-01T00:00:00Z")); /* and 74 days on */
    setup(&w, payload);
    expect_refusal(&w, (struct person){0}, PHX_E_LICENSE, "licence.expired");
    ask_once(&w, (struct person){.tenant = "icu"});
    teardown(&w);
}

static int set_budget(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_budget_set(tx, ctx, phx_clock_wall_ns(), err);
}

static void a_budget_is_never_exceeded(void **state)
{
    struct world      w = {0};
    struct call       c, d;
    struct phx_err    err = {0};
    struct phx_budget b = {.scope = PHX_BUDGET_TENANT, .name = "acme", .period = PHX_PERIOD_TOTAL, .tokens = 30};

    (void)state;
    world_make(&w, NULL);
    w.options.max_active_per_tenant = 3;
    world_open(&w);
    assert_int_equal(phx_store_run(w.store, set_budget, &b, &err), 0);
    world_begin(&w, &c, (struct person){0}); /* 14 reserved */
    world_begin(&w, &d, (struct person){0}); /* 28 */
    assert_non_null(d.lease);
    world_end(&w, &c, "stop", 1); /* 5 used, 14 reserved */
    expect_refusal(&w, (struct person){.max_new = 8}, PHX_E_LIMIT, "budget.tenant");
    world_begin(&w, &c, (struct person){.max_new = 7}); /* 5 + 14 + 11 = 30 */
    assert_non_null(c.lease);
    expect_refusal(&w, (struct person){.max_new = 1}, PHX_E_LIMIT, "budget.tenant");
    world_end(&w, &c, "cancelled", 0); /* nothing produced: all of it comes back */
    world_begin(&w, &c, (struct person){.max_new = 7});
    assert_non_null(c.lease);
    world_end(&w, &c, "length", 7);
    world_end(&w, &d, "length", 10);
    assert_int_equal(world_int(&w, "SELECT SUM(prompt + output) FROM ledger WHERE kind = 'commit'"), 30);
    expect_refusal(&w, (struct person){.max_new = 1}, PHX_E_LIMIT, "budget.tenant");
    teardown(&w);
}

static void the_same_key_is_the_same_request(void **state)
{
    struct world w = {0};
    struct call  first, c;

    (void)state;
    setup(&w, NULL);
    world_begin(&w, &first, (struct person){.idempotency_key = "k"});
    assert_non_null(first.lease);
    world_begin(&w, &c, (struct person){.idempotency_key = "k"});
    assert_string_equal(c.rule, "idempotency.replayed");
    assert_string_equal(c.receipt, first.receipt);
    world_begin(&w, &c, (struct person){.idempotency_key = "k", .first_token = 1});
    assert_string_equal(c.rule, "idempotency.conflict");
    world_end(&w, &first, "stop", 2);
    world_begin(&w, &c, (struct person){.idempotency_key = "k"}); /* also when it has ended */
    assert_string_equal(c.rule, "idempotency.replayed");
    assert_string_equal(c.receipt, first.receipt);
    ask_once(&w, (struct person){.idempotency_key = "k", .tenant = "other"}); /* another tenant's own */
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'reserve'"), 2);
    teardown(&w);
}

static void rates_refuse_with_the_time_to_wait(void **state)
{
    struct world w = {0};
    struct call  c;

    (void)state;
    world_make(&w, NULL);
    w.options.requests_per_minute = 2;
    w.options.tokens_per_minute = 100;
    world_open(&w);
    ask_once(&w, (struct person){0});
    ask_once(&w, (struct person){0});
    world_begin(&w, &c, (struct person){0});
    assert_string_equal(c.rule, "rate.requests");
    assert_true(c.retry_after_ms > 20000 && c.retry_after_ms <= 30001);
    ask_once(&w, (struct person){.user = "bob"});
    teardown(&w);
}

static void a_bucket_fills_by_whole_units(void **state)
{
    const int64_t    second = 1000000000;
    struct phx_rate *r = phx_rate_create(60);

    (void)state;
    assert_int_equal(phx_rate_take(r, "u", 61, 0), INT64_MAX);
    assert_int_equal(phx_rate_take(r, "u", 60, 0), 0);
    assert_true(phx_rate_take(r, "u", 1, second / 2) > 0);
    assert_int_equal(phx_rate_take(r, "u", 1, second), 0);
    assert_true(phx_rate_take(r, "u", 1, second + second / 2) > 0);
    assert_int_equal(phx_rate_take(r, "u", 1, 2 * second), 0); /* the half second was not lost */
    phx_rate_give(r, "u", 5);
    assert_int_equal(phx_rate_take(r, "u", 5, 2 * second), 0);
    assert_int_equal(phx_rate_take(r, "u", 60, 100 * second), 0); /* no more than a minute's worth */
    assert_true(phx_rate_take(r, "u", 1, 100 * second) > 0);
    phx_rate_destroy(r);
}

/* The child admits a request, tells its receipt through the pipe and waits to be killed. */
static void run_child(struct world *w, int fd)
{
    struct call c;

    world_open(w);
    world_begin(w, &c, (struct person){.max_new = 300});
    phx_lease_progress(c.lease, 2, 1); /* too few, too early */
    phx_lease_progress(c.lease, 257, 1);
    phx_store_drain(w->store);
    if (write(fd, c.receipt, sizeof(c.receipt)) != (ssize_t)sizeof(c.receipt))
        _exit(1);
    pause();
    _exit(2);
}

static void a_killed_process_is_settled_as_a_crash(void **state)
{
    struct world w = {0};
    char         receipt[64];
    int          fds[2], status = 0;
    pid_t        child;

    (void)state;
    world_make(&w, NULL);
    w.options.max_output_tokens = 300;
    assert_int_equal(pipe(fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_child(&w, fds[1]);
    assert_int_equal(read(fds[0], receipt, sizeof(receipt)), sizeof(receipt));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    (void)close(fds[0]);
    (void)close(fds[1]);

    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"), 0);
    world_open(&w);
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit' AND outcome = 'crash' AND"
                                   " prompt = 4 AND output = 257 AND reasoning = 1 AND upper = 300"), 1);
    assert_int_equal(world_int(&w, "SELECT r.leaf < s.leaf FROM audit r, audit s WHERE r.kind = 'result' AND"
                                   " s.record LIKE '%daemon.start%' AND s.record LIKE '%\"epoch\":2%'"), 1);
    world_close(&w);
    world_open(&w); /* a second start settles nothing twice */
    assert_int_equal(world_int(&w, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"), 1);
    assert_int_equal(phx_admission_epoch(w.admission), 3);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_metered_and_recorded),
        cmocka_unit_test(what_produced_nothing_is_void),
        cmocka_unit_test(limits_hold_at_their_edge),
        cmocka_unit_test(policies_refuse_by_name),
        cmocka_unit_test(seats_end_at_limit_and_overdraft),
        cmocka_unit_test(hosts_and_gpus_are_limited),
        cmocka_unit_test(an_ended_licence_refuses_but_exempt_tenants),
        cmocka_unit_test(a_budget_is_never_exceeded),
        cmocka_unit_test(the_same_key_is_the_same_request),
        cmocka_unit_test(rates_refuse_with_the_time_to_wait),
        cmocka_unit_test(a_bucket_fills_by_whole_units),
        cmocka_unit_test(a_killed_process_is_settled_as_a_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
