/* SPDX-License-Identifier: Apache-2.0
 * `phalanx clock show|accept`: the time that licences, seats and records go by. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_BY, OPT_APPROVED_BY };
enum { READY_MAX_BYTES = 1 << 20, PAUSE_MS = 50, WAIT_MAX_MS = 10000 };

struct arguments {
    const char *data_dir, *action, *by, *approved_by;
    bool        is_json;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {"by", OPT_BY, "NAME", 0, "accept: who gives the command", 0},
    {"approved-by", OPT_APPROVED_BY, "NAME", 0, "accept: who has checked the time, another person", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void check_arguments(const struct arguments *a, const struct argp_state *state)
{
    bool is_accept = a->action != NULL && strcmp(a->action, "accept") == 0;

    if (a->action == NULL || (!is_accept && strcmp(a->action, "show") != 0))
        argp_error(state, "an action is needed: show or accept");
    if (a->data_dir == NULL)
        argp_error(state, "--data DIR is needed");
    if (is_accept && (a->by == NULL || a->approved_by == NULL))
        argp_error(state, "accept: --by NAME and --approved-by NAME are needed");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_BY: a->by = arg; return 0;
    case OPT_APPROVED_BY: a->approved_by = arg; return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "too many arguments");
        a->action = arg;
        return 0;
    case ARGP_KEY_END: check_arguments(a, state); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- a daemon that runs -------------------------------------------------------------------------------------- */

static bool is_daemon_running(const char *data_dir)
{
    char      *path = phx_ctl_path(data_dir, "run/ready.json");
    json_t    *ready = NULL;
    json_int_t pid = 0;

    if (phx_json_load(&ready, path, READY_MAX_BYTES, 0, NULL) == 0)
        pid = json_integer_value(json_object_get(ready, "pid"));
    json_decref(ready);
    phx_mem_free(path);
    return pid > 0 && kill((pid_t)pid, 0) == 0;
}

struct taking {
    int64_t accept_ns, taken_ns;
};

static int read_taking(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct taking       *t = ctx;
    struct phx_time_mark mark;
    int                  rc = phx_time_load(tx, &mark, &t->accept_ns, err);

    return rc == 0 ? phx_time_taken(tx, &t->taken_ns, err) : rc;
}

/* The next command goes by the new time: its records must not stand before those of a daemon that has not seen it. */
static int wait_for_daemon(struct phx_store *store, const char *data_dir, struct phx_err *err)
{
    const struct timespec pause = {0, PAUSE_MS * 1000000L};
    struct taking         t = {1, 0};
    int                   rc = 0;

    for (int waited_ms = 0; waited_ms < WAIT_MAX_MS && is_daemon_running(data_dir); waited_ms += PAUSE_MS) {
        rc = phx_store_read(store, read_taking, &t, err);
        if (rc != 0 || t.taken_ns == t.accept_ns)
            return rc;
        (void)nanosleep(&pause, NULL); /* cut short: it looks once more */
    }
    return rc;
}

struct view {
    const struct arguments *a;
    struct phx_time_reading now;
    struct phx_time_mark    mark;
    enum phx_clock_state    state;
    int64_t                 t_ns;
};

static int look(struct phx_tx *tx, struct view *v, struct phx_err *err)
{
    int64_t accept_ns;
    int     rc = phx_time_load(tx, &v->mark, &accept_ns, err);

    if (rc == 0)
        v->t_ns = phx_time_step(&v->mark, &v->now, &v->state);
    return rc;
}

static int show_or_accept(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct view *v = ctx;
    int          rc = 0;

    phx_time_read(&v->now);
    if (strcmp(v->a->action, "accept") == 0)
        rc = phx_time_accept_in(tx, &v->now, v->a->by, v->a->approved_by, err);
    return rc == 0 ? look(tx, v, err) : rc;
}

static void print_json(const struct view *v)
{
    phx_ctl_print_json(json_pack("{s:s,s:I,s:I,s:I}", "state", phx_clock_state_name(v->state), "time_ns",
                                 (json_int_t)v->t_ns, "wall_ns", (json_int_t)v->now.wall_ns, "suspect_since_ns",
                                 (json_int_t)v->mark.suspect_since_ns));
}

static void print_text(const struct view *v)
{
    char t[32], wall[32], since[32];

    phx_clock_format_utc(v->t_ns, t);
    phx_clock_format_utc(v->now.wall_ns, wall);
    phx_clock_format_utc(v->mark.suspect_since_ns, since);
    printf("state  %s\ntime   %s\nwall   %s\n", phx_clock_state_name(v->state), t, wall);
    if (v->mark.suspect_since_ns != 0)
        printf("held   since %s: the wall clock is more than an hour ahead of what can have passed.\n"
               "       When it is right: phalanx clock accept --data %s --by A --approved-by B\n",
               since, v->a->data_dir);
}

int phx_ctl_clock(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "show|accept",
                                     "The clock of a cluster: licences, seats and records go by it.",
                                     NULL, NULL, NULL};
    struct arguments  a = {0};
    struct view       v = {.a = &a};
    struct phx_store *store = NULL;
    struct phx_err    err = {0};
    int64_t           now_ns;
    int               rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    rc = phx_ctl_store_open(a.data_dir, &store, &now_ns, &err);
    if (rc == 0)
        rc = phx_store_run(store, show_or_accept, &v, &err);
    if (rc == 0 && strcmp(a.action, "accept") == 0)
        rc = wait_for_daemon(store, a.data_dir, &err);
    phx_store_close(store);
    if (rc != 0) {
        (void)phx_ctl_fail(&err);
        return rc == PHX_E_INVALID ? PHX_EXIT_USAGE : PHX_EXIT_FAILED;
    }
    if (a.is_json)
        print_json(&v);
    else
        print_text(&v);
    return PHX_EXIT_OK;
}
