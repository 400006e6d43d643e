/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/ranks.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/machine.h"
#include "rpc/base/mem.h"
#include "shard/comm/nccl.h"

/* The code of a rank that only heard of another one's failure. */
enum { ECHO = PHX_E_PEER, MESSAGE_BYTES = 1 << 16 };

/* What the ranks of this process share. */
struct world {
    const struct phx_ranks_options *options;
    struct phx_model_config         config;
    struct phx_checkpoint          *checkpoint;
    struct phx_part                *parts; /* [tp * pp] */
    phx_rank_fn                     body;
    void                           *ctx;
};

struct member {
    struct world    *world;
    struct phx_comm *comm;
    pthread_t        thread;
    int              code;
    struct phx_err   err;
};

/* The ranks share the cores of this machine, node by node, pinned where every thread has one. */
static int open_backend(const struct phx_ranks_options *o, int32_t rank, struct phx_backend **out,
                        struct phx_err *err)
{
    char                       why[200] = "";
    struct phx_topology        topology;
    struct phx_placement       placement;
    cpu_set_t                  mask;
    struct phx_backend_options options = {.isa = o->isa, .compute = o->compute, .is_fast = o->is_fast, .is_eager = o->is_eager,
                                          .is_serial = o->is_serial, .device = rank, .is_wrapped = true};
    phx_topology_here(&topology);
    phx_placement_plan(&topology, rank, o->tp * o->pp, o->n_threads, &placement);
    phx_placement_mask(&placement, &mask);
    options.n_threads = placement.n_threads;
    options.is_pinned = placement.is_pinned && sched_setaffinity(0, sizeof mask, &mask) == 0;
    *out = phx_backend_open(o->backend, &options, why, sizeof why);
    if (*out == NULL)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s", why);
    return 0;
}

/* What the activations of this world pass through: decided by all ranks together. */
static int open_transport(const struct phx_ranks_options *o, struct phx_comm *comm, struct phx_backend *backend,
                          struct phx_err *err)
{
    struct phx_comm_device_options options = {.transport = o->transport, .is_fast = o->is_fast, .open_ms = 60000,
                                              .wait_ms = 30000, .interface = "", .ib_devices = ""};
    return phx_comm_device_open(comm, backend, &options, err);
}

int phx_rank_agree(struct phx_comm *comm, int code, struct phx_err *err)
{
    int32_t  mine = code, worst = 0, n_ranks = phx_comm_shape(comm)->n_ranks;
    int32_t *all = phx_mem_calloc((size_t)n_ranks, sizeof *all);
    size_t   size_bytes = sizeof worst;
    int      sent = phx_comm_collect(comm, &mine, sizeof mine, all);
    for (int32_t i = 0; i < n_ranks; i++)
        worst = all[i] < worst ? all[i] : worst;
    phx_mem_free(all);
    if (sent == 0)
        sent = phx_comm_bcast(comm, &worst, sizeof worst, &size_bytes);
    if (code != 0)
        return code;
    if (sent != 0)
        return phx_fail(err, sent, "the ranks could not talk: %s", phx_err_text(sent));
    return worst == 0 ? 0 : phx_fail(err, ECHO, "another rank failed");
}

static int open_model(struct phx_rank *r, const struct world *w, struct phx_err *err)
{
    const struct phx_ranks_options *o = w->options;
    struct phx_model_options options = {
        .config = &w->config, .part = r->part, .parts = w->parts, .backend = r->backend,
        .comm = r->comm, .n_blocks = o->n_blocks, .block_tokens = o->block_tokens,
        .kv_dtype = o->kv_dtype, .max_rows = o->max_rows, .max_seqs = o->max_seqs,
        .max_logits = o->max_logits, .max_context = o->max_context,
        .progress = r->part->rank == 0 ? o->progress : NULL, .progress_ctx = o->progress_ctx};
    int64_t start = phx_clock_mono_ns();
    int     code = phx_model_open(&options, w->checkpoint, &r->model, err);
    r->load_seconds = (double)(phx_clock_mono_ns() - start) / 1e9;
    return code;
}

static int run_rank(struct world *w, struct phx_comm *comm, struct phx_err *err)
{
    int32_t         rank = phx_comm_shape(comm)->rank;
    struct phx_rank r = {.config = &w->config, .part = &w->parts[rank], .parts = w->parts,
                         .options = w->options, .comm = comm};
    r.has_logits = r.part->tp == 0 && r.part->pp == r.part->pp_size - 1;
    cpu_set_t before;
    bool      is_known = sched_getaffinity(0, sizeof before, &before) == 0;
    int       code = open_backend(w->options, rank, &r.backend, err);
    code = phx_rank_agree(comm, code, err);
    if (code == 0)
        code = open_transport(w->options, comm, r.backend, err);
    if (code == 0)
        code = open_model(&r, w, err);
    code = phx_rank_agree(comm, code, err); /* nobody starts what a neighbour will never enter */
    if (code == 0)
        code = w->body(&r, w->ctx, err);
    phx_model_close(r.model);
    phx_comm_device_close(comm); /* it lies on the backend's device */
    phx_backend_close(r.backend);
    if (is_known)
        (void)sched_setaffinity(0, sizeof before, &before); /* slower, not wrong */
    return code;
}

/* ---- the three worlds ----------------------------------------------------------------------- */

static struct phx_comm_limits comm_limits(const struct world *w)
{
    const struct phx_ranks_options *o = w->options;
    size_t activation = (size_t)o->max_rows * (size_t)w->config.dim * sizeof(float);
    size_t logits = (size_t)o->max_logits * (size_t)w->config.vocab_size * sizeof(float);
    struct phx_comm_limits limits = {
        .max_activation_bytes = activation > logits ? activation : logits,
        .max_plan_bytes = o->plan_bytes > 0 ? o->plan_bytes : MESSAGE_BYTES,
        .max_result_bytes = o->result_bytes > 0 ? o->result_bytes : MESSAGE_BYTES};
    return limits;
}

static void *thread_main(void *arg)
{
    struct member *m = arg;
    m->code = run_rank(m->world, m->comm, &m->err);
    phx_comm_close(m->comm); /* at once: the others see a rank that left early */
    return NULL;
}

/* Of several failures the one that is not a mere echo of another rank's. */
static int first_cause(const struct member *members, int32_t n, struct phx_err *err)
{
    const struct member *found = NULL;
    for (int32_t i = 0; i < n; i++)
        if (members[i].code != 0 && (found == NULL || found->code == ECHO))
            found = &members[i];
    if (found == NULL)
        return 0;
    if (err != NULL)
        *err = found->err;
    return found->code;
}

static int run_threads(struct world *w, const struct phx_comm_limits *limits, struct phx_err *err)
{
    int32_t           n = w->options->tp * w->options->pp, started = 0;
    struct phx_comm **comm = phx_mem_calloc((size_t)n, sizeof(struct phx_comm *));
    struct member    *members = phx_mem_calloc((size_t)n, sizeof *members);
    int               code = phx_comm_local(w->options->tp, w->options->pp, limits, comm, err);
    for (int32_t i = 0; i < n && code == 0; i++) {
        members[i].world = w;
        members[i].comm = comm[i];
        /* a world with a missing rank could only hang */
        phx_assert(pthread_create(&members[i].thread, NULL, thread_main, &members[i]) == 0);
        started++;
    }
    for (int32_t i = 0; i < started; i++)
        (void)pthread_join(members[i].thread, NULL); /* only fails for a wrong handle */
    if (code == 0)
        code = first_cause(members, n, err);
    phx_mem_free(members);
    phx_mem_free(comm);
    return code;
}

static int run_mpi(struct world *w, const struct phx_comm_limits *limits, struct phx_err *err)
{
    struct phx_comm *comm = NULL;
    int              code = phx_ranks_join_mpi(w->options->tp, w->options->pp, limits, &comm, err);
    if (code == 0)
        code = run_rank(w, comm, err);
    phx_comm_close(comm);
    phx_ranks_leave_mpi(code);
    return code;
}

static int run_self(struct world *w, const struct phx_comm_limits *limits, struct phx_err *err)
{
    struct phx_comm *comm = NULL;
    int              code = phx_comm_self(limits, &comm, err);
    if (code == 0)
        code = run_rank(w, comm, err);
    phx_comm_close(comm);
    return code;
}

/* What the backend would not honour is refused by name; what NCCL reads is put where it looks. */
static int check_options(const struct phx_ranks_options *o, struct phx_err *err)
{
    struct phx_comm_device_options none = {.interface = "", .ib_devices = ""};
    bool                           is_cuda = strcmp(o->backend, "cuda") == 0;
    if (is_cuda && ((o->isa != NULL && strcmp(o->isa, "auto") != 0)))
        return phx_fail(err, PHX_E_INVALID, "--isa needs --backend cpu");
    if (!is_cuda && (o->is_fast || o->is_eager || o->is_serial || o->transport != PHX_TRANSPORT_AUTO))
        return phx_fail(err, PHX_E_INVALID, "--%s needs --backend cuda",
                        o->is_fast ? "class fast" : o->is_eager ? "no-graphs" : o->is_serial ? "no-overlap" : "transport");
    /* Ranks of one process and device: to load a kernel when it is first used may wait for those that wait for it. */
    if (is_cuda && o->comm == PHX_RANKS_LOCAL && o->transport == PHX_TRANSPORT_PEER &&
        setenv("CUDA_MODULE_LOADING", "EAGER", 0) != 0)
        return phx_fail(err, PHX_E_NOMEM, "the environment takes no more");
    return is_cuda && o->tp * o->pp > 1 && o->transport != PHX_TRANSPORT_HOST && o->transport != PHX_TRANSPORT_PEER
               ? phx_comm_device_environment(&none, err) : 0;
}

static int open_checkpoint(const struct phx_ranks_options *o, struct world *w, struct phx_err *err)
{
    int code;

    if (o->source.open != NULL)
        return o->source.open(o->source.ctx, &w->checkpoint, &w->config, err);
    code = phx_checkpoint_open(o->dir, &w->checkpoint, err);
    return code == 0 ? phx_model_config_load(o->dir, w->checkpoint, &w->config, err) : code;
}

int phx_ranks_run(const struct phx_ranks_options *o, phx_rank_fn body, void *ctx, struct phx_err *err)
{
    struct world w = {.options = o, .body = body, .ctx = ctx};
    int          code = check_options(o, err);
    if (code == 0)
        code = open_checkpoint(o, &w, err);
    if (code != 0) {
        phx_checkpoint_close(w.checkpoint);
        return code;
    }
    w.parts = phx_mem_calloc((size_t)o->tp * (size_t)o->pp, sizeof *w.parts);
    if (o->is_int8)
        phx_model_config_quantise(&w.config);
    if (o->max_context > w.config.max_position)
        code = phx_fail(err, PHX_E_INVALID, "%d positions are needed, the model has %d", o->max_context,
                        w.config.max_position);
    if (code == 0) {
        struct phx_partition_request request = {
            .config = &w.config, .tp = o->tp, .pp = o->pp, .block_tokens = o->block_tokens,
            .kv_dtype = o->kv_dtype, .max_step_rows = o->max_rows, .max_seqs = o->max_seqs,
            .max_logits = o->max_logits, .max_context = o->max_context};
        code = phx_partition(&request, w.parts, err);
    }
    if (code == 0) {
        struct phx_comm_limits limits = comm_limits(&w);
        if (o->tp * o->pp == 1)
            code = run_self(&w, &limits, err);
        else if (o->comm == PHX_RANKS_LOCAL)
            code = run_threads(&w, &limits, err);
        else
            code = run_mpi(&w, &limits, err);
    }
    phx_mem_free(w.parts);
    phx_checkpoint_close(w.checkpoint);
    return code;
}
