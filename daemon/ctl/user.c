/* SPDX-License-Identifier: Apache-2.0
 * `phalanx user cert`: a client certificate for a user or a service of a tenant, from the cluster's CA. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/certs/certs.h"
#include "daemon/ctl/ctl.h"
#include "daemon/identity/identity.h"
#include "daemon/store/store.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_TENANT, OPT_USER, OPT_SERVICE, OPT_ROLES, OPT_OUT, OPT_DAYS, DAYS = 365, DAYS_MAX = 3650 };

struct arguments {
    const char *data_dir, *action, *tenant, *user, *service, *roles, *out;
    int         days;
    bool        is_json;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"tenant", OPT_TENANT, "NAME", 0, "who pays", 0},
    {"user", OPT_USER, "NAME", 0, "the person who asks", 0},
    {"service", OPT_SERVICE, "NAME", 0, "the program that asks", 0},
    {"roles", OPT_ROLES, "LIST", 0, "user, operator, auditor, admin (default: user)", 0},
    {"out", OPT_OUT, "PREFIX", 0, "writes PREFIX.crt and PREFIX.key", 0},
    {"days", OPT_DAYS, "N", 0, "valid for N days (default: 365)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    if (a->action == NULL || strcmp(a->action, "cert") != 0)
        argp_error(state, "an action is needed: cert");
    if (a->data_dir == NULL || a->tenant == NULL || a->out == NULL)
        argp_error(state, "--data DIR, --tenant NAME and --out PREFIX are needed");
    if ((a->user == NULL) == (a->service == NULL))
        argp_error(state, "one of --user NAME and --service NAME is needed");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char              rest;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_TENANT: a->tenant = arg; return 0;
    case OPT_USER: a->user = arg; return 0;
    case OPT_SERVICE: a->service = arg; return 0;
    case OPT_ROLES: a->roles = arg; return 0;
    case OPT_OUT: a->out = arg; return 0;
    case OPT_DAYS:
        if (sscanf(arg, "%d%c", &a->days, &rest) != 1 || a->days < 1 || a->days > DAYS_MAX)
            argp_error(state, "--days: 1 to %d", DAYS_MAX);
        return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "too many arguments");
        a->action = arg;
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int fill_identity(const struct arguments *a, struct phx_identity *id, struct phx_err *err)
{
    const char *name = a->user != NULL ? a->user : a->service;
    int         rc = phx_key_check_name("--tenant", a->tenant, err);

    memset(id, 0, sizeof(*id));
    if (rc == 0)
        rc = phx_key_check_name(a->user != NULL ? "--user" : "--service", name, err);
    if (rc == 0)
        rc = phx_key_parse_roles(a->roles, &id->roles, err);
    if (rc != 0)
        return rc;
    id->is_person = a->user != NULL;
    (void)snprintf(id->tenant, sizeof(id->tenant), "%s", a->tenant);
    (void)snprintf(id->user, sizeof(id->user), "%s", name);
    return 0;
}

struct issuing {
    const struct arguments *a;
    const struct phx_identity *id;
    char                    uri[PHX_IDENTITY_URI_BYTES];
    int64_t                 at_ns;
};

/* The leaf and the certificate, or neither: a failure to write the files takes the leaf back. */
static int issue(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct issuing *i = ctx;
    char                 *cert = phx_mem_printf("%s.crt", i->a->out);
    char                 *key = phx_mem_printf("%s.key", i->a->out);
    char                  name[65], detail[64];
    int                   rc;

    /* with a word before it, no user can be called "operator" */
    (void)snprintf(name, sizeof(name), "%s:%s", i->id->is_person ? "user" : "service", i->id->user);
    (void)snprintf(detail, sizeof(detail), "client certificate for %d days", i->a->days);
    rc = phx_audit_event(tx, "key", "cert.issue", i->uri, "command line", detail, i->at_ns, err);
    if (rc == 0)
        rc = phx_certs_issue_name(i->a->data_dir, name, i->uri, (int64_t)i->a->days * 86400, cert, key, err);
    phx_mem_free(cert);
    phx_mem_free(key);
    return rc;
}

int phx_ctl_user(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "cert", "Users and services of a cluster.",
                                     NULL, NULL, NULL};
    struct arguments    a = {.roles = "user", .days = DAYS};
    struct issuing      i = {.a = &a};
    struct phx_identity id;
    struct phx_store   *store = NULL;
    struct phx_err      err = {0};
    int                 rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    rc = fill_identity(&a, &id, &err);
    if (rc != 0) {
        (void)phx_ctl_fail(&err);
        return PHX_EXIT_USAGE;
    }
    phx_identity_format_uri(&id, i.uri);
    i.id = &id;
    rc = phx_ctl_store_open(a.data_dir, &store, &i.at_ns, &err);
    if (rc == 0)
        rc = phx_store_run(store, issue, &i, &err);
    phx_store_close(store);
    if (rc != 0)
        return phx_ctl_fail(&err);
    if (a.is_json)
        phx_ctl_print_json(json_pack("{s:s,s:s+,s:s+,s:s+,s:i}", "name", i.uri, "cert", a.out, ".crt", "key", a.out,
                                     ".key", "ca", a.data_dir, "/tls/ca.crt", "days", a.days));
    else
        printf("%s\n%s.crt and %s.key, valid for %d days; trust %s/tls/ca.crt\n", i.uri, a.out, a.out, a.days,
               a.data_dir);
    return PHX_EXIT_OK;
}
