/* SPDX-License-Identifier: Apache-2.0
 * What a replica says over its link, and what is told about it. */
#include <stdio.h>
#include <string.h>

#include "daemon/certs/certs.h"
#include "daemon/config/config.h"
#include "daemon/fleet/replica.h"
#include "daemon/metrics/metrics.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static struct phx_replica *find_replica(struct phx_fleet *f, const char *id)
{
    for (int32_t i = 0; i < f->n_replicas; i++)
        if (strcmp(f->replicas[i].id, id) == 0)
            return &f->replicas[i];
    return NULL;
}

/* Who may join: the replica that was started, with the token of this start, once. */
static const char *find_fault(struct phx_replica *r, const struct phx_link_hello *hello,
                              const struct phx_rpc_peer *peer)
{
    const struct phx_config *c;
    const char              *name = "";

    if (r == NULL || phx_certs_role(peer->common_name, &name) != PHX_CERT_RANK ||
        strcmp(name, r->id) != 0)
        return "the certificate is not of a rank of this replica";
    if (r->state != PHX_REPLICA_STARTING || r->token[0] == '\0' ||
        phx_clock_mono_ns() > r->token_until_ns ||
        !phx_secret_equal_str(hello->join_token, r->token))
        return "the join token is wrong, used or too old";
    c = r->fleet->options.config;
    if (hello->tp_size != c->cluster_tp || hello->pp_size != c->cluster_pp ||
        hello->n_ranks != c->cluster_tp * c->cluster_pp)
        return "the layout is not the configured one";
    return NULL;
}

static void copy_ranks(struct phx_replica *r, const struct phx_link_hello *hello)
{
    phx_arena_destroy(r->hello_arena);
    r->hello_arena = phx_arena_create();
    r->n_ranks = hello->n_ranks;
    r->ranks = phx_arena_calloc(r->hello_arena, (size_t)hello->n_ranks, sizeof(*r->ranks));
    r->facts = phx_arena_calloc(r->hello_arena, (size_t)hello->n_ranks, sizeof(*r->facts));
    r->model_digest = phx_arena_strdup(r->hello_arena, hello->model_digest);
    r->model_parent = phx_arena_strdup(r->hello_arena, hello->model_parent != NULL ? hello->model_parent : "");
    for (int32_t i = 0; i < hello->n_ranks; i++) {
        r->ranks[i] = hello->ranks[i];
        r->ranks[i].host = phx_arena_strdup(r->hello_arena, hello->ranks[i].host);
        r->ranks[i].device = phx_arena_strdup(r->hello_arena, hello->ranks[i].device);
    }
}

void phx_fleet_attached(struct phx_fleet *f, struct phx_rpc_link *link,
                        const struct phx_link_hello *hello, const struct phx_rpc_peer *peer)
{
    const struct phx_config       *c = f->options.config;
    struct phx_replica            *r = find_replica(f, hello->replica_id);
    const char                    *fault = find_fault(r, hello, peer);
    const struct phx_link_settings settings = {(int32_t)c->timeouts_heartbeat_ms,
                                               (int32_t)c->timeouts_lost_ms};
    struct phx_err                 err = {0};

    if (fault != NULL) {
        phx_log(PHX_LOG_WARN, "fleet.join.refuse", "replica=%s peer=%s reason=%s", hello->replica_id,
                peer->address, fault);
        phx_rpc_link_close(link, PHX_E_UNAUTH, fault);
        return;
    }
    phx_secret_wipe(r->token, sizeof(r->token));
    r->link = link;
    phx_rpc_link_set_data(link, r);
    copy_ranks(r, hello);
    r->heard_ns = r->moved_ns = phx_clock_mono_ns();
    phx_replica_set_state(r, PHX_REPLICA_LOADING, "fleet.replica.loading");
    if (phx_rpc_link_welcome(link, &settings, &err) != 0)
        phx_replica_lost(r, "welcome: %s", err.text);
}

/* All replicas answer from the same weights, or the records would not say which. */
static bool is_same_model(struct phx_replica *r)
{
    struct phx_fleet *f = r->fleet;

    if (f->model_digest == NULL) {
        f->model_digest = phx_mem_strdup(r->model_digest);
        if (f->on_model != NULL)
            f->on_model(f->model_ctx, r->model_digest, r->model_parent);
    }
    if (strcmp(f->model_digest, r->model_digest) == 0)
        return true;
    phx_replica_lost(r, "it loaded another model (%.20s...) than the cluster serves (%.20s...)", r->model_digest,
                     f->model_digest);
    return false;
}

static void on_ready(struct phx_replica *r, const struct phx_link_ready *ready)
{
    struct phx_fleet *f = r->fleet;
    char              labels[48];

    if (!is_same_model(r))
        return;
    r->ready = *ready;
    r->ready.ranks = NULL;
    for (int32_t i = 0; i < ready->n_ranks && i < r->n_ranks; i++)
        r->facts[i] = ready->ranks[i];
    r->load_fraction = 1.0;
    r->was_ready = r->was_ever_ready = true;
    r->is_busy = false;
    (void)snprintf(labels, sizeof(labels), "replica=\"%s\"", r->id);
    phx_metrics_gauge(f->options.metrics, "phalanx_kv_blocks", labels, ready->kv_blocks);
    phx_metrics_gauge(f->options.metrics, "phalanx_kv_blocks_used", labels, 0);
    phx_replica_set_state(r, PHX_REPLICA_READY, "fleet.replica.ready");
    if (f->listener.on_ready != NULL)
        f->listener.on_ready(f->listener.ctx, r);
}

static void on_step(struct phx_replica *r, const struct phx_link_step *step)
{
    struct phx_fleet   *f = r->fleet;
    struct phx_metrics *m = f->options.metrics;
    char                labels[48];

    r->stats = step->stats;
    r->step = step->step;
    r->tokens_total += (uint64_t)step->n_tokens;
    r->hit_tokens += step->stats.prefix_hit_tokens;
    r->prefill_tokens += (uint64_t)step->stats.n_prefill_tokens;
    r->moved_ns = phx_clock_mono_ns();
    (void)snprintf(labels, sizeof(labels), "replica=\"%s\"", r->id);
    phx_metrics_observe(m, "phalanx_step_seconds", labels, (double)step->stats.step_us / 1e6);
    phx_metrics_gauge(m, "phalanx_kv_blocks_used", labels, step->stats.kv_blocks_used);
    phx_metrics_count(m, "phalanx_prefix_hit_tokens_total", labels,
                      (double)step->stats.prefix_hit_tokens);
    phx_metrics_count(m, "phalanx_draft_tokens_total", labels, step->stats.n_draft_tokens);
    phx_metrics_count(m, "phalanx_accepted_tokens_total", labels, step->stats.n_accepted_tokens);
    phx_metrics_count(m, "phalanx_preemptions_total", labels, step->stats.n_preempted);
    phx_metrics_count(m, "phalanx_comm_bytes_total", labels, (double)step->stats.bytes_comm);
    if (f->listener.on_step != NULL)
        f->listener.on_step(f->listener.ctx, r, step);
}

void phx_fleet_message(struct phx_fleet *f, struct phx_rpc_link *link, const struct phx_link_msg *msg)
{
    struct phx_replica *r = phx_rpc_link_data(link);

    (void)f; /* the link knows its replica */
    if (r == NULL)
        return;
    r->heard_ns = phx_clock_mono_ns();
    switch (msg->kind) {
    case PHX_LINK_LOADING:
        if (msg->u.loading.fraction > r->load_fraction)
            r->moved_ns = r->heard_ns;
        r->load_fraction = msg->u.loading.fraction;
        phx_loading_show(r, &msg->u.loading);
        break;
    case PHX_LINK_READY:
        if (r->state == PHX_REPLICA_LOADING)
            on_ready(r, &msg->u.ready);
        break;
    case PHX_LINK_STEP: on_step(r, &msg->u.step); break;
    case PHX_LINK_HEARTBEAT:
        if (msg->u.heartbeat.progress != r->progress || (r->was_ready && !msg->u.heartbeat.is_busy))
            r->moved_ns = r->heard_ns;
        r->progress = msg->u.heartbeat.progress;
        r->is_busy = msg->u.heartbeat.is_busy;
        break;
    case PHX_LINK_FATAL:
        r->is_fatal = true;
        (void)snprintf(r->last_error, sizeof(r->last_error), "rank %d: %s", msg->u.fatal.rank,
                       msg->u.fatal.text);
        break;
    default: break; /* BYE: the detached notice follows */
    }
}

void phx_fleet_detached(struct phx_fleet *f, struct phx_rpc_link *link, const struct phx_err *reason)
{
    struct phx_replica *r = phx_rpc_link_data(link);

    (void)f;
    if (r == NULL || r->link != link)
        return;
    r->link = NULL;
    phx_replica_lost(r, "its link ended: %s", reason != NULL ? reason->text : "bye");
}

/* ---- what others ask ----------------------------------------------------------------------------- */

int phx_replica_submit(struct phx_replica *r, const struct phx_submit *items, int32_t n,
                       struct phx_err *err)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_SUBMIT};

    if (r->state != PHX_REPLICA_READY || r->link == NULL)
        return phx_fail(err, PHX_E_PEER, "replica %s is not ready", r->id);
    msg.u.submit = (struct phx_link_submit){items, n};
    if (!r->is_busy)
        r->moved_ns = phx_clock_mono_ns();
    return phx_rpc_link_send(r->link, &msg, err);
}

void phx_replica_cancel(struct phx_replica *r, uint64_t seq_id)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_CANCEL};

    msg.u.cancel = (struct phx_link_cancel){&seq_id, 1};
    if (r->link != NULL && phx_rpc_link_send(r->link, &msg, NULL) != 0)
        phx_log(PHX_LOG_WARN, "fleet.cancel.fail", "replica=%s", r->id);
}

void phx_replica_give_up(struct phx_replica *r, const struct phx_err *reason)
{
    phx_replica_lost(r, "%s", reason->text);
}

void phx_replica_facts(const struct phx_replica *r, struct phx_replica_facts *out)
{
    *out = (struct phx_replica_facts){
        .index = r->index,
        .state = r->state,
        .is_taking = r->state == PHX_REPLICA_READY && r->link != NULL,
        .max_seqs = r->ready.max_seqs,
        .max_context = r->ready.max_context,
        .vocab_size = r->ready.vocab_size,
        .kv_blocks = r->ready.kv_blocks,
        .kv_blocks_used = r->stats.kv_blocks_used,
    };
}

/* Hosts and devices are counted once, whichever replicas share them. */
static bool is_first_place(const struct phx_fleet *f, int32_t replica, int32_t rank, bool with_device)
{
    const struct phx_rank_info *mine = &f->replicas[replica].ranks[rank];

    for (int32_t i = 0; i <= replica; i++) {
        const struct phx_replica *r = &f->replicas[i];
        int32_t                   n = i < replica ? r->n_ranks : rank;

        for (int32_t j = 0; r->state == PHX_REPLICA_READY && j < n; j++)
            if (strcmp(r->ranks[j].host, mine->host) == 0 &&
                (!with_device || strcmp(r->ranks[j].device, mine->device) == 0))
                return false;
    }
    return true;
}

static void count_places(const struct phx_fleet *f, struct phx_fleet_facts *out)
{
    for (int32_t i = 0; i < f->n_replicas; i++)
        for (int32_t j = 0; f->replicas[i].state == PHX_REPLICA_READY && j < f->replicas[i].n_ranks; j++) {
            out->n_hosts += is_first_place(f, i, j, false);
            out->n_gpus += strncmp(f->replicas[i].ranks[j].device, "cuda", 4) == 0 && is_first_place(f, i, j, true);
        }
}

void phx_fleet_facts(const struct phx_fleet *f, struct phx_fleet_facts *out)
{
    *out = (struct phx_fleet_facts){.n_replicas = f->n_replicas, .is_settled = true};
    for (int32_t i = 0; i < f->n_replicas; i++) {
        const struct phx_replica *r = &f->replicas[i];

        out->n_ready += r->state == PHX_REPLICA_READY;
        out->n_failed += r->state == PHX_REPLICA_FAILED;
        if (!r->was_ever_ready && r->state != PHX_REPLICA_FAILED)
            out->is_settled = false;
        if (r->last_error[0] != '\0')
            memcpy(out->last_error, r->last_error, sizeof(out->last_error));
    }
    count_places(f, out);
    out->is_hopeless = out->n_ready == 0 && out->n_failed == f->n_replicas;
}

static void fill_row(const struct phx_replica *r, struct phx_arena *arena,
                     struct phx_cluster_replica *row)
{
    const struct phx_config *c = r->fleet->options.config;
    bool                     is_up = r->link != NULL;
    struct phx_cluster_rank *ranks;
    uint64_t                 looked = r->hit_tokens + r->prefill_tokens;

    *row = (struct phx_cluster_replica){
        .id = r->id,
        .state = r->state,
        .model_name = r->fleet->options.model_name,
        .model_digest = r->model_digest != NULL ? phx_arena_strdup(arena, r->model_digest) : "",
        .backend = c->engine_backend,
        .tp_size = (int32_t)c->cluster_tp,
        .pp_size = (int32_t)c->cluster_pp,
        .load_fraction = r->load_fraction,
        .restarts = r->restarts,
        .since_unix_ns = r->since_wall_ns,
        .last_error = phx_arena_strdup(arena, r->last_error),
        .kv_blocks = r->ready.kv_blocks,
        .block_tokens = r->ready.block_tokens,
        .max_seqs = r->ready.max_seqs,
        .max_context = r->ready.max_context,
        .vocab_size = r->ready.vocab_size,
        .step = r->step,
        .steps_per_s = r->steps_per_s,
        .tokens_per_s = r->tokens_per_s,
        .n_running = is_up ? r->stats.n_running : 0,
        .n_waiting = is_up ? r->stats.n_waiting : 0,
        .kv_blocks_used = is_up ? r->stats.kv_blocks_used : 0,
        .prefix_hit_rate = looked > 0 ? (double)r->hit_tokens / (double)looked : 0,
    };
    if (!is_up || r->n_ranks == 0)
        return;
    ranks = phx_arena_calloc(arena, (size_t)r->n_ranks, sizeof(*ranks));
    for (int32_t i = 0; i < r->n_ranks; i++) {
        ranks[i].info = r->ranks[i];
        ranks[i].facts = r->facts[i];
        ranks[i].facts.rank = i;
        ranks[i].max_sequences = r->ready.max_seqs;
    }
    row->ranks = ranks;
    row->n_ranks = r->n_ranks;
}

void phx_fleet_state(const struct phx_fleet *f, struct phx_arena *arena, struct phx_cluster_state *out)
{
    struct phx_cluster_replica *rows =
        phx_arena_calloc(arena, (size_t)f->n_replicas, sizeof(*rows));

    for (int32_t i = 0; i < f->n_replicas; i++)
        fill_row(&f->replicas[i], arena, &rows[i]);
    out->replicas = rows;
    out->n_replicas = f->n_replicas;
}
