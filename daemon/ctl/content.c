/* SPDX-License-Identifier: Apache-2.0
 * `phalanx content read|shred|hold|expire|key-lost`: what is kept of requests and answers.  Works on the
 * database of the data folder, also while the daemon runs.  Reading and giving up a key take two people. */
#include <argp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "daemon/content/content.h"
#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_BY, OPT_WHY, OPT_APPROVED, OPT_TENANT, OPT_USER, OPT_PERIOD, BATCH = 1000 };

struct arguments {
    const char *data_dir, *action, *words[2], *by, *why, *approved_by, *tenant, *user, *period;
    int         n_words;
    bool        is_json;
    /* of the run */
    struct phx_store       *store;
    uint8_t                 site_key[PHX_CONTENT_KEY_BYTES];
    int64_t                 now_ns;
    char                   *actor; /* owned: by, approved by */
    struct phx_content_text text;
    json_t                 *out;
    int                     n;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"by", OPT_BY, "NAME", 0, "who does it (default: login name; read and key-lost: needed)", 0},
    {"why", OPT_WHY, "TEXT", 0, "read, key-lost, hold open: the reason, which stands in the audit log", 0},
    {"approved-by", OPT_APPROVED, "NAME", 0, "read, key-lost: the second person", 0},
    {"tenant", OPT_TENANT, "NAME", 0, "shred a month of, hold open: this tenant's content", 0},
    {"user", OPT_USER, "NAME", 0, "hold open: this user's content", 0},
    {"period", OPT_PERIOD, "YYYY-MM", 0, "shred: this month", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static bool is_action(const struct arguments *a, const char *name)
{
    return a->action != NULL && strcmp(a->action, name) == 0;
}

static bool is_hold(const struct arguments *a, const char *name)
{
    return is_action(a, "hold") && a->n_words > 0 && strcmp(a->words[0], name) == 0;
}

static void check_people(const struct arguments *a, const struct argp_state *state)
{
    if (!is_action(a, "read") && !is_action(a, "key-lost")) {
        if (a->approved_by != NULL)
            argp_error(state, "--approved-by is for read and key-lost");
        return;
    }
    if (a->by == NULL || a->approved_by == NULL || a->why == NULL)
        argp_error(state, "%s takes --by NAME, --why TEXT and --approved-by NAME", a->action);
    if (strcasecmp(a->by, a->approved_by) == 0)
        argp_error(state, "two different people are needed");
}

static void check_words(const struct arguments *a, const struct argp_state *state)
{
    bool is_month = a->tenant != NULL || a->period != NULL;

    if (is_action(a, "read") && a->n_words != 1)
        argp_error(state, "read takes one receipt");
    if (is_action(a, "shred") &&
        (is_month ? a->n_words != 0 || a->tenant == NULL || a->period == NULL : a->n_words != 1))
        argp_error(state, "shred takes one receipt, or --tenant NAME and --period YYYY-MM");
    if ((is_action(a, "expire") || is_action(a, "key-lost")) && a->n_words != 0)
        argp_error(state, "%s takes no further argument", a->action);
    if (is_action(a, "hold") && !(is_hold(a, "list") && a->n_words == 1) &&
        !((is_hold(a, "open") || is_hold(a, "close")) && a->n_words == 2))
        argp_error(state, "hold open NAME, hold close NAME or hold list");
    if (is_hold(a, "open") && (a->why == NULL || (a->tenant == NULL && a->user == NULL)))
        argp_error(state, "hold open takes --why TEXT and --tenant NAME, --user NAME or both");
    if ((a->user != NULL && !is_hold(a, "open")) || (a->period != NULL && !is_action(a, "shred")) ||
        (a->tenant != NULL && !is_hold(a, "open") && !is_action(a, "shred")))
        argp_error(state, "--tenant, --user or --period is not for %s", a->action);
}

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    if (!is_action(a, "read") && !is_action(a, "shred") && !is_action(a, "hold") && !is_action(a, "expire") &&
        !is_action(a, "key-lost"))
        argp_error(state, "an action is needed: read, shred, hold, expire or key-lost");
    if (a->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    check_people(a, state);
    check_words(a, state);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_BY: a->by = arg; return 0;
    case OPT_WHY: a->why = arg; return 0;
    case OPT_APPROVED: a->approved_by = arg; return 0;
    case OPT_TENANT: a->tenant = arg; return 0;
    case OPT_USER: a->user = arg; return 0;
    case OPT_PERIOD: a->period = arg; return 0;
    case ARGP_KEY_ARG:
        if (a->action == NULL)
            a->action = arg;
        else if (a->n_words < 2)
            a->words[a->n_words++] = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- jobs ------------------------------------------------------------------------------------------------------ */

static int do_read(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    return phx_content_read(tx, a->site_key, a->words[0], a->actor, a->why, a->now_ns, &a->text, err);
}

static int do_key_lost(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    return phx_content_key_lost(tx, a->site_key, a->actor, a->why, a->now_ns, err);
}

static int do_shred(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    return a->period != NULL
               ? phx_content_shred_month(tx, a->tenant, a->period, a->actor, a->now_ns, err)
               : phx_content_shred(tx, a->words[0], a->actor, a->now_ns, err);
}

static int do_sweep(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    a->n = phx_content_sweep(tx, a->now_ns, BATCH, err);
    return a->n < 0 ? a->n : 0;
}

static int do_expire(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    a->n = phx_content_expire(tx, a->now_ns, BATCH, err);
    return a->n < 0 ? a->n : 0;
}

static int add_hold(void *ctx, const struct phx_hold *h)
{
    json_array_append_new(ctx, json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:s,s:I}", "name", h->name, "tenant",
                                         h->tenant, "user", h->user, "reason", h->reason, "opened_by",
                                         h->opened_by, "opened_ns", (json_int_t)h->opened_ns, "closed_by",
                                         h->closed_by, "closed_ns", (json_int_t)h->closed_ns));
    return 0;
}

static int do_hold(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct arguments *a = ctx;

    if (is_hold(a, "list"))
        return phx_hold_list(tx, add_hold, a->out, err);
    if (is_hold(a, "close"))
        return phx_hold_close(tx, a->words[1], a->actor, a->now_ns, err);
    return phx_hold_open(tx, a->words[1], a->tenant != NULL ? a->tenant : "", a->user != NULL ? a->user : "",
                         a->why, a->actor, a->now_ns, err);
}

/* Many short transactions, so that the daemon's requests come in between. */
static int run_all(struct arguments *a, phx_store_fn fn, json_int_t *total, struct phx_err *err)
{
    int rc;

    for (*total = 0; (rc = phx_store_run(a->store, fn, a, err)) == 0 && a->n > 0;)
        *total += a->n;
    return rc;
}

/* ---- actions ----------------------------------------------------------------------------------------------------- */

/* The text is shown when the leaf that tells of it is on disk. */
static int put_text(struct arguments *a, const char *key, const struct phx_buf *text, struct phx_err *err)
{
    json_t *value = NULL;
    int     rc = 0;

    if (text->size > 0)
        rc = phx_json_parse(&value, text->data, text->size, PHX_CONTENT_MAX_BYTES, 0, key, err);
    if (rc == 0)
        json_object_set_new(a->out, key, value != NULL ? value : json_null());
    return rc;
}

static int run_read(struct arguments *a, struct phx_err *err)
{
    char salt[65];
    int  rc = phx_store_run(a->store, do_read, a, err);

    if (rc != 0)
        return rc;
    phx_hex_encode(salt, sizeof(salt), a->text.salt, sizeof(a->text.salt));
    a->out = json_pack("{s:s,s:b,s:s}", "receipt", a->words[0], "has_text", a->text.has_text, "salt", salt);
    rc = put_text(a, "request", &a->text.request, err);
    return rc == 0 ? put_text(a, "response", &a->text.response, err) : rc;
}

static int run_shred(struct arguments *a, struct phx_err *err)
{
    json_int_t total = 1;
    int        rc = phx_store_run(a->store, do_shred, a, err);

    if (rc == 0 && a->period != NULL)
        rc = run_all(a, do_sweep, &total, err);
    if (rc == 0)
        a->out = json_pack("{s:I}", "shredded", total);
    return rc;
}

static int run_expire(struct arguments *a, struct phx_err *err)
{
    json_int_t total = 0;
    int        rc = run_all(a, do_expire, &total, err);

    if (rc == 0)
        a->out = json_pack("{s:I}", "shredded", total);
    return rc;
}

static int run_hold(struct arguments *a, struct phx_err *err)
{
    int rc;

    a->out = json_array();
    rc = phx_store_run(a->store, do_hold, a, err);
    if (rc == 0) {
        json_t *holds = a->out;

        a->out = is_hold(a, "list") ? json_pack("{s:o}", "holds", holds)
                                    : json_pack("{s:s,s:b}", "hold", a->words[1], "open", is_hold(a, "open"));
        if (!is_hold(a, "list"))
            json_decref(holds);
    }
    return rc;
}

/* key-lost makes a new file when there is none; reading must not. */
static int read_site_key(struct arguments *a, struct phx_err *err)
{
    char *path = phx_ctl_path(a->data_dir, "keys/content.key");
    int   rc = 0;

    if (is_action(a, "read") && access(path, F_OK) != 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "%s is not there: bring it back from its backup", path);
    if (rc == 0)
        rc = phx_content_key_read(path, a->site_key, err);
    phx_mem_free(path);
    return rc;
}

static int run_action(struct arguments *a, struct phx_err *err)
{
    int rc = 0;

    if (is_action(a, "read") || is_action(a, "key-lost"))
        rc = read_site_key(a, err);
    if (rc != 0)
        return rc;
    if (is_action(a, "read"))
        return run_read(a, err);
    if (is_action(a, "shred"))
        return run_shred(a, err);
    if (is_action(a, "hold"))
        return run_hold(a, err);
    if (is_action(a, "expire"))
        return run_expire(a, err);
    rc = phx_store_run(a->store, do_key_lost, a, err);
    if (rc == 0)
        a->out = json_pack("{s:b}", "accepted", 1);
    return rc;
}

/* ---- output ----------------------------------------------------------------------------------------------------------- */

static void print_holds(const json_t *holds)
{
    const json_t *h;
    size_t        i;

    printf("%-20s %-16s %-16s %-10s %-10s %s\n", "name", "tenant", "user", "opened", "closed", "reason");
    json_array_foreach(holds, i, h) {
        int64_t closed_ns = json_integer_value(json_object_get(h, "closed_ns"));
        char    opened[32], closed[32] = "-";

        phx_clock_format_utc(json_integer_value(json_object_get(h, "opened_ns")), opened);
        if (closed_ns != 0)
            phx_clock_format_utc(closed_ns, closed);
        printf("%-20s %-16s %-16s %-10.10s %-10.10s %s\n", json_string_value(json_object_get(h, "name")),
               json_string_value(json_object_get(h, "tenant")), json_string_value(json_object_get(h, "user")),
               opened, closed, json_string_value(json_object_get(h, "reason")));
    }
}

static void print_result(const struct arguments *a)
{
    if (a->is_json || is_action(a, "read")) {
        json_dumpf(a->out, stdout, a->is_json ? JSON_COMPACT : JSON_INDENT(2));
        fputs("\n", stdout);
        return;
    }
    if (is_hold(a, "list"))
        print_holds(json_object_get(a->out, "holds"));
    else if (is_action(a, "hold"))
        printf("hold %s is %s\n", a->words[1], is_hold(a, "open") ? "open" : "closed");
    else if (is_action(a, "key-lost"))
        puts("the loss is accepted; restart phalanxd");
    else
        printf("%lld shredded\n", (long long)json_integer_value(json_object_get(a->out, "shredded")));
}

int phx_ctl_content(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option,
                                     "read RECEIPT|shred [RECEIPT]|hold open NAME|hold close NAME|hold list|"
                                     "expire|key-lost",
                                     "What is kept of requests and answers.", NULL, NULL, NULL};
    struct arguments a = {0};
    struct phx_err   err = {0};
    char            *login;
    int              rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    login = phx_ctl_login();
    if (a.by == NULL)
        a.by = login;
    a.actor = a.approved_by != NULL ? phx_mem_printf("%s, approved by %s", a.by, a.approved_by)
                                    : phx_mem_strdup(a.by);
    rc = phx_ctl_store_open(a.data_dir, &a.store, &a.now_ns, &err);
    if (rc == 0)
        rc = run_action(&a, &err);
    phx_store_close(a.store);
    if (rc == 0)
        print_result(&a);
    else
        (void)phx_ctl_fail(&err);
    phx_content_text_fini(&a.text);
    sodium_memzero(a.site_key, sizeof(a.site_key));
    json_decref(a.out);
    phx_mem_free(a.actor);
    phx_mem_free(login);
    return rc == 0 ? PHX_EXIT_OK : rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
}
