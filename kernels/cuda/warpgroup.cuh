/* SPDX-License-Identifier: Apache-2.0
 * What a Hopper device (compute capability 9.0) has beyond device.cuh: products of a warpgroup (wgmma), barriers in shared
 * memory that count arrivals and bytes (mbarrier), and bulk copies that end at such a barrier.  Inline assembly is here and in
 * device.cuh only.  Files that include this are compiled for sm_90a alone; other devices have no such kernel.
 *
 * A warpgroup is four warps from a warp index divisible by 4 on; all its 128 threads call phx_wgmma*() together. */
#ifndef PHX_KERNELS_CUDA_WARPGROUP_CUH
#define PHX_KERNELS_CUDA_WARPGROUP_CUH

#include "kernels/cuda/device.cuh"

enum {
    PHX_WARPGROUP = 128,
    PHX_ATOM_K = 64,       /* k of a row of the b operand: 128 bytes of bf16 */
    PHX_ATOM_BYTES = 1024, /* eight such rows, and how they are aligned */
    PHX_ATOM_ROWS = 8,
    PHX_CHUNKS = 8, /* of 16 bytes in a row */
    PHX_STEP_K = 16 /* of a product */
};

/* The b operand, columns (rows of x) of k: eight columns are 1024 adjacent bytes, 128 each, and chunk c (8 k) of column n lies
 * where chunk c ^ n % 8 would (PTX ISA, matrix descriptor, 128-byte swizzle, K-major). */
static __host__ __device__ __forceinline__ int phx_swizzle_chunk(int row, int chunk)
{
    return chunk ^ row % PHX_ATOM_ROWS;
}

#ifdef PHX_CUDA_EMULATED

#include <warpgroup.h>

#else

/* ---- addresses ------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t phx_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* ---- products -------------------------------------------------------------------------------- */

/* Orders what registers hold before the products that follow: before the first, and after others wrote operands or sums. */
static __device__ __forceinline__ void phx_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
}

/* Ends a group of products. */
static __device__ __forceinline__ void phx_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
}

/* Until at most the n newest groups are under way. */
template <int n> static __device__ __forceinline__ void phx_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(n) : "memory");
}

#define PHX_F4(d, i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PHX_F16(d, i) PHX_F4(d, i), PHX_F4(d, i + 4), PHX_F4(d, i + 8), PHX_F4(d, i + 12)
#define PHX_F32(d, i) PHX_F16(d, i), PHX_F16(d, i + 16)
#define PHX_R16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define PHX_R32 PHX_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PHX_R64                                                                                                  \
    PHX_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
              "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/* d = a b, or d + a b when it adds, for 64 x N outputs over 16 k: PTX ISA, wgmma.mma_async.m64nNk16 of .bf16 with .f32 sums.
 * Warp w of the four has rows 16 w to 16 w + 15: a as phx_mma_bf16 has it, d[4 t + c] as c there of columns 8 t to 8 t + 7.  b:
 * phx_wgmma_b().  a and d belong to the product until it was waited for. */
static __device__ __forceinline__ void phx_wgmma(float (&d)[16], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" PHX_R16 "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;\n}"
                 : PHX_F16(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds));
}

static __device__ __forceinline__ void phx_wgmma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" PHX_R32 "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                 : PHX_F32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds));
}

static __device__ __forceinline__ void phx_wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" PHX_R64 "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}"
                 : PHX_F32(d, 0), PHX_F32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds));
}

#undef PHX_F4
#undef PHX_F16
#undef PHX_F32
#undef PHX_R16
#undef PHX_R32
#undef PHX_R64

/* Makes what this thread has written to shared memory visible to products; then comes a barrier. */
static __device__ __forceinline__ void phx_wgmma_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

/* ---- registers ------------------------------------------------------------------------------- */

/* A warpgroup gives back registers, or waits for more, until its threads have n; n a multiple of 8. */
template <int n> static __device__ __forceinline__ void phx_registers_less()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(n));
}

template <int n> static __device__ __forceinline__ void phx_registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(n));
}

/* ---- barriers -------------------------------------------------------------------------------- */

/* A phase of the barrier ends when n threads have arrived and all bytes announced are there.  One thread inits; the block
 * synchronises behind phx_barrier_ready(). */
static __device__ __forceinline__ void phx_barrier_init(uint64_t *barrier, int n)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(phx_shared_address(barrier)), "r"(n) : "memory");
}

static __device__ __forceinline__ void phx_barrier_ready()
{
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" : : : "memory");
}

static __device__ __forceinline__ void phx_barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" : : "r"(phx_shared_address(barrier)) : "memory");
}

/* Arrives, and announces that bytes will come. */
static __device__ __forceinline__ void phx_barrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(phx_shared_address(barrier)), "r"(bytes)
                 : "memory");
}

/* Until the phase of this parity (the first is 0) has ended. */
static __device__ __forceinline__ void phx_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n.reg .pred p;\nWAIT:\n"
                 "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\nbra WAIT;\nDONE:\n}"
                 :
                 : "r"(phx_shared_address(barrier)), "r"(parity)
                 : "memory");
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* Adjacent bytes from global to shared memory, all multiples of 16; the barrier counts them when they are there. */
static __device__ __forceinline__ void phx_bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :
                 : "r"(phx_shared_address(shared)), "l"(global), "r"(bytes), "r"(phx_shared_address(barrier))
                 : "memory");
}

#endif

/* ---- from the above -------------------------------------------------------------------------- */

/* What is asked of shared memory is PHX_ATOM_BYTES more than what is needed: the aligned part of it. */
static __device__ __forceinline__ unsigned char *phx_align_atoms(unsigned char *shared)
{
    return shared + (PHX_ATOM_BYTES - phx_shared_address(shared) % PHX_ATOM_BYTES) % PHX_ATOM_BYTES;
}

/* The b operand of k step `step` (of the four in 64 k) of columns that begin at an atom: matrix descriptor with start address,
 * 1024 bytes from eight columns to the next eight, 128-byte swizzle; all in units of 16 bytes. */
static __device__ __forceinline__ uint64_t phx_wgmma_b(const unsigned char *atoms, int step)
{
    uint32_t start = phx_shared_address(atoms) + (uint32_t)step * (PHX_STEP_K * 2);

    return (uint64_t)1 << 62 | (uint64_t)(PHX_ATOM_BYTES / 16) << 32 | (uint64_t)1 << 16 | (uint64_t)(start >> 4 & 0x3fffu);
}

#endif
