/* SPDX-License-Identifier: Apache-2.0
 * Admission with its ledger and audit log: callbacks once, limits at their edge, a killed process, damage. */
#include <event2/event.h>
#include <setjmp.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/admission/admission.h"
#include "daemon/audit/audit.h"
#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "scratch.h"

enum { MAX_ACTIVE = 3, MAX_TENANT = 2 };

struct fixture {
    struct scratch        scratch;
    struct event_base    *base;
    struct phx_store     *store;
    struct phx_license   *license;
    struct phx_admission *admission;
};

struct call {
    struct phx_lease *lease;
    int               n_begun, n_settled, refusal, settle_code;
    char              rule[64], receipt[PHX_RECEIPT_BYTES];
};

static const int32_t PROMPT[] = {7, 8, 9, 10}, OUTPUT[] = {100, 101, 102};

/* The days are seconds since 1970. */
static struct phx_license *make_license(long long not_before, long long not_after)
{
    uint8_t             public_key[1][32], secret_key[64];
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    char               *text = NULL;
    char               *payload = phx_mem_printf(
        "{\"class\":\"evaluation\",\"customer\":\"c\",\"grace_days\":14,\"id\":\"L\","
        "\"not_after\":%lld,\"not_before\":%lld,\"serial\":1}",
        not_after, not_before);

    assert_true(sodium_init() >= 0);
    assert_int_equal(crypto_sign_keypair(public_key[0], secret_key), 0);
    assert_int_equal(phx_license_sign(payload, secret_key, &text, &err), 0);
    assert_int_equal(phx_license_parse(text, strlen(text), (const uint8_t(*)[32])public_key, 1, &l, &err),
                     0);
    phx_mem_free(text);
    phx_mem_free(payload);
    return l;
}

static void open_all(struct fixture *f, long long not_before, long long not_after)
{
    const struct phx_admission_options o = {
        .max_active = MAX_ACTIVE,
        .max_active_per_tenant = MAX_TENANT,
        .model_name = "m",
        .model_digest = "d",
        .build = "b",
        .max_prompt_tokens = 4,
        .max_output_tokens = 20,
    };
    struct phx_err err = {0};

    f->base = event_base_new();
    f->license = make_license(not_before, not_after);
    assert_int_equal(phx_store_open(f->scratch.db, f->base, &f->store, &err), 0);
    assert_int_equal(phx_admission_open(f->base, f->store, f->license, &o, &f->admission, &err), 0);
}

static void close_all(struct fixture *f)
{
    phx_store_close(f->store);
    phx_admission_close(f->admission);
    phx_license_close(f->license);
    event_base_free(f->base);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    scratch_make(&f->scratch);
    open_all(f, 0, 4000000000LL);
}

static void teardown(struct fixture *f)
{
    close_all(f);
    scratch_remove(&f->scratch);
}

static void on_begun(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal)
{
    struct call *c = ctx;

    assert_true((lease == NULL) != (refusal == NULL));
    c->n_begun++;
    c->lease = lease;
    if (refusal != NULL) {
        c->refusal = refusal->code;
        (void)snprintf(c->rule, sizeof(c->rule), "%s", refusal->rule);
        return;
    }
    (void)snprintf(c->receipt, sizeof(c->receipt), "%s", phx_lease_receipt(lease));
}

static void on_settled(void *ctx, const struct phx_err *err)
{
    struct call *c = ctx;

    c->n_settled++;
    c->settle_code = err != NULL ? err->code : 0;
}

/* Turns the loop until *count reaches n, at most ten seconds; then a little longer, to see a second call. */
static void turn_until(struct fixture *f, const int *count, int n)
{
    int64_t deadline = phx_clock_mono_ns() + INT64_C(10000000000);

    while (*count < n && phx_clock_mono_ns() < deadline) {
        assert_true(event_base_loop(f->base, EVLOOP_NONBLOCK) >= 0);
        usleep(500);
    }
    usleep(5000);
    assert_true(event_base_loop(f->base, EVLOOP_NONBLOCK) >= 0);
    assert_int_equal(*count, n);
}

static void begin_as(struct fixture *f, struct call *c, const char *tenant, unsigned roles, int max_new)
{
    struct phx_identity        id = {.key_id = "k1", .user = "ann", .roles = roles};
    struct phx_sampling        sampling;
    struct phx_admission_facts facts = {
        .identity = &id,
        .request_id = "req-1",
        .endpoint = "completions",
        .prompt = PROMPT,
        .n_prompt = 4,
        .max_new = max_new,
        .n_choices = 2,
        .sampling = &sampling,
    };

    phx_sampling_init(&sampling);
    (void)snprintf(id.tenant, sizeof(id.tenant), "%s", tenant);
    memset(c, 0, sizeof(*c));
    phx_admission_begin(f->admission, &facts, on_begun, c);
    assert_int_equal(c->n_begun, 0); /* later, on the loop */
    turn_until(f, &c->n_begun, 1);
}

static void begin(struct fixture *f, struct call *c, const char *tenant)
{
    begin_as(f, c, tenant, PHX_ROLE_BIT_USER, 10);
}

static void end(struct fixture *f, struct call *c)
{
    const struct phx_outcome o = {
        .finish = "stop",
        .output = OUTPUT,
        .n_output = 3,
        .n_reasoning = 1,
        .n_cached = 2,
        .queue_ms = 1,
        .first_token_ms = 2,
        .total_ms = 3,
    };

    phx_lease_end(c->lease, &o, on_settled, c);
    assert_int_equal(c->n_settled, 0);
    turn_until(f, &c->n_settled, 1);
    assert_int_equal(c->settle_code, 0);
}

static enum phx_audit_verdict verify(struct fixture *f, const char *receipt)
{
    struct phx_audit_report report;
    struct phx_err          err = {0};

    assert_int_equal(phx_audit_verify(f->store, receipt, &report, &err), 0);
    return report.verdict;
}

static void this_month(char period[8])
{
    char utc[32];

    phx_clock_format_utc(phx_clock_wall_ns(), utc);
    (void)snprintf(period, 8, "%.7s", utc);
}

static void test_a_request_is_metered_and_recorded(void **state)
{
    struct fixture          f;
    struct call             c;
    struct phx_usage_row    row[2];
    struct phx_audit_report report;
    struct phx_err          err = {0};
    char                    period[8];

    (void)state;
    setup(&f);
    begin(&f, &c, "acme");
    assert_non_null(c.lease);
    assert_int_equal(strlen(c.receipt), 37);
    assert_int_equal(phx_admission_active(f.admission), 1);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'intent'"), 1);
    assert_int_equal(verify(&f, c.receipt), PHX_AUDIT_INCOMPLETE);
    end(&f, &c);
    assert_int_equal(phx_admission_active(f.admission), 0);
    assert_int_equal(verify(&f, c.receipt), PHX_AUDIT_OK);
    assert_int_equal(verify(&f, NULL), PHX_AUDIT_OK);
    assert_int_equal(phx_audit_verify(f.store, "rcpt_none", &report, &err), PHX_E_NOTFOUND);

    this_month(period);
    assert_int_equal(phx_ledger_report(f.store, period, row, 2, &err), 1);
    assert_string_equal(row[0].tenant, "acme");
    assert_string_equal(row[0].user, "ann");
    assert_string_equal(row[0].model, "m");
    assert_int_equal(row[0].requests, 1);
    assert_int_equal(row[0].prompt, 4);
    assert_int_equal(row[0].cached, 2);
    assert_int_equal(row[0].output, 3);
    assert_int_equal(row[0].reasoning, 1);
    assert_int_equal(phx_ledger_report(f.store, "1999-01", row, 2, &err), 0);
    assert_int_equal(phx_ledger_report(f.store, "1999-13", row, 2, &err), PHX_E_INVALID);
    assert_int_equal(phx_ledger_report(f.store, "1999-1", row, 2, &err), PHX_E_INVALID);
    teardown(&f);
}

static void test_limits_at_their_edge(void **state)
{
    struct fixture f;
    struct call    a1, a2, a3, b1, b2;

    (void)state;
    setup(&f);
    begin(&f, &a1, "a");
    begin(&f, &a2, "a");
    assert_non_null(a2.lease);
    begin(&f, &a3, "a");
    assert_int_equal(a3.refusal, PHX_E_LIMIT);
    assert_string_equal(a3.rule, "limit.active.tenant");
    begin(&f, &b1, "b");
    assert_non_null(b1.lease);
    begin(&f, &b2, "b");
    assert_int_equal(b2.refusal, PHX_E_LIMIT);
    assert_string_equal(b2.rule, "limit.active");
    end(&f, &a1);
    begin(&f, &b2, "b"); /* a place is free again */
    assert_non_null(b2.lease);
    end(&f, &a2);
    end(&f, &b1);
    end(&f, &b2);
    assert_int_equal(phx_admission_active(f.admission), 0);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'refusal'"), 2);
    assert_int_equal(verify(&f, NULL), PHX_AUDIT_OK);

    begin_as(&f, &a1, "a", PHX_ROLE_BIT_AUDITOR, 10);
    assert_int_equal(a1.refusal, PHX_E_DENIED);
    begin_as(&f, &a1, "a", PHX_ROLE_BIT_ADMIN, 11); /* 2 choices of 11: over 20 */
    assert_int_equal(a1.refusal, PHX_E_TOOBIG);
    assert_string_equal(a1.rule, "limit.output");
    teardown(&f);
}

static void test_an_expired_licence_refuses(void **state)
{
    struct fixture f;
    struct call    c;

    (void)state;
    memset(&f, 0, sizeof(f));
    scratch_make(&f.scratch);
    open_all(&f, 1000, 2000);
    begin_as(&f, &c, "a", PHX_ROLE_BIT_AUDITOR, 10);
    assert_int_equal(c.refusal, PHX_E_LICENSE); /* the licence is asked before the role */
    assert_string_equal(c.rule, "licence.expired");
    assert_int_equal(
        scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE record LIKE '%licence.expired%'"), 1);
    teardown(&f);
}

/* The child admits a request, tells its receipt through the pipe and waits to be killed. */
static void run_child(const struct fixture *parent, int fd)
{
    struct fixture f = *parent;
    struct call    c;

    open_all(&f, 0, 4000000000LL);
    begin(&f, &c, "acme");
    phx_lease_progress(c.lease, 2, 1);
    usleep(100000); /* lets the progress be written */
    if (c.lease == NULL || write(fd, c.receipt, sizeof(c.receipt)) != (ssize_t)sizeof(c.receipt))
        _exit(1);
    pause();
    _exit(2);
}

static void test_a_killed_process_is_settled_as_a_crash(void **state)
{
    struct fixture f;
    char           receipt[PHX_RECEIPT_BYTES];
    int            fds[2], status = 0;
    pid_t          child;

    (void)state;
    memset(&f, 0, sizeof(f));
    scratch_make(&f.scratch);
    assert_int_equal(pipe(fds), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_child(&f, fds[1]);
    assert_int_equal(read(fds[0], receipt, sizeof(receipt)), sizeof(receipt));
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    (void)close(fds[0]);
    (void)close(fds[1]);

    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"), 0);
    open_all(&f, 0, 4000000000LL);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"
                                             " AND finish = 'crash' AND prompt = 4 AND output = 2"
                                             " AND reasoning = 1"),
                     1);
    assert_int_equal(verify(&f, receipt), PHX_AUDIT_OK);
    close_all(&f);
    open_all(&f, 0, 4000000000LL); /* a second start settles nothing twice */
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit'"), 1);
    assert_int_equal(verify(&f, NULL), PHX_AUDIT_OK);
    teardown(&f);
}

static void expect_damage(const char *sql, enum phx_audit_verdict least)
{
    struct fixture f;
    struct call    c;

    setup(&f);
    for (int i = 0; i < 2; i++) {
        begin(&f, &c, "acme");
        end(&f, &c);
    }
    assert_int_equal(verify(&f, NULL), PHX_AUDIT_OK);
    scratch_sql(&f.scratch, sql);
    assert_int_equal(verify(&f, NULL), least);
    teardown(&f);
}

static void test_damage_is_found(void **state)
{
    (void)state;
    expect_damage("UPDATE audit SET record = replace(record, 'acme', 'acmf') WHERE leaf = 1",
                  PHX_AUDIT_TAMPERED);
    expect_damage("UPDATE audit SET leaf_hash = zeroblob(32) WHERE leaf = 2", PHX_AUDIT_TAMPERED);
    expect_damage("UPDATE audit SET chain = zeroblob(32) WHERE leaf = 2", PHX_AUDIT_TAMPERED);
    expect_damage("DELETE FROM audit WHERE leaf = 2", PHX_AUDIT_TAMPERED);
    expect_damage("DELETE FROM audit WHERE leaf = 0", PHX_AUDIT_TAMPERED);
    expect_damage("UPDATE ledger SET output = output - 1 WHERE kind = 'commit'", PHX_AUDIT_TAMPERED);
    expect_damage("DELETE FROM ledger WHERE kind = 'commit' AND id = (SELECT MAX(id) FROM ledger)",
                  PHX_AUDIT_INCOMPLETE);
}

static void test_commitments_are_salted(void **state)
{
    uint8_t salt[PHX_SALT_BYTES] = {0};
    char    a[65], b[65], c[65];

    (void)state;
    phx_audit_commit(salt, PROMPT, 4, a);
    phx_audit_commit(salt, PROMPT, 3, b);
    salt[0] = 1;
    phx_audit_commit(salt, PROMPT, 4, c);
    assert_string_not_equal(a, b);
    assert_string_not_equal(a, c);
    /* SHA-256 of 32 zero bytes, then 07 00 00 00 */
    salt[0] = 0;
    phx_audit_commit(salt, PROMPT, 1, a);
    assert_string_equal(a, "95f1f8ffe5b54fd46e622b34b93464acfc25fd54cabd50a3f0143479e4253b42");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_metered_and_recorded),
        cmocka_unit_test(test_limits_at_their_edge),
        cmocka_unit_test(test_an_expired_licence_refuses),
        cmocka_unit_test(test_a_killed_process_is_settled_as_a_crash),
        cmocka_unit_test(test_damage_is_found),
        cmocka_unit_test(test_commitments_are_salted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
