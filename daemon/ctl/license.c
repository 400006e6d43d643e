/* SPDX-License-Identifier: Apache-2.0
 * `phalanx license`: issuing on the licensor's side; showing and installing on the site's, also while the daemon
 * runs. */
#include "daemon/ctl/license.h"

#include <argp.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/sign/sign.h"

enum {
    OPT_JSON = 256, OPT_OUT, OPT_NAME, OPT_PAYLOAD, OPT_KEY, OPT_KEY_SET, OPT_RENEWS, OPT_ROOTS, OPT_BY, OPT_PERIOD, OPT_DRY_RUN
};

struct arguments {
    const struct action   *action;
    struct phx_ctl_license a;
};

static const struct action {
    const char *name;
    int (*run)(const struct phx_ctl_license *a, struct phx_err *err);
    bool needs_data, needs_out, needs_payload;
    int  min_keys, max_keys, min_files, max_files;
} actions[] = {
    {"keygen", phx_ctl_license_keygen, false, true, false, 0, 0, 0, 0},
    {"keyset", phx_ctl_license_keyset, false, true, true, 1, PHX_CTL_KEYS_MAX, 0, 0},
    {"issue", phx_ctl_license_issue, false, true, true, 1, 1, 0, 0},
    {"show", phx_ctl_license_show, false, false, false, 0, 0, 0, PHX_CTL_FILES_MAX},
    {"install", phx_ctl_license_install, true, false, false, 0, 0, 1, 1},
    {"seats", phx_ctl_license_seats, true, false, false, 0, 0, 0, 0},
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"out", OPT_OUT, "PATH", 0, "keygen: folder; keyset, issue: file to write", 0},
    {"name", OPT_NAME, "NAME", 0, "keygen: NAME.secret and NAME.pub (default: issuer)", 0},
    {"payload", OPT_PAYLOAD, "FILE", 0, "keyset, issue: what to sign, as JSON", 0},
    {"key", OPT_KEY, "FILE", 0, "issue: the issuer's secret key; keyset: a root's, once for each", 0},
    {"key-set", OPT_KEY_SET, "FILE", 0, "install: a newer key set to install with it", 0},
    {"renews", OPT_RENEWS, "FILE", 0, "issue: the licence before, whose seats stay known", 0},
    {"roots", OPT_ROOTS, "FILE", 0, "show FILE: root keys (default: those compiled in)", 0},
    {"by", OPT_BY, "NAME", 0, "install: who does it, for the audit log (default: the login name)", 0},
    {"period", OPT_PERIOD, "YYYY-MM", 0, "seats: the month, in UTC (default: this one)", 0},
    {"dry-run", OPT_DRY_RUN, NULL, 0, "install: check and say what would be; changes nothing", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void set_action(struct arguments *x, const char *name, const struct argp_state *state)
{
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(name, actions[i].name) == 0)
            x->action = &actions[i];
    if (x->action == NULL)
        argp_error(state, "unknown action '%.40s'", name);
}

static void check_arguments(const struct arguments *x, const struct argp_state *state)
{
    const struct action          *n = x->action;
    const struct phx_ctl_license *a = &x->a;

    if (n == NULL) {
        argp_error(state, "an action is needed: keygen, keyset, issue, show, install or seats");
        return;
    }
    if (n->needs_data && a->data_dir == NULL)
        argp_error(state, "%s: --data DIR is needed", n->name);
    if (n->needs_out != (a->out != NULL))
        argp_error(state, n->needs_out ? "%s: --out is needed" : "%s takes no --out", n->name);
    if (n->needs_payload != (a->payload != NULL))
        argp_error(state, n->needs_payload ? "%s: --payload FILE is needed" : "%s takes no --payload", n->name);
    if (a->n_keys < n->min_keys)
        argp_error(state, "%s: --key FILE is needed", n->name);
    if (a->n_keys > n->max_keys)
        argp_error(state, n->max_keys == 0 ? "%s takes no --key" : "%s: too many --key", n->name);
    if (a->renews != NULL && n->run != phx_ctl_license_issue)
        argp_error(state, "%s takes no --renews", n->name);
    if (a->n_files < n->min_files)
        argp_error(state, "%s: a licence FILE is needed", n->name);
    if (a->n_files > n->max_files)
        argp_error(state, "%s: too many arguments", n->name);
    if (n->run == phx_ctl_license_show && (a->data_dir != NULL) == (a->n_files > 0))
        argp_error(state, "show: --data DIR or a licence and its key set are needed");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments       *x = state->input;
    struct phx_ctl_license *a = &x->a;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_OUT: a->out = arg; return 0;
    case OPT_NAME: a->name = arg; return 0;
    case OPT_PAYLOAD: a->payload = arg; return 0;
    case OPT_KEY_SET: a->key_set = arg; return 0;
    case OPT_RENEWS: a->renews = arg; return 0;
    case OPT_ROOTS: a->roots = arg; return 0;
    case OPT_BY: a->by = arg; return 0;
    case OPT_PERIOD: a->period = arg; return 0;
    case OPT_DRY_RUN: a->is_dry_run = true; return 0;
    case OPT_KEY:
        if (a->n_keys == PHX_CTL_KEYS_MAX)
            argp_error(state, "more than %d keys", PHX_CTL_KEYS_MAX);
        a->keys[a->n_keys++] = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (x->action == NULL)
            set_action(x, arg, state);
        else if (a->n_files == PHX_CTL_FILES_MAX)
            argp_error(state, "more than %d files", PHX_CTL_FILES_MAX);
        else
            a->files[a->n_files++] = arg;
        return 0;
    case ARGP_KEY_END: check_arguments(x, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int phx_ctl_license(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "keygen|keyset|issue|show|install|seats [FILE...]",
                                     "Licences of a cluster.", NULL, NULL, NULL};
    struct arguments x = {.a = {.name = "issuer"}};
    struct phx_err   err = {0};
    int              rc;

    argp_parse(&argp, argc, argv, 0, NULL, &x);
    rc = phx_sign_init(&err);
    if (rc == 0)
        rc = x.action->run(&x.a, &err);
    if (rc == 0)
        return PHX_EXIT_OK;
    (void)phx_ctl_fail(&err);
    return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
