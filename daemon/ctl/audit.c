/* SPDX-License-Identifier: Apache-2.0
 * `phalanx audit verify`: recomputes the audit log, also while the daemon runs.
 * Exit codes: 0 intact, 1 tampered, 2 incomplete, 3 usage error, 4 unknown version. */
#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/audit/audit.h"
#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_RECEIPT };

enum audit_exit { EXIT_INTACT = 0, EXIT_TAMPERED = 1, EXIT_INCOMPLETE = 2, EXIT_USAGE = 3, EXIT_VERSION = 4 };

struct arguments {
    const char *data_dir, *action, *receipt;
    bool        is_json;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"receipt", OPT_RECEIPT, "ID", 0, "this receipt must be there, complete", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_RECEIPT: a->receipt = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "one action is expected");
        a->action = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->action == NULL || strcmp(a->action, "verify") != 0)
            argp_error(state, "an action is needed: verify");
        if (a->data_dir == NULL)
            argp_error(state, "--data DIR is needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const char *verdict_name(enum phx_audit_verdict verdict)
{
    return verdict == PHX_AUDIT_OK ? "ok" : verdict == PHX_AUDIT_TAMPERED ? "tampered" : "incomplete";
}

static void print_report(const struct arguments *a, const struct phx_audit_report *r)
{
    json_t *out;

    if (!a->is_json) {
        printf("%s: %lld records, %lld requests, %lld open\nhead %s\n", verdict_name(r->verdict),
               (long long)r->n_leaves, (long long)r->n_requests, (long long)r->n_open, r->head);
        if (r->text[0] != '\0')
            printf("%s\n", r->text);
        return;
    }
    out = json_pack("{s:s,s:I,s:I,s:I,s:s,s:s}", "verdict", verdict_name(r->verdict), "records",
                    (json_int_t)r->n_leaves, "requests", (json_int_t)r->n_requests, "open",
                    (json_int_t)r->n_open, "head", r->head, "detail", r->text);
    if (a->receipt != NULL)
        json_object_set_new(out, "receipt", json_string(a->receipt));
    json_dumpf(out, stdout, JSON_COMPACT);
    fputs("\n", stdout);
    json_decref(out);
}

/* What could not be checked is never reported as intact. */
static int exit_of_error(int code)
{
    switch (code) {
    case PHX_E_UNSUPPORTED: return EXIT_VERSION;
    case PHX_E_INVALID: return EXIT_USAGE;
    case PHX_E_FORMAT: return EXIT_TAMPERED;
    default: return EXIT_INCOMPLETE;
    }
}

int phx_ctl_audit(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "verify",
                                     "Verifies the audit log or one receipt.\vExit codes: 0 intact, "
                                     "1 tampered, 2 incomplete, 3 usage error, 4 unknown version.",
                                     NULL, NULL, NULL};
    struct arguments        a = {0};
    struct phx_store       *store = NULL;
    struct phx_audit_report report = {0};
    struct phx_err          err = {0};
    char                   *path;
    int                     rc = 0;

    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    path = phx_ctl_path(a.data_dir, "phalanx.db");
    if (access(path, R_OK) != 0) /* opening would make an empty one, and that is intact */
        rc = phx_fail(&err, PHX_E_NOTFOUND, "%s: no such database", path);
    if (rc == 0)
        rc = phx_store_open(path, NULL, &store, &err);
    if (rc == 0)
        rc = phx_audit_verify(store, a.receipt, &report, &err);
    phx_store_close(store);
    phx_mem_free(path);
    if (rc != 0) {
        (void)phx_ctl_fail(&err);
        return exit_of_error(rc);
    }
    print_report(&a, &report);
    return report.verdict == PHX_AUDIT_OK         ? EXIT_INTACT
           : report.verdict == PHX_AUDIT_TAMPERED ? EXIT_TAMPERED
                                                  : EXIT_INCOMPLETE;
}
