/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ready.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/api/api.h"
#include "daemon/config/config.h"
#include "daemon/daemon.h"
#include "daemon/fleet/fleet.h"
#include "daemon/license/license.h"
#include "daemon/time/time.h"
#include "rpc/base/json.h"

static void put(struct phx_buf *out, const char *key, const char *text)
{
    phx_buf_printf(out, ",\"%s\":", key);
    phx_json_put_str(out, text, strlen(text));
}

static void put_ranks(struct phx_daemon *d, struct phx_buf *out)
{
    struct phx_arena        *arena = phx_arena_create();
    struct phx_cluster_state state = {0};
    const char              *comma = "";

    phx_fleet_state(d->fleet, arena, &state);
    phx_buf_puts(out, ",\"ranks\":[");
    for (int i = 0; i < state.n_replicas; i++)
        for (int j = 0; j < state.replicas[i].n_ranks; j++) {
            const struct phx_rank_info *rank = &state.replicas[i].ranks[j].info;

            phx_buf_printf(out, "%s{\"rank\":%d,\"pid\":%d,\"host\":", comma, rank->rank, rank->pid);
            phx_json_put_str(out, rank->host, strlen(rank->host));
            phx_buf_putc(out, '}');
            comma = ",";
        }
    phx_buf_puts(out, "]}\n");
    phx_arena_destroy(arena);
}

int phx_ready_tell(struct phx_daemon *d, const char *grpc_target, bool is_json, struct phx_err *err)
{
    char          *path = phx_mem_printf("%s/run/ready.json", d->config->data_dir);
    char          *key_file = phx_mem_printf("%s/keys/admin.key", d->config->data_dir);
    char           licence[160];
    struct phx_buf line;
    int            rc;

    phx_license_format(phx_license_now(d->license), phx_time_now(d->time), licence, sizeof(licence));
    phx_buf_init(&line, 0);
    phx_buf_puts(&line, "{\"event\":\"ready\"");
    put(&line, "url", phx_api_url(d->api));
    put(&line, "grpc", grpc_target);
    put(&line, "key_file", key_file);
    put(&line, "model", d->model_name);
    put(&line, "licence", licence);
    phx_buf_printf(&line, ",\"pid\":%ld", (long)getpid());
    put_ranks(d, &line);
    rc = phx_file_write(path, line.data, line.size, 0600, err);
    if (is_json)
        fputs(line.data, stdout);
    else
        printf("ready  %s  key %s  model %s  %s\n", phx_api_url(d->api), key_file, d->model_name,
               licence);
    fflush(stdout);
    phx_buf_fini(&line);
    phx_mem_free(key_file);
    phx_mem_free(path);
    return rc;
}

void phx_ready_forget(struct phx_daemon *d)
{
    char *path = phx_mem_printf("%s/run/ready.json", d->config->data_dir);

    (void)unlink(path); /* absent when it was never ready */
    phx_mem_free(path);
}
