/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the step in progress, whose arrays go to the device once, and the steps that were recorded.
 *
 * A step whose numbers have been seen before is captured into a graph while its ops are called, and from then on
 * replayed: the arrays of the new step are written where the recorded one had its own, and one copy and one launch do
 * the rest.  What follows from positions (grids, splits, strides) is chosen for a power of two of keys, so that a
 * graph serves many steps; no bit depends on that (attention.h). */
#ifndef PHX_KERNELS_CUDA_STEP_H
#define PHX_KERNELS_CUDA_STEP_H

#include "kernels/cuda/device.h"
#include "kernels/cuda/plan_attention.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_LAYOUTS_MAX = 8,       /* kinds of attention of a model */
    CUDA_RECORD_ROWS_MAX = 256, /* of a step worth recording: launches of a larger one hide behind its work */
    CUDA_KEYS_MIN = 512         /* the smallest room */
};

/* Graphs that are kept; the one not used for longest goes first. */
#ifndef PHX_CUDA_RECORDS_MAX
#define PHX_CUDA_RECORDS_MAX 96
#endif

/* The units of one kind of attention in the ring and on the device. */
struct cuda_attention_layout {
    struct cuda_attention_plan        plan;
    size_t                            at[2]; /* narrow, wide */
    const struct cuda_attention_unit *units[2];
};

/* Where the inputs of a step lie in the ring. */
struct cuda_inputs {
    size_t            ids, picked, words;
    struct cuda_spans spans;
};

/* Steps of equal numbers. */
struct cuda_step_key {
    const void *model;
    uint64_t    rows_hash; /* of n_rows of every sequence */
    int64_t     keys_total;
    int32_t     keys_max, n_rows, n_picked, n_seqs, table_stride, has_ids;
};

struct cuda_record {
    struct cuda_step_key         key;
    cudaGraphExec_t              exec; /* NULL: the place is free */
    uint64_t                     used_at;
    size_t                       n_bytes; /* of the ring */
    struct cuda_inputs           inputs;
    struct cuda_attention_layout layouts[CUDA_LAYOUTS_MAX];
    int32_t                      n_layouts;
};

struct cuda_step {
    bool                         is_open, is_recording;
    bool                         is_unfit;  /* the recording has met what cannot be replayed */
    bool                         is_stale;  /* memory that graphs use has been given back */
    bool                         is_off;    /* not wanted, or has failed too often */
    int32_t                      n_failures;
    struct phx_step_inputs       in;
    struct cuda_step_key         key;       /* of the recording */
    struct cuda_reach            reach;     /* room of the recording */
    struct cuda_inputs           inputs;
    struct cuda_attention_layout layouts[CUDA_LAYOUTS_MAX];
    int32_t                      n_layouts;
    struct cuda_step_key         seen[PHX_CUDA_RECORDS_MAX];
    int32_t                      next_seen;
    uint64_t                     now;
    struct cuda_record           records[PHX_CUDA_RECORDS_MAX];
};

/* Takes memory for d->step; false when short (error kept).  is_eager: no step is recorded. */
bool phx_cuda_step_open(struct cuda_device *d, bool is_eager);
void phx_cuda_step_close(struct cuda_device *d);

/* Entries of struct phx_ops. */
bool phx_cuda_step_begin(void *device, const struct phx_step_inputs *in);
bool phx_cuda_step_end(void *device);

/* The same array on the device, when it is one of the step's inputs; else NULL. */
const void *phx_cuda_step_array(const struct cuda_device *d, const void *host, size_t size_bytes);
/* The spans on the device, when they are the step's. */
const struct cuda_spans *phx_cuda_step_spans(const struct cuda_device *d, const struct phx_spans *spans);
/* What attention of that shape is launched on; made once for all layers of a step.  NULL: no room (error kept). */
const struct cuda_attention_layout *phx_cuda_lay_attention(struct cuda_device *d, const struct cuda_attention_shape *shape,
                                                           const struct phx_spans *spans);

/* Writes the step's inputs, or the units for its spans, to their place in the ring's host memory. */
void phx_cuda_fill_inputs(struct cuda_device *d, const struct cuda_inputs *p);
void phx_cuda_fill_units(struct cuda_device *d, const struct cuda_attention_layout *l, const struct phx_spans *spans);

/* ---- record.c -------------------------------------------------------------------------------- */

/* The key of such a step; reach becomes its room. */
struct cuda_step_key phx_cuda_step_key(const struct phx_step_inputs *in, struct cuda_reach *reach);
/* The record of that key, or NULL. */
struct cuda_record *phx_cuda_find_record(struct cuda_step *s, const struct cuda_step_key *key);
/* True from the second time on; recording what comes once would not pay. */
bool phx_cuda_was_seen(struct cuda_step *s, const struct cuda_step_key *key);
bool phx_cuda_start_recording(struct cuda_device *d);
/* The graph of what was recorded is kept and launched.  False: nothing has run. */
bool phx_cuda_end_recording(struct cuda_device *d);
/* Launches the record on the inputs of the step, which must fit its key.  An error is kept. */
void phx_cuda_replay(struct cuda_device *d, struct cuda_record *r);
void phx_cuda_forget_records(struct cuda_step *s);

#ifdef __cplusplus
}
#endif
#endif
