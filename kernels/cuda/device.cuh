/* SPDX-License-Identifier: Apache-2.0
 * What every kernel is written with: launching, shared memory, and everything that works on a whole warp.  The same
 * .cu files compile for the device and, with PHX_CUDA_EMULATED, as C++17 against tests/emu, so there is no inline
 * assembly and no warp intrinsic elsewhere.
 *
 * Rules of the emulation: all threads of a block reach every __syncthreads(); all 32 lanes of a warp reach every
 * function below that is said to be of a warp. */
#ifndef PHX_KERNELS_CUDA_DEVICE_CUH
#define PHX_KERNELS_CUDA_DEVICE_CUH

#include <stddef.h>
#include <stdint.h>

#ifdef PHX_CUDA_EMULATED
#include <emulator.h>
#else
#include <cuda_runtime.h>
#endif

#include "kernels/cuda/launch.h"

enum { PHX_WARP = 32 };

/* ---- launching ------------------------------------------------------------------------------- */

#ifndef PHX_CUDA_EMULATED

enum { PHX_SHARED_DEFAULT_MAX = 48 * 1024 }; /* a kernel must be told that it may have more */

/* Returns the launch's own error; what goes wrong while it runs is found by sync.  A grid of nothing is nothing. */
template <typename... Params, typename... Args>
static inline cudaError_t phx_launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                                     cudaStream_t stream, Args... args)
{
    cudaLaunchConfig_t  config = {};
    cudaLaunchAttribute overlap = {};
    cudaError_t         rc = cudaSuccess;

    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return cudaSuccess;
    if (shared_bytes > PHX_SHARED_DEFAULT_MAX)
        rc = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    if (rc != cudaSuccess)
        return rc;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &overlap;
    config.numAttrs = phx_cuda_launches_overlap(stream) ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

/* Dynamic shared memory, 128-byte aligned: `PHX_SHARED(float, tile);` declares float *tile. */
#define PHX_SHARED(type, name)                                                  \
    extern __shared__ __align__(128) unsigned char phx_dynamic_shared[];        \
    type *name = reinterpret_cast<type *>(phx_dynamic_shared)

#endif

/* PHX_LAUNCH(kernel, grid, block, shared_bytes, stream, args...) is the launch's cudaError_t. */
#ifdef PHX_CUDA_EMULATED
#define PHX_LAUNCH(...) phx_launch(#__VA_ARGS__, __VA_ARGS__)
#else
#define PHX_LAUNCH(...) phx_launch(__VA_ARGS__)
#endif

/* ---- launches that overlap: see docs/internals/cuda.md ----------------------------------------- */

#ifndef PHX_CUDA_EMULATED

/* Until all launches before this one are done and what they wrote can be seen.  Every thread of every kernel calls it once,
 * before it reads or writes global memory and before it returns. */
static __device__ __forceinline__ void phx_wait_previous()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

/* The launch behind this one may begin, and wait: when all blocks have said so or ended.  After phx_wait_previous(). */
static __device__ __forceinline__ void phx_let_next()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" : : : "memory");
#endif
}

/* A hint, by one thread, that bytes (a multiple of 16, below 1 MiB) from p on (aligned to 16) will be read.  Allowed before
 * phx_wait_previous() where nothing in the stream writes there: weights. */
static __device__ __forceinline__ void phx_prefetch(const void *p, uint32_t bytes)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" : : "l"(p), "r"(bytes) : "memory");
#else
    (void)p;
    (void)bytes;
#endif
}

/* The same of the line that p is in. */
static __device__ __forceinline__ void phx_prefetch_line(const void *p)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("prefetch.global.L2 [%0];" : : "l"(p) : "memory");
#else
    (void)p;
#endif
}

#endif

/* How a kernel begins. */
static __device__ __forceinline__ void phx_begin()
{
    phx_wait_previous();
    phx_let_next();
}

/* ---- of a warp: all 32 lanes call these together --------------------------------------------- */

#ifndef PHX_CUDA_EMULATED

/* T is a 4-byte or 8-byte number. */
template <typename T> static __device__ __forceinline__ T phx_shfl(T v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

template <typename T> static __device__ __forceinline__ T phx_shfl_xor(T v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

/* The value of lane - delta; lanes below delta keep their own. */
template <typename T> static __device__ __forceinline__ T phx_shfl_up(T v, int delta)
{
    return __shfl_up_sync(0xffffffffu, v, (unsigned)delta);
}

/* Bit i is whether lane i says yes. */
static __device__ __forceinline__ uint32_t phx_ballot(bool yes)
{
    return __ballot_sync(0xffffffffu, yes);
}

/* d += a b for 16x8 outputs over 16 k: PTX ISA, mma.m16n8k16 of .bf16 with .f32 sums.  With g = lane / 4 and
 * t = lane % 4 a lane holds (two bf16 of adjacent k in a register, the lower k in the lower half)
 *   a[0] row g      k 2t, 2t+1     a[1] row g + 8  k 2t, 2t+1
 *   a[2] row g      k 2t+8, 2t+9   a[3] row g + 8  k 2t+8, 2t+9
 *   b[0] column g   k 2t, 2t+1     b[1] column g   k 2t+8, 2t+9
 *   d[0], d[1] row g columns 2t, 2t+1;  d[2], d[3] row g + 8 columns 2t, 2t+1 */
static __device__ __forceinline__ void phx_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 2-byte elements: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, aligned
 * to 16); r[j] of a lane is row lane / 4, columns 2 (lane % 4) and the next, of matrix j. */
static __device__ __forceinline__ void phx_ldmatrix_x4(uint32_t r[4], const void *shared_row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same of the transposed matrices: r[j] is column lane / 4, rows 2 (lane % 4) and the next, of matrix j. */
static __device__ __forceinline__ void phx_ldmatrix_x4_trans(uint32_t r[4], const void *shared_row)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared_row);

    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* ---- of a thread ----------------------------------------------------------------------------- */

/* 16 bytes from global to shared memory, both aligned to 16, behind the thread's back; they are there for this
 * thread after the wait, for the others after a barrier behind it. */
static __device__ __forceinline__ void phx_cp_async16(void *shared, const void *global)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(at), "l"(global) : "memory");
}

/* The same, or 16 zero bytes when it is not wanted (global must be a valid address all the same). */
static __device__ __forceinline__ void phx_cp_async16_if(void *shared, const void *global, bool is_wanted)
{
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    int      bytes = is_wanted ? 16 : 0;

    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(global), "r"(bytes) : "memory");
}

/* Ends a group of copies. */
static __device__ __forceinline__ void phx_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" : : : "memory");
}

/* Until at most the n newest groups are under way. */
template <int n> static __device__ __forceinline__ void phx_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(n) : "memory");
}

/* Once around a loop that waits for what another launch writes, of this device or of one beside it.  The load takes
 * long enough on a device; the emulated one runs others meanwhile. */
static __device__ __forceinline__ void phx_spin()
{
}

/* After everything that this thread did or saw by a barrier, for all devices and hosts. */
static __device__ __forceinline__ void phx_store_release(uint64_t *p, uint64_t v)
{
    asm volatile("st.release.sys.u64 [%0], %1;" : : "l"(p), "l"(v) : "memory");
}

/* Before everything that this thread, and behind a barrier its block, does afterwards. */
static __device__ __forceinline__ uint64_t phx_load_acquire(const uint64_t *p)
{
    uint64_t v;

    asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
    return v;
}

/* Not what the multiprocessor may have kept of it. */
static __device__ __forceinline__ float4 phx_load_fresh(const float4 *p)
{
    return __ldcg(p);
}

static __device__ __forceinline__ float2 phx_load_fresh(const float2 *p)
{
    return __ldcg(p);
}

static __device__ __forceinline__ float phx_load_fresh(const float *p)
{
    return __ldcg(p);
}

static __device__ __forceinline__ uint64_t phx_now_ns()
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
    return ns;
}

#endif

/* ---- from the above -------------------------------------------------------------------------- */

/* The tree of halves 16, 8, 4, 2, 1: every lane gets the same bits. */
static __device__ __forceinline__ float phx_warp_sum(float v)
{
#pragma unroll
    for (int m = PHX_WARP / 2; m > 0; m /= 2)
        v += phx_shfl_xor(v, m);
    return v;
}

static __device__ __forceinline__ float phx_warp_max(float v)
{
#pragma unroll
    for (int m = PHX_WARP / 2; m > 0; m /= 2)
        v = fmaxf(v, phx_shfl_xor(v, m));
    return v;
}

/* The same for a block of n_warps warps (at most 32): the warps' sums by the tree of halves over 32, absent ones 0.
 * shared: 32 floats that nobody else uses; all threads of the block call it. */
static __device__ __forceinline__ float phx_block_sum(float v, float *shared, int n_warps)
{
    int lane = (int)threadIdx.x % PHX_WARP, warp = (int)threadIdx.x / PHX_WARP;

    v = phx_warp_sum(v);
    if (lane == 0)
        shared[warp] = v;
    __syncthreads();
    v = phx_warp_sum(lane < n_warps ? shared[lane] : 0.0f);
    __syncthreads(); /* shared may be used again */
    return v;
}

static __device__ __forceinline__ float phx_bf16_float(uint16_t bits)
{
    return __uint_as_float((uint32_t)bits << 16);
}

/* To nearest, ties to even; NaN stays NaN. */
static __device__ __forceinline__ uint16_t phx_bf16_bits(float v)
{
    uint32_t bits = __float_as_uint(v);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Two of them, `low` in the lower half: what mma and ldmatrix call a register. */
static __device__ __forceinline__ uint32_t phx_bf16_pair(float low, float high)
{
#ifdef PHX_CUDA_EMULATED
    return (uint32_t)phx_bf16_bits(low) | (uint32_t)phx_bf16_bits(high) << 16;
#else
    uint32_t pair;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

/* Both halves of a times those of b, rounded to nearest even, denormals kept. */
static __device__ __forceinline__ uint32_t phx_bf16_mul2(uint32_t a, uint32_t b)
{
#ifdef PHX_CUDA_EMULATED
    return phx_bf16_pair(__uint_as_float(a << 16) * __uint_as_float(b << 16),
                         __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u));
#else
    uint32_t d;

    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u)); /* + -0.0 keeps every sign */
    return d;
#endif
}

/* Both halves of a plus those of b, rounded to nearest even. */
static __device__ __forceinline__ uint32_t phx_bf16_add2(uint32_t a, uint32_t b)
{
#ifdef PHX_CUDA_EMULATED
    return phx_bf16_pair(__uint_as_float(a << 16) + __uint_as_float(b << 16),
                         __uint_as_float(a & 0xffff0000u) + __uint_as_float(b & 0xffff0000u));
#else
    uint32_t d;

    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80u), "r"(b)); /* times 1 */
    return d;
#endif
}

/* Within 2 units of the last place; a result below 2^-126 is 0. */
static __device__ __forceinline__ float phx_exp2(float v)
{
#ifdef PHX_CUDA_EMULATED
    float e = exp2f(v);

    return e < 0x1p-126f ? 0.0f : e;
#else
    float e;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(v));
    return e;
#endif
}

static __device__ __forceinline__ float phx_exp(float v)
{
    return expf(v);
}

/* v, of which the compiler knows no more than that: what follows from it is computed where it is used, not kept in
 * registers from before a loop on. */
static __device__ __forceinline__ int32_t phx_opaque(int32_t v)
{
#ifndef PHX_CUDA_EMULATED
    asm volatile("" : "+r"(v));
#endif
    return v;
}

/* Says on the host what went wrong on the device: sync finds one of the codes (enum cuda_fault). */
static __device__ __forceinline__ void phx_fault(int32_t *fault, int32_t code)
{
    *(volatile int32_t *)fault = code;
}

#endif
