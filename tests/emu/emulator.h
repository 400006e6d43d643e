// SPDX-License-Identifier: Apache-2.0
// A device in one thread of the host: what kernels/cuda/device.cuh is written on in the emulated build.  Blocks run one
// after the other; the threads of a block are fibers that switch at barriers and at what a warp does together.  Odd
// launches run blocks and warps backwards and make copies as soon as they are asked for, the others as late as may be,
// so that a result that depends on the order shows.
#ifndef PHX_TESTS_EMU_EMULATOR_H
#define PHX_TESTS_EMU_EMULATOR_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <string.h>

#include <functional>
#include <tuple>
#include <type_traits>

#define __device__
#define __global__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static // one block runs at a time; what the block before left is there, as on a device

#define PHX_EMU_VECTOR2(type, name) struct alignas(2 * sizeof(type)) name { type x, y; }
#define PHX_EMU_VECTOR4(type, name) struct alignas(4 * sizeof(type)) name { type x, y, z, w; }
PHX_EMU_VECTOR2(int, int2);
PHX_EMU_VECTOR2(unsigned, uint2);
PHX_EMU_VECTOR2(float, float2);
PHX_EMU_VECTOR4(int, int4);
PHX_EMU_VECTOR4(unsigned, uint4);
PHX_EMU_VECTOR4(float, float4);
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// ---- the running block

struct phx_emu_thread; // a fiber
extern dim3 phx_emu_thread_idx, phx_emu_block_idx, phx_emu_block_dim, phx_emu_grid_dim;
#define threadIdx phx_emu_thread_idx
#define blockIdx  phx_emu_block_idx
#define blockDim  phx_emu_block_dim
#define gridDim   phx_emu_grid_dim

void *phx_emu_shared();
void  phx_emu_block_barrier();
// Called by all lanes of a warp with the same op; the last one to come does it for all: args[lane].
typedef void phx_emu_warp_op(void *const args[32]);
void phx_emu_warp(phx_emu_warp_op *op, void *args);
void phx_emu_warp_nothing(void *const args[32]);

#define PHX_SHARED(type, name) type *name = static_cast<type *>(phx_emu_shared())
static inline void __syncthreads() { phx_emu_block_barrier(); }
static inline void __syncwarp() { phx_emu_warp(phx_emu_warp_nothing, nullptr); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

// ---- launching

extern "C" bool phx_cuda_launches_overlap(cudaStream_t stream); // kernels/cuda/launch.h

struct phx_emu_launch_shape {
    dim3        grid, block;
    size_t      shared_bytes;
    const char *name = "";        // as it was launched
    const void *kernel = nullptr;
    bool        overlaps = false; // may begin before the launch before it has ended
};
cudaError_t phx_emu_launch(const phx_emu_launch_shape &shape, cudaStream_t stream, std::function<void()> kernel);

template <typename... Params, typename... Args>
static inline cudaError_t phx_launch(const char *name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                                     cudaStream_t stream, Args... args)
{
    std::tuple<std::decay_t<Params>...> copy(static_cast<Params>(args)...);

    static_assert((sizeof(Params) + ... + 0) <= 4096, "a kernel's arguments have 4 KB");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return cudaSuccess;
    return phx_emu_launch({grid, block, shared_bytes, name, reinterpret_cast<const void *>(kernel), phx_cuda_launches_overlap(stream)},
                          stream, [kernel, copy] { std::apply(kernel, copy); });
}

// ---- of a warp

struct phx_emu_shuffle {
    uint64_t value, result;
    int      lane;
};
phx_emu_warp_op phx_emu_do_shuffle;

template <typename T> static inline T phx_emu_exchange(T v, int lane)
{
    phx_emu_shuffle s = {0, 0, lane & 31};

    static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_arithmetic<T>::value, "a number of at most 8 bytes");
    memcpy(&s.value, &v, sizeof(T));
    phx_emu_warp(phx_emu_do_shuffle, &s);
    memcpy(&v, &s.result, sizeof(T));
    return v;
}

static inline int phx_emu_lane()
{
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32u);
}

template <typename T> static inline T phx_shfl(T v, int lane) { return phx_emu_exchange(v, lane); }
template <typename T> static inline T phx_shfl_xor(T v, int mask) { return phx_emu_exchange(v, phx_emu_lane() ^ mask); }
template <typename T> static inline T phx_shfl_up(T v, int delta)
{
    return phx_emu_exchange(v, phx_emu_lane() >= delta ? phx_emu_lane() - delta : phx_emu_lane());
}

uint32_t phx_ballot(bool yes);
void     phx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void     phx_ldmatrix_x4(uint32_t r[4], const void *shared_row);
void     phx_ldmatrix_x4_trans(uint32_t r[4], const void *shared_row);

// ---- of a thread

// Of a launch that overlaps every thread must wait, once; what comes before is tried with device memory out of reach.
void phx_wait_previous();
void phx_let_next();
void phx_prefetch(const void *p, uint32_t bytes);
void phx_prefetch_line(const void *p);

// A wait for what another launch writes: the block stops here while others run.  Such a kernel has no static shared
// memory, which the others would write to.
void phx_spin();
static inline void phx_store_release(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline uint64_t phx_load_acquire(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
template <typename T> static inline T phx_load_fresh(const T *p) { return *p; }
uint64_t phx_now_ns();

void phx_cp_async16_if(void *shared, const void *global, bool is_wanted);
void phx_cp_async_commit();
void phx_emu_cp_async_wait(int n);
static inline void phx_cp_async16(void *shared, const void *global) { phx_cp_async16_if(shared, global, true); }
template <int n> static inline void phx_cp_async_wait() { phx_emu_cp_async_wait(n); }

template <typename T, typename U> static inline T atomicAdd(T *p, U v) { T old = *p; *p = (T)(old + (T)v); return old; }
template <typename T, typename U> static inline T atomicSub(T *p, U v) { T old = *p; *p = (T)(old - (T)v); return old; }
template <typename T, typename U> static inline T atomicMax(T *p, U v) { T old = *p; *p = old > (T)v ? old : (T)v; return old; }
template <typename T, typename U> static inline T atomicMin(T *p, U v) { T old = *p; *p = old < (T)v ? old : (T)v; return old; }
template <typename T, typename U> static inline T atomicOr(T *p, U v) { T old = *p; *p = old | (T)v; return old; }
template <typename T, typename U> static inline T atomicAnd(T *p, U v) { T old = *p; *p = old & (T)v; return old; }
template <typename T, typename U> static inline T atomicExch(T *p, U v) { T old = *p; *p = (T)v; return old; }
template <typename T> static inline T atomicCAS(T *p, T want, T v) { T old = *p; if (old == want) *p = v; return old; }

template <typename To, typename From> static inline To phx_emu_bits(From v)
{
    To to;

    static_assert(sizeof(To) == sizeof(From), "the same size");
    memcpy(&to, &v, sizeof(to));
    return to;
}
static inline uint32_t __float_as_uint(float v) { return phx_emu_bits<uint32_t>(v); }
static inline float __uint_as_float(uint32_t v) { return phx_emu_bits<float>(v); }
static inline int __float_as_int(float v) { return phx_emu_bits<int>(v); }
static inline float __int_as_float(int v) { return phx_emu_bits<float>(v); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz((unsigned)v); }
template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> static inline T max(T a, T b) { return a < b ? b : a; }

// Byte i of the result is byte (s >> 4i) & 7 of y:x.
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t s)
{
    uint64_t both = (uint64_t)y << 32 | x;
    uint32_t r = 0;

    for (unsigned i = 0; i < 4; i++)
        r |= (uint32_t)(both >> (8 * ((s >> (4 * i)) & 7u)) & 0xffu) << (8 * i);
    return r;
}

float phx_f16_float(uint16_t bits);

#endif
