/* SPDX-License-Identifier: Apache-2.0
 * `phalanx budget set|remove|list`: token budgets of tenants, users and keys.  Works on the database of the data
 * folder, also while the daemon runs; the next request follows it. */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/ctl/ctl.h"
#include "daemon/keys/keys.h"
#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_TENANT, OPT_USER, OPT_KEY, OPT_PERIOD, OPT_TOKENS, OPT_BY };

struct arguments {
    const char       *data_dir, *action, *by;
    struct phx_budget budget;
    bool              is_json, has_tokens;
    int64_t           now_ns;
    json_t           *list;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"tenant", OPT_TENANT, "NAME", 0, "the budget of a tenant", 0},
    {"user", OPT_USER, "TENANT/USER", 0, "of a user", 0},
    {"key", OPT_KEY, "ID", 0, "of an API key", 0},
    {"period", OPT_PERIOD, "NAME", 0, "day, month (default) or total; days and months are UTC", 0},
    {"tokens", OPT_TOKENS, "N", 0, "set: prompt and output tokens it allows", 0},
    {"by", OPT_BY, "NAME", 0, "who does it (default: login name)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void take_name(struct arguments *a, enum phx_budget_scope scope, const char *name,
                      const struct argp_state *state)
{
    if (a->budget.scope != 0)
        argp_error(state, "one of --tenant, --user and --key");
    a->budget.scope = scope;
    if ((size_t)snprintf(a->budget.name, sizeof(a->budget.name), "%s", name) >= sizeof(a->budget.name))
        argp_error(state, "the name is longer than %d bytes", PHX_BUDGET_NAME_BYTES - 1);
}

static void take_period(struct arguments *a, const char *name, const struct argp_state *state)
{
    for (int p = PHX_PERIOD_DAY; p <= PHX_PERIOD_TOTAL; p++)
        if (strcmp(name, phx_budget_period_name(p)) == 0) {
            a->budget.period = p;
            return;
        }
    argp_error(state, "--period: day, month or total");
}

static void take_tokens(struct arguments *a, const char *text, const struct argp_state *state)
{
    char *end;

    errno = 0;
    a->budget.tokens = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || a->budget.tokens < 0)
        argp_error(state, "--tokens: a whole number of 0 or more");
    a->has_tokens = true;
}

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    bool is_set = a->action != NULL && strcmp(a->action, "set") == 0;
    bool is_list = a->action != NULL && strcmp(a->action, "list") == 0;

    if (!is_set && !is_list && (a->action == NULL || strcmp(a->action, "remove") != 0))
        argp_error(state, "an action is needed: set, remove or list");
    if (a->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    if (is_list != (a->budget.scope == 0))
        argp_error(state, "set and remove take one of --tenant, --user and --key, list none");
    if (is_set != a->has_tokens)
        argp_error(state, "--tokens N is needed for set, and only for it");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_TENANT: take_name(a, PHX_BUDGET_TENANT, arg, state); return 0;
    case OPT_USER: take_name(a, PHX_BUDGET_USER, arg, state); return 0;
    case OPT_KEY: take_name(a, PHX_BUDGET_KEY, arg, state); return 0;
    case OPT_PERIOD: take_period(a, arg, state); return 0;
    case OPT_TOKENS: take_tokens(a, arg, state); return 0;
    case OPT_BY: a->by = arg; return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "one action is expected");
        a->action = arg;
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* A name that no caller can have would be a budget that limits nobody. */
static int check_name(const struct phx_budget *b, struct phx_err *err)
{
    const char *slash = strchr(b->name, '/');
    char        tenant[PHX_BUDGET_NAME_BYTES];

    if (b->scope == PHX_BUDGET_TENANT)
        return phx_key_check_name("--tenant", b->name, err);
    if (b->scope == PHX_BUDGET_KEY)
        return phx_key_check_name("--key", b->name, err);
    if (slash == NULL || slash[1] == '\0')
        return phx_fail(err, PHX_E_INVALID, "--user: a user is named TENANT/USER");
    (void)snprintf(tenant, sizeof(tenant), "%.*s", (int)(slash - b->name), b->name);
    return phx_key_check_name("--user: the tenant", tenant, err); /* the user may be any subject of a token */
}

/* The change and its leaf are one transaction. */
static int change(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct arguments  *a = ctx;
    const struct phx_budget *b = &a->budget;
    bool                     is_set = strcmp(a->action, "set") == 0;
    char                     subject[PHX_BUDGET_NAME_BYTES + 16], detail[64];
    int rc = is_set ? phx_budget_set(tx, b, a->now_ns, err) : phx_budget_remove(tx, b, err);

    if (rc != 0)
        return rc;
    (void)snprintf(subject, sizeof(subject), "%s %s", phx_budget_scope_name(b->scope), b->name);
    (void)snprintf(detail, sizeof(detail), "%s %" PRId64, phx_budget_period_name(b->period), b->tokens);
    return phx_audit_event(tx, "admin", is_set ? "budget.set" : "budget.remove", subject, a->by, detail,
                           a->now_ns, err);
}

static void print_change(const struct arguments *a)
{
    const struct phx_budget *b = &a->budget;
    const char              *scope = phx_budget_scope_name(b->scope), *period = phx_budget_period_name(b->period);
    bool                     is_set = strcmp(a->action, "set") == 0;

    if (a->is_json)
        phx_ctl_print_json(json_pack("{s:s,s:s,s:s,s:o}", "scope", scope, "name", b->name, "period", period, "tokens",
                                     is_set ? json_integer(b->tokens) : json_null()));
    else if (is_set)
        printf("%s %s: %" PRId64 " tokens (%s)\n", scope, b->name, b->tokens, period);
    else
        printf("%s %s: no %s budget any more\n", scope, b->name, period);
}

static int add_budget(void *ctx, const struct phx_budget *b)
{
    struct arguments *a = ctx;

    if (!a->is_json) {
        printf("%-7s %-32s %-6s %-11s %14" PRId64 " %14" PRId64 " %14" PRId64 "\n",
               phx_budget_scope_name(b->scope), b->name, phx_budget_period_name(b->period), b->window,
               b->tokens, b->posted, b->pending);
        return 0;
    }
    json_array_append_new(a->list, json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "scope",
                                             phx_budget_scope_name(b->scope), "name", b->name, "period",
                                             phx_budget_period_name(b->period), "window", b->window, "tokens",
                                             (json_int_t)b->tokens, "posted", (json_int_t)b->posted, "pending",
                                             (json_int_t)b->pending, "ledger_id", (json_int_t)b->at_id));
    return 0;
}

static int list(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_budget_list(tx, ((struct arguments *)ctx)->now_ns, add_budget, ctx, err);
}

static int print_list(struct phx_store *store, struct arguments *a, struct phx_err *err)
{
    int rc;

    if (!a->is_json)
        printf("%-7s %-32s %-6s %-11s %14s %14s %14s\n", "scope", "name", "period", "window", "tokens",
               "used", "reserved");
    a->list = json_array();
    rc = phx_store_read(store, list, a, err);
    if (rc == 0 && a->is_json)
        phx_ctl_print_json(a->list);
    else
        json_decref(a->list);
    return rc;
}

int phx_ctl_budget(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "set|remove|list",
                                     "Token budgets of tenants, users and keys.", NULL, NULL, NULL};
    struct arguments  a = {.budget = {.period = PHX_PERIOD_MONTH}};
    struct phx_store *store = NULL;
    struct phx_err    err = {0};
    char             *login;
    int               rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    login = phx_ctl_login();
    if (a.by == NULL)
        a.by = login;
    rc = strcmp(a.action, "list") == 0 ? 0 : check_name(&a.budget, &err);
    if (rc == 0)
        rc = phx_ctl_store_open(a.data_dir, &store, &a.now_ns, &err);
    if (rc == 0)
        rc = strcmp(a.action, "list") == 0 ? print_list(store, &a, &err)
                                           : phx_store_run(store, change, &a, &err);
    if (rc == 0 && strcmp(a.action, "list") != 0)
        print_change(&a);
    phx_store_close(store);
    phx_mem_free(login);
    if (rc == 0)
        return PHX_EXIT_OK;
    (void)phx_ctl_fail(&err);
    return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
