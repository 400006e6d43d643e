/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/leaf.h"
#include "rpc/base/json.h"

struct walk {
    struct phx_audit_report *report;
    const char              *receipt; /* to look for, or NULL */
    int64_t                  next_leaf;
    uint8_t                  chain[PHX_SHA256_BYTES];
    int                      n_intents, n_results; /* of that receipt */
};

static int __attribute__((format(printf, 3, 4))) condemn(struct walk *w, enum phx_audit_verdict verdict,
                                                          const char *fmt, ...)
{
    va_list ap;

    if (w->report->verdict == PHX_AUDIT_OK) {
        w->report->verdict = verdict;
        va_start(ap, fmt);
        (void)vsnprintf(w->report->text, sizeof(w->report->text), fmt, ap); /* may be cut */
        va_end(ap);
    }
    return 0;
}

static bool equals(const struct phx_value *v, const uint8_t digest[PHX_SHA256_BYTES])
{
    return v->kind == PHX_VALUE_BLOB && v->size == PHX_SHA256_BYTES &&
           memcmp(v->data, digest, PHX_SHA256_BYTES) == 0;
}

/* The counts of a result must be those of its ledger row. */
static void check_ledger(struct walk *w, const struct phx_value *record, const struct phx_value *row,
                         int64_t leaf)
{
    static const char *const names[] = {"cached", "output", "prompt", "reasoning"};
    json_t                  *root = NULL;

    if (row[0].kind != PHX_VALUE_INT) {
        (void)condemn(w, PHX_AUDIT_INCOMPLETE, "leaf %lld: its ledger row is missing", (long long)leaf);
        return;
    }
    if (phx_json_parse(&root, record->data, record->size, 1 << 20, 0, "record", NULL) != 0) {
        (void)condemn(w, PHX_AUDIT_TAMPERED, "leaf %lld: the record is not JSON", (long long)leaf);
        return;
    }
    for (int i = 0; i < 4; i++)
        if (json_integer_value(json_object_get(json_object_get(root, "tokens"), names[i])) !=
            row[i].number)
            (void)condemn(w, PHX_AUDIT_TAMPERED, "leaf %lld: %s tokens differ from the ledger",
                          (long long)leaf, names[i]);
    json_decref(root);
}

static int check_leaf(void *ctx, const struct phx_value *c, int n_columns)
{
    struct walk *w = ctx;
    uint8_t      leaf[PHX_SHA256_BYTES], chain[PHX_SHA256_BYTES];
    const char  *kind = c[1].data;

    (void)n_columns;
    if (c[0].number != w->next_leaf)
        return condemn(w, PHX_AUDIT_TAMPERED, "leaf %lld is missing", (long long)w->next_leaf);
    phx_leaf_hash(c[3].data, c[3].size, leaf);
    phx_leaf_chain(w->chain, leaf, chain);
    if (!equals(&c[4], leaf))
        return condemn(w, PHX_AUDIT_TAMPERED, "leaf %lld: the record was changed",
                       (long long)w->next_leaf);
    if (!equals(&c[5], chain))
        return condemn(w, PHX_AUDIT_TAMPERED, "leaf %lld: the chain is broken",
                       (long long)w->next_leaf);
    memcpy(w->chain, chain, sizeof(chain));
    if (strcmp(kind, "intent") == 0) {
        w->report->n_requests++;
        w->report->n_open++;
    } else if (strcmp(kind, "result") == 0) {
        w->report->n_open--;
        check_ledger(w, &c[3], &c[6], w->next_leaf);
    }
    if (w->receipt != NULL && strcmp(c[2].data, w->receipt) == 0) {
        w->n_intents += strcmp(kind, "intent") == 0;
        w->n_results += strcmp(kind, "result") == 0;
    }
    w->next_leaf++;
    w->report->n_leaves++;
    return 0;
}

static int walk_log(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct walk *w = ctx;
    int          rc = phx_tx_exec(
        tx,
        "SELECT a.leaf, a.kind, a.receipt, a.record, a.leaf_hash, a.chain, l.cached, l.output,"
        " l.prompt, l.reasoning FROM audit a LEFT JOIN ledger l"
        " ON a.kind = 'result' AND l.receipt = a.receipt AND l.kind = 'commit' ORDER BY a.leaf",
        NULL, 0, check_leaf, w, err);

    phx_hex_encode(w->report->head, sizeof(w->report->head), w->chain, sizeof(w->chain));
    return rc;
}

int phx_audit_verify(struct phx_store *store, const char *receipt, struct phx_audit_report *report,
                     struct phx_err *err)
{
    struct walk w = {.report = report, .receipt = receipt};
    int         rc;

    memset(report, 0, sizeof(*report));
    rc = phx_store_run(store, walk_log, &w, err);
    if (rc != 0 || receipt == NULL)
        return rc;
    if (w.n_intents == 0 && w.n_results == 0 && report->verdict == PHX_AUDIT_OK)
        return phx_fail(err, PHX_E_NOTFOUND, "receipt %.60s is not in the log", receipt);
    if (w.n_intents != 1 || w.n_results != 1)
        (void)condemn(&w, PHX_AUDIT_INCOMPLETE, "receipt %.60s has %d intents and %d results", receipt,
                      w.n_intents, w.n_results);
    return 0;
}
