/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/wire/cluster.h"

static Phalanx__V1__ClusterRank *encode_rank(const struct phx_cluster_rank *in,
                                             struct phx_arena *arena)
{
    Phalanx__V1__ClusterRank *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__cluster_rank__init(m);
    m->info = phx_wire_rank_info_encode(&in->info, arena);
    m->facts = phx_wire_rank_facts_encode(&in->facts, arena);
    m->max_sequences = in->max_sequences;
    return m;
}

static int encode_replica(const struct phx_cluster_replica *in, struct phx_arena *arena,
                          Phalanx__V1__Replica **out, struct phx_err *err)
{
    Phalanx__V1__Replica *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int rc = phx_wire_range("Replica.ranks count", in->n_ranks, 0, PHX_RPC_RANKS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__replica__init(m);
    m->id = phx_wire_str(in->id);
    m->state = (Phalanx__V1__ReplicaState)in->state;
    m->model_name = phx_wire_str(in->model_name);
    m->model_digest = phx_wire_str(in->model_digest);
    m->backend = phx_wire_str(in->backend);
    m->tp_size = in->tp_size;
    m->pp_size = in->pp_size;
    m->load_fraction = in->load_fraction;
    m->restarts = in->restarts;
    m->since_unix_ns = in->since_unix_ns;
    m->last_error = phx_wire_str(in->last_error);
    m->kv_blocks = in->kv_blocks;
    m->block_tokens = in->block_tokens;
    m->max_seqs = in->max_seqs;
    m->max_context = in->max_context;
    m->vocab_size = in->vocab_size;
    m->step = in->step;
    m->steps_per_s = in->steps_per_s;
    m->tokens_per_s = in->tokens_per_s;
    m->n_running = in->n_running;
    m->n_waiting = in->n_waiting;
    m->kv_blocks_used = in->kv_blocks_used;
    m->prefix_hit_rate = in->prefix_hit_rate;
    m->n_ranks = (size_t)in->n_ranks;
    m->ranks = phx_arena_calloc(arena, m->n_ranks, sizeof(*m->ranks));
    for (size_t i = 0; i < m->n_ranks; i++)
        m->ranks[i] = encode_rank(&in->ranks[i], arena);
    *out = m;
    return 0;
}

int phx_wire_cluster_encode(const struct phx_cluster_state *in, struct phx_arena *arena,
                            Phalanx__V1__ClusterState **out, struct phx_err *err)
{
    Phalanx__V1__ClusterState *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int rc = phx_wire_range("ClusterState.replicas count", in->n_replicas, 0,
                            PHX_RPC_REPLICAS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__cluster_state__init(m);
    m->cluster_id = phx_wire_str(in->cluster_id);
    m->build = phx_wire_str(in->build);
    m->http_url = phx_wire_str(in->http_url);
    m->now_unix_ns = in->now_unix_ns;
    m->started_unix_ns = in->started_unix_ns;
    m->is_ready = in->is_ready;
    m->licence = phx_wire_str(in->licence);
    m->n_queued = in->n_queued;
    m->n_active = in->n_active;
    m->n_replicas = (size_t)in->n_replicas;
    m->replicas = phx_arena_calloc(arena, m->n_replicas, sizeof(*m->replicas));
    for (size_t i = 0; rc == 0 && i < m->n_replicas; i++)
        rc = encode_replica(&in->replicas[i], arena, &m->replicas[i], err);
    *out = m;
    return rc;
}

static int decode_ranks(const Phalanx__V1__Replica *in, struct phx_arena *arena,
                        struct phx_cluster_replica *out, struct phx_err *err)
{
    struct phx_cluster_rank *ranks = phx_arena_calloc(arena, in->n_ranks, sizeof(*ranks));
    int                      rc = 0;

    for (size_t i = 0; rc == 0 && i < in->n_ranks; i++) {
        rc = phx_wire_rank_info_decode(in->ranks[i]->info, &ranks[i].info, err);
        phx_wire_rank_facts_decode(in->ranks[i]->facts, &ranks[i].facts);
        ranks[i].max_sequences = in->ranks[i]->max_sequences;
    }
    out->ranks = ranks;
    out->n_ranks = (int32_t)in->n_ranks;
    return rc;
}

static int decode_replica(const Phalanx__V1__Replica *in, struct phx_arena *arena,
                          struct phx_cluster_replica *out, struct phx_err *err)
{
    int rc = phx_wire_range("Replica.state", in->state, 0, PHX_REPLICA_FAILED, err);

    if (rc != 0)
        return rc;
    *out = (struct phx_cluster_replica){
        .id = in->id,
        .state = (enum phx_replica_state)in->state,
        .model_name = in->model_name,
        .model_digest = in->model_digest,
        .backend = in->backend,
        .tp_size = in->tp_size,
        .pp_size = in->pp_size,
        .load_fraction = in->load_fraction,
        .restarts = in->restarts,
        .since_unix_ns = in->since_unix_ns,
        .last_error = in->last_error,
        .kv_blocks = in->kv_blocks,
        .block_tokens = in->block_tokens,
        .max_seqs = in->max_seqs,
        .max_context = in->max_context,
        .vocab_size = in->vocab_size,
        .step = in->step,
        .steps_per_s = in->steps_per_s,
        .tokens_per_s = in->tokens_per_s,
        .n_running = in->n_running,
        .n_waiting = in->n_waiting,
        .kv_blocks_used = in->kv_blocks_used,
        .prefix_hit_rate = in->prefix_hit_rate,
    };
    return decode_ranks(in, arena, out, err);
}

int phx_wire_cluster_decode(const Phalanx__V1__ClusterState *in, struct phx_arena *arena,
                            struct phx_cluster_state *out, struct phx_err *err)
{
    struct phx_cluster_replica *replicas;
    int                         rc = 0;

    *out = (struct phx_cluster_state){
        .cluster_id = "", .build = "", .http_url = "", .licence = ""};
    if (in == NULL)
        return phx_fail(err, PHX_E_FORMAT, "the answer has no ClusterState");
    replicas = phx_arena_calloc(arena, in->n_replicas, sizeof(*replicas));
    for (size_t i = 0; rc == 0 && i < in->n_replicas; i++)
        rc = decode_replica(in->replicas[i], arena, &replicas[i], err);
    *out = (struct phx_cluster_state){
        .cluster_id = in->cluster_id,
        .build = in->build,
        .http_url = in->http_url,
        .now_unix_ns = in->now_unix_ns,
        .started_unix_ns = in->started_unix_ns,
        .is_ready = in->is_ready != 0,
        .licence = in->licence,
        .n_queued = in->n_queued,
        .n_active = in->n_active,
        .replicas = replicas,
        .n_replicas = (int32_t)in->n_replicas,
    };
    return rc;
}
