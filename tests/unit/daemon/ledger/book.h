/* SPDX-License-Identifier: Apache-2.0
 * A ledger in a folder of its own, and its operations as one transaction each. */
#ifndef PHX_TESTS_LEDGER_BOOK_H
#define PHX_TESTS_LEDGER_BOOK_H

#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "scratch.h"

/* 2026-11-23 00:00:00 UTC, and some lengths */
#define MONDAY_NS INT64_C(1795392000000000000)
#define HOUR_NS   INT64_C(3600000000000)
#define DAY_NS    (24 * HOUR_NS)

struct book {
    struct scratch    scratch;
    struct phx_store *store;
    struct phx_err    err; /* of the last operation that failed */
};

void book_open(struct book *b);
void book_close(struct book *b);

/* Rows with defaults: tenant "acme", user "ann", key "k1", cost centre "lab", model "m". */
struct phx_ledger_row row_reserve(const char *lease, int64_t at_ns, int64_t prompt, int64_t reserved);
struct phx_ledger_row row_end(enum phx_ledger_kind kind, const char *lease, int64_t at_ns, int64_t prompt,
                              int64_t output);

/* 0 or the error; err is in the book. */
int book_put(struct book *b, struct phx_ledger_row *row);
int book_reserve(struct book *b, const char *lease, int64_t at_ns, int64_t prompt, int64_t reserved);
int book_commit(struct book *b, const char *lease, int64_t at_ns, int64_t prompt, int64_t output);
int book_void(struct book *b, const char *lease, int64_t at_ns);

int book_budget(struct book *b, enum phx_budget_scope scope, const char *name,
                enum phx_budget_period period, int64_t tokens, int64_t at_ns);
int book_audit(struct book *b);

struct book_answer {
    int64_t           left, retry_ns;
    struct phx_budget broken;
};
/* phx_budget_check of the row's tenant, user and key, and the reserve in the same transaction when it fits. */
int book_admit_on(struct book *b, struct phx_store *store, struct phx_ledger_row *reserve,
                  int64_t license_tokens, struct book_answer *out);
int book_admit(struct book *b, const char *lease, int64_t at_ns, int64_t reserved, struct book_answer *out);
/* The sums of one budget as the library tells them. */
struct phx_budget book_sum(struct book *b, enum phx_budget_scope scope, const char *name,
                           enum phx_budget_period period, int64_t at_ns);

#endif
