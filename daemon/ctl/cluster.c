/* SPDX-License-Identifier: Apache-2.0
 * `phalanx cluster status|nodes|drain|restart`, over gRPC with the operator certificate of the data folder. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/operator.h"
#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "rpc/rpc.h"

enum { OPT_JSON = 256, OPT_REPLICA, OPT_TIMEOUT, TIMEOUT_DEFAULT_S = 60 };

struct arguments {
    const char *data_dir, *grpc, *action, *replica;
    int         timeout_s;
    bool        is_json;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster (certificates, address)", 0},
    {"grpc", 'g', "HOST:PORT", 0, "gRPC address (default: from the data folder)", 0},
    {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
    {"replica", OPT_REPLICA, "ID", 0, "drain, restart: this replica alone (default: all)", 0},
    {"timeout", OPT_TIMEOUT, "S", 0, "drain, restart: seconds running requests get (default 60)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static bool is_action(const char *name)
{
    static const char *const names[] = {"status", "nodes", "drain", "restart"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case 'g': a->grpc = arg; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_REPLICA: a->replica = arg; return 0;
    case OPT_TIMEOUT:
        if (sscanf(arg, "%d", &a->timeout_s) != 1 || a->timeout_s < 0 || a->timeout_s > 86400)
            argp_error(state, "--timeout: 0 to 86400 seconds");
        return 0;
    case ARGP_KEY_ARG:
        if (a->action != NULL)
            argp_error(state, "one action is expected");
        a->action = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->action == NULL)
            argp_error(state, "an action is needed: status, nodes, drain or restart");
        if (!is_action(a->action))
            argp_error(state, "unknown action '%.20s': status, nodes, drain or restart", a->action);
        if (a->data_dir == NULL)
            argp_error(state, "--data DIR is needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static json_t *rank_json(const struct phx_cluster_rank *r)
{
    return json_pack("{s:i,s:i,s:s,s:i,s:i,s:s,s:I,s:I,s:I,s:i}", "rank", r->info.rank, "pid",
                     r->info.pid, "host", r->info.host, "pp", r->info.pp, "tp", r->info.tp, "device",
                     r->info.device, "weights_bytes", (json_int_t)r->facts.weights_bytes, "kv_bytes",
                     (json_int_t)r->facts.kv_bytes, "scratch_bytes",
                     (json_int_t)r->facts.scratch_bytes, "max_sequences", r->max_sequences);
}

static json_t *replica_json(const struct phx_cluster_replica *r)
{
    json_t *ranks = json_array();
    json_t *out = json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:f,s:i,s:s,s:i,s:i,s:i,s:i,s:i,s:I,s:f,s:f,s:i,s:i,s:i,s:f}",
        "id", r->id, "state", phx_replica_state_name(r->state), "model", r->model_name,
        "model_digest", r->model_digest, "backend", r->backend, "tp", r->tp_size, "pp", r->pp_size,
        "load_fraction", r->load_fraction, "restarts", r->restarts, "last_error", r->last_error,
        "kv_blocks", r->kv_blocks, "block_tokens", r->block_tokens, "max_seqs", r->max_seqs,
        "max_context", r->max_context, "vocab_size", r->vocab_size, "step", (json_int_t)r->step,
        "steps_per_s", r->steps_per_s, "tokens_per_s", r->tokens_per_s, "running", r->n_running,
        "waiting", r->n_waiting, "kv_blocks_used", r->kv_blocks_used, "prefix_hit_rate",
        r->prefix_hit_rate);

    for (int i = 0; i < r->n_ranks; i++)
        json_array_append_new(ranks, rank_json(&r->ranks[i]));
    json_object_set_new(out, "ranks", ranks);
    return out;
}

static void print_json(const struct phx_cluster_state *s)
{
    json_t *replicas = json_array();
    json_t *out = json_pack("{s:s,s:s,s:s,s:b,s:s,s:i,s:i}", "cluster", s->cluster_id, "build",
                            s->build, "url", s->http_url, "ready", s->is_ready, "licence", s->licence,
                            "queued", s->n_queued, "active", s->n_active);

    for (int i = 0; i < s->n_replicas; i++)
        json_array_append_new(replicas, replica_json(&s->replicas[i]));
    json_object_set_new(out, "replicas", replicas);
    json_dumpf(out, stdout, JSON_COMPACT);
    fputs("\n", stdout);
    json_decref(out);
}

static void print_status(const struct phx_cluster_state *s)
{
    printf("cluster %s  build %s  %s  %s\nlicence %s\nrequests: %d queued, %d active\n\n",
           s->cluster_id, s->build, s->is_ready ? "ready" : "not ready", s->http_url, s->licence,
           s->n_queued, s->n_active);
    printf("%-10s %-9s %-24s %5s %8s %8s %8s %10s %9s %8s\n", "replica", "state", "model", "tpxpp",
           "running", "waiting", "kv used", "steps/s", "tokens/s", "restarts");
    for (int i = 0; i < s->n_replicas; i++) {
        const struct phx_cluster_replica *r = &s->replicas[i];
        char                              layout[16];

        (void)snprintf(layout, sizeof(layout), "%dx%d", r->tp_size, r->pp_size);
        printf("%-10s %-9s %-24s %5s %8d %8d %7.1f%% %10.1f %9.1f %8d\n", r->id,
               phx_replica_state_name(r->state), r->model_name, layout, r->n_running, r->n_waiting,
               r->kv_blocks > 0 ? 100.0 * r->kv_blocks_used / r->kv_blocks : 0.0, r->steps_per_s,
               r->tokens_per_s, r->restarts);
        if (r->last_error[0] != '\0')
            printf("%10s last error: %s\n", "", r->last_error);
    }
}

static void print_nodes(const struct phx_cluster_state *s)
{
    printf("%-10s %4s %4s %4s %8s %-20s %-8s %12s %12s %12s\n", "replica", "rank", "pp", "tp", "pid",
           "host", "device", "weights MB", "kv MB", "scratch MB");
    for (int i = 0; i < s->n_replicas; i++)
        for (int j = 0; j < s->replicas[i].n_ranks; j++) {
            const struct phx_cluster_rank *r = &s->replicas[i].ranks[j];

            printf("%-10s %4d %4d %4d %8d %-20s %-8s %12.1f %12.1f %12.1f\n", s->replicas[i].id,
                   r->info.rank, r->info.pp, r->info.tp, r->info.pid, r->info.host, r->info.device,
                   (double)r->facts.weights_bytes / 1e6, (double)r->facts.kv_bytes / 1e6,
                   (double)r->facts.scratch_bytes / 1e6);
        }
}

static int run_get(const struct arguments *a, struct phx_rpc_client *client, struct phx_err *err)
{
    struct phx_arena        *arena = phx_arena_create();
    struct phx_cluster_state state;
    int                      rc = phx_rpc_cluster_get(client, 0, arena, &state, err);

    if (rc == 0 && a->is_json)
        print_json(&state);
    else if (rc == 0 && strcmp(a->action, "nodes") == 0)
        print_nodes(&state);
    else if (rc == 0) {
        print_status(&state);
        fputs("\n", stdout);
        print_nodes(&state);
    }
    phx_arena_destroy(arena);
    return rc;
}

static int run_command(const struct arguments *a, struct phx_rpc_client *client, struct phx_err *err)
{
    const struct phx_cluster_target target = {
        .replica_id = a->replica != NULL ? a->replica : "",
        .timeout_ms = (int64_t)a->timeout_s * 1000,
        .reason = "phalanx cluster",
    };
    struct phx_cluster_done done = {0};
    int  timeout_ms = (a->timeout_s + 30) * 1000;
    int  rc;

    if (strcmp(a->action, "drain") == 0)
        rc = phx_rpc_cluster_drain(client, timeout_ms, &target, &done, err);
    else
        rc = phx_rpc_cluster_restart(client, timeout_ms, &target, &done, err);
    if (rc == 0 && a->is_json)
        printf("{\"replicas\":%d,\"running\":%d}\n", done.n_replicas, done.n_running);
    else if (rc == 0)
        printf("%s: %d replicas, %d requests were running\n", a->action, done.n_replicas,
               done.n_running);
    return rc;
}

int phx_ctl_cluster(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "status|nodes|drain|restart",
                                     "What runs where, and commands to replicas.", NULL, NULL, NULL};
    struct arguments         a = {.timeout_s = TIMEOUT_DEFAULT_S};
    struct phx_rpc_client   *client = NULL;
    struct phx_err           err = {0};
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    rc = phx_ctl_operator_open(a.data_dir, a.grpc, &client, &err);
    if (rc == 0)
        rc = strcmp(a.action, "status") == 0 || strcmp(a.action, "nodes") == 0
                 ? run_get(&a, client, &err)
                 : run_command(&a, client, &err);
    phx_rpc_client_close(client);
    if (rc == PHX_E_INVALID)
        (void)phx_ctl_fail(&err);
    return rc == 0 ? PHX_EXIT_OK : rc == PHX_E_INVALID ? PHX_EXIT_USAGE : phx_ctl_fail(&err);
}
