/* SPDX-License-Identifier: Apache-2.0
 * Random lives of many leases under random budgets, against an oracle that keeps a list of requests and adds
 * them up anew for every question. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "book.h"

enum {
    N_SEEDS = 12,
    N_OPS = 3000,
    N_PER_AUDIT = 100,
    N_TENANTS = 3,
    N_USERS = 3,
    N_BUDGETS = (N_TENANTS + N_TENANTS * N_USERS + N_TENANTS * N_USERS) * 3
};

struct request {
    int     tenant, user;
    int64_t at_ns, reserved, prompt, output;
    bool    is_open, is_void;
};

struct world {
    struct phx_tx *tx;
    uint64_t       random;
    int64_t        now_ns, license_tokens; /* -1 = none */
    struct request requests[N_OPS];
    int            n_requests;
    int64_t        limits[N_BUDGETS]; /* -1 = no budget */
    int            n_admitted, n_refused, n_ended, n_corrected;
};

static uint64_t draw(struct world *w, uint64_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % n;
}

/* Which requests a budget counts: by number, so that the oracle shares no text with the library. */
struct scope_of {
    enum phx_budget_scope  scope;
    enum phx_budget_period period;
    int                    tenant, user;
};

static struct scope_of scope_of(int budget)
{
    int               i = budget / 3;
    enum { N_PEOPLE = N_TENANTS * N_USERS };
    struct scope_of s = {.period = budget % 3 + 1};

    if (i < N_TENANTS)
        return (struct scope_of){PHX_BUDGET_TENANT, s.period, i, -1};
    i -= N_TENANTS;
    s.scope = i < N_PEOPLE ? PHX_BUDGET_USER : PHX_BUDGET_KEY;
    i %= N_PEOPLE;
    s.tenant = i / N_USERS;
    s.user = i % N_USERS;
    return s;
}

static int64_t month_of(int64_t at_ns) /* the test's days run from November 2026 to February 2027 */
{
    int64_t day = (at_ns - MONDAY_NS) / DAY_NS + 22; /* since 1 November */

    return day < 30 ? 11 : day < 61 ? 12 : day < 92 ? 13 : 14;
}

static bool same_window(enum phx_budget_period period, int64_t a, int64_t b)
{
    if (period == PHX_PERIOD_DAY)
        return a / DAY_NS == b / DAY_NS;
    return period == PHX_PERIOD_TOTAL || month_of(a) == month_of(b);
}

static int64_t used_of(const struct world *w, const struct scope_of *s, int64_t at_ns)
{
    int64_t used = 0;

    for (int i = 0; i < w->n_requests; i++) {
        const struct request *r = &w->requests[i];

        if (same_window(s->period, r->at_ns, at_ns) && (s->tenant < 0 || r->tenant == s->tenant) &&
            (s->user < 0 || r->user == s->user) && !r->is_void)
            used += r->is_open ? r->reserved : r->prompt + r->output;
    }
    return used;
}

/* The least that is left of all budgets after `want`; INT64_MAX = there is none. */
static int64_t oracle_left(const struct world *w, const struct request *want)
{
    const struct scope_of license = {PHX_BUDGET_LICENSE, PHX_PERIOD_MONTH, -1, -1};
    int64_t               left = INT64_MAX, rest;

    for (int i = 0; i < N_BUDGETS; i++) {
        struct scope_of s = scope_of(i);

        if (w->limits[i] < 0 || s.tenant != want->tenant || (s.user >= 0 && s.user != want->user))
            continue;
        rest = w->limits[i] - used_of(w, &s, want->at_ns) - want->reserved;
        left = rest < left ? rest : left;
    }
    if (w->license_tokens >= 0) {
        rest = w->license_tokens - used_of(w, &license, want->at_ns) - want->reserved;
        left = rest < left ? rest : left;
    }
    return left;
}

/* ---- operations ------------------------------------------------------------------------------------------- */

static const char *const tenants[N_TENANTS] = {"acme", "o'neil", "\"q,\n"};
static const char *const users[N_USERS] = {"ann", "=sum", "z\xc3\xa9/e"};

static void key_of(int tenant, int user, char key[16])
{
    (void)snprintf(key, 16, "key%d-%d", tenant, user);
}

static void change_budget(struct world *w, struct phx_err *err)
{
    int               i = (int)draw(w, N_BUDGETS);
    struct scope_of   s = scope_of(i);
    struct phx_budget b = {.scope = s.scope, .period = s.period, .tokens = (int64_t)draw(w, 60000)};
    char              key[16];

    key_of(s.tenant, s.user, key);
    (void)snprintf(b.name, sizeof(b.name), "%s%s%s", s.scope == PHX_BUDGET_KEY ? key : tenants[s.tenant],
                   s.scope == PHX_BUDGET_USER ? "/" : "", s.scope == PHX_BUDGET_USER ? users[s.user] : "");
    if (w->limits[i] >= 0 && draw(w, 2) == 0) {
        assert_int_equal(phx_budget_remove(w->tx, &b, err), 0);
        w->limits[i] = -1;
        return;
    }
    assert_int_equal(phx_budget_set(w->tx, &b, w->now_ns, err), 0);
    w->limits[i] = b.tokens;
}

static void admit(struct world *w, struct phx_err *err)
{
    struct request   *r = &w->requests[w->n_requests];
    struct phx_budget broken;
    int64_t           left, retry_ns, expected;
    char              lease[16], key[16];
    int               fits;

    *r = (struct request){.tenant = (int)draw(w, N_TENANTS),
                          .user = (int)draw(w, N_USERS),
                          .at_ns = w->now_ns,
                          .reserved = (int64_t)draw(w, 500),
                          .is_open = true};
    key_of(r->tenant, r->user, key);
    expected = oracle_left(w, r);
    fits = phx_budget_check(w->tx, tenants[r->tenant], users[r->user], key, w->license_tokens, r->reserved,
                            r->at_ns, &left, &broken, &retry_ns, err);
    assert_int_equal(fits, expected >= 0);
    if (fits == 0) {
        assert_true(broken.posted + broken.pending + r->reserved > broken.tokens);
        w->n_refused++;
        return;
    }
    assert_int_equal(left, expected == INT64_MAX ? -1 : expected);
    (void)snprintf(lease, sizeof(lease), "l%d", w->n_requests);
    struct phx_ledger_row row = row_reserve(lease, r->at_ns, 0, r->reserved);

    row.tenant = tenants[r->tenant];
    row.user = users[r->user];
    row.key_id = key;
    assert_int_equal(phx_ledger_put(w->tx, &row, err), 0);
    w->n_requests++;
    w->n_admitted++;
}

static void end(struct world *w, struct phx_err *err)
{
    int             i = (int)draw(w, (uint64_t)w->n_requests);
    struct request *r = &w->requests[i];
    char            lease[16];

    (void)snprintf(lease, sizeof(lease), "l%d", i);
    struct phx_ledger_row row = row_end(PHX_LEDGER_COMMIT, lease, w->now_ns, 0, 0);

    row.prompt = (int64_t)draw(w, (uint64_t)r->reserved + 1);
    row.output = (int64_t)draw(w, (uint64_t)(r->reserved - row.prompt) + 1);
    row.upper = row.output;
    switch (draw(w, 4)) {
    case 0: row.kind = PHX_LEDGER_PROGRESS; break;
    case 1:
        row.kind = PHX_LEDGER_VOID;
        row.prompt = row.output = row.upper = 0;
        break;
    default: break;
    }
    assert_int_equal(phx_ledger_put(w->tx, &row, err), r->is_open ? 0 : PHX_E_STATE);
    if (!r->is_open || row.kind == PHX_LEDGER_PROGRESS)
        return;
    r->is_open = false;
    r->is_void = row.kind == PHX_LEDGER_VOID;
    r->prompt = row.prompt;
    r->output = row.output;
    w->n_ended++;
}

static void correct(struct world *w, struct phx_err *err)
{
    int             i = (int)draw(w, (uint64_t)w->n_requests);
    struct request *r = &w->requests[i];
    char            lease[16];
    int             rc;

    (void)snprintf(lease, sizeof(lease), "l%d", i);
    struct phx_ledger_row row =
        row_end(PHX_LEDGER_CORRECT, lease, w->now_ns, (int64_t)draw(w, 60) - 50, (int64_t)draw(w, 60) - 50);
    rc = phx_ledger_put(w->tx, &row, err);
    if (r->is_open || r->is_void) {
        assert_int_equal(rc, PHX_E_STATE);
        return;
    }
    if (r->prompt + row.prompt < 0 || r->output + row.output < 0) {
        assert_int_equal(rc, PHX_E_INVALID);
        return;
    }
    assert_int_equal(rc, 0);
    r->prompt += row.prompt;
    r->output += row.output;
    w->n_corrected++;
}

static void step(struct world *w, struct phx_err *err)
{
    uint64_t dice = draw(w, 100);

    if (dice < 45 || w->n_requests == 0)
        admit(w, err);
    else if (dice < 80)
        end(w, err);
    else if (dice < 85)
        correct(w, err);
    else if (dice < 90)
        change_budget(w, err);
    else if (dice < 92)
        w->license_tokens = draw(w, 3) == 0 ? -1 : (int64_t)draw(w, 100000);
    else
        w->now_ns += (int64_t)draw(w, 8) * HOUR_NS;
}

static int run_steps(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct world *w = ctx;
    int           rc;

    w->tx = tx;
    for (int i = 0; i < N_PER_AUDIT; i++)
        step(w, err);
    rc = phx_budget_audit(tx, err);
    if (rc != 0)
        print_error("%s\n", err->text);
    return rc;
}

static void agrees_with_the_oracle_to_the_token(void **state)
{
    static struct world w;
    struct book         b;

    (void)state;
    for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
        w = (struct world){.random = seed * 0x9e3779b97f4a7c15u, .now_ns = MONDAY_NS, .license_tokens = -1};
        for (int i = 0; i < N_BUDGETS; i++)
            w.limits[i] = -1;
        book_open(&b);
        for (int i = 0; i < N_OPS / N_PER_AUDIT; i++)
            assert_int_equal(phx_store_run(b.store, run_steps, &w, &b.err), 0);
        print_message("seed %d: %d admitted, %d refused, %d ended, %d corrected\n", (int)seed, w.n_admitted,
                      w.n_refused, w.n_ended, w.n_corrected);
        assert_true(w.n_admitted > 300 && w.n_refused > 100 && w.n_ended > 150 && w.n_corrected > 10);
        book_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_the_oracle_to_the_token)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
