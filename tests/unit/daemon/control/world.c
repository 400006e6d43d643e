/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <event2/event.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/audit/audit.h"
#include "daemon/config/config.h"
#include "daemon/identity/identity.h"
#include "daemon/sign/sign.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "rpc/base/hex.h"

static const char HERE[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/* ---- the daemon ------------------------------------------------------------------------------------- */

static char *path_of(const struct world *w, const char *name)
{
    return phx_mem_printf("%s/%s", w->dir, name);
}

static void write_text(const struct world *w, const char *name, const char *text)
{
    char *path = path_of(w, name);

    assert_int_equal(phx_file_write(path, text, strlen(text), 0600, NULL), 0);
    phx_mem_free(path);
}

static void write_roots(const struct world *w, const struct phx_license_roots *roots)
{
    struct phx_buf text;
    char           hex[65];

    phx_buf_init(&text, 0);
    phx_buf_printf(&text, "threshold %d\n", roots->threshold);
    for (int32_t i = 0; i < roots->n_keys; i++) {
        phx_hex_encode(hex, sizeof(hex), roots->keys[i], 32);
        phx_buf_printf(&text, "%s\n", hex);
    }
    write_text(w, "roots.txt", text.data);
    phx_buf_fini(&text);
}

static void set_date(json_t *payload, const char *key, int64_t at_ns)
{
    char text[32];

    phx_clock_format_utc(at_ns, text);
    (void)memcpy(text + 19, "Z", 2); /* whole seconds */
    assert_int_equal(json_object_set_new(payload, key, json_string(text)), 0);
}

/* From yesterday, for 300 days. */
static void write_license(const struct world *w, const struct forge *forge)
{
    json_t *payload = forge_payload(forge), *set = forge_key_set(forge, 3);
    char   *text;

    set_date(payload, "not_before", w->now_ns - INT64_C(86400000000000));
    set_date(payload, "not_after", w->now_ns + 300 * INT64_C(86400000000000));
    text = forge_sign(payload, &forge->issuers[0]);
    write_text(w, "license.json", text);
    phx_mem_free(text);
    text = forge_sign_key_set(set, forge->roots, 2);
    write_text(w, "keyset.json", text);
    phx_mem_free(text);
    json_decref(payload);
    json_decref(set);
}

static void open_license(struct world *w)
{
    char *file = path_of(w, "license.json"), *set = path_of(w, "keyset.json"), *roots = path_of(w, "roots.txt");
    struct phx_license_source source = {file, set, roots, HERE, w->now_ns};

    if (phx_license_open(w->d.store, &source, &w->d.license, &w->err) != 0)
        fail_msg("%s", w->err.text);
    phx_mem_free(file);
    phx_mem_free(set);
    phx_mem_free(roots);
}

static void make_key(struct world *w, enum world_who who, const char *user, unsigned role)
{
    struct phx_key_new  what = {.tenant = "acme", .user = user, .roles = role};
    struct phx_identity made;

    assert_int_equal(phx_key_create(w->d.store, &what, w->keys[who], &made, &w->err), 0);
}

static void open_records(struct world *w)
{
    char *db = path_of(w, "phalanx.db");

    assert_int_equal(phx_config_set(w->d.config, "data_dir", w->dir, &w->err), 0);
    assert_int_equal(phx_store_open(db, w->d.base, &w->d.store, &w->err), 0);
    assert_int_equal(phx_time_open(w->d.store, &w->d.time, &w->err), 0);
    w->now_ns = phx_time_now(w->d.time);
    make_key(w, WORLD_USER, "ann", PHX_ROLE_BIT_USER);
    make_key(w, WORLD_OPERATOR, "oda", PHX_ROLE_BIT_OPERATOR);
    make_key(w, WORLD_AUDITOR, "aud", PHX_ROLE_BIT_AUDITOR);
    make_key(w, WORLD_ADMIN, "ada", PHX_ROLE_BIT_ADMIN);
    memcpy(w->keys[WORLD_RANK], w->keys[WORLD_ADMIN], PHX_KEY_TEXT_BYTES);
    assert_int_equal(phx_keys_open(w->d.store, &w->d.keys, &w->err), 0);
    assert_int_equal(phx_identities_open(w->d.config, w->d.keys, w->d.time, &w->d.identities, &w->err), 0);
    phx_mem_free(db);
}

void world_open(struct world *w, struct forge *forge, bool has_license)
{
    memset(w, 0, sizeof(*w));
    assert_int_equal(phx_sign_init(&w->err), 0);
    forge_init(forge);
    (void)snprintf(w->dir, sizeof(w->dir), "/tmp/phx-control-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->arena = phx_arena_create();
    w->d.base = event_base_new();
    w->d.config = phx_config_create();
    w->d.cluster_id = "00112233445566778899aabbccddeeff";
    open_records(w);
    write_roots(w, &forge->trusted);
    if (has_license)
        write_license(w, forge);
    open_license(w);
}

static void open_publisher(struct world *w)
{
    char *dir = path_of(w, "audit"), *keys = path_of(w, "keys");
    const struct phx_publisher_options o = {dir, keys, "phalanx/test", 20, 86400};

    assert_int_equal(mkdir(keys, 0700), 0);
    if (phx_publisher_open(w->d.store, &o, &w->d.publisher, &w->err) != 0)
        fail_msg("%s", w->err.text);
    phx_mem_free(dir);
    phx_mem_free(keys);
}

/* ---- the server ------------------------------------------------------------------------------------- */

static void on_request(void *ctx, struct phx_rpc_call *call, const struct phx_rpc_request *request)
{
    struct world *w = ctx;

    phx_control_request(w->control, call, request);
}

static void on_cancelled(void *ctx, struct phx_rpc_call *call)
{
    struct world *w = ctx;

    phx_control_cancelled(w->control, call);
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct world *w = ctx;

    (void)fd;
    (void)what;
    phx_rpc_server_dispatch(w->d.rpc);
}

static void look_at_stop(evutil_socket_t fd, short what, void *ctx)
{
    struct world *w = ctx;

    (void)fd;
    (void)what;
    if (atomic_load(&w->is_stopping))
        (void)event_base_loopbreak(w->d.base);
}

static void *run(void *ctx)
{
    struct world *w = ctx;

    (void)event_base_dispatch(w->d.base);
    return NULL;
}

static void open_server(struct world *w)
{
    struct phx_rpc_server_options o = {.listen = "127.0.0.1:0"};

    w->ca = test_ca_create("test CA");
    test_ca_issue(w->ca, "phalanxd", &w->server_tls);
    test_ca_issue(w->ca, "operator", &w->console_tls);
    test_ca_issue(w->ca, "rank:r0", &w->rank_tls);
    test_ca_issue(w->ca, "gateway", &w->other_tls);
    o.tls = w->server_tls;
    o.handlers = (struct phx_rpc_handlers){.request = on_request, .cancelled = on_cancelled};
    o.ctx = w;
    assert_int_equal(phx_rpc_server_open(&w->d.rpc, &o, &w->err), 0);
    (void)snprintf(w->target, sizeof(w->target), "127.0.0.1:%d", phx_rpc_server_port(w->d.rpc));
    w->rpc_event = event_new(w->d.base, phx_rpc_server_fd(w->d.rpc), EV_READ | EV_PERSIST, on_readable, w);
    assert_int_equal(event_add(w->rpc_event, NULL), 0);
}

void world_start(struct world *w)
{
    struct timeval tick = {0, 10000};

    open_publisher(w);
    if (phx_control_open(&w->d, &w->control, &w->err) != 0)
        fail_msg("%s", w->err.text);
    open_server(w);
    w->stop_event = event_new(w->d.base, -1, EV_PERSIST, look_at_stop, w);
    assert_int_equal(event_add(w->stop_event, &tick), 0);
    assert_int_equal(pthread_create(&w->thread, NULL, run, w), 0);
    for (int i = 0; i < WORLD_CLIENTS; i++) {
        struct phx_rpc_client_options o = {.target = w->target, .timeout_ms = 5000};

        o.tls = i == WORLD_CONSOLE ? w->console_tls : i == WORLD_RANK ? w->rank_tls : w->other_tls;
        o.bearer = w->keys[i][0] != '\0' ? w->keys[i] : NULL;
        assert_int_equal(phx_rpc_client_open(&w->clients[i], &o, &w->err), 0);
    }
    w->is_started = true;
}

static void stop(struct world *w)
{
    for (int i = 0; i < WORLD_CLIENTS; i++)
        phx_rpc_client_close(w->clients[i]);
    atomic_store(&w->is_stopping, true);
    assert_int_equal(pthread_join(w->thread, NULL), 0);
    event_free(w->rpc_event);
    event_free(w->stop_event);
    phx_rpc_server_close(w->d.rpc, 200);
    test_tls_fini(&w->server_tls);
    test_tls_fini(&w->console_tls);
    test_tls_fini(&w->rank_tls);
    test_tls_fini(&w->other_tls);
    test_ca_destroy(w->ca);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

/* In the order of a daemon that stops. */
void world_close(struct world *w)
{
    if (w->is_started)
        stop(w);
    phx_store_drain(w->d.store);
    phx_control_close(w->control);
    phx_publisher_close(w->d.publisher);
    phx_license_close(w->d.license);
    phx_identities_close(w->d.identities);
    phx_keys_close(w->d.keys);
    phx_time_close(w->d.time);
    phx_store_close(w->d.store);
    phx_config_destroy(w->d.config);
    event_base_free(w->d.base);
    phx_arena_destroy(w->arena);
    assert_int_equal(nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- calls and rows ---------------------------------------------------------------------------------- */

int world_ask(struct world *w, enum world_who who, const struct phx_rpc_request *q,
              struct phx_rpc_answer *answer)
{
    struct phx_rpc_answer unused;

    w->err = (struct phx_err){0};
    return phx_rpc_ask(w->clients[who], 5000, q, w->arena, answer != NULL ? answer : &unused, &w->err);
}

struct phx_rpc_request world_request(enum phx_rpc_method method)
{
    struct phx_rpc_request q = {.method = method};

    if (method == PHX_RPC_LICENSE_INSTALL)
        q.u.license_install.envelope = (struct phx_rpc_bytes){"{}", 2};
    else if (method == PHX_RPC_LICENSE_ACCEPT_CLOCK)
        q.u.accept_clock.approved_by = "bob";
    else if (method == PHX_RPC_METERING_EXPORT)
        q.u.usage_export.format = PHX_RPC_EXPORT_CSV;
    else if (method == PHX_RPC_AUDIT_GET)
        q.u.audit_get.by = PHX_RPC_BY_INDEX;
    else if (method == PHX_RPC_AUDIT_PROVE)
        q.u.audit_prove.what = PHX_RPC_PROVE_INDEX;
    else if (method == PHX_RPC_AUDIT_REPLAY)
        q.u.audit_replay.receipt_id = "rcpt_none";
    return q;
}

void world_write(struct world *w, phx_store_fn fn, void *ctx)
{
    if (phx_store_run(w->d.store, fn, ctx, &w->err) != 0)
        fail_msg("%s", w->err.text);
}

struct use {
    struct world *w;
    const char   *tenant, *user;
    int           n;
};

static int write_use(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct use *u = ctx;
    int               rc = 0;

    for (int i = 0; rc == 0 && i < u->n; i++) {
        char                  lease[PHX_LEASE_BYTES];
        struct phx_ledger_row row = {.kind = PHX_LEDGER_RESERVE, .lease = lease,
                                     .at_ns = u->w->now_ns + i * INT64_C(3600000000000), .epoch = 1,
                                     .tenant = u->tenant, .user = u->user, .key_id = "k", .cost_centre = "lab",
                                     .model = "demo", .request_id = "q", .outcome = "", .note = "",
                                     .prompt = 10, .reserved = 1 << 20};

        (void)snprintf(lease, sizeof(lease), "%.16s-%.16s-%d", u->tenant, u->user, i);
        rc = phx_ledger_put(tx, &row, err);
        row.kind = PHX_LEDGER_COMMIT;
        row.reserved = 0;
        row.output = row.upper = 5 + i;
        row.outcome = "stop";
        if (rc == 0)
            rc = phx_ledger_put(tx, &row, err);
    }
    return rc;
}

void world_use(struct world *w, const char *tenant, const char *user, int n)
{
    struct use u = {w, tenant, user, n};

    world_write(w, write_use, &u);
}
