/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "daemon/certs/certs.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/fleet/world.h"

static void attached(void *ctx, struct phx_rpc_link *link, const struct phx_link_hello *hello,
                     const struct phx_rpc_peer *peer)
{
    phx_fleet_attached(((struct world *)ctx)->fleet, link, hello, peer);
}

static void message(void *ctx, struct phx_rpc_link *link, const struct phx_link_msg *msg)
{
    phx_fleet_message(((struct world *)ctx)->fleet, link, msg);
}

static void detached(void *ctx, struct phx_rpc_link *link, const struct phx_err *reason)
{
    phx_fleet_detached(((struct world *)ctx)->fleet, link, reason);
}

static void request(void *ctx, struct phx_rpc_call *call, const struct phx_rpc_request *r)
{
    struct phx_err err = {.code = PHX_E_UNSUPPORTED};

    (void)ctx;
    (void)r;
    phx_rpc_fail(call, &err, -1);
}

static void cancelled(void *ctx, struct phx_rpc_call *call)
{
    (void)ctx;
    (void)call;
}

static void readable(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    phx_rpc_server_dispatch(((struct world *)ctx)->rpc);
}

static char *read_tls(const struct world *w, const char *name)
{
    char          *path = phx_mem_printf("%s/tls/%s", w->dir, name);
    struct phx_buf b;

    assert_int_equal(phx_buf_read_file(&b, path, 1 << 20, NULL), 0);
    phx_mem_free(path);
    return b.data;
}

static void open_rpc(struct world *w)
{
    struct phx_rpc_server_options o = {
        .listen = "127.0.0.1:0",
        .handlers = {attached, message, detached, request, cancelled},
        .ctx = w,
    };

    o.tls.ca_pem = read_tls(w, "ca.crt");
    o.tls.cert_pem = read_tls(w, "server.crt");
    o.tls.key_pem = read_tls(w, "server.key");
    assert_int_equal(phx_rpc_server_open(&w->rpc, &o, NULL), 0);
    phx_mem_free((char *)o.tls.ca_pem);
    phx_mem_free((char *)o.tls.cert_pem);
    phx_mem_free((char *)o.tls.key_pem);
    w->readable = event_new(w->base, phx_rpc_server_fd(w->rpc), EV_READ | EV_PERSIST, readable, w);
    assert_int_equal(event_add(w->readable, NULL), 0);
}

void world_open(struct world *w, const char *way, const char *more)
{
    static const char fast[] =
        "timeouts: {heartbeat_ms: 100, lost_ms: 1000, step_stall_ms: 1000, start_ms: 3000,"
        " load_stall_ms: 2000}\n"
        "restart: {backoff_min_ms: 20, backoff_max_ms: 100, max_failures: 4}\n";
    struct phx_fleet_options  fo = {0};
    struct phx_engine_options eo = {.max_waiting = 8, .max_waiting_per_tenant = 6, .max_resumes = 2};
    char                     *text, *run, target[64];
    struct phx_err            err = {0};

    memset(w, 0, sizeof(*w));
    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/phx-fleet-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    run = phx_mem_printf("%s/run", w->dir);
    assert_int_equal(mkdir(run, 0700), 0);
    phx_mem_free(run);
    text = phx_mem_printf("data_dir: %s\nmodel: {path: /models/%s}\n%s%s", w->dir, way, fast, more);
    if (phx_config_parse(text, strlen(text), "test", &w->config, &err) != 0)
        fail_msg("%s", err.text);
    phx_mem_free(text);
    assert_int_equal(phx_certs_ensure(w->dir, NULL, NULL), 0);
    w->base = event_base_new();
    w->metrics = phx_metrics_create();
    fo.base = w->base;
    fo.metrics = eo.metrics = w->metrics;
    fo.config = w->config;
    fo.model_name = "fake";
    fo.rank_program = PHX_BIN_DIR "/../tests/fake-rank";
    if (phx_fleet_open(&fo, &w->fleet, &err) != 0 ||
        phx_engine_open(w->fleet, &eo, &w->engine, &err) != 0)
        fail_msg("%s", err.text);
    open_rpc(w);
    (void)snprintf(target, sizeof(target), "127.0.0.1:%d", phx_rpc_server_port(w->rpc));
    assert_int_equal(phx_fleet_start(w->fleet, target, &err), 0);
}

void world_close(struct world *w)
{
    char *command = phx_mem_printf("rm -rf %s", w->dir);

    phx_engine_close(w->engine);
    phx_fleet_close(w->fleet);
    event_free(w->readable);
    phx_rpc_server_close(w->rpc, 0);
    event_base_free(w->base);
    phx_metrics_destroy(w->metrics);
    phx_config_destroy(w->config);
    assert_int_equal(system(command), 0);
    phx_mem_free(command);
}

bool world_run(struct world *w, const int *value, int want, int seconds)
{
    struct timeval slice = {0, 10000};
    int64_t        end = phx_clock_mono_ns() + (int64_t)seconds * 1000000000;

    while (*value < want && phx_clock_mono_ns() < end) {
        event_base_loopexit(w->base, &slice);
        event_base_dispatch(w->base);
    }
    return *value >= want;
}

struct phx_fleet_facts world_settle(struct world *w, int n_ready, int seconds)
{
    struct phx_fleet_facts facts;
    int64_t                end = phx_clock_mono_ns() + (int64_t)seconds * 1000000000;
    struct timeval         slice = {0, 10000};

    do {
        event_base_loopexit(w->base, &slice);
        event_base_dispatch(w->base);
        phx_fleet_facts(w->fleet, &facts);
    } while (!(facts.is_hopeless || facts.n_ready == n_ready) && phx_clock_mono_ns() < end);
    return facts;
}
