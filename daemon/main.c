/* SPDX-License-Identifier: Apache-2.0
 * phalanxd: the coordinator.  Reads like a table of contents: config, modules in order, the loop, the
 * modules in reverse. */
#include <argp.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/admission/admission.h"
#include "daemon/api/api.h"
#include "daemon/cluster/cluster.h"
#include "daemon/config/config.h"
#include "daemon/control/control.h"
#include "daemon/daemon.h"
#include "daemon/fleet/fleet.h"
#include "daemon/metrics/metrics.h"
#include "daemon/queue/queue.h"
#include "daemon/ready.h"
#include "daemon/records.h"
#include "daemon/text/text.h"
#include "rpc/base/clock.h"
#include "rpc/base/hex.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum { OPT_JSON = 256, OPT_HELP_CONFIG, TICK_MS = 50, STOP_GRACE_MS = 3000 };

struct arguments {
    const char *config;
    bool        is_check, is_json, wants_config_help;
};

struct run {
    struct phx_daemon d;
    struct event     *term, *interrupt, *tick;
    bool              is_json, is_ready_told;
    int64_t           drain_until_ns;
    bool              is_fleet_stopping;
    int               exit_code;
    int               lock_fd; /* of the data folder; -1 = not held */
    char              cluster_id[33];
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "configuration (see --help-config)", 0},
    {"test", 't', NULL, 0, "check the configuration and exit", 0},
    {"json", OPT_JSON, NULL, 0, "the ready line is a JSON object", 0},
    {"help-config", OPT_HELP_CONFIG, NULL, 0, "list every configuration key", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'c': a->config = arg; return 0;
    case 't': a->is_check = true; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_HELP_CONFIG: a->wants_config_help = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END:
        if (a->config == NULL && !a->wants_config_help)
            argp_error(state, "-c FILE is needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the modules ------------------------------------------------------------------------------------ */

static void on_model(void *ctx, const char *digest, const char *parent)
{
    struct phx_daemon *d = ctx;

    (void)snprintf(d->manifest_root, sizeof(d->manifest_root), "%s", digest);
    phx_admission_set_model(d->admission, digest, parent);
}

static int open_engine(struct phx_daemon *d, struct phx_err *err)
{
    const struct phx_config       *c = d->config;
    const struct phx_fleet_options fleet = {d->base, d->metrics, c, d->model_name,
                                            c->launcher_rank_program};
    struct phx_engine_options      engine = {
             .max_waiting = (int32_t)c->limits_waiting,
             .max_waiting_per_tenant = (int32_t)c->limits_waiting_per_tenant,
             .max_resumes = (int32_t)c->limits_resumes,
             .metrics = d->metrics,
    };
    /* tenants' cache keys are made from it */
    int rc = phx_constant_read(d, "keys/cache.secret", engine.cache_secret, sizeof(engine.cache_secret), err);

    if (rc == 0)
        rc = phx_fleet_open(&fleet, &d->fleet, err);
    if (rc == 0)
        phx_fleet_on_model(d->fleet, on_model, d);
    return rc == 0 ? phx_engine_open(d->fleet, &engine, &d->engine, err) : rc;
}

/* A second daemon would settle the first one's leases as if it had crashed. */
static int lock_data(struct run *r, struct phx_err *err)
{
    const char *dir = r->d.config->data_dir;

    r->lock_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->lock_fd < 0)
        return phx_fail(err, PHX_E_IO, "data_dir %s: %s", dir, strerror(errno));
    if (flock(r->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return phx_fail(err, PHX_E_STATE, "data_dir %s is in use by another phalanxd", dir);
    return 0;
}

static int open_all(struct run *r, struct phx_err *err)
{
    struct phx_daemon *d = &r->d;
    uint8_t            id[16];
    int                rc;

    d->base = event_base_new();
    phx_assert(d->base != NULL);
    d->metrics = phx_metrics_create();
    d->started_wall_ns = phx_clock_wall_ns();
    d->cluster_id = r->cluster_id;
    rc = lock_data(r, err);
    if (rc == 0)
        rc = phx_constant_read(d, "keys/cluster.id", id, sizeof(id), err);
    if (rc != 0)
        return rc;
    phx_hex_encode(r->cluster_id, sizeof(r->cluster_id), id, sizeof(id));
    rc = phx_text_open(d->config->model_path, &d->text, err);
    if (rc == 0)
        rc = phx_records_open(d, err);
    if (rc == 0)
        rc = open_engine(d, err);
    if (rc == 0)
        rc = phx_control_open(d, &d->control, err);
    if (rc == 0)
        rc = phx_cluster_open(d, &d->cluster, err);
    if (rc == 0)
        rc = phx_api_open(d, &d->api, err);
    if (rc == 0)
        rc = phx_fleet_start(d->fleet, phx_cluster_target(d->cluster), err);
    return rc;
}

static void close_all(struct run *r)
{
    struct phx_daemon *d = &r->d;

    phx_api_close(d->api);
    phx_engine_close(d->engine);
    phx_fleet_close(d->fleet);
    phx_cluster_close(d->cluster);
    phx_records_close(d);
    phx_text_close(d->text);
    phx_metrics_destroy(d->metrics);
    if (r->tick != NULL)
        event_free(r->tick);
    if (r->term != NULL)
        event_free(r->term);
    if (r->interrupt != NULL)
        event_free(r->interrupt);
    event_base_free(d->base);
    phx_config_destroy(d->config);
    if (r->lock_fd >= 0)
        (void)close(r->lock_fd); /* gives the folder back */
}

/* ---- the loop ----------------------------------------------------------------------------------------- */

static void on_signal(evutil_socket_t number, short what, void *ctx)
{
    struct run        *r = ctx;
    struct phx_daemon *d = &r->d;

    (void)what;
    phx_log(PHX_LOG_INFO, "daemon.stop.asked", "signal=%d again=%d", (int)number, (int)d->is_draining);
    if (d->is_draining) { /* the second one means now */
        (void)event_base_loopbreak(d->base);
        return;
    }
    d->is_draining = true;
    r->drain_until_ns = phx_clock_mono_ns() + d->config->timeouts_drain_ms * 1000000;
    phx_cluster_set_serving(d->cluster, false);
    phx_api_drain(d->api);
}

static void drain(struct run *r)
{
    struct phx_daemon *d = &r->d;

    if (r->is_fleet_stopping) {
        if (phx_fleet_is_stopped(d->fleet))
            (void)event_base_loopbreak(d->base);
        return;
    }
    if (phx_api_is_idle(d->api) || phx_clock_mono_ns() > r->drain_until_ns) {
        r->is_fleet_stopping = true;
        phx_fleet_stop(d->fleet, STOP_GRACE_MS);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct run            *r = ctx;
    struct phx_fleet_facts facts;
    struct phx_err         err = {0};

    (void)fd;
    (void)what;
    phx_fleet_facts(r->d.fleet, &facts);
    phx_admission_set_places(r->d.admission, facts.n_hosts, facts.n_gpus, facts.devices);
    if (r->d.is_draining) {
        drain(r);
    } else if (!r->is_ready_told && facts.n_ready > 0) {
        r->is_ready_told = true;
        phx_cluster_set_serving(r->d.cluster, true);
        if (phx_ready_tell(&r->d, phx_cluster_target(r->d.cluster), r->is_json, &err) != 0)
            phx_log(PHX_LOG_ERROR, "daemon.ready.fail", "reason=%s", err.text);
    } else if (!r->is_ready_told && facts.is_hopeless) {
        fprintf(stderr, "phalanxd: no replica could start: %s\n", facts.last_error);
        r->exit_code = 1;
        (void)event_base_loopbreak(r->d.base);
    }
}

static void run_loop(struct run *r)
{
    const struct timeval tick = {0, TICK_MS * 1000};
    struct phx_daemon   *d = &r->d;

    r->term = evsignal_new(d->base, SIGTERM, on_signal, r);
    r->interrupt = evsignal_new(d->base, SIGINT, on_signal, r);
    r->tick = event_new(d->base, -1, EV_PERSIST, on_tick, r);
    phx_assert(r->term != NULL && r->interrupt != NULL && r->tick != NULL);
    phx_assert(event_add(r->term, NULL) == 0 && event_add(r->interrupt, NULL) == 0 &&
               event_add(r->tick, &tick) == 0);
    (void)event_base_dispatch(d->base); /* ends by loopbreak */
    phx_ready_forget(d);
}

static void harden(void)
{
    const struct rlimit none = {0, 0};

    (void)umask(077);
    (void)setrlimit(RLIMIT_CORE, &none); /* a core would hold keys and prompts; best effort */
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)signal(SIGPIPE, SIG_IGN);
}

static const char *choose_model_name(const struct phx_config *c, char *name, size_t size)
{
    char  path[4096];
    char *slash;

    if (c->model_name[0] != '\0')
        return c->model_name;
    (void)snprintf(path, sizeof(path), "%s", c->model_path);
    while (strlen(path) > 1 && path[strlen(path) - 1] == '/')
        path[strlen(path) - 1] = '\0';
    slash = strrchr(path, '/');
    if (slash != NULL && strcmp(slash, "/model") == 0) { /* .../demo/model is "demo" */
        *slash = '\0';
        slash = strrchr(path, '/');
    }
    (void)snprintf(name, size, "%.120s", slash != NULL ? slash + 1 : path);
    return name;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "", "The phalanx coordinator.", NULL, NULL,
                                     NULL};
    struct arguments         a = {0};
    struct run               r = {.lock_fd = -1};
    struct phx_err           err = {0};
    enum phx_log_level       level;
    struct phx_buf           help;
    char                     name[128];

    argp_err_exit_status = 2;
    argp_program_version = "phalanxd " PHX_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.wants_config_help) {
        phx_buf_init(&help, 0);
        phx_config_format_help(&help);
        fputs(help.data, stdout);
        phx_buf_fini(&help);
        return 0;
    }
    if (phx_config_load(a.config, &r.d.config, &err) != 0) {
        fprintf(stderr, "phalanxd: %s\n", err.text);
        return 1;
    }
    if (a.is_check) {
        printf("%s: the configuration is valid\n", a.config);
        phx_config_destroy(r.d.config);
        return 0;
    }
    harden();
    if (phx_log_parse_level(r.d.config->log_level, &level) == 0)
        phx_log_set_level(level);
    phx_log_set_context("role", "phalanxd");
    r.is_json = a.is_json;
    r.d.model_name = choose_model_name(r.d.config, name, sizeof(name));
    if (open_all(&r, &err) != 0) {
        phx_log(PHX_LOG_ERROR, "daemon.open.fail", "reason=%s", err.text);
        fprintf(stderr, "phalanxd: %s\n", err.text);
        r.exit_code = 1;
    } else
        run_loop(&r);
    close_all(&r);
    return r.exit_code;
}
