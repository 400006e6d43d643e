/* SPDX-License-Identifier: Apache-2.0
 * How the ranks of a replica talk.  One implementation per world: self (1 rank), local (threads of one
 * process, tests), mpi (shared-memory windows inside a host, MPI messages between hosts).
 *
 * Every rank of a group must enter every collective of a step, also when its backend has failed (the data
 * is garbage then and the step is dropped by all): phx_comm_* never skips.  Each step ends with
 * phx_comm_status(), which makes every rank agree on whether the step stands.
 *
 * Nobody spins while idle: waits spin briefly, then sleep.  A peer that is gone makes the calls return
 * PHX_E_PEER; the rank then exits. */
#ifndef PHX_SHARD_COMM_H
#define PHX_SHARD_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "rpc/base/err.h"

struct phx_comm; /* one rank's view of the world: rank = pp * tp_size + tp */

struct phx_comm_shape {
    int32_t rank, n_ranks;
    int32_t tp, tp_size;
    int32_t pp, pp_size;
};

struct phx_comm_limits {
    size_t max_activation_bytes; /* largest tensor of a sum, send or gather */
    size_t max_plan_bytes;       /* largest broadcast */
    size_t max_result_bytes;     /* largest message to the head */
    int32_t ranks_per_host;      /* mpi, for tests: so many ranks count as one host; 0 = as found */
};

int phx_comm_self(const struct phx_comm_limits *limits, struct phx_comm **out, struct phx_err *err)
    PHX_CHECKED;
/* n = tp * pp ranks of one process; fills out[n].  Each is used by one thread. */
int phx_comm_local(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                   struct phx_err *err) PHX_CHECKED;
/* MPI_COMM_WORLD, already initialised, MPI_THREAD_SERIALIZED or better when the ranks span hosts (one
 * thread then carries the messages between them and sleeps when there are none); its size must be
 * tp * pp.  Collective, and so is closing it, except after PHX_E_PEER: then nothing waits for others. */
int phx_comm_mpi(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                 struct phx_err *err) PHX_CHECKED;
void phx_comm_close(struct phx_comm *c);

const struct phx_comm_shape *phx_comm_shape(const struct phx_comm *c);
/* The ranks that share this rank's memory, itself included, ascending: fills ranks[n_ranks], answers how
 * many.  Of one process: all. */
int32_t phx_comm_host(const struct phx_comm *c, int32_t *ranks);

/* True when sum, send, recv and gather work on the memory of a device and queue behind its work (nccl.h); else
 * they work on host memory and are complete when they return. */
bool phx_comm_is_device(const struct phx_comm *c);
/* Until what the calls above queued is done; at once when they do not queue.  PHX_E_PEER: a rank is gone or did not
 * come in time; what was queued is given up. */
int phx_comm_wait(struct phx_comm *c) PHX_CHECKED;

/* x [T, D] F32 becomes the sum over the tensor group, in float32 by recursive doubling
 * (rank r with r^1, then r^2, ...) when tp is a power of two, in rank order otherwise; every rank gets
 * the same bits. */
int phx_comm_sum(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;

/* The sum of args->y over the group, and phx_add_norm() with it, where the devices have these in one: 0.  1: they have not, and
 * nothing was done; every rank of the group gets the same answer. */
int phx_comm_sum_add_norm(struct phx_comm *c, const struct phx_add_norm_args *args) PHX_CHECKED;
/* Whether sums of that many bytes may be part of a recorded step (phx_step_begin).  A step that is replayed calls no
 * phx_comm_sum(): whoever replays counts what its sums move. */
bool phx_comm_can_record(const struct phx_comm *c, size_t size_bytes);
void phx_comm_count_moved(struct phx_comm *c, size_t size_bytes);

/* The whole activation to / from the same tp of the next / previous stage.  x [T, D].  recv blocks. */
int phx_comm_send(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;
int phx_comm_recv(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;

/* One code from host to host on the same way, whatever memory the comm carries. */
int phx_comm_tell(struct phx_comm *c, int32_t code) PHX_CHECKED;
int phx_comm_hear(struct phx_comm *c, int32_t *code) PHX_CHECKED;

/* Columns from every rank of the tensor group to tp 0: part [T, n_i] of rank i lands in
 * out[:, first_i : first_i + n_i] of tp 0 (out is ignored elsewhere). first, n: arrays of tp_size. */
int phx_comm_gather(struct phx_comm *c, struct phx_tensor out, struct phx_tensor part,
                    const int32_t *first, const int32_t *n) PHX_CHECKED;

/* The step plan, from rank 0 to all.  data holds *size_bytes on rank 0; elsewhere it receives at most
 * capacity bytes.  Followers sleep here while the cluster is idle (no timeout). */
int phx_comm_bcast(struct phx_comm *c, void *data, size_t capacity, size_t *size_bytes) PHX_CHECKED;

/* Sampled tokens from tp 0 of the last stage to rank 0 (a no-op pairing when they are the same rank).
 * Results are queued in order, several steps may be in flight (pipeline).
 * recv: timeout_ms < 0 waits for ever; PHX_E_TIMEOUT when nothing came. */
int phx_comm_result_send(struct phx_comm *c, const void *data, size_t size_bytes) PHX_CHECKED;
int phx_comm_result_recv(struct phx_comm *c, void *data, size_t capacity, size_t *size_bytes,
                         int32_t timeout_ms) PHX_CHECKED;

/* Collective over the tensor group of this stage: the worst (lowest) code of all. */
int phx_comm_status(struct phx_comm *c, int32_t mine, int32_t *worst) PHX_CHECKED;

/* Fixed-size facts from all ranks to rank 0 (start-up only).  out: n_ranks * size_bytes on rank 0. */
int phx_comm_collect(struct phx_comm *c, const void *mine, size_t size_bytes, void *out) PHX_CHECKED;

/* Progress for hang detection: phx_comm_* calls count up a per-rank counter; rank 0 reads the sum over its
 * host.  A rank that hangs stops the others within a few calls; a stage that computes for long while the
 * next one waits for it still counts.  Thread-safe. */
uint64_t phx_comm_progress(const struct phx_comm *c);
/* Bytes this rank has moved to others since the start. */
uint64_t phx_comm_bytes(const struct phx_comm *c);

#endif
