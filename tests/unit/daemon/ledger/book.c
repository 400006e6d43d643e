/* SPDX-License-Identifier: Apache-2.0 */
#include "book.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void book_open(struct book *b)
{
    memset(b, 0, sizeof(*b));
    scratch_make(&b->scratch);
    assert_int_equal(phx_store_open(b->scratch.db, NULL, &b->store, &b->err), 0);
}

void book_close(struct book *b)
{
    phx_store_close(b->store);
    scratch_remove(&b->scratch);
}

struct phx_ledger_row row_reserve(const char *lease, int64_t at_ns, int64_t prompt, int64_t reserved)
{
    return (struct phx_ledger_row){
        .kind = PHX_LEDGER_RESERVE,
        .lease = lease,
        .at_ns = at_ns,
        .epoch = 1,
        .tenant = "acme",
        .user = "ann",
        .key_id = "k1",
        .cost_centre = "lab",
        .model = "m",
        .request_id = "r",
        .reserved = reserved,
        .prompt = prompt,
    };
}

struct phx_ledger_row row_end(enum phx_ledger_kind kind, const char *lease, int64_t at_ns, int64_t prompt,
                              int64_t output)
{
    return (struct phx_ledger_row){
        .kind = kind,
        .lease = lease,
        .at_ns = at_ns,
        .epoch = 1,
        .prompt = prompt,
        .output = output,
        .upper = kind == PHX_LEDGER_COMMIT ? output : 0,
        .outcome = "stop",
        .note = kind == PHX_LEDGER_CORRECT ? "CHG-1" : NULL,
    };
}

static int put(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_ledger_put(tx, ctx, err);
}

int book_put(struct book *b, struct phx_ledger_row *row)
{
    return phx_store_run(b->store, put, row, &b->err);
}

int book_reserve(struct book *b, const char *lease, int64_t at_ns, int64_t prompt, int64_t reserved)
{
    struct phx_ledger_row row = row_reserve(lease, at_ns, prompt, reserved);

    return book_put(b, &row);
}

int book_commit(struct book *b, const char *lease, int64_t at_ns, int64_t prompt, int64_t output)
{
    struct phx_ledger_row row = row_end(PHX_LEDGER_COMMIT, lease, at_ns, prompt, output);

    return book_put(b, &row);
}

int book_void(struct book *b, const char *lease, int64_t at_ns)
{
    struct phx_ledger_row row = row_end(PHX_LEDGER_VOID, lease, at_ns, 0, 0);

    return book_put(b, &row);
}

/* ---- budgets ---------------------------------------------------------------------------------------------- */

struct budget_job {
    struct phx_budget budget;
    int64_t           at_ns;
};

static int set_budget(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct budget_job *j = ctx;

    return phx_budget_set(tx, &j->budget, j->at_ns, err);
}

int book_budget(struct book *b, enum phx_budget_scope scope, const char *name,
                enum phx_budget_period period, int64_t tokens, int64_t at_ns)
{
    struct budget_job j = {{.scope = scope, .period = period, .tokens = tokens}, at_ns};

    (void)snprintf(j.budget.name, sizeof(j.budget.name), "%s", name);
    return phx_store_run(b->store, set_budget, &j, &b->err);
}

static int audit(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_budget_audit(tx, err);
}

int book_audit(struct book *b)
{
    return phx_store_run(b->store, audit, NULL, &b->err);
}

struct admit_job {
    struct phx_ledger_row *row;
    int64_t                license_tokens;
    struct book_answer    *out;
};

static int admit(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct admit_job *j = ctx;
    int fits = phx_budget_check(tx, j->row->tenant, j->row->user, j->row->key_id, j->license_tokens,
                                j->row->reserved, j->row->at_ns, &j->out->left, &j->out->broken,
                                &j->out->retry_ns, err);

    if (fits < 0)
        return fits;
    return fits == 0 ? phx_fail(err, PHX_E_LIMIT, "over the budget") : phx_ledger_put(tx, j->row, err);
}

int book_admit_on(struct book *b, struct phx_store *store, struct phx_ledger_row *reserve,
                  int64_t license_tokens, struct book_answer *out)
{
    struct admit_job j = {reserve, license_tokens, out};

    return phx_store_run(store, admit, &j, &b->err);
}

int book_admit(struct book *b, const char *lease, int64_t at_ns, int64_t reserved, struct book_answer *out)
{
    struct phx_ledger_row row = row_reserve(lease, at_ns, 0, reserved);

    return book_admit_on(b, b->store, &row, -1, out);
}

struct sum_job {
    struct phx_budget want;
    int64_t           at_ns;
    bool              is_found;
};

static int match(void *ctx, const struct phx_budget *found)
{
    struct sum_job *j = ctx;

    if (found->scope == j->want.scope && found->period == j->want.period &&
        strcmp(found->name, j->want.name) == 0) {
        j->want = *found;
        j->is_found = true;
    }
    return 0;
}

static int list(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_budget_list(tx, ((struct sum_job *)ctx)->at_ns, match, ctx, err);
}

struct phx_budget book_sum(struct book *b, enum phx_budget_scope scope, const char *name,
                           enum phx_budget_period period, int64_t at_ns)
{
    struct sum_job j = {{.scope = scope, .period = period}, at_ns, false};

    (void)snprintf(j.want.name, sizeof(j.want.name), "%s", name);
    assert_int_equal(phx_store_run(b->store, list, &j, &b->err), 0);
    assert_true(j.is_found);
    return j.want;
}
