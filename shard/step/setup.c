/* SPDX-License-Identifier: Apache-2.0
 * Opening and closing what a rank needs. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/step/provenance.h"
#include "shard/step/stage.h"

enum {
    CONTEXT_DEFAULT_MAX = 16384, /* of the automatic max_context */
    AUTO_TOKENS_PER_SEQ = 4096,  /* cache room planned per sequence when nothing is said */
    BLOCKS_MAX = 1 << 22,
    TELL_US = 2000000,           /* what the head gets to tell why the load failed */
    MEMORY_SHARE = 2             /* at most this part of the free memory goes to the cache by itself */
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

static int plan_parts(struct phx_step *s, struct phx_err *err)
{
    const struct phx_step_options     *o = s->options;
    const struct phx_partition_request request = {
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

    s->parts = phx_mem_calloc((size_t)o->tp * (size_t)o->pp, sizeof(*s->parts));
    return phx_partition(&request, s->parts, err);
}

/* The number behind `key` at the start of a line of a small file, -1 when there is none. */
static int64_t read_number(const char *path, const char *key)
{
    FILE     *f = fopen(path, "re");
    char      line[256];
    long long value = -1;

    while (f != NULL && value < 0 && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, key, strlen(key)) != 0 || sscanf(line + strlen(key), "%lld", &value) != 1)
            value = -1;
    if (f != NULL)
        fclose(f);
    return value;
}

/* Memory that could be had without hurting anyone: page cache counts as free, a container's limit as the
 * machine's end.  Every rank's weights go off first, as if all of them shared this machine. */
static int64_t memory_budget(const struct phx_step *s)
{
    int64_t free_bytes = read_number("/proc/meminfo", "MemAvailable:") * 1024;
    int64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
    int64_t used = read_number("/sys/fs/cgroup/memory.current", "");
    int32_t n_ranks = s->options->tp * s->options->pp;

    if (limit >= 0 && used >= 0 && limit - used < free_bytes)
        free_bytes = limit - used;
    for (int32_t i = 0; i < n_ranks; i++)
        free_bytes -= (int64_t)(s->parts[i].weights_bytes + s->parts[i].scratch_bytes);
    return free_bytes > 0 ? free_bytes / MEMORY_SHARE / n_ranks : 0;
}

/* The head decides the number of blocks for all, so that their tables agree. */
static int agree_blocks(struct phx_step *s, struct phx_err *err)
{
    const struct phx_step_options *o = s->options;
    int64_t  n = o->kv_blocks, largest = 1, budget;
    int32_t  agreed;
    size_t   size = sizeof(agreed);
    int      rc;

    for (int32_t i = 0; i < o->tp * o->pp; i++)
        if ((int64_t)s->parts[i].kv_bytes_per_block > largest)
            largest = (int64_t)s->parts[i].kv_bytes_per_block;
    budget = o->kv_memory_bytes > 0 ? o->kv_memory_bytes : memory_budget(s);
    if (n == 0) {
        int32_t tokens = s->max_context < AUTO_TOKENS_PER_SEQ ? s->max_context : AUTO_TOKENS_PER_SEQ;
        int64_t want = (int64_t)o->max_seqs * ((tokens + o->block_tokens - 1) / o->block_tokens);

        n = budget / largest;
        if (o->kv_memory_bytes == 0 && n > want)
            n = want;
    }
    n = n < BLOCKS_MAX ? n : BLOCKS_MAX;
    agreed = (int32_t)n;
    rc = phx_comm_bcast(s->comm, &agreed, sizeof(agreed), &size);
    if (rc != 0)
        return phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
    if (agreed < 1)
        return phx_fail(err, PHX_E_NOMEM,
                        "kv memory: not one block of %lld bytes fits; give --kv-memory or free memory",
                        (long long)largest);
    s->n_blocks = agreed;
    return 0;
}

int phx_step_open(const struct phx_step_options *options, struct phx_step *s, struct phx_err *err)
{
    struct phx_backend_options backend = {.isa = options->isa, .compute = options->compute, .n_threads = options->n_threads};
    char                       why[200] = "";
    int                        rc;

    memset(s, 0, sizeof(*s));
    s->options = options;
    rc = phx_provenance_open(options->model_dir, options->model_key, &s->provenance, err);
    if (rc == 0)
        rc = phx_checkpoint_open(options->model_dir, &s->checkpoint, err);
    if (rc == 0)
        rc = phx_model_config_load(options->model_dir, s->checkpoint, &s->config, err);
    if (rc != 0)
        return rc;
    s->max_context = options->max_context > 0 ? options->max_context : s->config.max_position;
    if (options->max_context == 0 && s->max_context > CONTEXT_DEFAULT_MAX)
        s->max_context = CONTEXT_DEFAULT_MAX;
    if (s->max_context > s->config.max_position)
        return phx_fail(err, PHX_E_INVALID, "max_context: %d is more than the model's %d positions",
                        s->max_context, s->config.max_position);
    rc = plan_parts(s, err);
    if (rc == 0)
        rc = open_comm(s, err);
    if (rc == 0)
        rc = agree_blocks(s, err);
    if (rc != 0)
        return rc;
    s->rank = phx_comm_shape(s->comm)->rank;
    s->backend = phx_backend_open(options->backend, &backend, why, sizeof(why));
    if (s->backend == NULL)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s", why);
    return 0;
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
    struct phx_plan_limits limits;
    int rc = phx_provenance_start(s->provenance, s->rank, o->tp * o->pp, err);

    if (rc == 0)
        rc = phx_model_open(&model, s->checkpoint, &s->model, err);
    if (rc == 0)
        rc = phx_provenance_wait(s->provenance, err);
    if (rc == 0) {
        phx_step_plan_limits(s, &limits);
        rc = phx_stage_create(s, &limits, &s->stage, err);
    }
    rc = agree(s->comm, rc, err);
    if (rc == 0) {
        phx_checkpoint_close(s->checkpoint);
        s->checkpoint = NULL;
        phx_log(PHX_LOG_INFO, "step.load.done", "model=%s blocks=%d isa=%s", o->model_dir,
                s->n_blocks, phx_backend_isa(s->backend));
    }
    return rc;
}

void phx_step_close(struct phx_step *s)
{
    phx_stage_destroy(s->stage);
    phx_model_close(s->model);
    phx_backend_close(s->backend);
    phx_comm_close(s->comm);
    phx_provenance_close(s->provenance);
    phx_checkpoint_close(s->checkpoint);
    phx_mem_free(s->parts);
    memset(s, 0, sizeof(*s));
}

int phx_step_follow(struct phx_step *s, struct phx_err *err)
{
    struct phx_plan_limits   limits;
    const struct phx_result *result;
    struct phx_buf           out;
    size_t                   capacity, size;
    unsigned char           *plan;
    bool                     is_stop = false;
    int                      rc = 0;

    phx_step_plan_limits(s, &limits);
    capacity = phx_plan_max_bytes(&limits);
    plan = phx_mem_calloc(1, capacity);
    phx_buf_init(&out, phx_result_max_bytes(limits.max_results));
    while (rc == 0) {
        rc = phx_comm_bcast(s->comm, plan, capacity, &size);
        if (rc != 0) {
            rc = phx_fail(err, rc, "waiting for the head: %s", phx_err_text(rc));
            break;
        }
        rc = phx_stage_run(s->stage, plan, size, &is_stop, &result, err);
        if (rc != 0 || is_stop)
            break;
        if (result == NULL)
            continue;
        phx_buf_clear(&out);
        phx_result_encode(result, &out);
        rc = phx_comm_result_send(s->comm, out.data, out.size);
        if (rc != 0)
            rc = phx_fail(err, rc, "sending tokens to the head: %s", phx_err_text(rc));
    }
    phx_buf_fini(&out);
    phx_mem_free(plan);
    return rc;
}
