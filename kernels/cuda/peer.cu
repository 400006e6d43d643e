/* SPDX-License-Identifier: Apache-2.0
 * One launch per exchange: write to the peers, raise a flag, wait for theirs, take what they wrote. */
#include "kernels/cuda/peer.h"
#include "kernels/cuda/rows.cuh"

enum { LOOK_EVERY = 64 };
static_assert((int)THREADS == (int)CUDA_PEER_THREADS, "blocks are those that the plan counts");

/* What the threads of a block share; in dynamic memory, since the emulated device runs others while a block waits. */
struct turn {
    uint64_t number;
    unsigned block;
    bool     is_lost;
};

static __device__ __forceinline__ struct cuda_peer_state *state_of(const struct cuda_peer_group &g, int rank)
{
    return reinterpret_cast<struct cuda_peer_state *>(g.buffer[rank]);
}

static __device__ __forceinline__ float *slot_of(const struct cuda_peer_group &g, int owner, int from, uint64_t turn)
{
    int64_t index = (int64_t)(turn % 2) * g.n_ranks + from;

    return reinterpret_cast<float *>(g.buffer[owner] + CUDA_PEER_SLOTS_AT + index * CUDA_PEER_BYTES);
}

/* The turn's number changes when all blocks of the launch before are done; the stream orders launches. */
static __device__ __forceinline__ void enter(const struct cuda_peer_group &g, struct turn *t)
{
    struct cuda_peer_state *s = state_of(g, g.rank);

    if (threadIdx.x == 0) {
        t->block = atomicAdd(&s->ticket, 1u);
        t->number = s->turn + 1;
        t->is_lost = s->is_lost != 0;
    }
    __syncthreads();
}

/* False when the host gives up, or the time is over. */
static __device__ __forceinline__ bool wait_for(const struct cuda_peer_group &g, const uint64_t *flag, uint64_t turn)
{
    uint64_t start = 0;

    for (unsigned i = 1; phx_load_acquire(flag) < turn; i++) {
        if (i % LOOK_EVERY == 0) {
            uint64_t now = phx_now_ns();

            start = start == 0 ? now : start;
            if (phx_load_acquire(g.given_up) != 0 || now - start > g.limit_ns)
                return false;
        }
        phx_spin();
    }
    return true;
}

static __device__ __forceinline__ void give_up(const struct cuda_peer_group &g, struct turn *t)
{
    t->is_lost = true; /* several threads may say so */
    state_of(g, g.rank)->is_lost = 1;
    phx_store_release(g.given_up, 1);
    phx_fault(g.fault, CUDA_FAULT_PEER);
}

/* What the block has written is everybody's, and what the same block of every peer has written is there; or
 * t->is_lost. */
static __device__ __forceinline__ void meet(const struct cuda_peer_group &g, struct turn *t)
{
    int  peer = (int)threadIdx.x;
    bool is_lost = t->is_lost;

    __syncthreads();
    if (peer < g.n_ranks && peer != g.rank && !is_lost) {
        phx_store_release(&state_of(g, peer)->flags[g.rank][t->block], t->number);
        if (!wait_for(g, &state_of(g, g.rank)->flags[peer][t->block], t->number))
            give_up(g, t);
    }
    __syncthreads();
}

static __device__ __forceinline__ void leave(const struct cuda_peer_group &g, const struct turn *t)
{
    struct cuda_peer_state *s = state_of(g, g.rank);

    if (threadIdx.x == 0 && atomicAdd(&s->n_done, 1u) == gridDim.x - 1) {
        s->ticket = 0;
        s->n_done = 0;
        s->turn = t->number;
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

static __device__ __forceinline__ float add(float a, float b)
{
    return a + b;
}

static __device__ __forceinline__ float4 add(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* A tree of n leaves, n a power of two: the halves' sums, left before right. */
template <int n, typename T> static __device__ __forceinline__ T tree(const T *parts)
{
    if constexpr (n == 1)
        return parts[0];
    else
        return add(tree<n / 2>(parts), tree<n / 2>(parts + n / 2));
}

template <typename T> static __device__ __forceinline__ T part_of(const struct cuda_peer_group &g, const T *own, int rank,
                                                                  uint64_t turn, int64_t i)
{
    return rank == g.rank ? *own : phx_load_fresh(reinterpret_cast<const T *>(slot_of(g, g.rank, rank, turn) + i));
}

/* n: the number of ranks when that is a power of two, else 0. */
template <int n, typename T>
static __device__ __forceinline__ T sum_of(const struct cuda_peer_group &g, const T *own, uint64_t turn, int64_t i)
{
    if constexpr (n > 0) {
        T parts[n];

#pragma unroll
        for (int r = 0; r < n; r++)
            parts[r] = part_of(g, own, r, turn, i);
        return tree<n>(parts);
    } else {
        T sum = part_of(g, own, 0, turn, i);

        for (int r = 1; r < g.n_ranks; r++)
            sum = add(sum, part_of(g, own, r, turn, i));
        return sum;
    }
}

template <typename T>
static __device__ __forceinline__ void send(const struct cuda_peer_group &g, const T *own, uint64_t turn, int64_t i)
{
    T v = *own;

    for (int k = 1; k < g.n_ranks; k++) /* ranks begin with different peers */
        *reinterpret_cast<T *>(slot_of(g, (g.rank + k) % g.n_ranks, g.rank, turn) + i) = v;
}

template <int n, typename T>
static __device__ __forceinline__ void sum_range(const struct cuda_peer_sum_call &c, struct turn *t, bool is_first, int64_t at,
                                                 int64_t end)
{
    int64_t wide = sizeof(T) / sizeof(float);

    for (int64_t i = at + wide * threadIdx.x; i + wide <= end; i += wide * THREADS) {
        T *own = reinterpret_cast<T *>(c.to + i);

        if (is_first)
            send(c.group, own, t->number, i);
        else
            *own = sum_of<n>(c.group, own, t->number, i);
    }
}

template <int n> static __global__ void __launch_bounds__(THREADS) sum_kernel(const __grid_constant__ struct cuda_peer_sum_call c)
{
    phx_wait_previous();
    PHX_SHARED(struct turn, t);
    int64_t of_block = (c.n + 4 * (int64_t)gridDim.x - 1) / (4 * (int64_t)gridDim.x) * 4, at, end, middle;

    enter(c.group, t);
    at = t->block * of_block < c.n ? t->block * of_block : c.n;
    end = at + of_block < c.n ? at + of_block : c.n;
    middle = reinterpret_cast<uintptr_t>(c.to) % sizeof(float4) == 0 ? at + (end - at) / 4 * 4 : at;
    if (!t->is_lost) {
        sum_range<n, float4>(c, t, true, at, middle);
        sum_range<n, float>(c, t, true, middle, end);
    }
    meet(c.group, t);
    phx_let_next(); /* a launch that waits must not take the room of a peer's that this one has waited for */
    if (!t->is_lost) {
        sum_range<n, float4>(c, t, false, at, middle);
        sum_range<n, float>(c, t, false, middle, end);
    }
    leave(c.group, t);
}

int phx_cuda_peer_sum(cudaStream_t stream, const struct cuda_peer_sum_call *call)
{
    unsigned blocks = phx_cuda_peer_blocks(call->n);
    size_t   shared = sizeof(struct turn);

    switch (call->group.n_ranks) {
    case 2: return PHX_LAUNCH(sum_kernel<2>, blocks, THREADS, shared, stream, *call);
    case 4: return PHX_LAUNCH(sum_kernel<4>, blocks, THREADS, shared, stream, *call);
    case 8: return PHX_LAUNCH(sum_kernel<8>, blocks, THREADS, shared, stream, *call);
    default: return PHX_LAUNCH(sum_kernel<0>, blocks, THREADS, shared, stream, *call);
    }
}

/* ---- sums that end a branch ------------------------------------------------------------------- */

struct end_turn {
    struct turn turn;
    float       sums[PHX_WARP];
};

/* Elements i .. i + 3 of row `row` summed over the ranks, zeros behind its end. */
template <int n, bool is_vector>
static __device__ __forceinline__ float4 sum_four(const struct cuda_peer_end_call &c, uint64_t turn, int row, int i)
{
    const float *own = c.end.y + (int64_t)row * c.end.y_stride + i;
    int64_t      at = (int64_t)row * c.end.n + i;
    float4       v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    if constexpr (is_vector)
        return i < c.end.n ? sum_of<n>(c.group, reinterpret_cast<const float4 *>(own), turn, at) : v;
    v.x = i < c.end.n ? sum_of<n>(c.group, own, turn, at) : 0.0f;
    v.y = i + 1 < c.end.n ? sum_of<n>(c.group, own + 1, turn, at + 1) : 0.0f;
    v.z = i + 2 < c.end.n ? sum_of<n>(c.group, own + 2, turn, at + 2) : 0.0f;
    v.w = i + 3 < c.end.n ? sum_of<n>(c.group, own + 3, turn, at + 3) : 0.0f;
    return v;
}

template <bool is_vector> static __device__ __forceinline__ void send_row(const struct cuda_peer_end_call &c, uint64_t turn, int row)
{
    const float *own = c.end.y + (int64_t)row * c.end.y_stride;
    int          step = is_vector ? PER_THREAD : 1;

    for (int i = (int)threadIdx.x * step; i < c.end.n; i += THREADS * step)
        if constexpr (is_vector)
            send(c.group, reinterpret_cast<const float4 *>(own + i), turn, (int64_t)row * c.end.n + i);
        else
            send(c.group, own + i, turn, (int64_t)row * c.end.n + i);
}

/* A block sends all its rows before it waits: its peers' blocks of that number have the same ones. */
template <int n, bool is_vector>
static __global__ void __launch_bounds__(THREADS, 1) end_kernel(const __grid_constant__ struct cuda_peer_end_call c)
{
    ask_ahead<is_vector>(c.end.gain, c.end.n);
    ask_ahead<is_vector>(c.end.bias, c.end.n);
    phx_wait_previous();
    PHX_SHARED(struct end_turn, shared);
    struct turn *t = &shared->turn;

    enter(c.group, t);
    for (int row = (int)t->block; row < c.end.n_rows && !t->is_lost; row += (int)gridDim.x)
        send_row<is_vector>(c, t->number, row);
    meet(c.group, t);
    phx_let_next(); /* a launch that waits must not take the room of a peer's that this one has waited for */
    for (int row = (int)t->block; row < c.end.n_rows && !t->is_lost; row += (int)gridDim.x)
        add_norm_row<is_vector>(c.end, row, shared->sums, [&](int i) { return sum_four<n, is_vector>(c, t->number, row, i); });
    leave(c.group, t);
}

template <int n> static int launch_end(cudaStream_t stream, const struct cuda_peer_end_call *c)
{
    unsigned blocks = phx_cuda_peer_end_blocks(c->end.n_rows);
    size_t   shared = sizeof(struct end_turn);

    return phx_cuda_add_norm_is_vector(&c->end) ? PHX_LAUNCH((end_kernel<n, true>), blocks, THREADS, shared, stream, *c)
                                                : PHX_LAUNCH((end_kernel<n, false>), blocks, THREADS, shared, stream, *c);
}

int phx_cuda_peer_end(cudaStream_t stream, const struct cuda_peer_end_call *call)
{
    switch (call->group.n_ranks) {
    case 2: return launch_end<2>(stream, call);
    case 4: return launch_end<4>(stream, call);
    case 8: return launch_end<8>(stream, call);
    default: return launch_end<0>(stream, call);
    }
}

/* ---- gathers --------------------------------------------------------------------------------- */

/* A block's share is the same on every rank, whatever each of them has. */
struct share {
    int64_t at, end;
};

static __device__ __forceinline__ struct share share_of(const struct cuda_peer_gather_call &c, unsigned block, int rank)
{
    int64_t of_block = (c.n_most + gridDim.x - 1) / gridDim.x, left = c.rows * c.columns[rank] - c.at, end;
    struct share s;

    left = left < 0 ? 0 : left < c.n_most ? left : c.n_most;
    s.at = block * of_block < left ? block * of_block : left;
    end = s.at + of_block;
    s.end = end < left ? end : left;
    return s;
}

static __global__ void __launch_bounds__(THREADS) gather_kernel(const __grid_constant__ struct cuda_peer_gather_call c)
{
    phx_wait_previous();
    PHX_SHARED(struct turn, t);
    struct share s;

    enter(c.group, t);
    s = share_of(c, t->block, c.group.rank);
    if (c.group.rank != 0 && !t->is_lost)
        for (int64_t i = s.at + threadIdx.x; i < s.end; i += THREADS)
            slot_of(c.group, 0, c.group.rank, t->number)[i] = c.part[c.at + i];
    meet(c.group, t);
    phx_let_next(); /* a launch that waits must not take the room of a peer's that this one has waited for */
    for (int r = 1; r < c.group.n_ranks && c.group.rank == 0 && !t->is_lost; r++) {
        s = share_of(c, t->block, r);
        for (int64_t i = s.at + threadIdx.x; i < s.end; i += THREADS) {
            uint32_t at = (uint32_t)(c.at + i), columns = (uint32_t)c.columns[r];

            c.out[at / columns * c.stride + c.first[r] + at % columns] = phx_load_fresh(slot_of(c.group, 0, r, t->number) + i);
        }
    }
    leave(c.group, t);
}

int phx_cuda_peer_gather(cudaStream_t stream, const struct cuda_peer_gather_call *call)
{
    return PHX_LAUNCH(gather_kernel, phx_cuda_peer_blocks(call->n_most), THREADS, sizeof(struct turn), stream, *call);
}
