/* SPDX-License-Identifier: Apache-2.0
 * Steps captured into graphs. */
#include <string.h>

#include "kernels/cuda/step.h"

static int64_t round_up_to_power(int64_t n, int64_t least)
{
    while (least < n)
        least *= 2;
    return least;
}

struct cuda_step_key phx_cuda_step_key(const struct phx_step_inputs *in, struct cuda_reach *reach)
{
    const struct phx_spans *spans = in->spans;
    struct cuda_step_key    key;
    int64_t                 keys_max, keys_total = 0, limit = INT32_MAX;

    memset(&key, 0, sizeof(key)); /* keys are compared with their padding */
    key.model = in->model;
    key.rows_hash = 14695981039346656037u; /* FNV-1a */
    for (int32_t i = 0; i < spans->n_seqs; i++) {
        key.rows_hash = (key.rows_hash ^ (uint32_t)spans->n_rows[i]) * 1099511628211u;
        keys_total += spans->n_rows[i] > 0 ? spans->pos[i] + spans->n_rows[i] : 0;
    }
    keys_max = round_up_to_power(phx_cuda_most_keys(spans), CUDA_KEYS_MIN);
    key.keys_max = (int32_t)(keys_max < limit ? keys_max : limit);
    key.keys_total = round_up_to_power(keys_total, CUDA_KEYS_MIN);
    key.n_rows = in->n_rows;
    key.n_picked = in->n_picked;
    key.n_seqs = spans->n_seqs;
    key.table_stride = spans->table_stride;
    key.has_ids = in->ids != NULL;
    *reach = (struct cuda_reach){key.keys_max, key.keys_total};
    return key;
}

static bool are_equal(const struct cuda_step_key *a, const struct cuda_step_key *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

struct cuda_record *phx_cuda_find_record(struct cuda_step *s, const struct cuda_step_key *key)
{
    for (int32_t i = 0; i < PHX_CUDA_RECORDS_MAX; i++)
        if (s->records[i].exec != NULL && are_equal(&s->records[i].key, key))
            return &s->records[i];
    return NULL;
}

bool phx_cuda_was_seen(struct cuda_step *s, const struct cuda_step_key *key)
{
    for (int32_t i = 0; i < PHX_CUDA_RECORDS_MAX; i++)
        if (are_equal(&s->seen[i], key))
            return true;
    s->seen[s->next_seen] = *key;
    s->next_seen = (s->next_seen + 1) % PHX_CUDA_RECORDS_MAX;
    return false;
}

/* What goes wrong here is no error of the step: its ops are called again. */
static bool try(int rc)
{
    if (rc != cudaSuccess)
        (void)cudaGetLastError();
    return rc == cudaSuccess;
}

bool phx_cuda_start_recording(struct cuda_device *d)
{
    return try(cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal));
}

/* A free place, or that of the record not used for longest. */
static struct cuda_record *take_place(struct cuda_step *s)
{
    struct cuda_record *oldest = &s->records[0];

    for (int32_t i = 0; i < PHX_CUDA_RECORDS_MAX; i++) {
        struct cuda_record *r = &s->records[i];

        if (r->exec == NULL)
            return r;
        if (r->used_at < oldest->used_at)
            oldest = r;
    }
    (void)cudaGraphExecDestroy(oldest->exec); /* fails only with the device */
    oldest->exec = NULL;
    return oldest;
}

static void launch(struct cuda_device *d, struct cuda_record *r)
{
    r->used_at = ++d->step->now;
    if (phx_cuda_stage_send(d, 0, r->n_bytes))
        (void)phx_cuda_check(d, cudaGraphLaunch(r->exec, d->stream), "replay of a step");
}

bool phx_cuda_end_recording(struct cuda_device *d)
{
    struct cuda_step   *s = d->step;
    struct cuda_record *r;
    cudaGraph_t         graph = NULL;
    cudaGraphExec_t     exec = NULL;
    bool                is_good = try(cudaStreamEndCapture(d->stream, &graph));

    is_good = is_good && !s->is_unfit && !d->has_failed && try(cudaGraphInstantiate(&exec, graph, 0));
    if (graph != NULL)
        (void)try(cudaGraphDestroy(graph));
    if (!is_good) {
        d->has_failed = d->has_failed && d->is_lost; /* what an op met while recording shows again without */
        return false;
    }
    r = take_place(s);
    r->key = s->key;
    r->exec = exec;
    r->n_bytes = d->staging.used;
    r->inputs = s->inputs;
    r->n_layouts = s->n_layouts;
    memcpy(r->layouts, s->layouts, sizeof(r->layouts));
    launch(d, r);
    return true;
}

void phx_cuda_replay(struct cuda_device *d, struct cuda_record *r)
{
    d->staging.used = r->n_bytes;
    phx_cuda_fill_inputs(d, &r->inputs);
    for (int32_t i = 0; i < r->n_layouts; i++)
        phx_cuda_fill_units(d, &r->layouts[i], d->step->in.spans);
    launch(d, r);
}

void phx_cuda_forget_records(struct cuda_step *s)
{
    for (int32_t i = 0; i < PHX_CUDA_RECORDS_MAX; i++) {
        if (s->records[i].exec != NULL)
            (void)try(cudaGraphExecDestroy(s->records[i].exec));
        s->records[i].exec = NULL;
    }
    s->is_stale = false;
}
