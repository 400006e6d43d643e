/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/store: the schema, one entry per version.  Entries are never edited, only added. */
#ifndef PHX_DAEMON_STORE_SCHEMA_H
#define PHX_DAEMON_STORE_SCHEMA_H

static const char *const schema_versions[] = {
    /* 1 */
    "CREATE TABLE api_key("
    " key_id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, user TEXT NOT NULL,"
    " roles INTEGER NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL DEFAULT 0,"
    " revoked_ns INTEGER NOT NULL DEFAULT 0) STRICT;"
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
    "INSERT INTO meta VALUES('epoch', 0), ('key_generation', 0);"
    "CREATE TABLE ledger("
    " id INTEGER PRIMARY KEY, kind TEXT NOT NULL, receipt TEXT NOT NULL, at_ns INTEGER NOT NULL,"
    " epoch INTEGER NOT NULL, tenant TEXT NOT NULL, user TEXT NOT NULL, key_id TEXT NOT NULL,"
    " model TEXT NOT NULL, request_id TEXT NOT NULL, reserved INTEGER NOT NULL,"
    " prompt INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL,"
    " reasoning INTEGER NOT NULL, queue_ms INTEGER NOT NULL, first_ms INTEGER NOT NULL,"
    " total_ms INTEGER NOT NULL, finish TEXT NOT NULL, UNIQUE(kind, receipt)) STRICT;"
    "CREATE INDEX ledger_receipt ON ledger(receipt);"
    "CREATE INDEX ledger_time ON ledger(at_ns);"
    "CREATE TABLE audit("
    " leaf INTEGER PRIMARY KEY, kind TEXT NOT NULL, receipt TEXT NOT NULL, record TEXT NOT NULL,"
    " leaf_hash BLOB NOT NULL, chain BLOB NOT NULL, salt BLOB) STRICT;"
    "CREATE INDEX audit_receipt ON audit(receipt);",
};

enum { SCHEMA_VERSION = sizeof(schema_versions) / sizeof(schema_versions[0]) };

#endif
