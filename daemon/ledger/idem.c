/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "rpc/base/hash.h"

struct taken {
    const uint8_t *digest;
    char          *lease;
    enum phx_idem  answer;
};

static int read_taken(void *ctx, const struct phx_value *c, int n_columns)
{
    struct taken *t = ctx;

    (void)n_columns;
    t->answer = c[0].size == PHX_SHA256_BYTES && memcmp(c[0].data, t->digest, PHX_SHA256_BYTES) == 0
                    ? PHX_IDEM_SAME
                    : PHX_IDEM_OTHER;
    (void)snprintf(t->lease, PHX_LEASE_BYTES, "%s", (const char *)c[1].data);
    return 0;
}

int phx_idem_take(struct phx_tx *tx, const char *tenant, const char *key, const uint8_t digest[32],
                  const char *lease, int64_t at_ns, char found_lease[PHX_LEASE_BYTES], struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(tenant), phx_value_text(key),
                                       phx_value_blob(digest, PHX_SHA256_BYTES), phx_value_text(lease),
                                       phx_value_int(at_ns)};
    struct taken           t = {digest, found_lease, PHX_IDEM_NEW};
    size_t                 n = strlen(key);
    int                    rc;

    found_lease[0] = '\0';
    if (n == 0 || n > PHX_IDEM_KEY_MAX)
        return phx_fail(err, PHX_E_INVALID, "idempotency key: 1 to %d bytes", PHX_IDEM_KEY_MAX);
    if (lease[0] == '\0' || strlen(lease) >= PHX_LEASE_BYTES)
        return phx_fail(err, PHX_E_INVALID, "lease: 1 to %d bytes", PHX_LEASE_BYTES - 1);
    rc = phx_tx_exec(tx, "SELECT request_digest, lease FROM idempotency WHERE tenant = ? AND key = ?",
                     values, 2, read_taken, &t, err);
    if (rc == 0 && t.answer == PHX_IDEM_NEW)
        rc = phx_tx_exec(tx,
                         "INSERT INTO idempotency(tenant, key, request_digest, lease, at_ns)"
                         " VALUES(?, ?, ?, ?, ?)",
                         values, 5, NULL, NULL, err);
    return rc == 0 ? (int)t.answer : rc;
}
