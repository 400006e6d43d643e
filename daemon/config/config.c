/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config/config.h"

#include <string.h>
#include <time.h>

#include "daemon/config/table.h"
#include "rpc/base/mem.h"
#include "rpc/base/utf8.h"

static void put_defaults(struct phx_config *c)
{
    for (size_t i = 0; i < phx_n_options; i++)
        if (phx_options[i].kind != PHX_OPTION_LIST)
            phx_assert(phx_option_set(c, &phx_options[i], phx_options[i].fallback, NULL) == 0);
}

struct phx_config *phx_config_create(void)
{
    struct phx_config *c = phx_mem_calloc(1, sizeof(*c));

    put_defaults(c);
    return c;
}

void phx_config_destroy(struct phx_config *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < phx_n_options; i++) {
        void *member = (char *)c + phx_options[i].offset;

        if (phx_options[i].kind == PHX_OPTION_TEXT || phx_options[i].kind == PHX_OPTION_CHOICE)
            phx_mem_free(*(char **)member);
    }
    for (size_t i = 0; i < c->launcher_args.n; i++)
        phx_mem_free(c->launcher_args.items[i]);
    phx_mem_free(c);
}

int phx_config_set(struct phx_config *c, const char *key, const char *value, struct phx_err *err)
{
    const struct phx_option *o = phx_option_find(key);

    if (o == NULL)
        return phx_fail(err, PHX_E_INVALID, "unknown key '%.60s'", key);
    return phx_option_set(c, o, value, err);
}

static bool is_date(const char *text)
{
    struct tm   tm = {0};
    const char *end = strptime(text, "%Y-%m-%d", &tm);

    return end != NULL && *end == '\0' && strlen(text) == 10;
}

/* Ranks of one host and one stage write to each other's memory; no network is used. */
static int check_peer(const struct phx_config *c, struct phx_err *err)
{
    if (c->cluster_pp > 1)
        return phx_fail(err, PHX_E_INVALID, "cluster.transport peer is for cluster.pp 1; use auto, nccl or host");
    if (c->cluster_interface[0] != '\0' || c->cluster_ib_devices[0] != '\0')
        return phx_fail(err, PHX_E_INVALID, "%s is not for cluster.transport peer; remove it",
                        c->cluster_interface[0] != '\0' ? "cluster.interface" : "cluster.ib_devices");
    return 0;
}

/* What only one of the backends honours. */
static int check_backend(const struct phx_config *c, struct phx_err *err)
{
    const char *key = NULL;

    if (strcmp(c->engine_backend, "cuda") == 0) {
        if (strcmp(c->engine_isa, "auto") != 0)
            key = "engine.isa";
        else if (c->engine_threads > 0)
            key = "engine.threads";
        if (key == NULL && strcmp(c->cluster_transport, "peer") == 0)
            return check_peer(c, err);
        return key == NULL ? 0 : phx_fail(err, PHX_E_INVALID, "%s is for engine.backend cpu; remove it", key);
    }
    if (strcmp(c->engine_class, "bitwise") != 0)
        key = "engine.class fast";
    else if (!c->engine_graphs)
        key = "engine.graphs false";
    else if (!c->engine_overlap)
        key = "engine.overlap false";
    else if (c->cluster_devices[0] != '\0')
        key = "cluster.devices";
    else if (strcmp(c->cluster_transport, "auto") != 0)
        key = "cluster.transport";
    else if (c->cluster_interface[0] != '\0')
        key = "cluster.interface";
    else if (c->cluster_ib_devices[0] != '\0')
        key = "cluster.ib_devices";
    return key == NULL ? 0 : phx_fail(err, PHX_E_INVALID, "%s is for engine.backend cuda; remove it", key);
}

int phx_config_check(const struct phx_config *c, struct phx_err *err)
{
    if (c->data_dir[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "data_dir is needed");
    if (c->model_path[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "model.path is needed");
    if (strlen(c->model_name) > PHX_MODEL_NAME_MAX ||
        !phx_utf8_is_valid(c->model_name, strlen(c->model_name)) ||
        strpbrk(c->model_name, "\"\\\n\r\t") != NULL)
        return phx_fail(err, PHX_E_INVALID,
                        "model.name: at most %d bytes without quotes, backslashes and control characters",
                        PHX_MODEL_NAME_MAX);
    if ((c->http_tls_cert[0] == '\0') != (c->http_tls_key[0] == '\0'))
        return phx_fail(err, PHX_E_INVALID, "http.tls_cert and http.tls_key belong together");
    if (c->engine_block_tokens != 16 && c->engine_block_tokens != 32)
        return phx_fail(err, PHX_E_INVALID, "engine.block_tokens: 16 or 32");
    if (c->timeouts_lost_ms < 2 * c->timeouts_heartbeat_ms)
        return phx_fail(err, PHX_E_INVALID,
                        "timeouts.lost_ms must be at least twice timeouts.heartbeat_ms");
    if (c->restart_backoff_max_ms < c->restart_backoff_min_ms)
        return phx_fail(err, PHX_E_INVALID,
                        "restart.backoff_max_ms is below restart.backoff_min_ms");
    if (strcmp(c->chat_date, "none") != 0 && strcmp(c->chat_date, "today") != 0 &&
        !is_date(c->chat_date))
        return phx_fail(err, PHX_E_INVALID, "chat.date: none, today or YYYY-MM-DD");
    return check_backend(c, err);
}

struct phx_http_options phx_config_http(const struct phx_config *c)
{
    return (struct phx_http_options){
        .listen = c->listen,
        .tls_cert_file = c->http_tls_cert[0] != '\0' ? c->http_tls_cert : NULL,
        .tls_key_file = c->http_tls_key[0] != '\0' ? c->http_tls_key : NULL,
        .body_max_bytes = (size_t)c->http_body_max_bytes,
        .header_max_bytes = (size_t)c->http_header_max_bytes,
        .pending_max_bytes = (size_t)c->http_pending_max_bytes,
        .requests_max = (int32_t)c->http_requests_max,
        .idle_timeout_s = (int32_t)c->http_idle_timeout_s,
    };
}
