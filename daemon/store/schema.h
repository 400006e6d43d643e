/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/store: the schema, one entry per version.  Once a version is released its entry is
 * never edited, only followed.  Plain SQL that PostgreSQL understands too, but for STRICT. */
#ifndef PHX_DAEMON_STORE_SCHEMA_H
#define PHX_DAEMON_STORE_SCHEMA_H

static const char *const schema_versions[] = {
    /* 1 */
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
    "INSERT INTO meta VALUES('epoch', 0), ('key_generation', 0);"

    /* who: tenants, their keys, the text they signed */
    "CREATE TABLE api_key("
    " key_id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, user TEXT NOT NULL,"
    " roles INTEGER NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL DEFAULT 0,"
    " revoked_ns INTEGER NOT NULL DEFAULT 0, is_service INTEGER NOT NULL DEFAULT 0,"
    " cost_centre TEXT NOT NULL DEFAULT '') STRICT;"
    "CREATE TABLE tenant("
    " tenant TEXT PRIMARY KEY, privacy TEXT NOT NULL DEFAULT 'commit-only',"
    " retention TEXT NOT NULL DEFAULT 'standard', replay TEXT NOT NULL DEFAULT '',"
    " aup_hash TEXT NOT NULL DEFAULT '', aup_by TEXT NOT NULL DEFAULT '',"
    " aup_ns INTEGER NOT NULL DEFAULT 0, changed_ns INTEGER NOT NULL DEFAULT 0) STRICT;"

    /* what the licence allows, and who sits on it: a grow-only set */
    "CREATE TABLE license("
    " serial INTEGER PRIMARY KEY, envelope BLOB NOT NULL, installed_ns INTEGER NOT NULL) STRICT;"
    "CREATE TABLE key_set("
    " version INTEGER PRIMARY KEY, envelope BLOB NOT NULL, installed_ns INTEGER NOT NULL) STRICT;"
    "CREATE TABLE seat("
    " id INTEGER PRIMARY KEY, period TEXT NOT NULL, seat_id BLOB NOT NULL, tenant TEXT NOT NULL,"
    " first_ns INTEGER NOT NULL, is_overdraft INTEGER NOT NULL, is_indirect INTEGER NOT NULL,"
    " is_exempt INTEGER NOT NULL, UNIQUE(period, seat_id)) STRICT;"
    "CREATE INDEX seat_order ON seat(period, id);"
    /* a cache of a fold over the set; at_id: the last seat that is in the sum */
    "CREATE TABLE seat_sum("
    " period TEXT PRIMARY KEY, people INTEGER NOT NULL, indirect INTEGER NOT NULL,"
    " overdraft INTEGER NOT NULL, exempt INTEGER NOT NULL, at_id INTEGER NOT NULL) STRICT;"

    /* the ledger: rows are only added */
    "CREATE TABLE ledger("
    " id INTEGER PRIMARY KEY, kind TEXT NOT NULL, lease TEXT NOT NULL, at_ns INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, tenant TEXT NOT NULL, user TEXT NOT NULL, key_id TEXT NOT NULL,"
    " cost_centre TEXT NOT NULL, model TEXT NOT NULL, request_id TEXT NOT NULL,"
    " reserved INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,"
    " output INTEGER NOT NULL, reasoning INTEGER NOT NULL, upper INTEGER NOT NULL,"
    " compute_ms INTEGER NOT NULL, queue_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL,"
    " total_ms INTEGER NOT NULL, outcome TEXT NOT NULL, ref INTEGER NOT NULL,"
    " note TEXT NOT NULL) STRICT;"
    "CREATE UNIQUE INDEX ledger_begin ON ledger(lease) WHERE kind = 'reserve';"
    "CREATE UNIQUE INDEX ledger_end ON ledger(lease) WHERE kind IN ('commit', 'void');"
    "CREATE INDEX ledger_lease ON ledger(lease);"
    "CREATE INDEX ledger_time ON ledger(at_ns);"
    /* reserves without an end, so that a restart need not read the whole ledger */
    "CREATE TABLE ledger_open("
    " lease TEXT PRIMARY KEY, id INTEGER NOT NULL, epoch INTEGER NOT NULL) STRICT;"
    "CREATE TABLE idempotency("
    " tenant TEXT NOT NULL, key TEXT NOT NULL, request_digest BLOB NOT NULL, lease TEXT NOT NULL,"
    " at_ns INTEGER NOT NULL, PRIMARY KEY(tenant, key)) STRICT;"
    /* leases that are open: what a crash or an expiry must settle */
    "CREATE TABLE lease("
    " lease TEXT PRIMARY KEY, kind TEXT NOT NULL, epoch INTEGER NOT NULL,"
    " expires_ns INTEGER NOT NULL, session TEXT NOT NULL) STRICT;"
    "CREATE TABLE budget("
    " scope TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL, tokens INTEGER NOT NULL,"
    " changed_ns INTEGER NOT NULL, PRIMARY KEY(scope, name, period)) STRICT;"
    /* caches of folds over the ledger; at_id: the last row that is in the sum */
    "CREATE TABLE budget_sum("
    " scope TEXT NOT NULL, name TEXT NOT NULL, time_window TEXT NOT NULL, posted INTEGER NOT NULL,"
    " pending INTEGER NOT NULL, at_id INTEGER NOT NULL, PRIMARY KEY(scope, name, time_window)) STRICT;"
    "CREATE TABLE export_cursor(name TEXT PRIMARY KEY, next_id INTEGER NOT NULL) STRICT;"

    /* the audit log; tiles and checkpoints are published from it */
    "CREATE TABLE audit("
    " leaf INTEGER PRIMARY KEY, kind TEXT NOT NULL, receipt TEXT NOT NULL, at_ns INTEGER NOT NULL,"
    " tenant TEXT NOT NULL, record TEXT NOT NULL, leaf_hash BLOB NOT NULL) STRICT;"
    "CREATE INDEX audit_receipt ON audit(receipt);"
    "CREATE INDEX audit_time ON audit(at_ns);",
    /* 2: what was asked and answered, as far as a tenant keeps it; outside the log, so that it can be
     * shredded */
    "CREATE TABLE content("
    " receipt TEXT PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, period TEXT NOT NULL,"
    " generation INTEGER NOT NULL, mode TEXT NOT NULL, at_ns INTEGER NOT NULL,"
    " keep_until_ns INTEGER NOT NULL, salt BLOB, wrapped_dek BLOB, request BLOB, request_tag BLOB,"
    " response BLOB, response_tag BLOB, shredded_ns INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE INDEX content_keep ON content(keep_until_ns) WHERE shredded_ns = 0;"
    "CREATE INDEX content_month ON content(tenant, period, generation) WHERE shredded_ns = 0;"
    /* generation: counts the keys that were destroyed; content of an older one cannot be read */
    "CREATE TABLE tenant_kek("
    " tenant TEXT NOT NULL, period TEXT NOT NULL, wrapped BLOB, generation INTEGER NOT NULL,"
    " destroyed_ns INTEGER NOT NULL, PRIMARY KEY(tenant, period)) STRICT;"
    "CREATE TABLE legal_hold("
    " name TEXT PRIMARY KEY, tenant TEXT NOT NULL, user TEXT NOT NULL, opened_ns INTEGER NOT NULL,"
    " closed_ns INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL, opened_by TEXT NOT NULL,"
    " closed_by TEXT NOT NULL DEFAULT '') STRICT;",
};

enum { SCHEMA_VERSION = sizeof(schema_versions) / sizeof(schema_versions[0]) };

#endif
