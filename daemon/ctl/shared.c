/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { KEY_MAX_BYTES = 4096, READY_MAX_BYTES = 1 << 20, PATH_MAX_BYTES = 4096 };

int phx_ctl_fail(const struct phx_err *err)
{
    fprintf(stderr, "phalanx: %s\n", err->text[0] != '\0' ? err->text : phx_err_text(err->code));
    return PHX_EXIT_FAILED;
}

char *phx_ctl_path(const char *data_dir, const char *name)
{
    return phx_mem_printf("%s/%s", data_dir, name);
}

int phx_ctl_read_key(const char *path, char **key, struct phx_err *err)
{
    struct phx_buf text;
    int            rc = phx_buf_read_file(&text, path, KEY_MAX_BYTES, err);

    *key = NULL;
    if (rc != 0)
        return rc;
    text.data[strcspn(text.data, " \t\r\n")] = '\0';
    *key = phx_mem_strdup(text.data);
    phx_buf_fini(&text);
    return 0;
}

static int read_time(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_time_in(tx, ctx, err);
}

/* The time is read and not kept: keeping it, and telling of a clock that is not right, is the daemon's. */
int phx_ctl_store_open(const char *data_dir, struct phx_store **store, int64_t *now_ns, struct phx_err *err)
{
    char *path = phx_ctl_path(data_dir, "phalanx.db");
    int   rc = 0;

    *store = NULL;
    if (access(path, R_OK | W_OK) != 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "%s: %s; is that the data folder of a cluster (phalanx up makes it)?",
                      path, strerror(errno));
    if (rc == 0)
        rc = phx_store_open(path, NULL, store, err);
    if (rc == 0)
        rc = phx_store_read(*store, read_time, now_ns, err);
    if (rc != 0) {
        phx_store_close(*store);
        *store = NULL;
    }
    phx_mem_free(path);
    return rc;
}

void phx_ctl_print_json(json_t *value)
{
    phx_assert(value != NULL);
    (void)json_dumpf(value, stdout, JSON_COMPACT); /* main looks whether it could be written */
    (void)fputs("\n", stdout);
    json_decref(value);
}

char *phx_ctl_login(void)
{
    const struct passwd *user = getpwuid(getuid());

    return user != NULL ? phx_mem_strdup(user->pw_name) : phx_mem_printf("uid %u", (unsigned)getuid());
}

static char *copy_member(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? phx_mem_strdup(text) : NULL;
}

int phx_ctl_endpoint_load(const char *data_dir, struct phx_ctl_endpoint *out, struct phx_err *err)
{
    char   *path = phx_ctl_path(data_dir, "run/ready.json");
    json_t *root = NULL;
    int     rc = phx_json_load(&root, path, READY_MAX_BYTES, 0, err);

    memset(out, 0, sizeof(*out));
    if (rc != 0)
        phx_err_prefix(err, "no cluster is running under %s: ", data_dir);
    else {
        out->url = copy_member(root, "url");
        out->grpc = copy_member(root, "grpc");
        out->key_file = copy_member(root, "key_file");
        out->model = copy_member(root, "model");
        json_decref(root);
    }
    phx_mem_free(path);
    return rc;
}

void phx_ctl_endpoint_fini(struct phx_ctl_endpoint *e)
{
    phx_mem_free(e->url);
    phx_mem_free(e->grpc);
    phx_mem_free(e->key_file);
    phx_mem_free(e->model);
    memset(e, 0, sizeof(*e));
}

int phx_ctl_exec_beside(const char *program, char **argv)
{
    char    self[PATH_MAX_BYTES];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char   *slash, *path;

    if (n <= 0) {
        fprintf(stderr, "phalanx: cannot find the folder of this program: %s\n", strerror(errno));
        return PHX_EXIT_FAILED;
    }
    self[n] = '\0';
    slash = strrchr(self, '/');
    *slash = '\0';
    path = phx_mem_printf("%s/%s", self, program);
    execv(path, argv);
    fprintf(stderr, "phalanx: cannot run %s: %s\n", path, strerror(errno));
    phx_mem_free(path);
    return PHX_EXIT_FAILED;
}
