/* SPDX-License-Identifier: Apache-2.0
 * The buffers of the ranks of a group, how they find and map each other's, and launching. */
#include "kernels/cuda/peer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "kernels/memory.h"

enum { DEFAULT_WAIT_MS = 30000, CARD_MAGIC = 0x70656572, PROCESS_BYTES = 16 };

/* How a rank's buffer is found: by its address inside the same process, where a handle cannot be opened, else by the
 * handle. */
struct card {
    uint32_t           magic;
    int32_t            rank, n_ranks, device;
    unsigned char      process[PROCESS_BYTES];
    uint64_t           address, size_bytes;
    cudaIpcMemHandle_t handle;
};
_Static_assert(sizeof(struct card) <= PHX_EXCHANGE_CARD_BYTES, "a card holds it");
_Static_assert(sizeof(struct cuda_peer_state) <= CUDA_PEER_SLOTS_AT, "slots lie behind the flags");

struct cuda_peers {
    struct cuda_device    *d;
    struct cuda_peer_group group;
    unsigned char         *buffer; /* own; cudaMalloc's, since a handle is of a whole allocation */
    size_t                 size_bytes;
    bool                   is_mapped[CUDA_PEERS_MAX]; /* by a handle */
    bool                   is_aborted, shares_context;
};

/* What no other process has, in whatever container it is. */
static unsigned char  process[PROCESS_BYTES];
static pthread_once_t process_once = PTHREAD_ONCE_INIT;
static bool           process_is_known;

static void know_process(void)
{
    process_is_known = getrandom(process, sizeof(process), 0) == (ssize_t)sizeof(process);
}

static bool explain(int rc, const char *what, char *why, size_t why_size)
{
    if (rc == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* it is told here */
    (void)snprintf(why, why_size, "%s: %s", what, cudaGetErrorString((cudaError_t)rc));
    return false;
}

/* Flags, state and slots as they must be before a peer sees them. */
static bool make_buffer(struct cuda_peers *p, char *why, size_t why_size)
{
    void *buffer = NULL, *given_up = NULL;

    p->size_bytes = CUDA_PEER_SLOTS_AT + (size_t)2 * (size_t)p->group.n_ranks * CUDA_PEER_BYTES;
    if (!explain(cudaHostAlloc(&given_up, sizeof(*p->group.given_up), cudaHostAllocMapped), "pinned memory", why, why_size))
        return false;
    p->group.given_up = given_up;
    *p->group.given_up = 0;
    if (!explain(cudaMalloc(&buffer, p->size_bytes), "memory for peers", why, why_size))
        return false;
    p->buffer = buffer;
    p->group.buffer[p->group.rank] = buffer;
    return explain(cudaMemsetAsync(buffer, 0, p->size_bytes, p->d->stream), "memory for peers", why, why_size) &&
           explain(cudaStreamSynchronize(p->d->stream), "memory for peers", why, why_size);
}

static bool write_card(const struct cuda_peers *p, struct card *card, char *why, size_t why_size)
{
    (void)pthread_once(&process_once, know_process); /* cannot fail with a valid argument */
    if (!process_is_known) {
        (void)snprintf(why, why_size, "no random numbers from the system");
        return false;
    }
    memset(card, 0, sizeof(*card));
    card->magic = CARD_MAGIC;
    card->rank = p->group.rank;
    card->n_ranks = p->group.n_ranks;
    card->device = p->d->index;
    memcpy(card->process, process, sizeof(card->process));
    card->address = (uint64_t)(uintptr_t)p->buffer;
    card->size_bytes = p->size_bytes;
    return explain(cudaIpcGetMemHandle(&card->handle, p->buffer), "memory cannot be shared", why, why_size);
}

struct cuda_peers *phx_cuda_peers_offer(struct cuda_device *d, int32_t rank, int32_t n_ranks, int32_t wait_ms,
                                        unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size)
{
    struct cuda_peers *p;
    struct card        mine;

    if (n_ranks > CUDA_PEERS_MAX) {
        (void)snprintf(why, why_size, "%d ranks, and at most %d write to each other", n_ranks, CUDA_PEERS_MAX);
        return NULL;
    }
    p = phx_memory_alloc(sizeof(*p));
    if (p == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return NULL;
    }
    p->d = d;
    p->group.fault = d->fault;
    p->group.rank = rank;
    p->group.n_ranks = n_ranks;
    p->group.limit_ns = (uint64_t)(wait_ms > 0 ? wait_ms : DEFAULT_WAIT_MS) * 1000000;
    if (!make_buffer(p, why, why_size) || !write_card(p, &mine, why, why_size)) {
        phx_cuda_peers_close(p);
        return NULL;
    }
    memcpy(card, &mine, sizeof(mine));
    return p;
}

/* Memory of a device that this process has open too. */
static bool reach_device(const struct cuda_peers *p, int device, char *why, size_t why_size)
{
    int can = 0, rc;

    if (device == p->d->index)
        return true;
    rc = cudaDeviceCanAccessPeer(&can, p->d->index, device);
    if (rc == cudaSuccess && can == 0) {
        (void)snprintf(why, why_size, "device %d cannot reach the memory of device %d", p->d->index, device);
        return false;
    }
    if (rc == cudaSuccess)
        rc = cudaDeviceEnablePeerAccess(device, 0);
    if (rc == cudaErrorPeerAccessAlreadyEnabled) {
        (void)cudaGetLastError(); /* that is what was wanted */
        rc = cudaSuccess;
    }
    return explain(rc, "peer access", why, why_size);
}

static bool map_peer(struct cuda_peers *p, int32_t rank, const struct card *card, char *why, size_t why_size)
{
    void *buffer = NULL;

    if (card->magic != CARD_MAGIC || card->rank != rank || card->n_ranks != p->group.n_ranks ||
        card->size_bytes != p->size_bytes) {
        (void)snprintf(why, why_size, "the card of rank %d is not one of this build", rank);
        return false;
    }
    if (memcmp(card->process, process, sizeof(process)) == 0) {
        p->group.buffer[rank] = (unsigned char *)(uintptr_t)card->address;
        p->shares_context = p->shares_context || card->device == p->d->index;
        return reach_device(p, card->device, why, why_size);
    }
    if (!explain(cudaIpcOpenMemHandle(&buffer, card->handle, cudaIpcMemLazyEnablePeerAccess),
                 "the memory of another rank cannot be mapped", why, why_size))
        return false;
    p->group.buffer[rank] = buffer;
    p->is_mapped[rank] = true;
    return true;
}

int phx_cuda_peers_accept(struct cuda_peers *p, const unsigned char *cards, char *why, size_t why_size)
{
    struct card card;

    for (int32_t r = 0; r < p->group.n_ranks; r++) {
        memcpy(&card, cards + (size_t)r * PHX_EXCHANGE_CARD_BYTES, sizeof(card));
        if (r != p->group.rank && !map_peer(p, r, &card, why, why_size))
            return -1;
    }
    return 0;
}

void phx_cuda_peers_abort(struct cuda_peers *p)
{
    p->is_aborted = true;
    __atomic_store_n(p->group.given_up, 1, __ATOMIC_RELEASE);
}

bool phx_cuda_peers_is_lost(const struct cuda_peers *p)
{
    return __atomic_load_n(p->group.given_up, __ATOMIC_ACQUIRE) != 0;
}

bool phx_cuda_peers_share_context(const struct cuda_peers *p)
{
    return p->shares_context;
}

void phx_cuda_peers_close(struct cuda_peers *p)
{
    if (p == NULL)
        return;
    for (int32_t r = 0; r < p->group.n_ranks && !p->is_aborted; r++)
        if (p->is_mapped[r])
            (void)cudaIpcCloseMemHandle(p->group.buffer[r]); /* fails when the device is lost, and its memory with it */
    /* The buffer stays until the process ends: a peer that has not noticed yet that this rank leaves may write to it. */
    if (!p->is_aborted) {
        (void)cudaFreeHost(p->group.given_up);
        (void)cudaGetLastError();
    }
    phx_memory_free(p);
}

int phx_cuda_peers_sum(struct cuda_peers *p, float *x, int64_t n)
{
    struct cuda_peer_sum_call call = {.group = p->group};

    for (int64_t at = 0; at < n; at += CUDA_PEER_FLOATS) {
        call.to = x + at;
        call.n = n - at < CUDA_PEER_FLOATS ? n - at : CUDA_PEER_FLOATS;
        if (!phx_cuda_check(p->d, phx_cuda_peer_sum(p->d->stream, &call), "sum over peers"))
            return -1;
    }
    return 0;
}

int phx_cuda_peers_end(struct cuda_peers *p, const struct phx_add_norm_args *a)
{
    struct cuda_peer_end_call call = {.group = p->group, .end = phx_cuda_add_norm_call(p->d, a)};

    return phx_cuda_check(p->d, phx_cuda_peer_end(p->d->stream, &call), "sum and norm over peers") ? 0 : -1;
}

int phx_cuda_peers_gather(struct cuda_peers *p, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                          const int32_t *n)
{
    struct cuda_peer_gather_call call = {.group = p->group, .part = part.data, .out = out.data, .stride = out.stride0,
                                         .rows = part.dim[0]};
    int64_t                      most = 0;

    for (int32_t r = 1; r < p->group.n_ranks; r++) {
        call.first[r] = first[r];
        call.columns[r] = n[r];
        most = n[r] > most ? n[r] : most;
    }
    most *= call.rows;
    if (most > INT32_MAX) {
        (void)phx_cuda_fail(p->d, "gather over peers: %lld elements are too many", (long long)most);
        return -1;
    }
    for (; call.at < most; call.at += CUDA_PEER_FLOATS) {
        call.n_most = most - call.at < CUDA_PEER_FLOATS ? most - call.at : CUDA_PEER_FLOATS;
        if (!phx_cuda_check(p->d, phx_cuda_peer_gather(p->d->stream, &call), "gather over peers"))
            return -1;
    }
    return 0;
}
