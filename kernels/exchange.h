/* SPDX-License-Identifier: Apache-2.0
 * Second door of kernels/: how the devices of several processes exchange tensors without their hosts (NCCL, and
 * memory that peers write to).
 *
 * A communicator belongs to a backend and to its thread.  sum, send, recv and gather queue behind the backend's ops and
 * return at once; whoever wants to know waits with phx_exchange_is_done(), polls for trouble meanwhile, and aborts
 * when a peer is gone: what is queued then ends with garbage.  Nothing here waits. */
#ifndef PHX_KERNELS_EXCHANGE_H
#define PHX_KERNELS_EXCHANGE_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PHX_EXCHANGE_ID_BYTES = 128, PHX_EXCHANGE_CARD_BYTES = 128, PHX_EXCHANGE_PEERS_MAX = 8 };

struct phx_exchange;

struct phx_exchange_options {
    unsigned char id[PHX_EXCHANGE_ID_BYTES]; /* of phx_exchange_make_id() on one of the ranks */
    int32_t       rank, n_ranks;
    size_t        max_bytes; /* of the largest tensor of a sum or gather; its scratch is reserved */
    bool          is_fast;   /* sums in the library's order; else in the fixed order of comm.h */
    bool          is_bare;   /* without the library: nothing goes before phx_exchange_accept(), and send and recv never */
    int32_t       wait_ms;   /* of an exchange over peer memory, should nobody abort it; 0: 30 s */
};

/* 0 with the version (22809 for 2.28.9); -1 with the reason when the backend has no such library here. */
int phx_exchange_probe(struct phx_backend *b, int32_t *version, char *why, size_t why_size);
/* A new id, for all ranks of one communicator.  0, or -1. */
int phx_exchange_make_id(struct phx_backend *b, unsigned char id[PHX_EXCHANGE_ID_BYTES], char *why, size_t why_size);

/* Starts to meet the other ranks (a bare one has none to meet): poll until it is not busy any more.  NULL with the reason. */
struct phx_exchange *phx_exchange_open(struct phx_backend *b, const struct phx_exchange_options *options, char *why,
                                       size_t why_size);
/* Everything queued must be done or aborted.  NULL is allowed. */
void phx_exchange_close(struct phx_exchange *x);
/* Gives up what is queued; afterwards only close is allowed. */
void phx_exchange_abort(struct phx_exchange *x);

enum phx_exchange_state { PHX_EXCHANGE_OK = 0, PHX_EXCHANGE_BUSY, PHX_EXCHANGE_FAILED };
/* *why (failed only) is valid until the next call. */
enum phx_exchange_state phx_exchange_poll(struct phx_exchange *x, const char **why);
/* The backend's queue is empty: OK, BUSY, or FAILED (phx_backend_sync tells why). */
enum phx_exchange_state phx_exchange_is_done(struct phx_backend *b);

/* Memory of this rank that the devices of the others write to, for at most PHX_EXCHANGE_PEERS_MAX ranks of one host: the hosts carry the cards, every
 * rank accepts those of all ranks (by rank, its own included), and when all have, small tensors go that way: sums in
 * the fixed order.  0, or -1 with the reason; when any rank fails all retract, after which the library goes on. */
int  phx_exchange_offer(struct phx_exchange *x, unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size);
int  phx_exchange_accept(struct phx_exchange *x, const unsigned char *cards, char *why, size_t why_size);
void phx_exchange_retract(struct phx_exchange *x);

/* Dense float32 device tensors.  0, or -1: poll tells why.
 * sum: x becomes the sum over the ranks.  gather: part [T, n_i] of rank i lands in out[:, first_i : first_i + n_i]
 * of rank 0 (out is ignored elsewhere); first, n: host arrays of n_ranks, borrowed for the call. */
int phx_exchange_sum(struct phx_exchange *x, struct phx_tensor t);
/* sum of args->y, then phx_add_norm(), in one.  1: not for these here, and nothing was done; the same answer on all ranks, so
 * ops that are traced apart stay one here. */
int phx_exchange_sum_add_norm(struct phx_exchange *x, const struct phx_add_norm_args *args);
/* Whether sums of that many bytes may be part of a step that is recorded (phx_step_begin): their launches wait by themselves. */
bool phx_exchange_can_record(struct phx_exchange *x, size_t size_bytes);
int phx_exchange_send(struct phx_exchange *x, struct phx_tensor t, int32_t to);
int phx_exchange_recv(struct phx_exchange *x, struct phx_tensor t, int32_t from);
int phx_exchange_gather(struct phx_exchange *x, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                        const int32_t *n);

#ifdef __cplusplus
}
#endif
#endif
