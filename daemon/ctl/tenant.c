/* SPDX-License-Identifier: Apache-2.0
 * `phalanx tenant set|show|list|sign-aup`: what a tenant has signed and chosen.  Works on the database of the
 * data folder, also while the daemon runs; the next request follows it. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "daemon/tenant/tenant.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_PRIVACY, OPT_RETENTION, OPT_REPLAY, OPT_FILE, OPT_BY, AUP_MAX_BYTES = 4 << 20 };

struct arguments {
    const char *data_dir, *action, *tenant, *privacy, *retention, *replay, *file, *by;
    bool        is_json;
    /* of the run */
    char             *login; /* owned */
    int64_t           now_ns;
    char              aup_hash[65];
    struct phx_tenant result;
    json_t           *list;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"privacy", OPT_PRIVACY, "MODE", 0, "set: commit-only (default), encrypted or clear", 0},
    {"retention", OPT_RETENTION, "CLASS", 0, "set: standard (184 days), year-1, phi-6y, sec-6y, year-10", 0},
    {"replay", OPT_REPLAY, "CLASS", 0, "set: A, B, or any (what the engine gives)", 0},
    {"file", OPT_FILE, "TEXT", 0, "sign-aup: the acceptable-use text; its SHA-256 is kept", 0},
    {"by", OPT_BY, "NAME", 0, "sign-aup: who signed; set: who changes it (default: login name)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static bool is_action(const struct arguments *a, const char *name)
{
    return strcmp(a->action, name) == 0;
}

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    if (a->action == NULL || (!is_action(a, "set") && !is_action(a, "show") && !is_action(a, "list") &&
                              !is_action(a, "sign-aup")))
        argp_error(state, "an action is needed: set, show, list or sign-aup");
    if (a->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    if (is_action(a, "list") != (a->tenant == NULL))
        argp_error(state, "set, show and sign-aup take one tenant, list none");
    if (is_action(a, "set") && a->privacy == NULL && a->retention == NULL && a->replay == NULL)
        argp_error(state, "set: --privacy, --retention or --replay is needed");
    if (!is_action(a, "set") && (a->privacy != NULL || a->retention != NULL || a->replay != NULL))
        argp_error(state, "--privacy, --retention and --replay are for set");
    if (is_action(a, "sign-aup") != (a->file != NULL) || (is_action(a, "sign-aup") && a->by == NULL))
        argp_error(state, "sign-aup takes --file TEXT and --by NAME, the other actions no --file");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_PRIVACY: a->privacy = arg; return 0;
    case OPT_RETENTION: a->retention = arg; return 0;
    case OPT_REPLAY: a->replay = arg; return 0;
    case OPT_FILE: a->file = arg; return 0;
    case OPT_BY: a->by = arg; return 0;
    case ARGP_KEY_ARG:
        if (a->action == NULL)
            a->action = arg;
        else if (a->tenant == NULL)
            a->tenant = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- changes ------------------------------------------------------------------------------------------------ */

/* A text that does not fit must not be cut into another one. */
static int copy_text(const char *field, const char *text, char *out, size_t size, struct phx_err *err)
{
    if ((size_t)snprintf(out, size, "%s", text) >= size)
        return phx_fail(err, PHX_E_INVALID, "%s: at most %zu bytes", field, size - 1);
    return 0;
}

static int change(const struct arguments *a, struct phx_tenant *t, struct phx_err *err)
{
    int rc = 0;

    if (a->privacy != NULL)
        rc = phx_privacy_parse(a->privacy, &t->privacy, err);
    if (rc == 0 && a->retention != NULL)
        rc = copy_text("--retention", a->retention, t->retention, sizeof(t->retention), err);
    if (rc == 0 && a->replay != NULL)
        rc = copy_text("--replay", strcmp(a->replay, "any") == 0 ? "" : a->replay, t->replay,
                       sizeof(t->replay), err);
    if (rc == 0 && a->file != NULL) {
        memcpy(t->aup_hash, a->aup_hash, sizeof(t->aup_hash));
        t->aup_ns = a->now_ns;
        rc = copy_text("--by", a->by, t->aup_by, sizeof(t->aup_by), err);
    }
    return rc;
}

/* Reads, changes and writes in one transaction, so that two commands do not undo each other. */
static int run_one(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;
    char              name[sizeof(a->result.tenant)];
    int               rc = copy_text("tenant", a->tenant, name, sizeof(name), err);

    if (rc == 0)
        rc = phx_tenant_get(tx, name, &a->result, err);
    if (rc != 0 || is_action(a, "show"))
        return rc;
    rc = change(a, &a->result, err);
    return rc == 0 ? phx_tenant_set(tx, &a->result, a->by != NULL ? a->by : a->login, a->now_ns, err) : rc;
}

static int hash_file(struct arguments *a, struct phx_err *err)
{
    struct phx_buf text = {0};
    int            rc = phx_buf_read_file(&text, a->file, AUP_MAX_BYTES, err);

    if (rc == 0 && text.size == 0)
        rc = phx_fail(err, PHX_E_INVALID, "%s is empty: there is nothing to sign", a->file);
    if (rc == 0)
        phx_sha256_hex(text.data, text.size, a->aup_hash);
    phx_buf_fini(&text);
    return rc;
}

/* ---- output --------------------------------------------------------------------------------------------------- */

static json_t *tenant_json(const struct phx_tenant *t)
{
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I}", "tenant", t->tenant, "privacy",
                     phx_privacy_name(t->privacy), "retention", t->retention, "replay", t->replay, "aup_hash",
                     t->aup_hash, "aup_by", t->aup_by, "aup_ns", (json_int_t)t->aup_ns);
}

static int add_tenant(void *ctx, const struct phx_tenant *t)
{
    json_array_append_new(ctx, tenant_json(t));
    return 0;
}

static int run_list(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    return phx_tenant_list(tx, add_tenant, a->list, err);
}

static void print_tenant(const json_t *t)
{
    const char *replay = json_string_value(json_object_get(t, "replay"));
    const char *hash = json_string_value(json_object_get(t, "aup_hash"));

    printf("%-16s %-12s %-10s %-6s %s\n", json_string_value(json_object_get(t, "tenant")),
           json_string_value(json_object_get(t, "privacy")),
           json_string_value(json_object_get(t, "retention")), replay[0] != '\0' ? replay : "any",
           hash[0] != '\0' ? hash : "-");
}

static void print_result(struct arguments *a)
{
    json_t *one;
    size_t  i;

    if (a->tenant != NULL)
        json_array_append_new(a->list, tenant_json(&a->result));
    if (a->is_json) {
        json_t *out = a->tenant != NULL ? json_incref(json_array_get(a->list, 0))
                                        : json_pack("{s:O}", "tenants", a->list);

        phx_ctl_print_json(out);
        return;
    }
    printf("%-16s %-12s %-10s %-6s %s\n", "tenant", "privacy", "retention", "replay", "signed text (SHA-256)");
    json_array_foreach(a->list, i, one)
        print_tenant(one);
}

int phx_ctl_tenant(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "set|show|list|sign-aup [TENANT]",
                                     "What a tenant has signed and chosen.", NULL, NULL, NULL};
    struct arguments  a = {0};
    struct phx_store *store = NULL;
    struct phx_err    err = {0};
    int               rc = 0;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    a.login = phx_ctl_login();
    a.list = json_array();
    if (a.file != NULL)
        rc = hash_file(&a, &err);
    if (rc == 0)
        rc = phx_ctl_store_open(a.data_dir, &store, &a.now_ns, &err);
    if (rc == 0)
        rc = phx_store_run(store, a.tenant != NULL ? run_one : run_list, &a, &err);
    phx_store_close(store);
    if (rc == 0)
        print_result(&a);
    else
        (void)phx_ctl_fail(&err);
    json_decref(a.list);
    phx_mem_free(a.login);
    return rc == 0 ? PHX_EXIT_OK : rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
