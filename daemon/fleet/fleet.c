/* SPDX-License-Identifier: Apache-2.0
 * The life of the replicas.  A timer of 200 ms looks at silence, stand-still, back-off and deadlines. */
#include "daemon/fleet/fleet.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/config/config.h"
#include "daemon/fleet/replica.h"
#include "daemon/metrics/metrics.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"

enum { TICK_MS = 200, FIRST_FAILURES_MAX = 3, PATH_BYTES = 4096 };

static void start(struct phx_replica *r);

static int64_t ms(int64_t n)
{
    return n * 1000000;
}

/* ---- states ------------------------------------------------------------------------------------ */

static void publish_state(const struct phx_replica *r)
{
    for (int s = PHX_REPLICA_STARTING; s <= PHX_REPLICA_FAILED; s++) {
        char labels[96];

        (void)snprintf(labels, sizeof(labels), "replica=\"%s\",state=\"%s\"", r->id,
                       phx_replica_state_name((enum phx_replica_state)s));
        phx_metrics_gauge(r->fleet->options.metrics, "phalanx_replica_state", labels,
                          (int)r->state == s);
    }
}

void phx_replica_set_state(struct phx_replica *r, enum phx_replica_state state, const char *reason)
{
    r->state = state;
    r->since_ns = phx_clock_mono_ns();
    r->since_wall_ns = phx_clock_wall_ns();
    publish_state(r);
    phx_log(PHX_LOG_INFO, reason, "replica=%s error=%s", r->id,
            state == PHX_REPLICA_BACKOFF || state == PHX_REPLICA_FAILED ? r->last_error : "");
    if (r->fleet->watch != NULL)
        r->fleet->watch(r->fleet->watch_ctx, reason);
}

static void drop_link(struct phx_replica *r, int code, const char *text)
{
    struct phx_rpc_link *link = r->link;

    r->link = NULL;
    if (link != NULL) {
        phx_rpc_link_set_data(link, NULL); /* its detached no longer concerns us */
        phx_rpc_link_close(link, code, text);
    }
}

/* How many failures in a row are too many: at the very start few, later as configured. */
static bool is_hopeless(const struct phx_replica *r)
{
    int64_t max = r->fleet->options.config->restart_max_failures;

    if (!r->was_ever_ready)
        return r->is_fatal || r->failures >= FIRST_FAILURES_MAX;
    return max > 0 && r->failures >= max;
}

static void plan_retry(struct phx_replica *r)
{
    const struct phx_config *c = r->fleet->options.config;
    int64_t                  wait = c->restart_backoff_min_ms;

    for (int32_t i = 1; i < r->failures && wait < c->restart_backoff_max_ms; i++)
        wait *= 2;
    wait = wait < c->restart_backoff_max_ms ? wait : c->restart_backoff_max_ms;
    r->retry_ns = phx_clock_mono_ns() + ms(wait);
}

void phx_replica_lost(struct phx_replica *r, const char *fmt, ...)
{
    struct phx_fleet *f = r->fleet;
    bool              was_ready = r->was_ready;
    struct phx_err    reason = {.code = PHX_E_PEER};
    va_list           ap;

    if (r->state == PHX_REPLICA_BACKOFF || r->state == PHX_REPLICA_STOPPED ||
        r->state == PHX_REPLICA_FAILED || r->state == PHX_REPLICA_NONE)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(reason.text, sizeof(reason.text), fmt, ap); /* may be cut */
    va_end(ap);
    if (!r->is_fatal) /* what the rank itself said is worth more */
        memcpy(r->last_error, reason.text, sizeof(r->last_error));
    r->was_ready = false;
    phx_replica_kill(r);
    drop_link(r, PHX_E_PEER, reason.text);
    if (r->stop_by_ns != 0 || f->is_stopping) {
        phx_replica_set_state(r, PHX_REPLICA_STOPPED, "fleet.replica.stopped");
    } else {
        r->failures = was_ready ? 1 : r->failures + 1; /* starts in a row that came to nothing */
        plan_retry(r);
        phx_replica_set_state(r, is_hopeless(r) ? PHX_REPLICA_FAILED : PHX_REPLICA_BACKOFF,
                              "fleet.replica.lost");
    }
    if (was_ready && f->listener.on_lost != NULL)
        f->listener.on_lost(f->listener.ctx, r, &reason);
}

/* ---- processes ---------------------------------------------------------------------------------- */

static void forget_process(struct phx_replica *r)
{
    if (r->exit_event != NULL)
        event_free(r->exit_event);
    if (r->pid_fd >= 0)
        (void)close(r->pid_fd); /* only watched */
    r->exit_event = NULL;
    r->pid_fd = -1;
    r->pid = 0;
}

/* Reaps every child, our own and the orphans that fell to us. */
static void reap(struct phx_fleet *f)
{
    int   status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int32_t i = 0; i < f->n_replicas; i++) {
            struct phx_replica *r = &f->replicas[i];

            if (r->pid != pid)
                continue;
            phx_replica_kill(r); /* what is left of its session */
            forget_process(r);
            if (WIFSIGNALED(status))
                phx_replica_lost(r, "its processes ended by signal %d", WTERMSIG(status));
            else
                phx_replica_lost(r, "its processes ended with status %d", WEXITSTATUS(status));
        }
}

static void on_exit_event(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    reap(ctx);
}

static void start(struct phx_replica *r)
{
    struct phx_fleet *f = r->fleet;
    struct phx_err    err = {0};

    r->was_ready = false;
    r->is_fatal = false;
    r->is_busy = false;
    r->load_fraction = 0;
    r->stop_by_ns = 0;
    memset(&r->stats, 0, sizeof(r->stats));
    r->heard_ns = r->moved_ns = phx_clock_mono_ns();
    phx_replica_set_state(r, PHX_REPLICA_STARTING, "fleet.replica.starting");
    if (phx_replica_launch(r, &err) != 0) {
        phx_replica_lost(r, "%s", err.text);
        return;
    }
    if (r->pid_fd >= 0) {
        r->exit_event = event_new(f->options.base, r->pid_fd, EV_READ | EV_PERSIST, on_exit_event, f);
        phx_assert(r->exit_event != NULL && event_add(r->exit_event, NULL) == 0);
    }
}

static void restart_later(struct phx_replica *r, int64_t now)
{
    char labels[48];

    if (r->pid != 0 || now < r->retry_ns)
        return;
    r->restarts++;
    (void)snprintf(labels, sizeof(labels), "replica=\"%s\"", r->id);
    phx_metrics_count(r->fleet->options.metrics, "phalanx_replica_restarts_total", labels, 1);
    start(r);
}

/* Silence and stand-still. */
static void check_life(struct phx_replica *r, int64_t now)
{
    const struct phx_config *c = r->fleet->options.config;
    int64_t stall = r->was_ready ? c->timeouts_step_stall_ms : c->timeouts_load_stall_ms;

    if (r->link == NULL) {
        if (now - r->since_ns > ms(c->timeouts_start_ms))
            phx_replica_lost(r, "did not join within %lld ms", (long long)c->timeouts_start_ms);
    } else if (now - r->heard_ns > ms(c->timeouts_lost_ms)) {
        phx_replica_lost(r, "was silent for %lld ms", (long long)c->timeouts_lost_ms);
    } else if ((r->is_busy || !r->was_ready) && now - r->moved_ns > ms(stall)) {
        phx_replica_lost(r, "made no progress for %lld ms", (long long)stall);
    } else if (r->was_ready && now - r->since_ns > ms(c->restart_stable_ms)) {
        r->failures = 0;
    }
}

static void measure_rates(struct phx_replica *r, int64_t now)
{
    double seconds = (double)(now - r->window_ns) / 1e9;

    if (seconds < 2.0)
        return;
    r->steps_per_s = (double)(r->step - r->window_step) / seconds;
    r->tokens_per_s = (double)(r->tokens_total - r->window_tokens) / seconds;
    r->window_step = r->step;
    r->window_tokens = r->tokens_total;
    r->window_ns = now;
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_fleet *f = ctx;
    int64_t           now = phx_clock_mono_ns();

    (void)fd;
    (void)what;
    reap(f);
    for (int32_t i = 0; i < f->n_replicas; i++) {
        struct phx_replica *r = &f->replicas[i];

        measure_rates(r, now);
        if (r->state == PHX_REPLICA_BACKOFF && !f->is_stopping)
            restart_later(r, now);
        else if (r->stop_by_ns != 0 && now > r->stop_by_ns && r->state != PHX_REPLICA_STOPPED)
            phx_replica_lost(r, "did not stop in time");
        else if (r->state == PHX_REPLICA_STARTING || r->state == PHX_REPLICA_LOADING ||
                 r->state == PHX_REPLICA_READY || r->state == PHX_REPLICA_DRAINING)
            check_life(r, now);
    }
}

/* ---- opening ------------------------------------------------------------------------------------ */

static int find_programs(struct phx_fleet *f, struct phx_err *err)
{
    const struct phx_config *c = f->options.config;
    char                     self[PATH_BYTES];
    ssize_t                  n;
    char                    *beside;
    int                      rc = 0;

    if (c->cluster_tp * c->cluster_pp > 1)
        rc = phx_launch_find(c->launcher_mpirun[0] != '\0' ? c->launcher_mpirun : "mpirun", &f->mpirun,
                             err);
    if (rc != 0)
        return rc;
    if (f->options.rank_program != NULL && f->options.rank_program[0] != '\0')
        return phx_launch_find(f->options.rank_program, &f->rank_program, err);
    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0)
        return phx_fail(err, PHX_E_IO, "readlink /proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    beside = phx_mem_printf("%s/phalanx-rank", self);
    rc = phx_launch_find(beside, &f->rank_program, err);
    phx_mem_free(beside);
    return rc;
}

int phx_fleet_open(const struct phx_fleet_options *options, struct phx_fleet **out, struct phx_err *err)
{
    struct phx_fleet *f = phx_mem_calloc(1, sizeof(*f));
    int               rc;

    *out = NULL;
    f->options = *options;
    f->n_replicas = (int32_t)options->config->cluster_replicas;
    f->replicas = phx_mem_calloc((size_t)f->n_replicas, sizeof(*f->replicas));
    for (int32_t i = 0; i < f->n_replicas; i++) {
        struct phx_replica *r = &f->replicas[i];

        r->fleet = f;
        r->index = i;
        r->pid_fd = -1;
        r->hello_arena = phx_arena_create();
        r->dir = phx_mem_printf("%s/run/replica-%d", options->config->data_dir, i);
        (void)snprintf(r->id, sizeof(r->id), "r%d", i);
    }
    rc = find_programs(f, err);
    if (rc == 0)
        rc = phx_fleet_probe(options->config, f->rank_program, err);
    if (rc != 0) {
        phx_fleet_close(f);
        return rc;
    }
    *out = f;
    return 0;
}

int phx_fleet_start(struct phx_fleet *f, const char *grpc_target, struct phx_err *err)
{
    const struct timeval tick = {0, TICK_MS * 1000};

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        return phx_fail(err, PHX_E_IO, "prctl: %s", strerror(errno));
    f->grpc_target = phx_mem_strdup(grpc_target);
    f->tick = event_new(f->options.base, -1, EV_PERSIST, on_tick, f);
    phx_assert(f->tick != NULL && event_add(f->tick, &tick) == 0);
    for (int32_t i = 0; i < f->n_replicas; i++)
        start(&f->replicas[i]);
    return 0;
}

void phx_fleet_close(struct phx_fleet *f)
{
    if (f == NULL)
        return;
    f->is_stopping = true;
    for (int32_t i = 0; i < f->n_replicas; i++) {
        struct phx_replica *r = &f->replicas[i];

        if (r->pid > 0) {
            phx_replica_kill(r);
            (void)waitpid(r->pid, NULL, 0); /* it was killed: it ends */
        }
        if (f->grpc_target != NULL) /* it was started */
            phx_replica_wipe(r);
        drop_link(r, 0, "the daemon ends");
        forget_process(r);
        phx_arena_destroy(r->hello_arena);
        phx_mem_free(r->dir);
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    if (f->tick != NULL)
        event_free(f->tick);
    phx_mem_free(f->replicas);
    phx_mem_free(f->model_digest);
    phx_mem_free(f->grpc_target);
    phx_mem_free(f->mpirun);
    phx_mem_free(f->rank_program);
    phx_mem_free(f);
}

void phx_fleet_listen(struct phx_fleet *f, const struct phx_fleet_listener *listener)
{
    f->listener = *listener;
}

void phx_fleet_on_model(struct phx_fleet *f, phx_fleet_model_fn fn, void *ctx)
{
    f->on_model = fn;
    f->model_ctx = ctx;
}

void phx_fleet_watch(struct phx_fleet *f, phx_fleet_watch_fn fn, void *ctx)
{
    f->watch = fn;
    f->watch_ctx = ctx;
}

struct event_base *phx_fleet_base(const struct phx_fleet *f)
{
    return f->options.base;
}

int32_t phx_fleet_count(const struct phx_fleet *f)
{
    return f->n_replicas;
}

struct phx_replica *phx_fleet_replica(const struct phx_fleet *f, int32_t index)
{
    return &f->replicas[index];
}

/* ---- commands ------------------------------------------------------------------------------------ */

static bool is_target(const struct phx_replica *r, const char *id)
{
    return id[0] == '\0' || strcmp(id, r->id) == 0;
}

static int check_target(const struct phx_fleet *f, const char *id, struct phx_err *err)
{
    for (int32_t i = 0; i < f->n_replicas; i++)
        if (is_target(&f->replicas[i], id))
            return 0;
    return phx_fail(err, PHX_E_NOTFOUND, "replica '%.30s' does not exist", id);
}

/* Asks a replica to leave: at once (STOP) or when its sequences have ended (DRAIN). */
static void ask_to_leave(struct phx_replica *r, enum phx_link_kind kind, int64_t timeout_ms)
{
    struct phx_link_msg msg = {.kind = kind};

    r->stop_by_ns = phx_clock_mono_ns() + ms(timeout_ms);
    if (r->state == PHX_REPLICA_BACKOFF || r->state == PHX_REPLICA_FAILED)
        phx_replica_set_state(r, PHX_REPLICA_STOPPED, "fleet.replica.stopped");
    else if (r->link == NULL)
        phx_replica_lost(r, "stopped before it had joined");
    else if (phx_rpc_link_send(r->link, &msg, NULL) != 0)
        phx_replica_lost(r, "could not be told to stop");
    else if (r->state != PHX_REPLICA_STOPPED)
        phx_replica_set_state(r, PHX_REPLICA_DRAINING, "fleet.replica.draining");
}

int phx_fleet_drain(struct phx_fleet *f, const char *replica_id, int64_t timeout_ms,
                    struct phx_cluster_done *done, struct phx_err *err)
{
    int rc = check_target(f, replica_id, err);

    memset(done, 0, sizeof(*done));
    for (int32_t i = 0; i < f->n_replicas && rc == 0; i++) {
        struct phx_replica *r = &f->replicas[i];

        if (!is_target(r, replica_id))
            continue;
        done->n_replicas++;
        done->n_running += r->stats.n_running;
        ask_to_leave(r, PHX_LINK_DRAIN,
                     timeout_ms > 0 ? timeout_ms : f->options.config->timeouts_drain_ms);
    }
    return rc;
}

int phx_fleet_restart(struct phx_fleet *f, const char *replica_id, struct phx_cluster_done *done,
                      struct phx_err *err)
{
    int rc = check_target(f, replica_id, err);

    memset(done, 0, sizeof(*done));
    for (int32_t i = 0; i < f->n_replicas && rc == 0; i++) {
        struct phx_replica *r = &f->replicas[i];

        if (!is_target(r, replica_id))
            continue;
        done->n_replicas++;
        done->n_running += r->stats.n_running;
        r->stop_by_ns = 0;
        r->failures = 0;
        phx_replica_lost(r, "an operator restarts it");
        r->failures = 0;
        r->retry_ns = 0;
        if (r->state != PHX_REPLICA_BACKOFF)
            phx_replica_set_state(r, PHX_REPLICA_BACKOFF, "fleet.replica.restart");
    }
    return rc;
}

void phx_fleet_stop(struct phx_fleet *f, int64_t grace_ms)
{
    f->is_stopping = true;
    for (int32_t i = 0; i < f->n_replicas; i++)
        ask_to_leave(&f->replicas[i], PHX_LINK_STOP, grace_ms);
}

bool phx_fleet_is_stopped(const struct phx_fleet *f)
{
    for (int32_t i = 0; i < f->n_replicas; i++)
        if (f->replicas[i].pid != 0 || (f->replicas[i].state != PHX_REPLICA_STOPPED &&
                                        f->replicas[i].state != PHX_REPLICA_NONE))
            return false;
    return true;
}
