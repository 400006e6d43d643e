/* SPDX-License-Identifier: Apache-2.0
 * The same product by mma.sync and by wgmma, bit by bit: 64 x 64 sums over 128 k of random operands, whose exponents vary more
 * from one block of the grid to the next; zeros of both signs among them. */
#include "kernels/cuda/hopper.h"
#include "kernels/cuda/warpgroup.cuh"

enum { BLOCKS = 4, COLUMNS = 64, SUMS = COLUMNS / 2, ATOMS = 2, ATOM_STEPS = PHX_ATOM_K / PHX_STEP_K };

/* A bf16 that follows from its place: 1.0 to 2.0 times a power of two, of which there are 1 << spread; one in 16 is a zero. */
static __device__ __forceinline__ uint32_t draw(uint32_t place, uint32_t spread)
{
    uint32_t h = (place + 1u) * 0x9e3779b1u;

    h = (h ^ h >> 15) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    h ^= h >> 16;
    if (h % 16u == 0)
        return h >> 31 << 15;
    return h >> 31 << 15 | (127u - (1u << spread >> 1) + (h >> 8 & ((1u << spread) - 1u))) << 7 | (h >> 16 & 127u);
}

static __device__ __forceinline__ uint32_t draw_pair(uint32_t place, uint32_t spread)
{
    return draw(place, spread) | draw(place + 1u, spread) << 16;
}

/* Operand a of 16 k from k on, of the lane's rows. */
static __device__ __forceinline__ void make_a(uint32_t (&a)[4], uint32_t k, uint32_t spread)
{
    uint32_t row = threadIdx.x / PHX_WARP * 16u + threadIdx.x % PHX_WARP / 4u;

#pragma unroll
    for (uint32_t r = 0; r < 4; r++)
        a[r] = draw_pair((row + r % 2u * 8u) * 512u + k + r / 2u * 8u + threadIdx.x % 4u * 2u, spread);
}

/* 64 k of all columns, swizzled; places are behind those of a. */
static __device__ __forceinline__ void write_b(uint32_t *atoms, uint32_t atom, uint32_t spread)
{
    for (uint32_t i = threadIdx.x; i < COLUMNS * PHX_ATOM_K / 2; i += PHX_WARPGROUP) {
        uint32_t column = i / 32u, k = i % 32u * 2u;
        uint32_t chunk = (uint32_t)phx_swizzle_chunk((int)column, (int)(k / 8u));

        atoms[column * 32u + chunk * 4u + k % 8u / 2u] = draw_pair(65536u + column * 512u + atom * PHX_ATOM_K + k, spread);
    }
}

/* Operand b of mma.sync: columns 8 t to 8 t + 7 of step `step`. */
static __device__ __forceinline__ void read_b(uint32_t (&b)[2], const uint32_t *atoms, int t, int step)
{
    int lane = (int)threadIdx.x % PHX_WARP, column = t * 8 + lane / 4;

#pragma unroll
    for (int r = 0; r < 2; r++)
        b[r] = atoms[column * 32 + phx_swizzle_chunk(column, step * 2 + r) * 4 + lane % 4];
}

static __global__ void __launch_bounds__(PHX_WARPGROUP, 1) compare(int32_t *differs)
{
    phx_begin();
    PHX_SHARED(unsigned char, shared);
    unsigned char *atoms = phx_align_atoms(shared);
    uint32_t      *words = (uint32_t *)(void *)atoms, spread = blockIdx.x + 1u;
    float          by_wgmma[SUMS] = {}, by_warp[SUMS / 4][4] = {};
    bool           is_different = false;

    for (int atom = 0; atom < ATOMS; atom++) {
        __syncthreads();
        write_b(words, (uint32_t)atom, spread);
        phx_wgmma_publish();
        __syncthreads();
#pragma unroll
        for (int step = 0; step < ATOM_STEPS; step++) {
            uint32_t a[4], b[2];

            make_a(a, (uint32_t)(atom * PHX_ATOM_K + step * PHX_STEP_K), spread);
            phx_wgmma_fence();
            phx_wgmma(by_wgmma, a, phx_wgmma_b(atoms, step), atom + step > 0);
            phx_wgmma_commit();
            phx_wgmma_wait<0>();
#pragma unroll
            for (int t = 0; t < SUMS / 4; t++) {
                read_b(b, words, t, step);
                phx_mma_bf16(by_warp[t], a, b);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < SUMS; i++)
        is_different = is_different || __float_as_uint(by_wgmma[i]) != __float_as_uint(by_warp[i / 4][i % 4]);
    if (is_different)
        phx_fault(differs, 1);
}

int phx_cuda_hopper_compare(cudaStream_t stream, int32_t *differs)
{
    return PHX_LAUNCH(compare, BLOCKS, PHX_WARPGROUP, COLUMNS * PHX_ATOM_K * 2 + PHX_ATOM_BYTES, stream, differs);
}
