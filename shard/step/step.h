/* SPDX-License-Identifier: Apache-2.0
 * The loop of a rank: plans from the head, the model's part of a step, samples back to the head.
 *
 * Rank 0 (the head) owns the scheduler.  Each plan is encoded, broadcast, and run by every rank from its
 * bytes, the head's own included, so that there is one path.  tp 0 of the last stage samples. */
#ifndef PHX_SHARD_STEP_H
#define PHX_SHARD_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/base/machine.h"
#include "rpc/rpc.h"
#include "shard/comm/comm.h"
#include "shard/model/model.h"
#include "shard/sched/sched.h"

/* Answers that one message to the daemon takes before the head wants to run (half of what fits). */
enum { PHX_HEAD_FULL_TOKENS = 8192 };
/* Rows that a decoding step is filled up to when guessing is on: one tile of the processor's. */
enum { PHX_STEP_DRAFT_ROWS = 16 };

/* What phalanx-rank was started with. */
struct phx_step_options {
    const char    *model_dir;
    const char    *model_key; /* PEM public key its manifest must be signed with; "" = none is asked */
    int32_t        tp, pp;
    const char    *backend, *isa;
    enum phx_compute compute;
    bool             is_fast;    /* class fast: cuda only */
    bool             is_eager;   /* no graphs: cuda only */
    bool             is_serial;  /* no launches that overlap: cuda only */
    const char      *devices;    /* indices of the GPUs to use, "0,1"; NULL or "" = all visible, in turn */
    const char      *transport;  /* of activations between GPUs: "auto", "nccl", "peer" or "host"; NULL = auto */
    const char      *interface, *ib_devices; /* see shard/comm/nccl.h; NULL or "" = the library's choice */
    bool             is_int8; /* dense weights are quantised */
    int32_t        n_threads;       /* 0 = the cores of this rank's share of its machine */
    int32_t        share, n_shares; /* this replica is the share-th of n_shares on its machines */
    enum phx_dtype kv_dtype;
    int32_t        kv_blocks;       /* 0 = from kv_memory or the free memory */
    int64_t        kv_memory_bytes; /* per rank; 0 = automatic */
    int32_t        block_tokens;
    int32_t        max_seqs, max_rows, max_context; /* max_context 0 = the model's, bounded */
    bool           has_prefix_cache;
    int32_t        draft_rows; /* rows up to which a decoding step is filled with guesses; 0 = none */
    /* the daemon's address and how to join, or NULL with a script */
    const char    *join, *join_token_file, *tls_ca_file, *tls_cert_file, *tls_key_file, *replica_id;
    const char    *script_file;
    bool           is_probe; /* only says whether the backend can be used */
};

/* Where the options leave max_seqs or max_rows at 0, what the backend computes well with: 16 sequences and steps of 512
 * rows on a processor, 256 and 2048 on a GPU, whose time for a step hardly depends on its rows up to some hundreds. */
void phx_step_set_batch(struct phx_step_options *o);
/* Rows of one step whose logits are wanted, at most. */
int32_t phx_step_max_results(const struct phx_step_options *o);

/* Everything a rank has open. */
struct phx_step {
    const struct phx_step_options *options;
    struct phx_checkpoint         *checkpoint;
    struct phx_provenance         *provenance;
    struct phx_model_config        config;
    struct phx_part               *parts; /* [tp * pp] */
    struct phx_backend            *backend;
    struct phx_comm               *comm;
    struct phx_model              *model;
    struct phx_stage              *stage;
    int32_t                        n_blocks, max_context;
    int32_t                        rank;
    int32_t                       *host_ranks; /* that share this rank's machine, itself included */
    int32_t                        n_host_ranks;
    struct phx_memory_room         room;       /* of this machine, before anything was loaded */
    struct phx_device_facts        device;     /* before anything was loaded; of a backend with memory of its own */
    int32_t                        n_on_device; /* ranks of all replicas that use it */
    struct phx_placement           placement;
};

/* The backend of one of the ranks of a machine: `place` counts over all replicas; n_threads where threads compute.  PHX_E_INVALID names an option that it would not honour, PHX_E_UNSUPPORTED what is missing here. */
int phx_step_open_backend(const struct phx_step_options *o, int32_t place, int32_t n_threads,
                          bool is_pinned, struct phx_backend **out, struct phx_err *err) PHX_CHECKED;

/* Opens checkpoint, config, partition, comm and backend; phx_step_load() then the weights (it may take
 * long; progress is called meanwhile) and agrees with all ranks that everybody could. */
int  phx_step_open(const struct phx_step_options *options, struct phx_step *s, struct phx_err *err)
    PHX_CHECKED;
int  phx_step_load(struct phx_step *s, void (*progress)(void *ctx, uint64_t done, uint64_t total),
                   void *ctx, struct phx_err *err) PHX_CHECKED;
void phx_step_close(struct phx_step *s);

/* What a rank that is open, by phx_step_open or otherwise, needs to run plans, and its end.  Every field of *s but stage is set. */
int  phx_step_start_stage(struct phx_step *s, struct phx_err *err) PHX_CHECKED;
void phx_step_end_stage(struct phx_step *s);
/* Of the messages about a step, at most: what the ranks' comm must carry. */
void phx_step_message_bytes(const struct phx_step_options *o, int32_t max_context, size_t *plan, size_t *result);

/* Followers: runs plans until the head says stop (0) or a peer is gone. */
int phx_step_follow(struct phx_step *s, struct phx_err *err) PHX_CHECKED;

/* ---- the head ------------------------------------------------------------------------------- */

struct phx_head;

int  phx_head_create(struct phx_step *s, struct phx_head **out, struct phx_err *err) PHX_CHECKED;
void phx_head_destroy(struct phx_head *h);
/* Refusals come back as a token with finish ERROR at the next run. */
void phx_head_submit(struct phx_head *h, const struct phx_submit *submit);
/* Refuses without asking the scheduler.  text is borrowed until the next run is over (a constant). */
void phx_head_refuse(struct phx_head *h, uint64_t seq_id, int code, const char *text);
void phx_head_cancel(struct phx_head *h, uint64_t seq_id);
/* Many answers wait to be sent: run before more messages are taken. */
bool phx_head_is_full(const struct phx_head *h);
bool phx_head_has_work(const struct phx_head *h);
/* Starts plans as far as the pipeline has room and completes the oldest.  *out is borrowed until the next
 * call returns; n_tokens 0 is possible.  PHX_E_PEER: leave. */
int phx_head_run(struct phx_head *h, struct phx_link_step *out, struct phx_err *err) PHX_CHECKED;
/* Waits for the open plans (a few seconds at most) and tells the followers to leave. */
void phx_head_stop(struct phx_head *h);

/* Serves the daemon over RankLink until it says stop or is gone; script: runs a file of requests. */
int phx_step_serve(struct phx_step *s, struct phx_err *err) PHX_CHECKED;
int phx_step_script(struct phx_step *s, struct phx_err *err) PHX_CHECKED;

#endif
