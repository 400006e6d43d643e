/* SPDX-License-Identifier: Apache-2.0
 * `phalanx usage report`: sums of a month from the ledger, also while the daemon runs. */
#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_PERIOD, OPT_FORMAT };

enum format { FORMAT_TABLE = 0, FORMAT_JSON, FORMAT_CSV };

struct arguments {
    const char *data_dir, *action, *period;
    enum format format;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"period", OPT_PERIOD, "YYYY-MM", 0, "the month, in UTC", 0},
    {"format", OPT_FORMAT, "NAME", 0, "table (default), json or csv", 0},
    {"json", OPT_JSON, NULL, 0, "the same as --format json", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_PERIOD: a->period = arg; return 0;
    case OPT_JSON: a->format = FORMAT_JSON; return 0;
    case OPT_FORMAT:
        if (strcmp(arg, "table") != 0 && strcmp(arg, "json") != 0 && strcmp(arg, "csv") != 0)
            argp_error(state, "--format: table, json or csv");
        a->format = arg[0] == 't' ? FORMAT_TABLE : arg[0] == 'j' ? FORMAT_JSON : FORMAT_CSV;
        return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "one action is expected");
        a->action = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->action == NULL || strcmp(a->action, "report") != 0)
            argp_error(state, "an action is needed: report");
        if (a->data_dir == NULL || a->period == NULL)
            argp_error(state, "--data DIR and --period YYYY-MM are needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const char *period, const struct phx_usage_row *rows, int n)
{
    json_t *list = json_array(), *out;

    for (int i = 0; i < n; i++)
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "tenant", rows[i].tenant, "user",
                            rows[i].user, "model", rows[i].model, "requests",
                            (json_int_t)rows[i].requests, "prompt_tokens", (json_int_t)rows[i].prompt,
                            "cached_tokens", (json_int_t)rows[i].cached, "output_tokens",
                            (json_int_t)rows[i].output, "reasoning_tokens",
                            (json_int_t)rows[i].reasoning));
    out = json_pack("{s:s,s:o}", "period", period, "rows", list);
    json_dumpf(out, stdout, JSON_COMPACT);
    fputs("\n", stdout);
    json_decref(out);
}

/* RFC 4180; a cell that a spreadsheet would run as a formula gets an apostrophe in front. */
static void print_cell(const char *text)
{
    fputs("\"", stdout);
    if (text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL)
        fputs("'", stdout);
    for (; *text != '\0'; text++)
        fputs(*text == '"' ? "\"\"" : (const char[]){*text, '\0'}, stdout);
    fputs("\",", stdout);
}

static void print_csv(const struct phx_usage_row *rows, int n)
{
    fputs("tenant,user,model,requests,prompt_tokens,cached_tokens,output_tokens,reasoning_tokens\r\n",
          stdout);
    for (int i = 0; i < n; i++) {
        print_cell(rows[i].tenant);
        print_cell(rows[i].user);
        print_cell(rows[i].model);
        printf("%lld,%lld,%lld,%lld,%lld\r\n", (long long)rows[i].requests,
               (long long)rows[i].prompt, (long long)rows[i].cached, (long long)rows[i].output,
               (long long)rows[i].reasoning);
    }
}

static void print_table(const struct phx_usage_row *rows, int n)
{
    printf("%-16s %-16s %-24s %9s %12s %12s %12s %12s\n", "tenant", "user", "model", "requests",
           "prompt", "cached", "output", "reasoning");
    for (int i = 0; i < n; i++)
        printf("%-16s %-16s %-24s %9lld %12lld %12lld %12lld %12lld\n", rows[i].tenant, rows[i].user,
               rows[i].model, (long long)rows[i].requests, (long long)rows[i].prompt,
               (long long)rows[i].cached, (long long)rows[i].output, (long long)rows[i].reasoning);
}

static int report(struct phx_store *store, const struct arguments *a, struct phx_err *err)
{
    struct phx_usage_row *rows = NULL;
    size_t                max = 0;
    int                   n;

    while ((n = phx_ledger_report(store, a->period, rows, max, err)) > 0 && (size_t)n > max) {
        max = (size_t)n; /* rows may be added between counting and reading: then it reads again */
        rows = phx_mem_realloc(rows, max, sizeof(*rows));
    }
    if (n >= 0 && a->format == FORMAT_JSON)
        print_json(a->period, rows, n);
    else if (n >= 0 && a->format == FORMAT_CSV)
        print_csv(rows, n);
    else if (n >= 0)
        print_table(rows, n);
    phx_mem_free(rows);
    return n < 0 ? n : 0;
}

int phx_ctl_usage(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "report",
                                     "What was used, from the ledger.", NULL, NULL, NULL};
    struct arguments  a = {0};
    struct phx_store *store = NULL;
    struct phx_err    err = {0};
    char             *path;
    int               rc = 0;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    path = phx_ctl_path(a.data_dir, "phalanx.db");
    if (access(path, R_OK) != 0) /* opening would make an empty one */
        rc = phx_fail(&err, PHX_E_NOTFOUND, "%s: no such database", path);
    if (rc == 0)
        rc = phx_store_open(path, NULL, &store, &err);
    if (rc == 0)
        rc = report(store, &a, &err);
    phx_store_close(store);
    phx_mem_free(path);
    if (rc == 0)
        return PHX_EXIT_OK;
    (void)phx_ctl_fail(&err);
    return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
