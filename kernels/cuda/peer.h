/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: sums and gathers of ranks that write into each other's device memory (NVLink, PCIe, or the
 * same device).
 *
 * Every rank has a buffer that the others map: flags, and slots [2][n_ranks][CUDA_PEER_BYTES].  Turn s of the group: a rank
 * writes its part into slot [s % 2][rank] of each peer, raises its flag there to s, waits until all flags of its own
 * buffer are at s, and adds.  Flags are of blocks: block b of a rank waits for the blocks b of its peers and for nothing
 * else, so that one block of each rank on a device is enough.  Two slots do: who is in turn s has seen every peer in
 * turn s - 1, which then had finished s - 2.  The number of the turn is in device memory, so equal launches have
 * equal arguments. */
#ifndef PHX_KERNELS_CUDA_PEER_H
#define PHX_KERNELS_CUDA_PEER_H

#include "kernels/cuda/device.h"
#include "kernels/cuda/pick_peer.h"
#include "kernels/cuda/vector.h"
#include "kernels/exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_PEER_FLOATS = CUDA_PEER_BYTES / (int)sizeof(float) };

/* The front of a rank's buffer.  Slots follow behind CUDA_PEER_SLOTS_AT bytes. */
struct cuda_peer_state {
    uint64_t turn;     /* turns that are done */
    uint32_t ticket;   /* blocks of this turn that have begun: blocks take their numbers as they come */
    uint32_t n_done;
    uint32_t is_lost;  /* a peer did not come: nothing is sent or added any more */
    uint32_t unused[11];
    uint64_t flags[CUDA_PEERS_MAX][CUDA_PEER_BLOCKS_MAX]; /* [from][block] the last turn */
};
enum { CUDA_PEER_SLOTS_AT = 4096 };

struct cuda_peer_group {
    unsigned char *buffer[CUDA_PEERS_MAX]; /* of every rank */
    uint64_t      *given_up;               /* pinned: not 0 when the host or a kernel has given up */
    int32_t       *fault;
    uint64_t       limit_ns;               /* of one wait */
    int32_t        rank, n_ranks;
};

/* to[n] becomes the sum over the ranks in the order of phx_comm_sum(); n at most CUDA_PEER_FLOATS. */
struct cuda_peer_sum_call {
    struct cuda_peer_group group;
    float                 *to;
    int64_t                n;
};
int phx_cuda_peer_sum(cudaStream_t stream, const struct cuda_peer_sum_call *call);

/* end.y becomes its sum over the ranks, in the order of phx_comm_sum(), and ends the branch as phx_cuda_add_norm_rows() does; n_rows * n
 * at most CUDA_PEER_FLOATS. */
struct cuda_peer_end_call {
    struct cuda_peer_group    group;
    struct cuda_add_norm_call end;
};
int phx_cuda_peer_end(cudaStream_t stream, const struct cuda_peer_end_call *call);

/* Elements [at, at + CUDA_PEER_FLOATS) of the dense parts [rows][columns[r]] (at most 2^31 elements) of all ranks but 0 land in
 * columns first[r] .. of out (rank 0's; stride floats per row). */
struct cuda_peer_gather_call {
    struct cuda_peer_group group;
    const float           *part;
    float                 *out;
    int64_t                stride, rows, at;
    int64_t                n_most; /* floats of the largest part from `at` on, at most CUDA_PEER_FLOATS */
    int32_t                first[CUDA_PEERS_MAX], columns[CUDA_PEERS_MAX];
};
int phx_cuda_peer_gather(cudaStream_t stream, const struct cuda_peer_gather_call *call);

/* ---- peer.c ---------------------------------------------------------------------------------- */

struct cuda_peers;

/* A buffer, and the card by which the other ranks find it.  NULL with the reason. */
struct cuda_peers *phx_cuda_peers_offer(struct cuda_device *d, int32_t rank, int32_t n_ranks, int32_t wait_ms,
                                        unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size);
/* The cards of all ranks, by rank.  0, or -1 with the reason. */
int phx_cuda_peers_accept(struct cuda_peers *p, const unsigned char *cards, char *why, size_t why_size);
/* What is queued leaves, with garbage and a fault. */
void phx_cuda_peers_abort(struct cuda_peers *p);
/* NULL is allowed.  After an abort memory stays taken: a peer may still write there, and the process is about to end. */
void phx_cuda_peers_close(struct cuda_peers *p);
bool phx_cuda_peers_is_lost(const struct cuda_peers *p);
/* A rank is a thread of this process on this device: what waits for the device may wait for a launch that waits for it. */
bool phx_cuda_peers_share_context(const struct cuda_peers *p);

/* Queued.  0, or -1 with the error kept. */
int phx_cuda_peers_sum(struct cuda_peers *p, float *x, int64_t n);
int phx_cuda_peers_end(struct cuda_peers *p, const struct phx_add_norm_args *a);
int phx_cuda_peers_gather(struct cuda_peers *p, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                          const int32_t *n);

#ifdef __cplusplus
}
#endif
#endif
