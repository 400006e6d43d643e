/* SPDX-License-Identifier: Apache-2.0
 * `phalanx usage export` and `correct`. */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/usage.h"
#include "daemon/store/store.h"
#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

/* People read it before it leaves the house, so it is laid out, and the very text that is signed. */
static int show_payload(const char *payload, struct phx_err *err)
{
    json_t *root = NULL;
    int     rc = phx_json_parse(&root, payload, strlen(payload), SIZE_MAX, 0, "export", err);

    if (rc != 0)
        return rc;
    json_dumpf(root, stderr, JSON_INDENT(2));
    fputs("\n", stderr);
    json_decref(root);
    return 0;
}

static int deliver(const struct phx_ctl_usage *u, const char *envelope, struct phx_err *err)
{
    if (u->out != NULL)
        return phx_file_write(u->out, envelope, strlen(envelope), 0644, err);
    if (fputs(envelope, stdout) < 0 || fflush(stdout) != 0)
        return phx_fail(err, PHX_E_IO, "write to standard output failed");
    return 0;
}

int phx_ctl_usage_export(struct phx_ctl_usage *u, struct phx_err *err)
{
    char *audit_dir = phx_ctl_path(u->data_dir, "audit"), *key_dir = phx_ctl_path(u->data_dir, "keys");
    char *login = phx_ctl_login(), *payload = NULL, *envelope = NULL;
    const struct phx_usage_export e = {audit_dir,  u->cluster_id, u->period,
                                       u->message, u->by != NULL ? u->by : login, u->now_ns};
    int                           rc = phx_usage_export(u->store, &e, &payload, err);

    if (rc == 0)
        rc = show_payload(payload, err);
    if (rc == 0)
        rc = phx_usage_seal(key_dir, payload, &envelope, err);
    if (rc == 0)
        rc = deliver(u, envelope, err);
    phx_mem_free(envelope);
    phx_mem_free(payload);
    phx_mem_free(login);
    phx_mem_free(key_dir);
    phx_mem_free(audit_dir);
    return rc;
}

struct correct_job {
    struct phx_usage_correction correction;
    int64_t                     row_id;
};

static int correct(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct correct_job *j = ctx;

    return phx_usage_correct(tx, &j->correction, &j->row_id, err);
}

int phx_ctl_usage_correct(struct phx_ctl_usage *u, struct phx_err *err)
{
    struct correct_job j = {u->correction, 0};
    int                rc;

    j.correction.by = u->by;
    j.correction.at_ns = u->now_ns;
    rc = phx_store_run(u->store, correct, &j, err);
    if (rc == 0 && u->format == PHX_USAGE_JSON)
        phx_ctl_print_json(json_pack("{s:s,s:I}", "receipt", j.correction.receipt, "ledger_id", (json_int_t)j.row_id));
    else if (rc == 0)
        printf("corrected: ledger row %lld\n", (long long)j.row_id);
    return rc;
}
