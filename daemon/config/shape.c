/* SPDX-License-Identifier: Apache-2.0
 * What cluster.tp is when nobody says: a rank for every NUMA node of the machine. */
#include "daemon/config/config.h"
#include "rpc/base/json.h"
#include "rpc/base/machine.h"
#include "rpc/base/mem.h"

enum { TP_MAX = 8 /* one answer whatever the layout, up to here */, MODEL_JSON_MAX_BYTES = 16 << 20, DEPTH = 64 };

int32_t phx_config_default_tp(int32_t n_nodes, int64_t n_replicas, int64_t n_heads)
{
    int32_t tp = 1;

    while (2 * tp <= TP_MAX && 2 * tp * n_replicas <= n_nodes && n_heads > 0 && n_heads % (2 * tp) == 0)
        tp *= 2;
    return tp;
}

/* Query heads, which tensor parallelism must divide; 0 = not told (the ranks will say what is wrong). */
static int64_t read_heads(const char *model_dir)
{
    char   *path = phx_mem_printf("%s/config.json", model_dir);
    json_t *root = NULL;
    int64_t n = 0;

    if (phx_json_load(&root, path, MODEL_JSON_MAX_BYTES, DEPTH, NULL) == 0) {
        if (phx_json_opt_int(root, "", "num_attention_heads", 1, 1 << 20, &n, NULL) != 0)
            n = 0;
        json_decref(root);
    }
    phx_mem_free(path);
    return n;
}

void phx_config_settle(struct phx_config *c)
{
    struct phx_topology t;

    if (c->cluster_tp > 0)
        return;
    c->cluster_tp = 1;
    /* stages, or a launcher's own arguments: the ranks may lie on other machines than this one */
    if (c->cluster_pp > 1 || c->launcher_args.n > 0)
        return;
    phx_topology_here(&t);
    if (t.n_nodes > 1)
        c->cluster_tp = phx_config_default_tp(t.n_nodes, c->cluster_replicas, read_heads(c->model_path));
}
