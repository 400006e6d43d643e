/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/exchange.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/nccl_api.h"
#include "kernels/cuda/peer.h"
#include "kernels/exchange_ops.h"
#include "kernels/memory.h"

enum { SETTLE_S = 30 }; /* for the connections that a first call makes */

struct cuda_exchange {
    struct cuda_device    *d;
    const struct nccl_api *nccl;
    nccl_comm              comm; /* NULL after an abort, and when it is bare */
    struct cuda_peers     *peers; /* offered, and in use when has_peers */
    int32_t                rank, n_ranks, wait_ms;
    size_t                 max_bytes;
    float                 *parts; /* [n_ranks][max_bytes], or [max_bytes] when sums are the library's */
    bool                   is_fast, has_peers, is_given_up;
    char                   why[PHX_WHY_BYTES];
};

static int probe(int32_t *version, char *why, size_t why_size)
{
    const struct nccl_api *nccl = phx_nccl_load(why, why_size);
    int                    v = 0;

    if (nccl == NULL)
        return -1;
    if (nccl->GetVersion(&v) != NCCL_SUCCESS) {
        (void)snprintf(why, why_size, "NCCL does not tell its version");
        return -1;
    }
    *version = v;
    return 0;
}

static int make_id(unsigned char id[PHX_EXCHANGE_ID_BYTES], char *why, size_t why_size)
{
    const struct nccl_api *nccl = phx_nccl_load(why, why_size);
    struct nccl_id         made;
    int                    rc = nccl != NULL ? nccl->GetUniqueId(&made) : -1;

    if (rc != NCCL_SUCCESS) {
        if (nccl != NULL)
            (void)snprintf(why, why_size, "NCCL cannot listen for the other ranks: %s", nccl->GetErrorString(rc));
        return -1;
    }
    memcpy(id, made.bytes, PHX_EXCHANGE_ID_BYTES);
    return 0;
}

static void close_exchange(void *exchange);

/* The library's part; false with the reason. */
static bool open_library(struct cuda_exchange *x, const struct phx_exchange_options *o, char *why, size_t why_size)
{
    struct nccl_config config = {sizeof(config), NCCL_CONFIG_MAGIC, NCCL_CONFIG_VERSION, 0};
    struct nccl_id     id;
    size_t             bytes;
    int                rc;

    x->nccl = phx_nccl_load(why, why_size);
    if (x->nccl == NULL)
        return false;
    memcpy(id.bytes, o->id, sizeof(id.bytes));
    if (o->n_ranks <= CUDA_PARTS_MAX && !__builtin_mul_overflow(x->max_bytes, o->is_fast ? 1 : (size_t)o->n_ranks, &bytes))
        x->parts = phx_cuda_take(x->d, bytes, "exchange");
    if (x->parts == NULL) {
        (void)snprintf(why, why_size, "no device memory for the activations of %d ranks", o->n_ranks);
        return false;
    }
    rc = x->nccl->CommInitRankConfig(&x->comm, o->n_ranks, id, o->rank, &config);
    if (rc == NCCL_SUCCESS || rc == NCCL_IN_PROGRESS)
        return true;
    (void)snprintf(why, why_size, "rank %d of %d cannot start: %s", o->rank, o->n_ranks, x->nccl->GetErrorString(rc));
    x->comm = NULL;
    return false;
}

static void *open_exchange(void *device, const struct phx_exchange_options *o, char *why, size_t why_size)
{
    struct cuda_exchange *x = phx_memory_alloc(sizeof(*x));

    (void)snprintf(why, why_size, "out of memory");
    if (x == NULL)
        return NULL;
    x->d = device;
    x->rank = o->rank;
    x->n_ranks = o->n_ranks;
    x->wait_ms = o->wait_ms;
    x->max_bytes = (o->max_bytes + 15) / 16 * 16;
    x->is_fast = o->is_fast;
    if (o->is_bare || open_library(x, o, why, why_size))
        return x;
    close_exchange(x);
    return NULL;
}

/* ---- peer memory ----------------------------------------------------------------------------- */

static int offer(void *exchange, unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size)
{
    struct cuda_exchange *x = exchange;

    x->peers = phx_cuda_peers_offer(x->d, x->rank, x->n_ranks, x->wait_ms, card, why, why_size);
    return x->peers != NULL ? 0 : -1;
}

static int accept_cards(void *exchange, const unsigned char *cards, char *why, size_t why_size)
{
    struct cuda_exchange *x = exchange;

    (void)snprintf(why, why_size, "nothing was offered");
    x->has_peers = x->peers != NULL && phx_cuda_peers_accept(x->peers, cards, why, why_size) == 0;
    return x->has_peers ? 0 : -1;
}

static void retract(void *exchange)
{
    struct cuda_exchange *x = exchange;

    phx_cuda_peers_close(x->peers);
    x->peers = NULL;
    x->has_peers = false;
}

/* ---- state ----------------------------------------------------------------------------------- */

static enum phx_exchange_state poll_exchange(void *exchange, const char **why)
{
    struct cuda_exchange *x = exchange;
    int                   state = NCCL_SUCCESS, rc;

    *why = x->why;
    if (x->is_given_up || (x->has_peers && phx_cuda_peers_is_lost(x->peers))) {
        (void)snprintf(x->why, sizeof(x->why), "%s", x->is_given_up ? "given up" : "a rank did not come in time");
        return PHX_EXCHANGE_FAILED;
    }
    if (x->comm == NULL)
        return PHX_EXCHANGE_OK;
    rc = x->nccl->CommGetAsyncError(x->comm, &state);
    if (rc == NCCL_SUCCESS && state == NCCL_SUCCESS)
        return PHX_EXCHANGE_OK;
    if (rc == NCCL_SUCCESS && state == NCCL_IN_PROGRESS)
        return PHX_EXCHANGE_BUSY;
    (void)snprintf(x->why, sizeof(x->why), "%s", x->nccl->GetErrorString(rc != NCCL_SUCCESS ? rc : state));
    return PHX_EXCHANGE_FAILED;
}

static int64_t now_s(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail: the clock exists */
    return ts.tv_sec;
}

/* A call that may return before the work is queued must have queued it before the next one. */
static int settle(struct cuda_exchange *x, int rc)
{
    int64_t     end_s = now_s() + SETTLE_S;
    const char *why;

    if (rc == NCCL_SUCCESS)
        return 0;
    if (rc != NCCL_IN_PROGRESS)
        return -1;
    while (poll_exchange(x, &why) == PHX_EXCHANGE_BUSY) {
        if (now_s() > end_s)
            return -1;
        (void)sched_yield();
    }
    return poll_exchange(x, &why) == PHX_EXCHANGE_OK ? 0 : -1;
}

static void abort_exchange(void *exchange)
{
    struct cuda_exchange *x = exchange;

    x->is_given_up = true;
    if (x->peers != NULL)
        phx_cuda_peers_abort(x->peers);
    if (x->comm != NULL)
        (void)x->nccl->CommAbort(x->comm); /* whatever it answers, nothing more can be done */
    x->comm = NULL;
}

static void close_exchange(void *exchange)
{
    struct cuda_exchange *x = exchange;

    if (x->comm != NULL && settle(x, x->nccl->CommFinalize(x->comm)) == 0)
        (void)x->nccl->CommDestroy(x->comm); /* the ranks have parted already */
    else if (x->comm != NULL)
        (void)x->nccl->CommAbort(x->comm);
    phx_cuda_peers_close(x->peers);
    phx_cuda_drop(x->d, x->parts);
    phx_memory_free(x);
}

static enum phx_exchange_state is_done(void *device)
{
    struct cuda_device *d = device;
    int                 rc = cudaStreamQuery(d->stream);

    if (rc == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* not an error */
        return PHX_EXCHANGE_BUSY;
    }
    return phx_cuda_check(d, rc, "exchange") ? PHX_EXCHANGE_OK : PHX_EXCHANGE_FAILED;
}

static size_t count_of(struct phx_tensor t)
{
    return (size_t)t.dim[0] * (size_t)t.dim[1];
}

/* Nothing can go. */
static bool is_closed(const struct cuda_exchange *x)
{
    return x->is_given_up || (x->comm == NULL && !x->has_peers);
}

static int sum(void *exchange, struct phx_tensor t)
{
    struct cuda_exchange  *x = exchange;
    size_t                 n = count_of(t);
    struct cuda_parts_call add = {t.data, x->parts, (int64_t)n, x->n_ranks};

    if (is_closed(x) || n * sizeof(float) > x->max_bytes)
        return -1;
    if (x->n_ranks == 1 || n == 0)
        return 0;
    if (phx_cuda_pick_sum(n * sizeof(float), x->has_peers, x->comm != NULL) != CUDA_SUM_LIBRARY)
        return phx_cuda_peers_sum(x->peers, t.data, (int64_t)n);
    if (x->is_fast)
        return settle(x, x->nccl->AllReduce(t.data, t.data, n, NCCL_FLOAT32, NCCL_SUM, x->comm, x->d->stream));
    if (settle(x, x->nccl->AllGather(t.data, x->parts, n, NCCL_FLOAT32, x->comm, x->d->stream)) != 0)
        return -1;
    return phx_cuda_check(x->d, phx_cuda_add_parts(x->d->stream, &add), "exchange sum") ? 0 : -1;
}

static int sum_add_norm(void *exchange, const struct phx_add_norm_args *a)
{
    struct cuda_exchange *x = exchange;

    if (is_closed(x))
        return -1;
    if (x->n_ranks == 1 || !phx_cuda_pick_peer_end(a->y.dim[0], a->y.dim[1], x->has_peers))
        return 1;
    return phx_cuda_peers_end(x->peers, a);
}

static bool can_record(void *exchange, size_t size_bytes)
{
    const struct cuda_exchange *x = exchange;

    return x->has_peers && !phx_cuda_peers_share_context(x->peers) &&
           phx_cuda_pick_sum(size_bytes, true, x->comm != NULL) != CUDA_SUM_LIBRARY;
}

static int send(void *exchange, struct phx_tensor t, int32_t to)
{
    struct cuda_exchange *x = exchange;

    if (x->comm == NULL || to < 0 || to >= x->n_ranks)
        return -1;
    return settle(x, x->nccl->Send(t.data, count_of(t), NCCL_FLOAT32, to, x->comm, x->d->stream));
}

static int recv(void *exchange, struct phx_tensor t, int32_t from)
{
    struct cuda_exchange *x = exchange;

    if (x->comm == NULL || from < 0 || from >= x->n_ranks)
        return -1;
    return settle(x, x->nccl->Recv(t.data, count_of(t), NCCL_FLOAT32, from, x->comm, x->d->stream));
}

/* All parts of the other ranks, one behind the other in x->parts. */
static int receive_parts(struct cuda_exchange *x, int32_t rows, const int32_t *n)
{
    float *to = x->parts;
    int    rc = x->nccl->GroupStart(), ended;

    for (int32_t r = 1; r < x->n_ranks && (rc == NCCL_SUCCESS || rc == NCCL_IN_PROGRESS); r++) {
        size_t count = (size_t)rows * (size_t)n[r];

        rc = x->nccl->Recv(to, count, NCCL_FLOAT32, r, x->comm, x->d->stream);
        to += count;
    }
    ended = x->nccl->GroupEnd();
    return settle(x, rc == NCCL_SUCCESS || rc == NCCL_IN_PROGRESS ? ended : rc);
}

static bool copy_columns(struct cuda_exchange *x, struct phx_tensor out, const float *from, int32_t first, int32_t n)
{
    size_t row = (size_t)n * sizeof(float);

    return phx_cuda_check(x->d, cudaMemcpy2DAsync((float *)out.data + first, (size_t)out.stride0 * sizeof(float), from,
                                                  row, row, (size_t)out.dim[0], cudaMemcpyDeviceToDevice,
                                                  x->d->stream), "exchange gather");
}

/* The same answer on every rank: by the largest part that travels. */
static bool is_peer_gather(const struct cuda_exchange *x, int32_t rows, const int32_t *n)
{
    size_t most = 0;

    for (int32_t r = 1; r < x->n_ranks; r++)
        most = (size_t)n[r] > most ? (size_t)n[r] : most;
    return phx_cuda_pick_sum((size_t)rows * most * sizeof(float), x->has_peers, x->comm != NULL) != CUDA_SUM_LIBRARY;
}

static int gather(void *exchange, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                  const int32_t *n)
{
    struct cuda_exchange *x = exchange;
    const float          *from = x->parts;
    size_t                columns = 0;

    if (is_closed(x))
        return -1;
    if (is_peer_gather(x, part.dim[0], n)) {
        if (x->rank == 0 && !copy_columns(x, out, part.data, first[0], n[0]))
            return -1;
        return phx_cuda_peers_gather(x->peers, out, part, first, n);
    }
    if (x->rank != 0)
        return send(exchange, part, 0);
    for (int32_t r = 0; r < x->n_ranks; r++)
        columns += (size_t)n[r];
    if (x->comm == NULL || (size_t)part.dim[0] * columns * sizeof(float) > x->max_bytes ||
        receive_parts(x, part.dim[0], n) != 0 || !copy_columns(x, out, part.data, first[0], n[0]))
        return -1;
    for (int32_t r = 1; r < x->n_ranks; r++) {
        if (!copy_columns(x, out, from, first[r], n[r]))
            return -1;
        from += (size_t)part.dim[0] * (size_t)n[r];
    }
    return 0;
}

const struct phx_exchange_ops phx_cuda_exchange_ops = {
    .probe = probe,
    .make_id = make_id,
    .open = open_exchange,
    .close = close_exchange,
    .abort = abort_exchange,
    .poll = poll_exchange,
    .is_done = is_done,
    .offer = offer,
    .accept = accept_cards,
    .retract = retract,
    .sum = sum,
    .sum_add_norm = sum_add_norm,
    .can_record = can_record,
    .send = send,
    .recv = recv,
    .gather = gather,
};
