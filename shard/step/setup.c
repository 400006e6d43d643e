/* SPDX-License-Identifier: Apache-2.0
 * Opening and closing what a rank needs. */
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/comm/nccl.h"
#include "shard/step/device.h"
#include "shard/step/memory.h"
#include "shard/step/provenance.h"
#include "shard/step/stage.h"

enum {
    CONTEXT_DEFAULT_MAX = 16384, /* of the automatic max_context */
    AUTO_TOKENS_PER_SEQ = 4096,  /* cache room planned per sequence when nothing is said */
    BLOCKS_MAX = 1 << 22,
    MEET_MS = 60000,             /* for the GPUs of all ranks to find each other */
    STALL_MS = 30000,            /* for a rank whose GPU hangs; one that dies is seen at once */
    TELL_US = 2000000            /* what the head gets to tell why the load failed */
};

static int open_comm(struct phx_step *s, struct phx_err *err)
{
    const struct phx_step_options *o = s->options;
    size_t activation = (size_t)o->max_rows * (size_t)s->config.dim * sizeof(float);
    size_t logits = (size_t)phx_step_max_results(o) * (size_t)s->config.vocab_size * sizeof(float);
    struct phx_plan_limits plan;
    struct phx_comm_limits limits = {0};
    int                    level = 0;

    phx_step_plan_limits(s, &plan);
    limits.max_activation_bytes = activation > logits ? activation : logits;
    limits.max_plan_bytes = phx_plan_max_bytes(&plan);
    limits.max_result_bytes = phx_result_max_bytes(plan.max_results);
    if (o->tp * o->pp == 1)
        return phx_comm_self(&limits, &s->comm, err);
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS ||
        level < MPI_THREAD_SERIALIZED)
        return phx_fail(err, PHX_E_IO, "MPI did not start; was this process started by mpirun?");
    return phx_comm_mpi(o->tp, o->pp, &limits, &s->comm, err);
}

static struct phx_partition_request request_of(const struct phx_step *s)
{
    const struct phx_step_options *o = s->options;

    return (struct phx_partition_request){
        .backend = phx_backend_is_host(s->backend) ? NULL : s->backend,
        .config = &s->config,
        .tp = o->tp,
        .pp = o->pp,
        .block_tokens = o->block_tokens,
        .kv_dtype = o->kv_dtype,
        .max_step_rows = o->max_rows,
        .max_seqs = o->max_seqs,
        .max_logits = phx_step_max_results(o),
        .max_context = s->max_context,
    };
}

static int plan_parts(struct phx_step *s, struct phx_err *err)
{
    const struct phx_partition_request request = request_of(s);

    s->parts = phx_mem_calloc((size_t)request.tp * (size_t)request.pp, sizeof(*s->parts));
    return phx_partition(&request, s->parts, err);
}

/* Bytes of a rank that partition does not know: the logits it gathers and samples from. */
static uint64_t logits_bytes(const struct phx_step *s)
{
    return (uint64_t)phx_step_max_results(s->options) * (uint64_t)s->config.vocab_size * sizeof(float);
}

static void need_memory(const struct phx_step *s, int64_t n_blocks, struct phx_memory_need *need)
{
    phx_memory_need(s->parts, s->host_ranks, s->n_host_ranks, n_blocks, logits_bytes(s), need);
}

/* Blocks that fit on the device of every rank; only rank 0 learns it. */
static int least_device_blocks(struct phx_step *s, int64_t *n)
{
    const struct phx_part *part = &s->parts[s->rank];
    int64_t  mine = s->options->kv_memory_bytes > 0
                        ? s->options->kv_memory_bytes / (int64_t)part->kv_bytes_per_block
                        : phx_device_blocks(part, phx_device_room(&s->device, s->n_on_device));
    int32_t  n_ranks = s->options->tp * s->options->pp;
    int64_t *all = phx_mem_calloc((size_t)n_ranks, sizeof(*all));
    int      rc = phx_comm_collect(s->comm, &mine, sizeof(mine), all);

    *n = mine;
    for (int32_t i = 0; i < n_ranks && s->rank == 0; i++)
        *n = all[i] < *n ? all[i] : *n;
    phx_mem_free(all);
    return rc;
}

/* Blocks when nothing says how many. */
static int64_t choose_blocks(const struct phx_step *s)
{
    const struct phx_step_options *o = s->options;
    struct phx_memory_need need;
    int64_t n, largest = 1, budget;

    for (int32_t i = 0; i < o->tp * o->pp; i++)
        if ((int64_t)s->parts[i].kv_bytes_per_block > largest)
            largest = (int64_t)s->parts[i].kv_bytes_per_block;
    need_memory(s, 0, &need);
    budget = o->kv_memory_bytes > 0 ? o->kv_memory_bytes
                                    : phx_memory_budget(&need, &s->room) / s->n_host_ranks;
    n = budget / largest;
    if (o->kv_memory_bytes == 0) {
        int32_t tokens = s->max_context < AUTO_TOKENS_PER_SEQ ? s->max_context : AUTO_TOKENS_PER_SEQ;
        int64_t want = (int64_t)o->max_seqs * ((tokens + o->block_tokens - 1) / o->block_tokens);

        n = n < want ? n : want;
    }
    return n;
}

/* The head decides the number of blocks for all, so that their tables agree. */
static int agree_blocks(struct phx_step *s, struct phx_err *err)
{
    int64_t n = s->options->kv_blocks;
    int32_t agreed;
    size_t  size = sizeof(agreed);
    int     rc = 0;

    if (n == 0 && !phx_backend_is_host(s->backend))
        rc = least_device_blocks(s, &n);
    else if (n == 0)
        n = choose_blocks(s);
    agreed = (int32_t)(n < BLOCKS_MAX ? n : BLOCKS_MAX);
    if (rc == 0)
        rc = phx_comm_bcast(s->comm, &agreed, sizeof(agreed), &size);
    if (rc != 0)
        return phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
    s->n_blocks = agreed; /* 0 is refused with all numbers, once the daemon can be told */
    return 0;
}

static int check_device_memory(const struct phx_step *s, struct phx_err *err)
{
    const struct phx_part *p = &s->parts[s->rank];
    int                    rc = phx_device_check(p, s->n_blocks, &s->device, s->n_on_device, err);

    phx_log(rc == 0 ? PHX_LOG_INFO : PHX_LOG_ERROR, "step.memory",
            "weights=%llu kv=%llu scratch=%llu backend=%llu free=%lld room=%lld total=%lld ranks=%d from=device-%d",
            (unsigned long long)p->weights_bytes, (unsigned long long)p->kv_bytes_per_block * (unsigned)s->n_blocks,
            (unsigned long long)p->scratch_bytes, (unsigned long long)p->overhead_bytes, (long long)s->device.free_bytes,
            (long long)phx_device_room(&s->device, s->n_on_device), (long long)s->device.total_bytes, s->n_on_device,
            s->device.index);
    return rc;
}

/* The plan beside what was really taken, by all ranks of the device. */
static void tell_device_memory(const struct phx_step *s)
{
    const struct phx_partition_request request = request_of(s);
    struct phx_device_facts            now;

    if (phx_backend_is_host(s->backend))
        return;
    phx_backend_facts(s->backend, &now);
    phx_log(PHX_LOG_INFO, "step.memory.used", "planned=%llu used=%lld ranks=%d device=%d",
            (unsigned long long)phx_part_device_bytes(&request, &s->parts[s->rank], s->n_blocks),
            (long long)(s->device.free_bytes - now.free_bytes), s->n_on_device, now.index);
}

/* Before a byte is read: what the ranks of this host will need must be there. */
static int check_memory(const struct phx_step *s, struct phx_err *err)
{
    struct phx_memory_need need;
    int                    rc;

    if (!phx_backend_is_host(s->backend))
        return check_device_memory(s, err);
    need_memory(s, s->n_blocks > 0 ? s->n_blocks : 1, &need);
    rc = phx_memory_check(&need, &s->room, err);
    phx_log(rc == 0 ? PHX_LOG_INFO : PHX_LOG_ERROR, "step.memory",
            "weights=%llu kv=%llu scratch=%llu other=%llu free=%lld from=%s", (unsigned long long)need.weights_bytes,
            (unsigned long long)need.kv_bytes, (unsigned long long)need.scratch_bytes,
            (unsigned long long)need.other_bytes, (long long)s->room.free_bytes, s->room.source);
    if (rc == 0 && s->n_blocks < 1)
        rc = phx_fail(err, PHX_E_NOMEM,
                      "kv memory: not one block of %llu bytes fits; raise kv_memory (--kv-memory) or free memory",
                      (unsigned long long)s->parts[s->rank].kv_bytes_per_block);
    return rc;
}

static int32_t place_of(const struct phx_step *s)
{
    int32_t place = 0;

    while (s->host_ranks[place] != s->rank)
        place++;
    return place;
}

/* On a machine of one node threads go where the kernel puts them; else a rank stays with its node, where its
 * memory is too.  Threads of the backend inherit the mask, or are pinned inside it. */
static void choose_cores(struct phx_step *s)
{
    const struct phx_step_options *o = s->options;
    struct phx_topology            t;
    cpu_set_t                      mask;

    phx_topology_here(&t);
    phx_placement_plan(&t, o->share * s->n_host_ranks + place_of(s), o->n_shares * s->n_host_ranks,
                       o->n_threads, &s->placement);
    if (t.n_nodes == 1) {
        s->placement.is_pinned = false;
        return;
    }
    phx_placement_mask(&s->placement, &mask);
    if (sched_setaffinity(0, sizeof(mask), &mask) != 0)
        s->placement.is_pinned = false; /* slower, not wrong */
}

/* The backend pinned its caller: what other threads are born with is the node.  hold() pins it again. */
static void roam(const struct phx_step *s)
{
    cpu_set_t mask;

    phx_placement_mask(&s->placement, &mask);
    if (s->placement.is_pinned)
        (void)sched_setaffinity(0, sizeof(mask), &mask); /* slower, not wrong */
}

static void hold(const struct phx_step *s)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(s->placement.core[0], &one);
    if (s->placement.is_pinned)
        (void)sched_setaffinity(0, sizeof(one), &one); /* slower, not wrong */
}

int phx_step_open_backend(const struct phx_step_options *o, int32_t place, int32_t n_threads,
                          bool is_pinned, struct phx_backend **out, struct phx_err *err)
{
    struct phx_backend_options options = {.isa = o->isa, .compute = o->compute, .is_fast = o->is_fast,
                                          .is_eager = o->is_eager, .is_serial = o->is_serial, .n_threads = n_threads,
                                          .is_pinned = is_pinned};
    char                       why[240] = "";
    int                        rc = phx_step_check_device(o, err);

    if (rc == 0)
        rc = phx_step_choose_device(o->devices, place, &options, err);
    if (rc != 0)
        return rc;
    *out = phx_backend_open(o->backend, &options, why, sizeof(why));
    return *out != NULL ? 0 : phx_fail(err, PHX_E_UNSUPPORTED, "%s", why);
}

static int open_backend(struct phx_step *s, struct phx_err *err)
{
    const struct phx_step_options *o = s->options;
    int32_t                        place = o->share * s->n_host_ranks + place_of(s);
    int rc;

    choose_cores(s);
    rc = phx_step_open_backend(o, place, s->placement.n_threads, s->placement.is_pinned, &s->backend, err);
    if (rc != 0)
        return rc;
    roam(s);
    phx_backend_facts(s->backend, &s->device);
    s->n_on_device = phx_step_sharers(o->devices, o->n_shares * s->n_host_ranks, &s->device);
    if (!phx_backend_is_host(s->backend))
        phx_log(PHX_LOG_INFO, "step.device", "index=%d name=%s arch=%d driver=%s runtime=%s ranks=%d launches=%s", s->device.index,
                s->device.name, s->device.arch, s->device.driver, s->device.runtime, s->n_on_device,
                s->device.launches);
    phx_log(PHX_LOG_INFO, "step.cores", "threads=%d first=%d cores=%d nodes=%d pinned=%d",
            s->placement.n_threads, s->placement.core[0], s->placement.n_cores, s->placement.n_nodes,
            s->placement.is_pinned);
    return 0;
}

static const char *text_of(const char *text)
{
    return text != NULL ? text : "";
}

static int transport_options(const struct phx_step_options *o, struct phx_comm_device_options *out, struct phx_err *err)
{
    *out = (struct phx_comm_device_options){.is_fast = o->is_fast, .open_ms = MEET_MS, .wait_ms = STALL_MS,
                                            .interface = text_of(o->interface), .ib_devices = text_of(o->ib_devices)};
    if (o->transport != NULL && phx_transport_parse(o->transport, &out->transport) != 0)
        return phx_fail(err, PHX_E_INVALID, "transport: '%.20s' is none of auto, nccl, peer, host", o->transport);
    return 0;
}

/* What NCCL reads from the environment; before MPI or anything else starts a thread. */
static int prepare_transport(const struct phx_step_options *o, struct phx_err *err)
{
    struct phx_comm_device_options transport;
    int                            rc = transport_options(o, &transport, err);

    if (rc == 0 && strcmp(o->backend, "cuda") == 0 && o->tp * o->pp > 1 && transport.transport != PHX_TRANSPORT_HOST &&
        transport.transport != PHX_TRANSPORT_PEER)
        rc = phx_comm_device_environment(&transport, err);
    return rc;
}

static int open_transport(struct phx_step *s, struct phx_err *err)
{
    struct phx_comm_device_options transport;
    int                            rc = transport_options(s->options, &transport, err);

    return rc == 0 ? phx_comm_device_open(s->comm, s->backend, &transport, err) : rc;
}

int phx_step_open(const struct phx_step_options *options, struct phx_step *s, struct phx_err *err)
{
    int rc;

    memset(s, 0, sizeof(*s));
    s->options = options;
    rc = phx_step_check_device(options, err);
    if (rc == 0)
        rc = prepare_transport(options, err);
    if (rc == 0)
        rc = phx_provenance_open(options->model_dir, options->model_key, &s->provenance, err);
    if (rc == 0)
        rc = phx_checkpoint_open(options->model_dir, &s->checkpoint, err);
    if (rc == 0)
        rc = phx_model_config_load(options->model_dir, s->checkpoint, &s->config, err);
    if (rc != 0)
        return rc;
    if (options->is_int8)
        phx_model_config_quantise(&s->config);
    s->max_context = options->max_context > 0 ? options->max_context : s->config.max_position;
    if (options->max_context == 0 && s->max_context > CONTEXT_DEFAULT_MAX)
        s->max_context = CONTEXT_DEFAULT_MAX;
    if (s->max_context > s->config.max_position)
        return phx_fail(err, PHX_E_INVALID, "max_context: %d is more than the model's %d positions",
                        s->max_context, s->config.max_position);
    rc = open_comm(s, err);
    if (rc != 0)
        return rc;
    s->rank = phx_comm_shape(s->comm)->rank;
    s->host_ranks = phx_mem_calloc((size_t)options->tp * (size_t)options->pp, sizeof(*s->host_ranks));
    s->n_host_ranks = phx_comm_host(s->comm, s->host_ranks);
    phx_memory_room("", &s->room);
    rc = open_backend(s, err);
    if (rc == 0)
        rc = open_transport(s, err);
    if (rc == 0) {
        phx_backend_facts(s->backend, &s->device); /* what backends and transport hold is gone already */
        rc = plan_parts(s, err);
    }
    return rc == 0 ? agree_blocks(s, err) : rc;
}

struct load_result { /* what a rank tells the others when it has loaded, or could not */
    int32_t code;
    char    text[sizeof(((struct phx_err *)0)->text)];
};

/* 0 when every rank's code is 0; else the error of the first rank that failed, which every rank answers with:
 * the head then tells the daemon the cause and not that a peer went away. */
static int agree(struct phx_comm *comm, int code, struct phx_err *err)
{
    const struct phx_comm_shape *shape = phx_comm_shape(comm);
    struct load_result           mine = {.code = code}, worst = {0};
    struct load_result          *all = phx_mem_calloc((size_t)shape->n_ranks, sizeof(*all));
    size_t                       size = sizeof(worst);
    int                          rc;

    if (code != 0)
        (void)snprintf(mine.text, sizeof(mine.text), "rank %d: %.220s", shape->rank, err->text);
    rc = phx_comm_collect(comm, &mine, sizeof(mine), all);
    for (int32_t i = shape->n_ranks - 1; i >= 0; i--)
        worst = all[i].code != 0 ? all[i] : worst;
    phx_mem_free(all);
    if (rc == 0)
        rc = phx_comm_bcast(comm, &worst, sizeof(worst), &size);
    if (rc != 0)
        return code != 0 ? code : phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
    if (worst.code == 0)
        return 0;
    if (shape->rank != 0)
        usleep(TELL_US); /* the first rank that leaves ends the job: the head must have told the daemon by then */
    worst.text[sizeof(worst.text) - 1] = '\0';
    return phx_fail(err, worst.code < 0 ? worst.code : PHX_E_PEER, "%s", worst.text);
}

int phx_step_load(struct phx_step *s, void (*progress)(void *ctx, uint64_t done, uint64_t total),
                  void *ctx, struct phx_err *err)
{
    const struct phx_step_options *o = s->options;
    struct phx_model_options       model = {
              .config = &s->config,
              .part = &s->parts[s->rank],
              .parts = s->parts,
              .backend = s->backend,
              .comm = s->comm,
              .n_blocks = s->n_blocks,
              .block_tokens = o->block_tokens,
              .kv_dtype = o->kv_dtype,
              .max_rows = o->max_rows,
              .max_seqs = o->max_seqs,
              .max_logits = phx_step_max_results(o),
              .max_context = s->max_context,
              .progress = progress,
              .progress_ctx = ctx,
    };
    int rc = agree(s->comm, check_memory(s, err), err);

    if (rc != 0)
        return rc;
    rc = phx_provenance_start(s->provenance, s->rank, o->tp * o->pp, s->placement.n_threads, err);
    hold(s);
    if (rc == 0)
        rc = phx_model_open(&model, s->checkpoint, &s->model, err);
    if (rc == 0)
        rc = phx_provenance_wait(s->provenance, err);
    if (rc == 0)
        rc = phx_step_start_stage(s, err);
    rc = agree(s->comm, rc, err);
    if (rc == 0) {
        tell_device_memory(s);
        phx_checkpoint_close(s->checkpoint);
        s->checkpoint = NULL;
        phx_log(PHX_LOG_INFO, "step.load.done", "model=%s blocks=%d isa=%s", o->model_dir,
                s->n_blocks, phx_backend_isa(s->backend));
    }
    return rc;
}

void phx_step_close(struct phx_step *s)
{
    phx_step_end_stage(s);
    phx_model_close(s->model);
    phx_comm_close(s->comm); /* what it carries lies on the backend's device */
    phx_backend_close(s->backend);
    phx_provenance_close(s->provenance);
    phx_checkpoint_close(s->checkpoint);
    phx_mem_free(s->parts);
    phx_mem_free(s->host_ranks);
    memset(s, 0, sizeof(*s));
}
