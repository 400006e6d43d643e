/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/records.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/admission/admission.h"
#include "daemon/audit/audit.h"
#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/content/content.h"
#include "daemon/control/control.h"
#include "daemon/daemon.h"
#include "daemon/identity/identity.h"
#include "daemon/keys/keys.h"
#include "daemon/license/license.h"
#include "daemon/sign/sign.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static char *data_path(const struct phx_daemon *d, const char *name)
{
    return phx_mem_printf("%s/%s", d->config->data_dir, name);
}

int phx_constant_read(struct phx_daemon *d, const char *name, void *out, size_t size, struct phx_err *err)
{
    char          *path = data_path(d, name);
    struct phx_buf text = {0};
    char           hex[65];
    int            rc = 0;

    if (access(path, F_OK) != 0) {
        phx_id_hex(hex, sizeof(hex), size);
        rc = phx_file_write(path, hex, strlen(hex), 0600, err);
    }
    if (rc == 0)
        rc = phx_buf_read_file(&text, path, 4096, err);
    if (rc == 0) {
        text.data[strcspn(text.data, "\r\n")] = '\0';
        rc = phx_hex_decode(out, size, text.data, err);
        if (rc != 0)
            phx_err_prefix(err, "%s: ", path);
    }
    phx_buf_fini(&text);
    phx_mem_free(path);
    return rc;
}

static int check_site_key(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_daemon *d = ctx;

    return phx_content_key_check(tx, d->site_key, err);
}

static int open_store(struct phx_daemon *d, struct phx_err *err)
{
    char *path = data_path(d, "phalanx.db");
    char *key = data_path(d, "keys/content.key");
    int   rc = phx_store_open(path, d->base, &d->store, err);

    if (rc == 0)
        rc = phx_content_key_read(key, d->site_key, err);
    if (rc == 0)
        rc = phx_store_run(d->store, check_site_key, d, err);
    if (rc == 0)
        rc = phx_time_open(d->store, &d->time, err);
    if (rc == 0)
        rc = phx_keys_open(d->store, &d->keys, err);
    if (rc == 0)
        phx_keys_watch(d->keys, d->base);
    if (rc == 0)
        rc = phx_identities_open(d->config, d->keys, d->time, &d->identities, err);
    if (rc == 0)
        d->keeper = phx_keeper_open(d->store, d->base, d->time);
    phx_mem_free(key);
    phx_mem_free(path);
    return rc;
}

static int open_license(struct phx_daemon *d, struct phx_err *err)
{
    const struct phx_config *c = d->config;
    char *file = c->license_file[0] != '\0' ? phx_mem_strdup(c->license_file)
                                            : data_path(d, "license.json");
    char *key_set = c->license_key_set[0] != '\0' ? phx_mem_strdup(c->license_key_set)
                                                  : data_path(d, "keyset.json");
    char  fingerprint[PHX_SHA256_HEX];
    struct phx_license_source source = {
        .file = file,
        .key_set_file = key_set,
        .roots_file = c->license_roots,
        .cluster_fingerprint = fingerprint,
        .now_ns = phx_time_now(d->time),
    };
    int rc = phx_certs_fingerprint(c->data_dir, fingerprint, err);

    if (rc == 0)
        rc = phx_license_open(d->store, &source, &d->license, err);
    phx_mem_free(file);
    phx_mem_free(key_set);
    return rc;
}

static int open_publisher(struct phx_daemon *d, struct phx_err *err)
{
    const struct phx_config     *c = d->config;
    char                        *dir = data_path(d, "audit");
    char                        *keys = data_path(d, "keys");
    char                        *origin = phx_mem_printf("phalanx/%s", d->cluster_id);
    struct phx_publisher_options o = {
        .dir = dir,
        .key_dir = keys,
        .origin = origin,
        .interval_ms = c->audit_checkpoint_ms,
        .key_life_s = c->audit_key_life_s,
    };
    int rc = phx_publisher_open(d->store, &o, &d->publisher, err);

    phx_mem_free(origin);
    phx_mem_free(keys);
    phx_mem_free(dir);
    return rc;
}

static int open_admission(struct phx_daemon *d, struct phx_err *err)
{
    const struct phx_config     *c = d->config;
    char                         config_sha256[PHX_SHA256_HEX];
    struct phx_buf               text;
    struct phx_admission_options o = {
        .base = d->base,
        .store = d->store,
        .license = d->license,
        .time = d->time,
        .publisher = d->publisher,
        .metrics = d->metrics,
        .site_key = d->site_key,
        .engine = {.build = PHX_VERSION,
                   .config_sha256 = config_sha256,
                   .backend = c->engine_backend,
                   .isa = c->engine_isa,
                   .compute = c->engine_compute,
                   .dtype = c->engine_dtype,
                   .kv_dtype = c->engine_kv_dtype,
                   .class = c->engine_class,
                   /* bitwise: the same bits on every layout and under every load, on the same kind of device */
                   .replay_class = strcmp(c->engine_class, "bitwise") == 0 ? "A" : "B",
                   .tp = (int32_t)c->cluster_tp,
                   .pp = (int32_t)c->cluster_pp,
                   .has_prefix_cache = c->engine_prefix_cache},
        .model_name = d->model_name,
        .aup_sha256 = c->policy_aup_sha256,
        .space_dir = c->data_dir,
        .keep_free_bytes = c->audit_keep_free_bytes,
        .is_purpose_required = c->policy_purpose_required,
        .max_active = (int32_t)c->limits_active,
        .max_active_per_tenant = (int32_t)c->limits_active_per_tenant,
        .max_prompt_tokens = c->limits_prompt_tokens,
        .max_output_tokens = c->limits_output_tokens,
        .requests_per_minute = c->rate_requests_per_minute,
        .tokens_per_minute = c->rate_tokens_per_minute,
        .gateway_ttl_ms = c->lease_gateway_ttl_ms,
    };
    int rc;

    phx_buf_init(&text, 0);
    phx_config_format(c, &text);
    phx_sha256_hex(text.data, text.size, config_sha256);
    phx_buf_fini(&text);
    rc = phx_admission_open(&o, &d->admission, err);
    return rc;
}

int phx_records_open(struct phx_daemon *d, struct phx_err *err)
{
    int rc = phx_sign_init(err);

    if (rc == 0)
        rc = open_store(d, err);
    if (rc == 0)
        rc = open_license(d, err);
    if (rc == 0)
        rc = open_publisher(d, err);
    return rc == 0 ? open_admission(d, err) : rc;
}

void phx_records_close(struct phx_daemon *d)
{
    if (d->store != NULL)
        phx_store_drain(d->store);
    phx_control_close(d->control);
    phx_keeper_close(d->keeper);
    phx_publisher_close(d->publisher);
    phx_admission_close(d->admission);
    phx_license_close(d->license);
    phx_identities_close(d->identities);
    phx_keys_close(d->keys);
    phx_time_close(d->time);
    phx_store_close(d->store);
    phx_secret_wipe(d->site_key, sizeof(d->site_key));
}
