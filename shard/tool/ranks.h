/* SPDX-License-Identifier: Apache-2.0
 * Runs a function on every rank of a model, outside the daemon: for `logits`, the engine benchmark and
 * tests.  One rank runs in the caller; more run as threads of this process or as an MPI job, which is
 * this program started once more under mpirun. */
#ifndef PHX_SHARD_TOOL_RANKS_H
#define PHX_SHARD_TOOL_RANKS_H

#include <stdbool.h>
#include <stdint.h>

#include "shard/comm/nccl.h"
#include "shard/model/model.h"

enum phx_ranks_comm { PHX_RANKS_MPI = 1, PHX_RANKS_LOCAL };

/* Opens a checkpoint that is in no folder. */
struct phx_ranks_source {
    int (*open)(void *ctx, struct phx_checkpoint **checkpoint, struct phx_model_config *config, struct phx_err *err);
    void *ctx;
};

struct phx_ranks_options {
    const char         *dir;
    struct phx_ranks_source source; /* instead of dir when open is set */
    int32_t             tp, pp;
    enum phx_ranks_comm comm;      /* ignored for one rank */
    bool                is_in_mpi; /* this process is one rank of the MPI job */
    const char         *backend, *isa;
    enum phx_compute    compute;
    bool                is_fast;   /* class fast: cuda only */
    bool                is_eager;  /* no graphs: cuda only */
    bool                is_serial; /* no launches that overlap: cuda only */
    enum phx_transport  transport; /* of activations between GPUs */
    bool                is_int8;   /* dense weights are quantised */
    int32_t             n_threads; /* per rank; 0 = the allowed cores shared out */
    enum phx_dtype      kv_dtype;
    int32_t             n_blocks, block_tokens;
    int32_t             max_rows, max_seqs, max_logits, max_context;
    size_t              plan_bytes, result_bytes; /* of messages about a step at most; 0 = 64 KiB */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* rank 0's; may be NULL */
    void               *progress_ctx;
};

/* What a rank's body sees; borrowed until it returns. */
struct phx_rank {
    const struct phx_model_config *config;
    const struct phx_part         *part, *parts; /* its own; all */
    const struct phx_ranks_options *options;
    struct phx_backend            *backend;
    struct phx_comm               *comm;
    struct phx_model              *model;
    double                         load_seconds;
    bool                           has_logits; /* tp 0 of the last stage */
};

/* 0 when code is 0 on every rank; its own code, or that another rank failed.  All ranks call it. */
int phx_rank_agree(struct phx_comm *comm, int code, struct phx_err *err) PHX_CHECKED;

/* Runs on each rank at once.  A rank that leaves early while others step makes theirs fail with PHX_E_PEER, so
 * a body keeps its failure to the end, or agrees on it first. */
typedef int (*phx_rank_fn)(struct phx_rank *rank, void *ctx, struct phx_err *err);

/* Opens the checkpoint and every rank that lives in this process, runs body, closes.  The first failure
 * of a rank of this process is returned; when a rank cannot load, none runs the body. */
int phx_ranks_run(const struct phx_ranks_options *options, phx_rank_fn body, void *ctx,
                  struct phx_err *err) PHX_CHECKED;

/* Becomes `mpirun ... this program, args`; returns only on failure.  args: NULL-terminated, without the
 * program's name; PHX_RANKS_MPI_FLAG is added, by which the ranks know where they are. */
int phx_ranks_exec_mpi(int32_t n_ranks, char *const *args, struct phx_err *err) PHX_CHECKED;
#define PHX_RANKS_MPI_FLAG "--in-mpi"

/* Between ranks.c and how this build starts ranks (ranks_mpi.c; ranks_no_mpi.c refuses). */
int  phx_ranks_join_mpi(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                        struct phx_err *err) PHX_CHECKED;
void phx_ranks_leave_mpi(int code);

/* The command line of these options (--tp, --pp, --comm, --backend, --isa, --compute, --class, --transport, --threads, --kv-dtype), a
 * child for argp; its input is a struct phx_ranks_options with the defaults filled in. */
struct argp;
extern const struct argp phx_ranks_argp;
void phx_ranks_defaults(struct phx_ranks_options *options);

#endif
