/* SPDX-License-Identifier: Apache-2.0
 * `phalanx usage report|export|correct`: what was used, from the ledger, also while the daemon runs. */
#include "daemon/ctl/usage.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "rpc/base/buf.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

enum {
    OPT_PERIOD = 256,
    OPT_FORMAT,
    OPT_JSON,
    OPT_BY,
    OPT_OUT,
    OPT_FIRM,
    OPT_MESSAGE,
    OPT_RECEIPT,
    OPT_PROMPT,
    OPT_CACHED,
    OPT_OUTPUT,
    OPT_REASONING,
    OPT_COMPUTE,
    OPT_QUEUE,
    OPT_REASON,
    OPT_APPROVED
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"period", OPT_PERIOD, "YYYY-MM", 0, "report, export: the month, in UTC", 0},
    {"format", OPT_FORMAT, "NAME", 0, "report: table (default), json, csv, cloudevents or focus", 0},
    {"json", OPT_JSON, NULL, 0, "report: the same as --format json; correct: JSON on standard output", 0},
    {"out", OPT_OUT, "FILE", 0, "write there (a report with FILE.sha256 beside it)", 0},
    {"firm", OPT_FIRM, "NAME", 0, "report: who provides the service, for focus (default: the cluster)", 0},
    {"message", OPT_MESSAGE, "TEXT", 0, "export: the reader's reference", 0},
    {"by", OPT_BY, "LIST|NAME", 0,
     "report: groups of tenant, user, model, cost_centre, hour, day, month (default tenant,user,model);"
     " correct, export: who does it", 0},
    {"approved-by", OPT_APPROVED, "NAME", 0, "correct: who approved it, another person", 0},
    {"reason", OPT_REASON, "TEXT", 0, "correct: why", 0},
    {"receipt", OPT_RECEIPT, "ID", 0, "correct: of which request", 0},
    {"prompt", OPT_PROMPT, "N", 0, "correct: by so many prompt tokens, as -10", 0},
    {"cached", OPT_CACHED, "N", 0, "correct: cached prompt tokens", 0},
    {"output", OPT_OUTPUT, "N", 0, "correct: output tokens", 0},
    {"reasoning", OPT_REASONING, "N", 0, "correct: reasoning tokens", 0},
    {"compute-ms", OPT_COMPUTE, "N", 0, "correct: milliseconds of compute", 0},
    {"queue-ms", OPT_QUEUE, "N", 0, "correct: milliseconds in the queue", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static bool is_action(const struct phx_ctl_usage *u, const char *name)
{
    return strcmp(u->action, name) == 0;
}

static void check_arguments(const struct phx_ctl_usage *u, const struct argp_state *state)
{
    const struct phx_usage_correction *c = &u->correction;

    if (u->action == NULL || (!is_action(u, "report") && !is_action(u, "export") && !is_action(u, "correct")))
        argp_error(state, "an action is needed: report, export or correct");
    if (u->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    if (!is_action(u, "correct") && u->period == NULL)
        argp_error(state, "--period YYYY-MM is needed");
    if (is_action(u, "export") != (u->message != NULL))
        argp_error(state, "--message TEXT is needed for export, and only for it");
    if (is_action(u, "correct") && (c->receipt == NULL || c->reason == NULL || u->by == NULL ||
                                    c->approved_by == NULL))
        argp_error(state, "correct: --receipt, --reason, --by and --approved-by are needed");
}

static int64_t read_number(const char *arg, const struct argp_state *state)
{
    char     *end;
    long long n;

    errno = 0;
    n = strtoll(arg, &end, 10);
    if (errno != 0 || end == arg || *end != '\0')
        argp_error(state, "'%.40s' is not a number", arg);
    return n;
}

static bool parse_correction(struct phx_usage_correction *c, int key, const char *arg,
                             const struct argp_state *state)
{
    switch (key) {
    case OPT_RECEIPT: c->receipt = arg; return true;
    case OPT_REASON: c->reason = arg; return true;
    case OPT_APPROVED: c->approved_by = arg; return true;
    case OPT_PROMPT: c->prompt = read_number(arg, state); return true;
    case OPT_CACHED: c->cached = read_number(arg, state); return true;
    case OPT_OUTPUT: c->output = read_number(arg, state); return true;
    case OPT_REASONING: c->reasoning = read_number(arg, state); return true;
    case OPT_COMPUTE: c->compute_ms = read_number(arg, state); return true;
    case OPT_QUEUE: c->queue_ms = read_number(arg, state); return true;
    default: return false;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct phx_ctl_usage *u = state->input;

    switch (key) {
    case 'd': u->data_dir = arg; return 0;
    case OPT_PERIOD: u->period = arg; return 0;
    case OPT_JSON: u->format = PHX_USAGE_JSON; return 0;
    case OPT_BY: u->by = u->groups = arg; return 0;
    case OPT_OUT: u->out = arg; return 0;
    case OPT_FIRM: u->firm = arg; return 0;
    case OPT_MESSAGE: u->message = arg; return 0;
    case OPT_FORMAT:
        u->format = phx_usage_format_parse(arg);
        if (u->format == 0)
            argp_error(state, "--format: table, json, csv, cloudevents or focus");
        return 0;
    case ARGP_KEY_ARG:
        if (u->action != NULL)
            argp_error(state, "one action is expected");
        u->action = arg;
        return 0;
    case ARGP_KEY_END: check_arguments(u, state); return 0;
    default: return parse_correction(&u->correction, key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* The id is a file of hex digits that the daemon made. */
static int read_cluster_id(struct phx_ctl_usage *u, struct phx_err *err)
{
    char          *path = phx_ctl_path(u->data_dir, "keys/cluster.id");
    struct phx_buf text = {0};
    uint8_t        id[16];
    int            rc = phx_buf_read_file(&text, path, 64, err);

    if (rc == 0) {
        text.data[strcspn(text.data, "\r\n")] = '\0';
        rc = phx_hex_decode(id, sizeof(id), text.data, err);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", path);
    }
    if (rc == 0)
        phx_hex_encode(u->cluster_id, sizeof(u->cluster_id), id, sizeof(id));
    phx_buf_fini(&text);
    phx_mem_free(path);
    return rc;
}

static int run(struct phx_ctl_usage *u, struct phx_err *err)
{
    int rc = phx_ctl_store_open(u->data_dir, &u->store, &u->now_ns, err);

    if (rc == 0)
        rc = read_cluster_id(u, err);
    if (rc != 0)
        return rc;
    return is_action(u, "report")   ? phx_ctl_usage_report(u, err)
           : is_action(u, "export") ? phx_ctl_usage_export(u, err)
                                    : phx_ctl_usage_correct(u, err);
}

int phx_ctl_usage(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "report|export|correct",
                                     "What was used, from the ledger.", NULL, NULL, NULL};
    struct phx_ctl_usage     u = {.format = PHX_USAGE_TABLE};
    struct phx_err           err = {0};
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &u);
    rc = run(&u, &err);
    phx_store_close(u.store);
    if (rc == 0)
        return PHX_EXIT_OK;
    (void)phx_ctl_fail(&err);
    return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
