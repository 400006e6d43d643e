/* SPDX-License-Identifier: Apache-2.0
 * Activations on their way between the memory of a rank's device and its comm.  Private to shard/model.
 *
 * Three ways, chosen once: the backend's memory is the host's and the comm works on it in place; the comm
 * carries device memory itself (phx_comm_is_device); or everything passes through page-locked host memory
 * ("host staging"), which needs nothing but a comm and lets several ranks share one device. */
#ifndef PHX_SHARD_MODEL_TRANSIT_H
#define PHX_SHARD_MODEL_TRANSIT_H

#include <stdbool.h>

#include "kernels/backend.h"
#include "shard/comm/comm.h"

struct phx_transit {
    struct phx_backend *backend; /* borrowed */
    struct phx_comm    *comm;    /* borrowed */
    float              *staging; /* page-locked; NULL when nothing is staged */
    size_t              staging_bytes;
    bool                is_host; /* the backend's memory is */
};

/* staging_bytes: of the largest tensor that is sent, received, summed or gathered.  PHX_E_NOMEM. */
int  phx_transit_init(struct phx_transit *t, struct phx_backend *backend, struct phx_comm *comm,
                      size_t staging_bytes, struct phx_err *err) PHX_CHECKED;
void phx_transit_fini(struct phx_transit *t);

/* True when sums are queued behind the ops that make their operands, so that nobody need wait before. */
bool phx_transit_is_queued(const struct phx_transit *t);

/* All tensors are dense device tensors whose values are there (after a sync, or queued).  Every rank of the
 * group calls, also after a failure: what is sent then is garbage and dropped by all. */
int phx_transit_sum(const struct phx_transit *t, struct phx_tensor x) PHX_CHECKED;
/* Of args->y, and what phx_add_norm() does with it.  1: not in one here, and nothing was done. */
int phx_transit_sum_add_norm(const struct phx_transit *t, const struct phx_add_norm_args *args) PHX_CHECKED;
/* failure: 0, or the code that the next stage gets in place of the activation. */
int phx_transit_send(const struct phx_transit *t, struct phx_tensor x, int failure) PHX_CHECKED;
int phx_transit_recv(const struct phx_transit *t, struct phx_tensor x, int *failure) PHX_CHECKED;
/* The columns of every rank of the group to `out` (host memory, tp 0).  all: device memory of the whole rows on
 * tp 0, used when the comm carries device memory. */
int phx_transit_gather(const struct phx_transit *t, struct phx_tensor out, struct phx_tensor all,
                       struct phx_tensor part, const int32_t *first, const int32_t *n) PHX_CHECKED;

#endif
