/* SPDX-License-Identifier: Apache-2.0
 * A receipt holds all that is needed to check it years later, but the first public key. */
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/audit/logkey.h"
#include "daemon/audit/reader.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"

static int put_keys(const struct phx_tiles *t, int64_t epoch, struct phx_buf *out, struct phx_err *err)
{
    int rc = 0;

    phx_buf_puts(out, ",\"keys\":[");
    for (int64_t e = 1; e <= epoch && rc == 0; e++) {
        char           path[PHX_LOGKEY_PATH_BYTES];
        struct phx_buf note;

        (void)snprintf(path, sizeof(path), "keys/%lld", (long long)e);
        rc = phx_folder_read(phx_tiles_dir(t), path, PHX_LOGKEY_FILE_MAX_BYTES, &note, err);
        if (rc != 0)
            break;
        if (e > 1)
            phx_buf_putc(out, ',');
        phx_json_put_str(out, note.data, note.size);
        phx_buf_fini(&note);
    }
    phx_buf_putc(out, ']');
    return rc;
}

static void put_proof(const struct phx_tlog_hash *proof, int n, struct phx_buf *out)
{
    char hex[2 * PHX_TLOG_HASH_BYTES + 1];

    phx_buf_puts(out, ",\"proof\":[");
    for (int i = 0; i < n; i++) {
        phx_hex_encode(hex, sizeof(hex), proof[i].bytes, PHX_TLOG_HASH_BYTES);
        phx_buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", hex);
    }
    phx_buf_putc(out, ']');
}

/* A proof from damaged tiles would make an honest answer look forged: it is not given out. */
static int prove(struct phx_tiles *t, const struct phx_checkpoint *c, uint64_t index,
                 const struct phx_buf *record, struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX],
                 struct phx_err *err)
{
    struct phx_tlog_hash leaf;
    int                  n = phx_tlog_prove_inclusion(index, c->size, phx_tiles_read, t, proof, err);

    if (n < 0)
        return n;
    phx_tlog_leaf(record->data, record->size, &leaf);
    if (!phx_tlog_check_inclusion(index, c->size, &leaf, proof, n, &c->root))
        return phx_fail(err, PHX_E_FORMAT, "leaf %llu: the tiles in %s do not lead to the checkpoint's root",
                        (unsigned long long)index, phx_tiles_dir(t));
    return n;
}

int phx_receipt_format(struct phx_tiles *t, uint64_t index, struct phx_buf *out, struct phx_err *err)
{
    const struct phx_buf        *note;
    int64_t                      epoch;
    const struct phx_checkpoint *c = phx_tiles_checkpoint(t, &note, &epoch);
    struct phx_tlog_hash         proof[PHX_TLOG_PROOF_MAX];
    struct phx_buf               record;
    int                          n, rc;

    phx_buf_init(&record, PHX_TLOG_ENTRY_MAX_BYTES + 1);
    n = rc = phx_tiles_entry(t, index, &record, err);
    if (rc == 0)
        n = prove(t, c, index, &record, proof, err);
    if (n >= 0) {
        phx_buf_puts(out, "{\"checkpoint\":");
        phx_json_put_str(out, note->data, note->size);
        phx_buf_printf(out, ",\"index\":%llu", (unsigned long long)index);
        rc = put_keys(t, epoch, out, err);
        phx_buf_puts(out, ",\"origin\":");
        phx_json_put_str(out, c->origin, strlen(c->origin));
        put_proof(proof, n, out);
        phx_buf_puts(out, ",\"record\":");
        phx_json_put_str(out, record.data, record.size);
        phx_buf_puts(out, ",\"v\":1}");
    }
    phx_buf_fini(&record);
    if (n < 0 || rc != 0)
        return n < 0 ? n : rc;
    return phx_buf_check(out, "receipt", err);
}
