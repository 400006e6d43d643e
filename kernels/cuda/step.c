/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/step.h"

#include <string.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/overlap.h"
#include "kernels/memory.h"

enum { ARRAY_ALIGN = 16, FAILURES_MAX = 3 };

bool phx_cuda_step_open(struct cuda_device *d, bool is_eager)
{
    d->step = phx_memory_alloc(sizeof(*d->step));
    if (d->step == NULL)
        return phx_cuda_fail(d, "out of host memory");
    d->step->is_off = is_eager;
    return true;
}

void phx_cuda_step_close(struct cuda_device *d)
{
    if (d->step != NULL)
        phx_cuda_forget_records(d->step);
    phx_memory_free(d->step);
    d->step = NULL;
}

/* Room in the ring for all inputs, whose spans have been measured; false when there is none (error kept). */
static bool place_inputs(struct cuda_device *d)
{
    struct cuda_step   *s = d->step;
    struct cuda_inputs *p = &s->inputs;
    size_t              n_ids = s->in.ids != NULL ? (size_t)s->in.n_rows : 0, at, bytes;

    p->ids = 0;
    p->picked = cuda_round_up(n_ids * sizeof(int32_t), ARRAY_ALIGN);
    p->words = p->picked + cuda_round_up((size_t)s->in.n_picked * sizeof(int32_t), ARRAY_ALIGN);
    bytes = p->words + phx_cuda_span_words(&p->spans) * sizeof(int32_t);
    at = phx_cuda_stage_reserve(d, bytes);
    if (at == SIZE_MAX)
        return false;
    p->ids += at;
    p->picked += at;
    p->words += at;
    phx_cuda_point_spans(&p->spans, (const int32_t *)(const void *)(d->staging.device + p->words), s->in.spans->table != NULL);
    return true;
}

void phx_cuda_fill_inputs(struct cuda_device *d, const struct cuda_inputs *p)
{
    const struct phx_step_inputs *in = &d->step->in;
    unsigned char                *host = d->staging.host;

    if (in->ids != NULL)
        memcpy(host + p->ids, in->ids, (size_t)in->n_rows * sizeof(int32_t));
    if (in->n_picked > 0)
        memcpy(host + p->picked, in->picked, (size_t)in->n_picked * sizeof(int32_t));
    phx_cuda_fill_spans((int32_t *)(void *)(host + p->words), &p->spans, in->spans);
}

/* Steps of many rows, and those that come after others without a sync between, are not recorded. */
static bool can_record(const struct cuda_device *d)
{
    const struct cuda_step *s = d->step;

    return s->in.is_recordable && !s->is_off && s->in.n_rows <= CUDA_RECORD_ROWS_MAX && d->staging.used == 0 &&
           !d->has_failed;
}

/* Puts the inputs where ops find them; a recording's stay on the host until it is launched. */
static void send_inputs(struct cuda_device *d, int32_t keys_max)
{
    struct cuda_step *s = d->step;

    s->n_layouts = 0;
    s->inputs.spans = phx_cuda_measure_spans(s->in.spans, keys_max);
    if (!place_inputs(d))
        return;
    phx_cuda_fill_inputs(d, &s->inputs);
    if (!s->is_recording)
        (void)phx_cuda_stage_send(d, s->inputs.ids, d->staging.used - s->inputs.ids); /* keeps its own error */
}

bool phx_cuda_step_begin(void *device, const struct phx_step_inputs *in)
{
    struct cuda_device *d = device;
    struct cuda_step   *s = d->step;
    struct cuda_record *r = NULL;

    s->in = *in;
    s->is_open = true;
    s->is_recording = s->is_unfit = false;
    if (s->is_stale)
        phx_cuda_forget_records(s);
    if (can_record(d)) {
        s->key = phx_cuda_step_key(in, &s->reach);
        r = phx_cuda_find_record(s, &s->key);
        if (r == NULL && phx_cuda_was_seen(s, &s->key))
            s->is_recording = phx_cuda_start_recording(d);
    }
    if (r != NULL)
        phx_cuda_replay(d, r);
    else
        send_inputs(d, s->is_recording ? s->reach.keys_max : phx_cuda_most_keys(in->spans));
    return r != NULL;
}

/* Recordings that fail: at first launches no longer overlap, then nothing is recorded. */
static void count_failure(struct cuda_device *d)
{
    struct cuda_step *s = d->step;

    if (++s->n_failures < FAILURES_MAX)
        return;
    s->n_failures = 0;
    if (phx_cuda_launches_overlap(d->stream))
        phx_cuda_overlap_stop(d, "one by one: recordings of others failed");
    else
        s->is_off = true;
}

bool phx_cuda_step_end(void *device)
{
    struct cuda_device *d = device;
    struct cuda_step   *s = d->step;

    if (!s->is_recording || phx_cuda_end_recording(d)) {
        s->is_open = s->is_recording = false;
        return false;
    }
    s->is_recording = false;
    count_failure(d);
    s->is_open = !d->is_lost;
    if (d->is_lost)
        return false;
    phx_cuda_stage_restart(d); /* nothing of it was sent */
    send_inputs(d, phx_cuda_most_keys(s->in.spans));
    return true;
}

const void *phx_cuda_step_array(const struct cuda_device *d, const void *host, size_t size_bytes)
{
    const struct cuda_step *s = d->step;

    if (!s->is_open)
        return NULL;
    if (host == s->in.ids && size_bytes == (size_t)s->in.n_rows * sizeof(int32_t))
        return d->staging.device + s->inputs.ids;
    if (host == s->in.picked && size_bytes == (size_t)s->in.n_picked * sizeof(int32_t))
        return d->staging.device + s->inputs.picked;
    return NULL;
}

const struct cuda_spans *phx_cuda_step_spans(const struct cuda_device *d, const struct phx_spans *spans)
{
    return d->step->is_open && spans == d->step->in.spans ? &d->step->inputs.spans : NULL;
}

/* ---- attention ------------------------------------------------------------------------------- */

void phx_cuda_fill_units(struct cuda_device *d, const struct cuda_attention_layout *l, const struct phx_spans *spans)
{
    for (int wide = 0; wide < 2; wide++)
        if (l->plan.share[wide].n_units > 0)
            phx_cuda_list_units(&l->plan, wide, spans, (struct cuda_attention_unit *)(void *)(d->staging.host + l->at[wide]));
}

static bool place_units(struct cuda_device *d, struct cuda_attention_layout *l)
{
    for (int wide = 0; wide < 2; wide++) {
        size_t bytes = (size_t)l->plan.share[wide].n_units * sizeof(struct cuda_attention_unit);

        l->at[wide] = phx_cuda_stage_reserve(d, bytes);
        if (l->at[wide] == SIZE_MAX)
            return false;
        l->units[wide] = (const struct cuda_attention_unit *)(const void *)(d->staging.device + l->at[wide]);
    }
    return true;
}

static const struct cuda_attention_layout *find_layout(const struct cuda_step *s, const struct cuda_attention_shape *shape)
{
    for (int32_t i = 0; i < s->n_layouts; i++)
        if (memcmp(&s->layouts[i].plan.shape, shape, sizeof(*shape)) == 0)
            return &s->layouts[i];
    return NULL;
}

const struct cuda_attention_layout *phx_cuda_lay_attention(struct cuda_device *d, const struct cuda_attention_shape *shape,
                                                           const struct phx_spans *spans)
{
    struct cuda_step                   *s = d->step;
    bool                                is_own = phx_cuda_step_spans(d, spans) != NULL;
    const struct cuda_attention_layout *known = is_own ? find_layout(s, shape) : NULL;
    struct cuda_attention_layout       *l;
    size_t                              from = d->staging.used;

    if (known != NULL)
        return known;
    if (!is_own || s->n_layouts == CUDA_LAYOUTS_MAX) { /* not kept for other layers, so it cannot be made anew either */
        s->is_unfit = true;
        s->n_layouts = 0;
    }
    l = &s->layouts[s->n_layouts];
    phx_cuda_plan_attention(shape, d->shared_max, d->sm_count, spans, s->is_recording ? &s->reach : NULL, &l->plan);
    if (!place_units(d, l))
        return NULL;
    phx_cuda_fill_units(d, l, spans);
    if (!s->is_recording && !phx_cuda_stage_send(d, from, d->staging.used - from))
        return NULL;
    s->n_layouts += is_own;
    return l;
}
