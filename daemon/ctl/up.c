/* SPDX-License-Identifier: Apache-2.0
 * `phalanx up MODEL_DIR`: writes what a cluster needs under its data folder on first use, then becomes
 * phalanxd in the foreground. */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/ctl/ctl.h"
#include "daemon/keys/keys.h"
#include "daemon/store/store.h"
#include "rpc/base/mem.h"

enum {
    OPT_TP = 256, OPT_PP, OPT_REPLICAS, OPT_BACKEND, OPT_THREADS, OPT_LISTEN, OPT_GRPC, OPT_DATA,
    OPT_LICENSE, OPT_HOSTS, OPT_DTYPE, OPT_KV_DTYPE, OPT_KV_MEMORY, OPT_MAX_CONTEXT, OPT_MAX_SEQS,
    OPT_NAME, OPT_SET, OPT_JSON, SETTINGS_MAX = 64
};

struct setting {
    const char *key, *value;
};

struct arguments {
    const char    *model, *data_dir;
    bool           is_json;
    struct setting settings[SETTINGS_MAX];
    int            n_settings;
};

static const struct argp_option options[] = {
    {"tp", OPT_TP, "N", 0, "tensor parallel ranks", 0},
    {"pp", OPT_PP, "N", 0, "pipeline stages", 0},
    {"replicas", OPT_REPLICAS, "N", 0, "copies of the model", 0},
    {"backend", OPT_BACKEND, "NAME", 0, "cpu or cuda", 0},
    {"threads", OPT_THREADS, "N", 0, "threads of a rank", 0},
    {"listen", OPT_LISTEN, "HOST:PORT", 0, "HTTP address; port 0 picks a free one", 0},
    {"grpc", OPT_GRPC, "HOST:PORT", 0, "gRPC address", 0},
    {"data", OPT_DATA, "DIR", 0, "data folder (default ./phalanx-data)", 0},
    {"license", OPT_LICENSE, "FILE", 0, "licence (default: the evaluation licence that came with phalanx)", 0},
    {"hosts", OPT_HOSTS, "LIST", 0, "not served yet: ranks run on this host", 0},
    {"dtype", OPT_DTYPE, "T", 0, "weights: auto keeps the checkpoint's type, or int8", 0},
    {"kv-dtype", OPT_KV_DTYPE, "T", 0, "f32, bf16, int8 or fp8", 0},
    {"kv-memory", OPT_KV_MEMORY, "BYTES", 0, "key/value cache of a rank", 0},
    {"max-context", OPT_MAX_CONTEXT, "N", 0, "tokens of a sequence", 0},
    {"max-seqs", OPT_MAX_SEQS, "N", 0, "sequences that a replica runs at once", 0},
    {"name", OPT_NAME, "NAME", 0, "the model's name for clients", 0},
    {"set", OPT_SET, "KEY=VALUE", 0, "any configuration key (phalanxd --help-config)", 0},
    {"json", OPT_JSON, NULL, 0, "the ready line is a JSON object", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static const struct {
    int         option;
    const char *key;
} keys_of_options[] = {
    {OPT_TP, "cluster.tp"},           {OPT_PP, "cluster.pp"},
    {OPT_REPLICAS, "cluster.replicas"}, {OPT_BACKEND, "engine.backend"},
    {OPT_THREADS, "engine.threads"},  {OPT_LISTEN, "listen"},
    {OPT_GRPC, "grpc_listen"},        {OPT_LICENSE, "license.file"},
    {OPT_DTYPE, "engine.dtype"},      {OPT_KV_DTYPE, "engine.kv_dtype"},
    {OPT_KV_MEMORY, "engine.kv_memory_bytes"}, {OPT_MAX_CONTEXT, "engine.max_context"},
    {OPT_MAX_SEQS, "engine.max_seqs"}, {OPT_NAME, "model.name"},
};

static void add_setting(struct argp_state *state, struct arguments *a, const char *key,
                        const char *value)
{
    if (a->n_settings == SETTINGS_MAX)
        argp_error(state, "more than %d settings", SETTINGS_MAX);
    a->settings[a->n_settings++] = (struct setting){key, value};
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char             *eq;

    for (size_t i = 0; i < sizeof(keys_of_options) / sizeof(keys_of_options[0]); i++)
        if (key == keys_of_options[i].option) {
            add_setting(state, a, keys_of_options[i].key, arg);
            return 0;
        }
    switch (key) {
    case OPT_DATA: a->data_dir = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_HOSTS: argp_error(state, "--hosts is not served yet: ranks run on this host"); return 0;
    case OPT_SET:
        eq = strchr(arg, '=');
        if (eq == NULL)
            argp_error(state, "--set needs KEY=VALUE");
        *eq = '\0';
        add_setting(state, a, arg, eq + 1);
        return 0;
    case ARGP_KEY_ARG:
        if (a->model != NULL)
            argp_error(state, "one MODEL_DIR is expected");
        a->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->model == NULL)
            argp_error(state, "a MODEL_DIR is needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int make_folder(const char *dir, const char *name, struct phx_err *err)
{
    char *path = name[0] != '\0' ? phx_ctl_path(dir, name) : phx_mem_strdup(dir);
    int   rc = 0;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "mkdir %s: %s", path, strerror(errno));
    phx_mem_free(path);
    return rc;
}

static int make_folders(const char *dir, struct phx_err *err)
{
    static const char *const names[] = {"", "tls", "keys", "run", "audit", "log"};
    int                      rc = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && rc == 0; i++)
        rc = make_folder(dir, names[i], err);
    return rc;
}

/* The configuration as it was written, with this command line on top. */
static int write_config(const struct arguments *a, const char *data_dir, const char *model,
                        const char *path, struct phx_err *err)
{
    struct phx_config *c = NULL;
    struct phx_buf     text;
    int                rc = 0;

    if (access(path, F_OK) == 0)
        rc = phx_config_load(path, &c, err);
    else {
        c = phx_config_create();
        rc = phx_config_set(c, "chat.date", "today", err);
    }
    if (rc == 0)
        rc = phx_config_set(c, "data_dir", data_dir, err);
    if (rc == 0)
        rc = phx_config_set(c, "model.path", model, err);
    for (int i = 0; i < a->n_settings && rc == 0; i++)
        rc = phx_config_set(c, a->settings[i].key, a->settings[i].value, err);
    if (rc == 0)
        rc = phx_config_check(c, err);
    if (rc == 0) {
        phx_buf_init(&text, 0);
        phx_config_format(c, &text);
        rc = phx_file_write(path, text.data, text.size, 0600, err);
        phx_buf_fini(&text);
    }
    phx_config_destroy(c);
    return rc;
}

static int make_admin_key(const char *data_dir, struct phx_err *err)
{
    char               *path = phx_ctl_path(data_dir, "keys/admin.key");
    char               *db = phx_ctl_path(data_dir, "phalanx.db");
    char                key[PHX_KEY_TEXT_BYTES];
    struct phx_key_new  what = {.tenant = "default",
                                .user = "admin",
                                .roles = PHX_ROLE_BIT_ADMIN | PHX_ROLE_BIT_OPERATOR |
                                         PHX_ROLE_BIT_USER | PHX_ROLE_BIT_AUDITOR};
    struct phx_identity identity;
    struct phx_store   *store = NULL;
    int                 rc = 0;

    if (access(path, F_OK) != 0) {
        rc = phx_store_open(db, NULL, &store, err);
        if (rc == 0)
            rc = phx_key_create(store, &what, key, &identity, err);
        if (rc == 0)
            rc = phx_file_write(path, key, strlen(key), 0600, err);
        phx_store_close(store);
        explicit_bzero(key, sizeof(key));
    }
    phx_mem_free(db);
    phx_mem_free(path);
    return rc;
}

/* A site with a licence or roots of its own: under those, the bundled files would be nothing but a problem. */
static int make_license(const char *config, const char *data_dir, struct phx_err *err)
{
    struct phx_config *c = NULL;
    int                rc = phx_config_load(config, &c, err);

    if (rc == 0 && c->license_file[0] == '\0' && c->license_roots[0] == '\0')
        rc = phx_ctl_license_ensure(data_dir, err);
    phx_config_destroy(c);
    return rc;
}

static int prepare(const struct arguments *a, const char *data_dir, const char *config,
                   struct phx_err *err)
{
    char model[PATH_MAX];
    int  rc;

    if (realpath(a->model, model) == NULL)
        return phx_fail(err, PHX_E_NOTFOUND, "model folder %s: %s", a->model, strerror(errno));
    rc = write_config(a, data_dir, model, config, err);
    if (rc == 0)
        rc = phx_certs_ensure(data_dir, NULL, err);
    if (rc == 0)
        rc = make_license(config, data_dir, err);
    if (rc == 0)
        rc = make_admin_key(data_dir, err);
    return rc;
}

int phx_ctl_up(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "MODEL_DIR",
                                     "Serves a checkpoint folder.", NULL, NULL, NULL};
    struct arguments         a = {.data_dir = "phalanx-data"};
    struct phx_err           err = {0};
    char                     data_dir[PATH_MAX], name[] = "phalanxd", flag[] = "-c", json[] = "--json";
    char                    *config;
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    (void)umask(077);
    rc = make_folders(a.data_dir, &err);
    if (rc == 0 && realpath(a.data_dir, data_dir) == NULL)
        rc = phx_fail(&err, PHX_E_IO, "%s: %s", a.data_dir, strerror(errno));
    if (rc != 0)
        return phx_ctl_fail(&err);
    config = phx_ctl_path(data_dir, "phalanxd.yaml");
    rc = prepare(&a, data_dir, config, &err);
    if (rc == 0) {
        char *const child[] = {name, flag, config, a.is_json ? json : NULL, NULL};

        rc = phx_ctl_exec_beside(name, (char **)(uintptr_t)child);
        phx_mem_free(config);
        return rc;
    }
    phx_mem_free(config);
    return phx_ctl_fail(&err);
}
