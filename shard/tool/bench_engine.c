/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/bench_engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

enum { WARM_STEPS = 2, LANES = 16 };

struct context {
    const struct phx_bench_request *request;
    struct phx_bench_result        *result;
    bool                           *is_head;
};

/* One run over sequences of equal length: state of this rank. */
struct run {
    struct phx_rank                *rank;
    const struct phx_bench_request *request;
    int32_t  n_seqs, stride;
    int32_t *table;  /* [n_seqs, stride] */
    int32_t *pos;    /* [n_seqs] */
    int32_t *tokens; /* [max_rows] of the next step */
    int32_t *row, *n_rows, *logit_rows;
    struct phx_logits_want *wants; /* [n_seqs] */
    struct phx_logits_got  *got;   /* [n_seqs] */
    float   *logits; /* [n_seqs, V] where they land */
    int      failure; /* of a step; kept, because the other ranks go on stepping */
};

/* ---- facts ---------------------------------------------------------------------------------- */

/* A "VmRSS:   123 kB" line of a file of /proc/self, in bytes. */
static uint64_t status_bytes(const char *path, const char *key)
{
    char     line[256];
    uint64_t bytes = 0;
    FILE    *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            bytes = strtoull(line + strlen(key) + 1, NULL, 10) * 1024;
    if (f != NULL)
        (void)fclose(f);
    return bytes;
}

static double dtype_bytes(enum phx_dtype dtype)
{
    switch (dtype) {
    case PHX_DTYPE_F32:
        return 4;
    case PHX_DTYPE_MXFP4:
        return 17.0 / PHX_MX_BLOCK;
    case PHX_DTYPE_I8:
        return 1 + 4.0 / PHX_I8_GROUP;
    default:
        return 2;
    }
}

/* Of a token's keys, or values, of one head. */
static double kv_head_bytes(int32_t head_dim, enum phx_dtype dtype)
{
    return phx_kv_has_scales(dtype) ? head_dim + 4 : head_dim * dtype_bytes(dtype);
}

static double count(struct phx_range r)
{
    return (double)(r.end - r.first);
}

static struct phx_bench_rank facts_of(const struct phx_rank *r)
{
    const struct phx_model_config *c = r->config;
    const struct phx_part         *p = r->part;
    struct phx_model_memory        memory;
    struct phx_bench_rank          f = {.load_seconds = r->load_seconds};
    double layers = count(p->layers), experts = c->n_experts > 0 ? c->experts_per_token : 1;
    double attention = (2 * count(p->heads) + 2 * count(p->kv_heads)) * c->head_dim * c->dim;
    double router = (double)c->n_experts * c->dim;
    double ffn = experts * 3 * count(p->ffn) * c->dim;
    double head = p->pp == p->pp_size - 1 ? count(p->vocab) * c->dim : 0;
    enum phx_dtype ffn_dtype = c->n_experts > 0 ? c->expert_dtype : c->dtype;
    phx_model_memory(r->model, &memory);
    f.weights_bytes = memory.weights_bytes;
    f.kv_bytes = memory.kv_bytes;
    f.scratch_bytes = memory.scratch_bytes;
    f.resident_bytes = status_bytes("/proc/self/status", "VmRSS:");
    f.peak_bytes = status_bytes("/proc/self/status", "VmHWM:");
    f.huge_bytes = status_bytes("/proc/self/smaps_rollup", "AnonHugePages:");
    f.token_bytes = (layers * attention + head) * dtype_bytes(c->dtype) + layers * router * 4 +
                    layers * ffn * dtype_bytes(ffn_dtype);
    f.token_macs = layers * (attention + router + ffn);
    f.dense_bytes = (layers * attention + head) * dtype_bytes(c->dtype) + layers * router * 4 +
                    (c->n_experts > 0 ? 0 : layers * ffn * dtype_bytes(ffn_dtype));
    f.expert_bytes = c->n_experts > 0 ? layers * 3 * count(p->ffn) * c->dim * dtype_bytes(ffn_dtype) : 0;
    f.n_experts = c->n_experts;
    f.top_k = c->n_experts > 0 ? c->experts_per_token : 0;
    f.head_macs = head;
    f.attention_macs = layers * 2 * count(p->heads) * c->head_dim;
    for (int32_t i = p->layers.first; i < p->layers.end; i++)
        if (c->window[i] > 0) {
            f.window = c->window[i];
            f.window_share += 1 / layers;
        }
    f.context_bytes = layers * 2 * count(p->kv_heads) * kv_head_bytes(c->head_dim, r->options->kv_dtype);
    return f;
}

/* ---- one run -------------------------------------------------------------------------------- */

static void run_open(struct run *run, struct phx_rank *rank, const struct phx_bench_request *request,
                     int32_t n_seqs)
{
    int32_t max_rows = rank->options->max_rows;
    memset(run, 0, sizeof *run);
    run->rank = rank;
    run->request = request;
    run->n_seqs = n_seqs;
    run->stride = rank->options->n_blocks / n_seqs;
    run->table = phx_mem_calloc((size_t)n_seqs * (size_t)run->stride, sizeof *run->table);
    for (int32_t i = 0; i < n_seqs * run->stride; i++)
        run->table[i] = i;
    run->pos = phx_mem_calloc((size_t)n_seqs, sizeof *run->pos);
    run->tokens = phx_mem_calloc((size_t)max_rows, sizeof *run->tokens);
    run->row = phx_mem_calloc((size_t)n_seqs, sizeof *run->row);
    run->n_rows = phx_mem_calloc((size_t)n_seqs, sizeof *run->n_rows);
    run->logit_rows = phx_mem_calloc((size_t)n_seqs, sizeof *run->logit_rows);
    run->wants = phx_mem_calloc((size_t)n_seqs, sizeof *run->wants);
    run->got = phx_mem_calloc((size_t)n_seqs, sizeof *run->got);
    for (int32_t i = 0; i < n_seqs; i++)
        run->wants[i] = (struct phx_logits_want){.n_best = 1};
    if (rank->has_logits)
        run->logits = phx_mem_calloc((size_t)n_seqs * (size_t)rank->config->vocab_size,
                                     sizeof *run->logits);
}

static void run_close(struct run *run)
{
    phx_mem_free(run->table);
    phx_mem_free(run->pos);
    phx_mem_free(run->tokens);
    phx_mem_free(run->row);
    phx_mem_free(run->n_rows);
    phx_mem_free(run->logit_rows);
    phx_mem_free(run->wants);
    phx_mem_free(run->got);
    phx_mem_free(run->logits);
}

/* n rows of sequence `first`, or one row of each of n_seqs sequences.  Answers PHX_E_PEER alone. */
static int step(struct run *run, int32_t first, int32_t n_seqs, int32_t rows_each, bool has_logits,
                struct phx_err *err)
{
    for (int32_t i = 0; i < n_seqs; i++) {
        run->row[i] = i * rows_each;
        run->n_rows[i] = rows_each;
        run->logit_rows[i] = (i + 1) * rows_each - 1;
    }
    int32_t          n_logits = has_logits ? n_seqs : 0;
    struct phx_batch batch = {
        .n_rows = n_seqs * rows_each, .tokens = run->tokens, .n_logits = n_logits,
        .logit_rows = run->logit_rows, .wants = run->wants, .got = run->got,
        .spans = {.n_seqs = n_seqs, .row = run->row, .n_rows = run->n_rows, .pos = run->pos + first,
                  .table = run->table + (ptrdiff_t)first * run->stride,
                  .table_stride = run->stride}};
    int code = phx_model_step(run->rank->model, &batch,
                              phx_view(run->logits, n_logits, run->rank->config->vocab_size),
                              run->failure == 0 ? err : NULL);
    for (int32_t i = 0; i < n_seqs; i++)
        run->pos[first + i] += rows_each;
    run->failure = run->failure == 0 ? code : run->failure;
    return code == PHX_E_PEER ? code : 0;
}

/* Several columns at once: a single chain of comparisons would cost milliseconds a step. */
static int32_t best_id(const float *row, int32_t V)
{
    float   most[LANES];
    int32_t id[LANES], best = 0;
    for (int32_t k = 0; k < LANES; k++) {
        most[k] = -INFINITY;
        id[k] = 0;
    }
    for (int32_t v = 0; v < V / LANES * LANES; v += LANES)
        for (int32_t k = 0; k < LANES; k++) {
            bool is_more = row[v + k] > most[k];
            most[k] = is_more ? row[v + k] : most[k];
            id[k] = is_more ? v + k : id[k];
        }
    for (int32_t k = 0; k < LANES; k++)
        best = row[id[k]] > row[best] ? id[k] : best;
    for (int32_t v = V / LANES * LANES; v < V; v++)
        best = row[v] > row[best] ? v : best;
    return best;
}

/* The best id of each sequence goes round to every rank: last stage -> head -> all. */
static int exchange(struct run *run, int32_t n_seqs, struct phx_err *err)
{
    struct phx_comm *comm = run->rank->comm;
    int32_t          ids[PHX_BENCH_BATCH_MAX], V = run->rank->config->vocab_size;
    size_t           size_bytes = (size_t)n_seqs * sizeof *ids;
    int              code = 0;
    if (run->rank->has_logits) {
        for (int32_t i = 0; i < n_seqs; i++)
            ids[i] = run->got[i].is_whole ? best_id(run->logits + (ptrdiff_t)run->got[i].row * V, V) : run->got[i].ids[0];
        code = phx_comm_result_send(comm, ids, size_bytes);
    }
    if (code == 0 && run->rank->part->rank == 0)
        code = phx_comm_result_recv(comm, ids, sizeof ids, &size_bytes, -1);
    if (code == 0)
        code = phx_comm_bcast(comm, ids, sizeof ids, &size_bytes);
    return code == 0 ? 0 : phx_fail(err, code, "sending tokens round: %s", phx_err_text(code));
}

/* Any ids do: the same on all ranks and in every repetition, and no two sequences alike. */
static int32_t token_at(const struct run *run, int32_t seq, int32_t pos)
{
    uint64_t x = ((uint64_t)(uint32_t)seq << 32 | (uint32_t)pos) + 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (int32_t)((x ^ x >> 31) % (uint64_t)run->rank->config->vocab_size);
}

static int prefill(struct run *run, int32_t seq, int32_t n, struct phx_err *err)
{
    int code = 0;
    for (int32_t done = 0; done < n && code == 0;) {
        int32_t rows = n - done < run->request->chunk ? n - done : run->request->chunk;
        for (int32_t i = 0; i < rows; i++)
            run->tokens[i] = token_at(run, seq, done + i);
        done += rows;
        code = step(run, seq, 1, rows, done == n, err);
    }
    return code;
}

/* n_steps tokens of every sequence from position `context` on. */
static int decode(struct run *run, int32_t context, int32_t n_steps, struct phx_err *err)
{
    int code = 0;
    for (int32_t i = 0; i < run->n_seqs; i++)
        run->pos[i] = context;
    for (int32_t i = 0; i < n_steps && code == 0; i++) {
        for (int32_t seq = 0; seq < run->n_seqs; seq++)
            run->tokens[seq] = token_at(run, seq, context + i);
        code = step(run, 0, run->n_seqs, 1, true, err);
        if (code == 0)
            code = exchange(run, run->n_seqs, err);
    }
    return code;
}

/* ---- what is measured ------------------------------------------------------------------------ */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct phx_bench_rate summarise(double *rates, int32_t n)
{
    qsort(rates, (size_t)n, sizeof *rates, compare_doubles);
    return (struct phx_bench_rate){
        .median = n % 2 == 1 ? rates[n / 2] : (rates[n / 2 - 1] + rates[n / 2]) / 2,
        .min = rates[0], .max = rates[n - 1]};
}

static int bench_prefill(struct phx_rank *rank, const struct phx_bench_request *r,
                         struct phx_bench_rate *rate, struct phx_err *err)
{
    double     rates[PHX_BENCH_REPS_MAX];
    struct run run;
    int        code = 0;
    run_open(&run, rank, r, 1);
    for (int32_t i = 0; i <= r->reps && code == 0; i++) { /* the first warms up */
        int64_t start = phx_clock_mono_ns();
        run.pos[0] = 0;
        code = prefill(&run, 0, r->prompt, err);
        if (code == 0)
            code = exchange(&run, 1, err);
        if (i > 0)
            rates[i - 1] = r->prompt * 1e9 / (double)(phx_clock_mono_ns() - start);
    }
    if (code == 0)
        *rate = summarise(rates, r->reps);
    code = code == 0 ? run.failure : code;
    run_close(&run);
    return code;
}

static int32_t context_of(const struct phx_bench_request *r, int32_t batch)
{
    if (r->context >= 0)
        return r->context;
    return batch == 1 || r->prompt < PHX_BENCH_BATCH_PROMPT ? r->prompt : PHX_BENCH_BATCH_PROMPT;
}

/* One more step, timed op by op on rank 0. */
static int trace_step(struct run *run, int32_t context, struct phx_bench_ops *ops, struct phx_err *err)
{
    bool is_head = run->rank->part->rank == 0;
    struct phx_bench_trace *trace = is_head ? phx_mem_calloc(1, sizeof *trace) : NULL;
    if (is_head)
        phx_bench_trace_begin(trace, run->rank->backend);
    int code = decode(run, context, 1, err);
    if (is_head)
        phx_bench_trace_end(trace, ops);
    phx_mem_free(trace);
    return code;
}

static int bench_decode(struct phx_rank *rank, const struct phx_bench_request *r, int32_t batch,
                        struct phx_bench_rate *rate, struct phx_bench_ops *ops, struct phx_err *err)
{
    double     rates[PHX_BENCH_REPS_MAX];
    struct run run;
    int32_t    context = context_of(r, batch);
    int        code = 0;
    run_open(&run, rank, r, batch);
    for (int32_t i = 0; i < batch && code == 0; i++)
        code = prefill(&run, i, context, err);
    if (code == 0)
        code = decode(&run, context, WARM_STEPS, err);
    for (int32_t i = 0; i < r->reps && code == 0; i++) {
        int64_t start = phx_clock_mono_ns();
        code = decode(&run, context, r->gen, err);
        rates[i] = (double)batch * r->gen * 1e9 / (double)(phx_clock_mono_ns() - start);
    }
    if (code == 0 && r->device.calls > 0)
        code = trace_step(&run, context + r->gen / 2, ops, err);
    if (code == 0)
        *rate = summarise(rates, r->reps);
    code = code == 0 ? run.failure : code;
    run_close(&run);
    return code;
}

/* After all runs, so that memory touched late counts too. */
static int collect_facts(struct phx_rank *rank, struct context *c, struct phx_err *err)
{
    struct phx_bench_rank  mine = facts_of(rank);
    int32_t                n_ranks = rank->part->tp_size * rank->part->pp_size;
    struct phx_bench_rank *all = phx_mem_calloc((size_t)n_ranks, sizeof *all);
    int code = phx_comm_collect(rank->comm, &mine, sizeof mine, all);
    if (code != 0)
        code = phx_fail(err, code, "collecting facts: %s", phx_err_text(code));
    if (rank->part->rank == 0) {
        *c->is_head = true;
        memcpy(c->result->ranks, all, (size_t)n_ranks * sizeof *all);
        c->result->n_threads = phx_backend_threads(rank->backend);
        (void)snprintf(c->result->isa, sizeof c->result->isa, "%s", phx_backend_isa(rank->backend));
    }
    phx_mem_free(all);
    return code;
}

/* Of rank 0's device, before anything is recorded that lies in its scratch. */
static int measure_device(struct phx_rank *rank, const struct phx_bench_request *r, struct phx_bench_result *result,
                          struct phx_err *err)
{
    struct phx_device_facts facts;
    const char             *what = NULL;
    phx_backend_facts(rank->backend, &facts);
    (void)snprintf(result->device_name, sizeof result->device_name, "%s", facts.name);
    (void)snprintf(result->launches, sizeof result->launches, "%s", facts.launches);
    if (phx_device_measure(rank->backend, &r->device, &result->device) == 0)
        return 0;
    (void)phx_backend_sync(rank->backend, &what);
    return phx_fail(err, PHX_E_INTERNAL, "measuring the device: %s", what != NULL ? what : "it failed");
}

/* The ranks go through every part even after a failure: one that left would make the others wait. */
static int body(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct context                 *c = ctx;
    const struct phx_bench_request *r = c->request;
    struct phx_bench_rate           rate = {0};
    bool is_head = rank->part->rank == 0;
    int  measured = is_head && r->device.calls > 0 ? measure_device(rank, r, c->result, err) : 0;
    int  code = r->prompt > 0 ? bench_prefill(rank, r, &rate, measured == 0 ? err : NULL) : 0;
    code = code == 0 ? measured : code;
    if (is_head)
        c->result->prefill = rate;
    for (int32_t i = 0; i < r->n_batches && r->gen > 0 && code != PHX_E_PEER; i++) {
        int decoded = bench_decode(rank, r, r->batch[i], &rate, &c->result->ops[i], code == 0 ? err : NULL);
        code = code == 0 || decoded == PHX_E_PEER ? decoded : code;
        if (is_head) {
            c->result->decode[i] = rate;
            c->result->context[i] = context_of(r, r->batch[i]) + r->gen / 2;
        }
    }
    if (code != PHX_E_PEER) {
        int collected = collect_facts(rank, c, code == 0 ? err : NULL);
        code = code == 0 ? collected : code;
    }
    return code;
}

static int body_first(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct context *c = ctx;
    struct run      run;
    run_open(&run, rank, c->request, 1);
    int code = prefill(&run, 0, c->request->prompt, err);
    if (code == 0)
        code = exchange(&run, 1, err);
    code = code == 0 ? run.failure : code;
    run_close(&run);
    if (code == PHX_E_PEER)
        return code;
    int collected = collect_facts(rank, c, code == 0 ? err : NULL);
    return code == 0 ? collected : code;
}

static int32_t blocks_of(int32_t tokens, int32_t block_tokens)
{
    return (tokens + block_tokens - 1) / block_tokens;
}

static int32_t larger(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* What the ranks must be able to hold. */
static void set_limits(struct phx_bench_request *r)
{
    struct phx_ranks_options *o = &r->ranks;
    int32_t                   steps = larger(r->gen, WARM_STEPS);
    o->max_rows = r->chunk;
    o->max_seqs = 1;
    o->max_context = larger(r->prompt, 1);
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++) {
        int32_t tokens = context_of(r, r->batch[i]) + steps;
        o->n_blocks = larger(o->n_blocks, r->batch[i] * blocks_of(tokens, o->block_tokens));
        o->max_rows = larger(o->max_rows, r->batch[i]);
        o->max_seqs = larger(o->max_seqs, r->batch[i]);
        o->max_context = larger(o->max_context, tokens);
    }
    o->n_blocks = larger(o->n_blocks, blocks_of(o->max_context, o->block_tokens));
    o->max_logits = o->max_seqs;
}

static int run_ranks(struct phx_bench_request *r, phx_rank_fn fn, struct phx_bench_result *result,
                     bool *is_head, struct phx_err *err)
{
    struct context c = {.request = r, .result = result, .is_head = is_head};
    *is_head = false;
    set_limits(r);
    return phx_ranks_run(&r->ranks, fn, &c, err);
}

int phx_bench_run(struct phx_bench_request *r, struct phx_bench_result *result, bool *is_head,
                  struct phx_err *err)
{
    return run_ranks(r, body, result, is_head, err);
}

int phx_bench_first(struct phx_bench_request *r, struct phx_bench_result *result, bool *is_head,
                    struct phx_err *err)
{
    r->gen = 0;
    return run_ranks(r, body_first, result, is_head, err);
}
