/* SPDX-License-Identifier: Apache-2.0
 * `consistency`: nothing was removed or written anew between two checkpoints. */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "daemon/verify/verify.h"

/* Without a folder the keys are those of --trust. */
static int check_alone(const struct phx_options *o, const struct phx_vcheckpoint *cps, struct phx_err *err)
{
    if (strcmp(cps[0].c.origin, cps[1].c.origin) != 0)
        return phx_fail(err, PHX_E_FORMAT, "checkpoints of two logs: %.80s and %.80s", cps[0].c.origin,
                        cps[1].c.origin);
    if (cps[0].c.size == cps[1].c.size && memcmp(&cps[0].c.root, &cps[1].c.root, sizeof(cps[0].c.root)) != 0)
        return phx_fail(err, PHX_E_FORMAT, "two roots of one size: the log was forked");
    if (cps[0].c.size > cps[1].c.size)
        return phx_fail(err, PHX_E_FORMAT, "the second checkpoint has fewer records: the log was rolled back");
    if (o->n_args < 3)
        return phx_fail(err, PHX_E_STATE, "signatures and the tree are not checked without DIR");
    return 0;
}

static int prove(struct phx_log *l, const struct phx_vcheckpoint *cps, struct phx_tlog_hash *proof, int *n,
                 struct phx_err *err)
{
    uint64_t size = cps[1].c.size, log_size = l->cp.c.size;

    for (int i = 0; i < 2; i++) {
        int rc = phx_chain_check(&l->chain, &cps[i], NULL, err);

        if (rc != 0)
            return rc;
    }
    if (size > log_size)
        return phx_fail(err, PHX_E_FORMAT, "the folder has %llu records, the second checkpoint %llu: rolled back",
                        (unsigned long long)log_size, (unsigned long long)size);
    *n = phx_tlog_prove_consistency(cps[0].c.size, size, phx_log_read, l, proof, err);
    if (*n < 0)
        return *n;
    if (!phx_tlog_check_consistency(cps[0].c.size, size, &cps[0].c.root, &cps[1].c.root, proof, *n))
        return phx_fail(err, PHX_E_FORMAT, "the second checkpoint does not contain the first");
    return 0;
}

static void print_consistent(const struct phx_options *o, const struct phx_vcheckpoint *cps,
                             const struct phx_tlog_hash *proof, int n)
{
    json_t *hashes = json_array(), *out;
    char    hex[2 * PHX_TLOG_HASH_BYTES + 1];

    for (int i = 0; i < n; i++)
        json_array_append_new(hashes,
                              json_string(sodium_bin2hex(hex, sizeof(hex), proof[i].bytes, sizeof(proof[i].bytes))));
    if (o->is_json) {
        out = json_pack("{s:I,s:I,s:s,s:O,s:s}", "from", (json_int_t)cps[0].c.size, "to", (json_int_t)cps[1].c.size,
                        "origin", cps[0].c.origin, "proof", hashes, "verdict", "ok");
        json_dumpf(out, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        fputs("\n", stdout);
        json_decref(out);
    } else {
        printf("ok: the %llu records of the second checkpoint begin with the %llu of the first (%d hashes)\n"
               "not checked: the records themselves (verify)\n",
               (unsigned long long)cps[1].c.size, (unsigned long long)cps[0].c.size, n);
    }
    json_decref(hashes);
}

enum phx_verdict phx_cmd_consistency(const struct phx_options *o)
{
    struct phx_tlog_hash   proof[PHX_TLOG_PROOF_MAX];
    struct phx_vcheckpoint cps[2] = {0};
    struct phx_log         l;
    struct phx_buf         data = {0};
    struct phx_err         err = {0};
    int                    n = 0, rc = 0;

    for (int i = 0; i < 2 && rc == 0; i++) {
        phx_buf_fini(&data); /* reading makes a new one */
        rc = phx_buf_read_file(&data, o->args[i], PHX_V_FILE_MAX, &err) != 0 ? PHX_E_INVALID : 0;
        err.code = rc;
        if (rc == 0)
            rc = phx_vcheckpoint_parse(&cps[i], o->args[i], data.data, data.size, &err);
    }
    if (rc == 0)
        rc = check_alone(o, cps, &err);
    if (rc == 0 && (rc = phx_log_open(&l, o->args[2], o, &err)) == 0) {
        rc = prove(&l, cps, proof, &n, &err);
        phx_log_close(&l);
    }
    if (rc == 0)
        print_consistent(o, cps, proof, n);
    for (int i = 0; i < 2; i++)
        phx_vcheckpoint_fini(&cps[i]);
    phx_buf_fini(&data);
    return rc == 0 ? PHX_V_OK : phx_cmd_fail(&err);
}
