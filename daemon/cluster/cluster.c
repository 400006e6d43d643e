/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/cluster/cluster.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "daemon/admission/admission.h"
#include "daemon/api/api.h"
#include "daemon/audit/audit.h"
#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/control/control.h"
#include "daemon/daemon.h"
#include "daemon/fleet/fleet.h"
#include "daemon/keys/keys.h"
#include "daemon/license/license.h"
#include "daemon/queue/queue.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"

enum { PEM_MAX_BYTES = 1 << 20, WATCHERS_MAX = 64, CLOSE_GRACE_MS = 500 };

struct phx_cluster {
    struct phx_daemon   *d;
    struct event        *event;
    char                *target;
    struct phx_rpc_call *watchers[WATCHERS_MAX];
    int                  n_watchers;
};

static void fill_state(const struct phx_cluster *c, struct phx_arena *arena,
                       struct phx_cluster_state *out)
{
    struct phx_engine_facts facts;
    char                    licence[160];

    phx_engine_facts(c->d->engine, &facts);
    phx_license_format(phx_license_now(c->d->license), phx_time_now(c->d->time), licence, sizeof(licence));
    *out = (struct phx_cluster_state){
        .cluster_id = c->d->cluster_id,
        .build = PHX_VERSION,
        .http_url = c->d->api != NULL ? phx_api_url(c->d->api) : "",
        .now_unix_ns = phx_clock_wall_ns(),
        .started_unix_ns = c->d->started_wall_ns,
        .is_ready = facts.is_ready,
        .licence = phx_arena_strdup(arena, licence),
        .n_queued = facts.n_waiting,
        .n_active = phx_admission_active(c->d->admission),
    };
    phx_fleet_state(c->d->fleet, arena, out);
}

/* ---- calls ----------------------------------------------------------------------------------------- */

static void answer_get(struct phx_cluster *c, struct phx_rpc_call *call)
{
    struct phx_arena     *arena = phx_arena_create();
    struct phx_rpc_answer answer = {0};

    fill_state(c, arena, &answer.u.cluster);
    phx_rpc_reply(call, &answer);
    phx_arena_destroy(arena);
}

static void forget_watcher(struct phx_cluster *c, const struct phx_rpc_call *call)
{
    for (int i = 0; i < c->n_watchers; i++)
        if (c->watchers[i] == call) {
            c->watchers[i] = c->watchers[--c->n_watchers];
            return;
        }
}

static void send_event(struct phx_cluster *c, struct phx_rpc_call *call, const char *reason)
{
    struct phx_arena     *arena = phx_arena_create();
    struct phx_rpc_answer answer = {0};

    answer.u.event.reason = reason;
    fill_state(c, arena, &answer.u.event.state);
    if (phx_rpc_stream_send(call, &answer, NULL) != 0) /* its cancelled notice follows */
        phx_log(PHX_LOG_INFO, "cluster.watch.slow", "reason=%s", reason);
    phx_arena_destroy(arena);
}

static void on_change(void *ctx, const char *reason)
{
    struct phx_cluster *c = ctx;

    for (int i = 0; i < c->n_watchers; i++)
        send_event(c, c->watchers[i], reason);
}

static void answer_watch(struct phx_cluster *c, struct phx_rpc_call *call)
{
    struct phx_err err = {0};

    if (c->n_watchers == WATCHERS_MAX) {
        (void)phx_fail(&err, PHX_E_LIMIT, "%d watchers are connected already", WATCHERS_MAX);
        phx_rpc_fail(call, &err, 1000);
        return;
    }
    c->watchers[c->n_watchers++] = call;
    send_event(c, call, "");
}

struct command { /* as it goes into the log */
    bool    is_drain;
    char    replica[64], by[PHX_KEY_NAME_MAX + PHX_SUBJECT_MAX + 2], reason[240];
    int64_t at_ns;
};

static int write_command(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct command *c = ctx;

    return phx_audit_event(tx, "admin", c->is_drain ? "cluster.drain" : "cluster.restart", c->replica, c->by,
                           c->reason, c->at_ns, err);
}

static void on_command(void *ctx, const struct phx_err *err)
{
    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "cluster.command.unrecorded", "reason=%s", err->text);
    phx_mem_free(ctx);
}

static void record_command(struct phx_cluster *c, const struct phx_rpc_request *request,
                           const struct phx_identity *who)
{
    const struct phx_cluster_target *t = &request->u.target;
    struct command                  *record = phx_mem_calloc(1, sizeof(*record));

    record->is_drain = request->method == PHX_RPC_CLUSTER_DRAIN;
    record->at_ns = phx_time_now(c->d->time);
    (void)snprintf(record->replica, sizeof(record->replica), "%s", t->replica_id[0] != '\0' ? t->replica_id : "all");
    (void)snprintf(record->by, sizeof(record->by), "%s%s%s", who->tenant, who->tenant[0] != '\0' ? "/" : "",
                   who->user);
    (void)snprintf(record->reason, sizeof(record->reason), "%s", t->reason);
    phx_store_submit(c->d->store, write_command, on_command, record);
}

static void answer_command(struct phx_cluster *c, struct phx_rpc_call *call,
                           const struct phx_rpc_request *request, const struct phx_identity *who)
{
    const struct phx_cluster_target *t = &request->u.target;
    struct phx_rpc_answer            answer = {0};
    struct phx_err                   err = {0};
    int                              rc;

    phx_log(PHX_LOG_INFO, "cluster.command", "method=%s replica=%s by=%s",
            request->method == PHX_RPC_CLUSTER_DRAIN ? "drain" : "restart", t->replica_id,
            request->peer.common_name);
    record_command(c, request, who);
    if (request->method == PHX_RPC_CLUSTER_DRAIN)
        rc = phx_fleet_drain(c->d->fleet, t->replica_id, t->timeout_ms, &answer.u.done, &err);
    else
        rc = phx_fleet_restart(c->d->fleet, t->replica_id, &answer.u.done, &err);
    if (rc == 0)
        phx_rpc_reply(call, &answer);
    else
        phx_rpc_fail(call, &err, -1);
}

static void on_request(void *ctx, struct phx_rpc_call *call, const struct phx_rpc_request *request)
{
    struct phx_cluster *c = ctx;
    struct phx_identity who;
    struct phx_err      err = {0};

    if (phx_control_has(request->method)) {
        phx_control_request(c->d->control, call, request);
        return;
    }
    if (phx_control_authorize(c->d->identities, request, &who, &err) != 0) {
        phx_rpc_fail(call, &err, -1);
        return;
    }
    switch (request->method) {
    case PHX_RPC_CLUSTER_GET: answer_get(c, call); break;
    case PHX_RPC_CLUSTER_WATCH: answer_watch(c, call); break;
    case PHX_RPC_CLUSTER_DRAIN:
    case PHX_RPC_CLUSTER_RESTART: answer_command(c, call, request, &who); break;
    default:
        (void)phx_fail(&err, PHX_E_UNSUPPORTED,
                       "generation is served over HTTP (/v1/chat/completions)"); /* told */
        phx_rpc_fail(call, &err, -1);
    }
}

static void on_cancelled(void *ctx, struct phx_rpc_call *call)
{
    struct phx_cluster *c = ctx;

    forget_watcher(c, call);
    phx_control_cancelled(c->d->control, call);
}

static void on_attached(void *ctx, struct phx_rpc_link *link, const struct phx_link_hello *hello,
                        const struct phx_rpc_peer *peer)
{
    struct phx_cluster *c = ctx;

    phx_fleet_attached(c->d->fleet, link, hello, peer);
}

static void on_message(void *ctx, struct phx_rpc_link *link, const struct phx_link_msg *msg)
{
    struct phx_cluster *c = ctx;

    phx_fleet_message(c->d->fleet, link, msg);
}

static void on_detached(void *ctx, struct phx_rpc_link *link, const struct phx_err *reason)
{
    struct phx_cluster *c = ctx;

    phx_fleet_detached(c->d->fleet, link, reason);
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_cluster *c = ctx;

    (void)fd;
    (void)what;
    phx_rpc_server_dispatch(c->d->rpc);
}

/* ---- opening ----------------------------------------------------------------------------------------- */

static int read_pem(const char *dir, const char *name, struct phx_buf *out, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/tls/%s", dir, name);
    int   rc = phx_buf_read_file(out, path, PEM_MAX_BYTES, err);

    phx_mem_free(path);
    return rc;
}

static int open_server(struct phx_cluster *c, struct phx_err *err)
{
    const struct phx_config      *config = c->d->config;
    struct phx_buf                ca = {0}, cert = {0}, key = {0};
    struct phx_rpc_server_options o = {
        .listen = config->grpc_listen,
        .handlers = {on_attached, on_message, on_detached, on_request, on_cancelled},
        .ctx = c,
    };
    int rc = read_pem(config->data_dir, "ca.crt", &ca, err);

    if (rc == 0)
        rc = read_pem(config->data_dir, "server.crt", &cert, err);
    if (rc == 0)
        rc = read_pem(config->data_dir, "server.key", &key, err);
    if (rc == 0) {
        o.tls = (struct phx_rpc_tls){ca.data, cert.data, key.data};
        rc = phx_rpc_server_open(&c->d->rpc, &o, err);
    }
    if (key.data != NULL)
        explicit_bzero(key.data, key.size);
    phx_buf_fini(&ca);
    phx_buf_fini(&cert);
    phx_buf_fini(&key);
    return rc;
}

int phx_cluster_open(struct phx_daemon *d, struct phx_cluster **out, struct phx_err *err)
{
    struct phx_cluster *c = phx_mem_calloc(1, sizeof(*c));
    const char         *colon;
    int                 rc;

    *out = NULL;
    c->d = d;
    rc = open_server(c, err);
    if (rc != 0) {
        phx_mem_free(c);
        return rc;
    }
    colon = strrchr(d->config->grpc_listen, ':');
    c->target = phx_mem_printf("%.*s:%d", (int)(colon - d->config->grpc_listen),
                               d->config->grpc_listen, phx_rpc_server_port(d->rpc));
    c->event = event_new(d->base, phx_rpc_server_fd(d->rpc), EV_READ | EV_PERSIST, on_readable, c);
    phx_assert(c->event != NULL && event_add(c->event, NULL) == 0);
    phx_fleet_watch(d->fleet, on_change, c);
    *out = c;
    return 0;
}

void phx_cluster_close(struct phx_cluster *c)
{
    if (c == NULL)
        return;
    event_free(c->event);
    phx_rpc_server_close(c->d->rpc, CLOSE_GRACE_MS);
    c->d->rpc = NULL;
    phx_mem_free(c->target);
    phx_mem_free(c);
}

const char *phx_cluster_target(const struct phx_cluster *c)
{
    return c->target;
}

void phx_cluster_set_serving(struct phx_cluster *c, int is_serving)
{
    phx_rpc_server_set_serving(c->d->rpc, "", is_serving != 0);
}
