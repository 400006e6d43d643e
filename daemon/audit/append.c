/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/audit/leaf.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/json.h"

void phx_receipt_make(char receipt[PHX_RECEIPT_BYTES])
{
    char hex[33];

    phx_id_hex(hex, sizeof(hex), 16);
    (void)snprintf(receipt, PHX_RECEIPT_BYTES, "rcpt_%s", hex);
}

void phx_audit_commit(const uint8_t salt[PHX_SALT_BYTES], const int32_t *ids, size_t n, char hex[65])
{
    struct phx_sha256 h;
    uint8_t           digest[PHX_SHA256_BYTES];

    phx_sha256_init(&h);
    phx_sha256_update(&h, salt, PHX_SALT_BYTES);
    for (size_t i = 0; i < n; i++) {
        uint32_t      v = (uint32_t)ids[i];
        const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                                  (uint8_t)(v >> 24)};

        phx_sha256_update(&h, bytes, sizeof(bytes));
    }
    phx_sha256_final(&h, digest);
    phx_hex_encode(hex, 65, digest, sizeof(digest));
}

void phx_leaf_hash(const char *record, size_t size, uint8_t out[PHX_SHA256_BYTES])
{
    static const uint8_t prefix = 0; /* RFC 6962: leaves are hashed behind a zero byte */
    struct phx_sha256    h;

    phx_sha256_init(&h);
    phx_sha256_update(&h, &prefix, 1);
    phx_sha256_update(&h, record, size);
    phx_sha256_final(&h, out);
}

void phx_leaf_chain(const uint8_t before[PHX_SHA256_BYTES], const uint8_t leaf[PHX_SHA256_BYTES],
                    uint8_t out[PHX_SHA256_BYTES])
{
    struct phx_sha256 h;

    phx_sha256_init(&h);
    phx_sha256_update(&h, before, PHX_SHA256_BYTES);
    phx_sha256_update(&h, leaf, PHX_SHA256_BYTES);
    phx_sha256_final(&h, out);
}

struct tail {
    int64_t leaf;
    uint8_t chain[PHX_SHA256_BYTES];
};

static int read_tail(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct tail *t = ctx;

    (void)n_columns;
    t->leaf = columns[0].number + 1;
    if (columns[1].kind == PHX_VALUE_BLOB && columns[1].size == sizeof(t->chain))
        memcpy(t->chain, columns[1].data, sizeof(t->chain));
    return 0;
}

int phx_audit_append(struct phx_tx *tx, const char *kind, const char *receipt, const char *record,
                     const uint8_t *salt, struct phx_err *err)
{
    struct tail      tail = {0, {0}};
    uint8_t          leaf[PHX_SHA256_BYTES], chain[PHX_SHA256_BYTES];
    struct phx_value values[7];
    int rc = phx_tx_exec(tx, "SELECT leaf, chain FROM audit ORDER BY leaf DESC LIMIT 1", NULL, 0,
                         read_tail, &tail, err);

    if (rc != 0)
        return rc;
    phx_leaf_hash(record, strlen(record), leaf);
    phx_leaf_chain(tail.chain, leaf, chain);
    values[0] = phx_value_int(tail.leaf);
    values[1] = phx_value_text(kind);
    values[2] = phx_value_text(receipt);
    values[3] = phx_value_text(record);
    values[4] = phx_value_blob(leaf, sizeof(leaf));
    values[5] = phx_value_blob(chain, sizeof(chain));
    values[6] = salt != NULL ? phx_value_blob(salt, PHX_SALT_BYTES) : phx_value_text(NULL);
    return phx_tx_exec(tx,
                       "INSERT INTO audit(leaf, kind, receipt, record, leaf_hash, chain, salt)"
                       " VALUES(?, ?, ?, ?, ?, ?, ?)",
                       values, 7, NULL, NULL, err);
}

int phx_audit_admin(struct phx_tx *tx, const char *event, const char *subject, struct phx_err *err)
{
    struct phx_buf record;
    char           receipt[PHX_RECEIPT_BYTES];
    int            rc;

    phx_receipt_make(receipt);
    phx_buf_init(&record, 65536);
    phx_buf_printf(&record, "{\"at_ns\":%lld,\"event\":", (long long)phx_clock_wall_ns());
    phx_json_put_str(&record, event, strlen(event));
    phx_buf_printf(&record, ",\"receipt\":\"%s\",\"subject\":", receipt);
    phx_json_put_str(&record, subject, strlen(subject));
    phx_buf_puts(&record, ",\"v\":1}");
    rc = phx_buf_check(&record, "audit record", err);
    if (rc == 0)
        rc = phx_audit_append(tx, "admin", receipt, record.data, NULL, err);
    phx_buf_fini(&record);
    return rc;
}
