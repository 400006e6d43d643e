/* SPDX-License-Identifier: Apache-2.0
 * `phalanx key create|list|revoke`: works on the database of the data folder, also while the daemon runs. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/keys/keys.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_TENANT, OPT_USER, OPT_ROLES, OPT_EXPIRES, OPT_SERVICE, OPT_COST_CENTRE };
enum { EXPIRES_DAYS_MAX = 36500 };

struct arguments {
    const char *data_dir, *action, *key_id, *tenant, *user, *roles, *cost_centre;
    int64_t     now_ns;
    int         expires_days; /* 0 = never */
    bool        is_json, is_service;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"tenant", OPT_TENANT, "NAME", 0, "create: who pays", 0},
    {"user", OPT_USER, "NAME", 0, "create: who asks", 0},
    {"roles", OPT_ROLES, "LIST", 0, "create: user, operator, auditor, admin (default: user)", 0},
    {"service", OPT_SERVICE, NULL, 0, "create: a program asks, not a person", 0},
    {"cost-centre", OPT_COST_CENTRE, "NAME", 0, "create: shown in usage reports", 0},
    {"expires-days", OPT_EXPIRES, "N", 0, "create: valid for N days (default: for ever)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    if (a->action == NULL || (strcmp(a->action, "create") != 0 && strcmp(a->action, "list") != 0 &&
                              strcmp(a->action, "revoke") != 0))
        argp_error(state, "an action is needed: create, list or revoke");
    if (a->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    if (strcmp(a->action, "create") == 0 && (a->tenant == NULL || a->user == NULL))
        argp_error(state, "create: --tenant NAME and --user NAME are needed");
    if ((strcmp(a->action, "revoke") == 0) != (a->key_id != NULL))
        argp_error(state, "revoke takes one key id, the other actions none");
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
    case OPT_ROLES: a->roles = arg; return 0;
    case OPT_SERVICE: a->is_service = true; return 0;
    case OPT_COST_CENTRE: a->cost_centre = arg; return 0;
    case OPT_EXPIRES:
        if (sscanf(arg, "%d%c", &a->expires_days, &rest) != 1 || a->expires_days < 1 ||
            a->expires_days > EXPIRES_DAYS_MAX)
            argp_error(state, "--expires-days: 1 to %d", EXPIRES_DAYS_MAX);
        return 0;
    case ARGP_KEY_ARG:
        if (a->action == NULL)
            a->action = arg;
        else if (a->key_id == NULL)
            a->key_id = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static json_t *identity_json(const struct phx_identity *id)
{
    char roles[64];

    phx_key_format_roles(id->roles, roles);
    return json_pack("{s:s,s:s,s:s,s:s,s:b,s:s,s:I,s:I,s:I}", "id", id->key_id, "tenant", id->tenant,
                     "user", id->user, "roles", roles, "service", !id->is_person, "cost_centre",
                     id->cost_centre, "created_ns", (json_int_t)id->created_ns, "expires_ns",
                     (json_int_t)id->expires_ns, "revoked_ns", (json_int_t)id->revoked_ns);
}

static int create(struct phx_store *store, const struct arguments *a, struct phx_err *err)
{
    struct phx_key_new  what = {.tenant = a->tenant,
                                .user = a->user,
                                .cost_centre = a->cost_centre,
                                .is_service = a->is_service};
    struct phx_identity id = {0};
    char                key[PHX_KEY_TEXT_BYTES];
    int                 rc = phx_key_parse_roles(a->roles, &what.roles, err);

    if (a->expires_days > 0)
        what.expires_ns = a->now_ns + a->expires_days * 86400 * INT64_C(1000000000);
    if (rc == 0)
        rc = phx_key_create(store, &what, key, &id, err);
    if (rc == 0 && a->is_json) {
        json_t *out = identity_json(&id);

        json_object_set_new(out, "key", json_string(key));
        phx_ctl_print_json(out);
    } else if (rc == 0) {
        printf("%s\n", key);
        fprintf(stderr, "key %s of %s/%s; the key itself is shown this once only\n", id.key_id,
                id.tenant, id.user);
    }
    return rc;
}

static void print_identity(const struct phx_identity *id)
{
    char roles[64], created[32], expires[32] = "never", revoked[32] = "-";

    phx_key_format_roles(id->roles, roles);
    phx_clock_format_utc(id->created_ns, created);
    if (id->expires_ns != 0)
        phx_clock_format_utc(id->expires_ns, expires);
    if (id->revoked_ns != 0)
        phx_clock_format_utc(id->revoked_ns, revoked);
    printf("%-16s %-16s %-16s %-7s %-20s %-12s %-10.10s %-10.10s %-10.10s\n", id->key_id, id->tenant,
           id->user, id->is_person ? "person" : "service", roles, id->cost_centre, created, expires,
           revoked);
}

/* Keys may be added between counting and reading: then it reads again. */
static int load_all(struct phx_store *store, struct phx_identity **out, struct phx_err *err)
{
    size_t max = 0;

    for (*out = NULL;;) {
        int n = phx_key_list(store, *out, max, err);

        if (n < 0 || (size_t)n <= max)
            return n;
        max = (size_t)n;
        *out = phx_mem_realloc(*out, max, sizeof(**out));
    }
}

static int list(struct phx_store *store, const struct arguments *a, struct phx_err *err)
{
    struct phx_identity *ids = NULL;
    int                  n = load_all(store, &ids, err);

    if (n >= 0 && a->is_json) {
        json_t *keys = json_array();

        for (int i = 0; i < n; i++)
            json_array_append_new(keys, identity_json(&ids[i]));
        phx_ctl_print_json(json_pack("{s:o}", "keys", keys));
    } else if (n >= 0) {
        printf("%-16s %-16s %-16s %-7s %-20s %-12s %-10s %-10s %-10s\n", "id", "tenant", "user", "kind",
               "roles", "cost centre", "created", "expires", "revoked");
        for (int i = 0; i < n; i++)
            print_identity(&ids[i]);
    }
    phx_mem_free(ids);
    return n < 0 ? n : 0;
}

static int revoke(struct phx_store *store, const struct arguments *a, struct phx_err *err)
{
    int rc = phx_key_revoke(store, a->key_id, err);

    if (rc == 0 && a->is_json)
        phx_ctl_print_json(json_pack("{s:s,s:b}", "id", a->key_id, "revoked", 1));
    else if (rc == 0)
        printf("key %s is revoked\n", a->key_id);
    return rc;
}

int phx_ctl_key(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "create|list|revoke [ID]",
                                     "API keys of a cluster.", NULL, NULL, NULL};
    struct arguments  a = {.roles = "user"};
    struct phx_store *store = NULL;
    struct phx_err    err = {0};
    int               rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    rc = phx_ctl_store_open(a.data_dir, &store, &a.now_ns, &err);
    if (rc == 0)
        rc = strcmp(a.action, "create") == 0   ? create(store, &a, &err)
             : strcmp(a.action, "list") == 0 ? list(store, &a, &err)
                                             : revoke(store, &a, &err);
    phx_store_close(store);
    if (rc == 0)
        return PHX_EXIT_OK;
    (void)phx_ctl_fail(&err);
    return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
