// SPDX-License-Identifier: Apache-2.0
// Warpgroups of the emulated device: the layouts of the PTX ISA, and that what is under way may not be touched.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/cuda/warpgroup.cuh"
#include "tests/emu/block.h"

namespace {

enum { GROUP = PHX_EMU_WARPGROUP, K = 64 };

cudaStream_t stream;

int open_stream(void **state)
{
    (void)state;
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess;
}

int close_stream(void **state)
{
    (void)state;
    return cudaStreamDestroy(stream) != cudaSuccess;
}

// ---- products

struct product {
    const uint16_t *a, *b; // [64][K], [columns][K]
    float          *d;     // [64][columns]
};

// The 128-byte swizzle, written out as the PTX ISA draws it: row by row of eight, where chunks 0 to 7 of 16 bytes are.
const int CHUNK_AT[8][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 0, 3, 2, 5, 4, 7, 6}, {2, 3, 0, 1, 6, 7, 4, 5}, {3, 2, 1, 0, 7, 6, 5, 4},
                            {4, 5, 6, 7, 0, 1, 2, 3}, {5, 4, 7, 6, 1, 0, 3, 2}, {6, 7, 4, 5, 2, 3, 0, 1}, {7, 6, 5, 4, 3, 2, 1, 0}};

template <int COLUMNS> __global__ void product_kernel(product p)
{
    PHX_SHARED(unsigned char, shared);
    unsigned char *atoms = phx_align_atoms(shared);
    int            thread = (int)threadIdx.x, row = thread / 32 * 16 + thread % 32 / 4, t = thread % 4;
    uint32_t       a[K / 16][4];
    float          d[COLUMNS / 2];

    for (int i = thread; i < COLUMNS * 8; i += GROUP)
        memcpy(atoms + i / 8 * 128 + CHUNK_AT[i / 8 % 8][i % 8] * 16, p.b + i * 8, 16);
    for (int step = 0; step < K / 16; step++)
        for (int r = 0; r < 4; r++)
            memcpy(&a[step][r], p.a + (row + r % 2 * 8) * K + step * 16 + r / 2 * 8 + 2 * t, 4);
    for (int i = 0; i < COLUMNS / 2; i++)
        d[i] = NAN;
    phx_wgmma_publish();
    __syncthreads();
    phx_wgmma_fence();
    for (int step = 0; step < K / 16; step++)
        phx_wgmma(d, a[step], phx_wgmma_b(atoms, step), step > 0);
    phx_wgmma_commit();
    phx_wgmma_wait<0>();
    for (int i = 0; i < COLUMNS / 2; i++)
        p.d[(row + i % 4 / 2 * 8) * COLUMNS + i / 4 * 8 + 2 * t + i % 2] = d[i];
}

template <int COLUMNS> void check_product()
{
    static uint16_t a[64 * K], b[COLUMNS * K];
    static float    d[64 * COLUMNS];

    for (int i = 0; i < 64 * K; i++)
        a[i] = phx_bf16_bits((float)(i * 7 % 31 - 15));
    for (int i = 0; i < COLUMNS * K; i++)
        b[i] = phx_bf16_bits((float)(i * 5 % 23 - 11) / 8);
    for (int launch = 0; launch < 2; launch++) {
        memset(d, 0xff, sizeof(d));
        assert_int_equal(PHX_LAUNCH(product_kernel<COLUMNS>, 1, GROUP, COLUMNS * K * 2 + PHX_ATOM_BYTES, stream, product{a, b, d}),
                         cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
        for (int row = 0; row < 64; row++)
            for (int n = 0; n < COLUMNS; n++) {
                float want = 0;

                for (int k = 0; k < K; k++)
                    want += phx_bf16_float(a[row * K + k]) * phx_bf16_float(b[n * K + k]);
                assert_true(d[row * COLUMNS + n] == want); // all sums are exact
            }
    }
}

void warpgroups_multiply(void **state)
{
    (void)state;
    check_product<32>();
    check_product<64>();
    check_product<128>();
}

// What the sums and operands are between start and wait: in a late launch as they were.
__global__ void late_kernel(float *before, float *after, bool spoils)
{
    PHX_SHARED(unsigned char, shared);
    unsigned char *atoms = phx_align_atoms(shared);
    uint32_t       one = phx_bf16_pair(1.0f, 1.0f), a[4] = {one, one, one, one};
    float          d[32] = {};

    for (int i = (int)threadIdx.x; i < 64 * K / 2; i += GROUP)
        memcpy(atoms + i * 4, &one, 4);
    __syncthreads();
    phx_wgmma_fence();
    phx_wgmma(d, a, phx_wgmma_b(atoms, 0), false);
    phx_wgmma_commit();
    phx_wgmma(d, a, phx_wgmma_b(atoms, 1), true);
    phx_wgmma_commit();
    if (spoils)
        a[0] = 0;
    *before = d[0];
    phx_wgmma_wait<1>();
    before[1] = d[0];
    phx_wgmma_wait<0>();
    *after = d[0];
}

void products_are_done_when_waited_for(void **state)
{
    float before[2][2], after[2], spoilt[2];

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(PHX_LAUNCH(late_kernel, 1, GROUP, 64 * K * 2 + PHX_ATOM_BYTES, stream, before[i], after + i, false), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_true(after[0] == 32.0f && after[1] == 32.0f);
    assert_true((before[0][0] == 0.0f && before[1][0] == 32.0f) || (before[0][0] == 32.0f && before[1][0] == 0.0f));
    assert_true((before[0][1] == 16.0f && before[1][1] == 32.0f) || (before[0][1] == 32.0f && before[1][1] == 16.0f));
    for (int i = 0; i < 2; i++)
        assert_int_equal(PHX_LAUNCH(late_kernel, 1, GROUP, 64 * K * 2 + PHX_ATOM_BYTES, stream, before[i], spoilt + i, true), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_true(spoilt[0] != spoilt[1]); // operands that are written too early show
}

// ---- barriers and copies

enum { ROUNDS = 7, STAGES = 3, STAGE_INTS = 64 };

// One warp fills a ring, two others add what is there.
__global__ void ring_kernel(const int *from, int *out)
{
    PHX_SHARED(int, stages);
    uint64_t *full = reinterpret_cast<uint64_t *>(stages + STAGES * STAGE_INTS), *empty = full + STAGES;
    int       warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, sum = 0;

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            phx_barrier_init(full + i, 1);
            phx_barrier_init(empty + i, 2);
        }
        phx_barrier_ready();
    }
    __syncthreads();
    for (int i = 0; i < ROUNDS; i++) {
        int      stage = i % STAGES;
        uint32_t parity = (uint32_t)(i / STAGES) & 1u;

        if (warp == 2) {
            if (i >= STAGES)
                phx_barrier_wait(empty + stage, parity ^ 1u);
            if (lane == 0)
                phx_barrier_expect(full + stage, STAGE_INTS * 4);
            __syncwarp();
            if (lane < 2)
                phx_bulk_copy(stages + stage * STAGE_INTS + lane * 32, from + i * STAGE_INTS + lane * 32, 128, full + stage);
        } else {
            phx_barrier_wait(full + stage, parity);
            sum = sum * 3 + stages[stage * STAGE_INTS + (int)threadIdx.x];
            __syncwarp();
            if (lane == 0)
                phx_barrier_arrive(empty + stage);
        }
    }
    if (warp < 2)
        out[threadIdx.x] = sum;
}

void rings_go_round(void **state)
{
    alignas(16) static int from[ROUNDS * STAGE_INTS];
    int                    out[64];

    (void)state;
    for (int i = 0; i < ROUNDS * STAGE_INTS; i++)
        from[i] = i * 37 % 101;
    for (int launch = 0; launch < 2; launch++) {
        assert_int_equal(PHX_LAUNCH(ring_kernel, 1, 96, (STAGES * STAGE_INTS + 4 * STAGES) * 4, stream, from, out), cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
        for (int t = 0; t < 64; t++) {
            int want = 0;

            for (int i = 0; i < ROUNDS; i++)
                want = want * 3 + from[i * STAGE_INTS + t];
            assert_int_equal(out[t], want);
        }
    }
}

// ---- what is refused

__global__ void lone_warp_kernel()
{
    if (threadIdx.x < 32)
        phx_wgmma_commit();
}

__global__ void dead_barrier_kernel()
{
    PHX_SHARED(uint64_t, barrier);

    if (threadIdx.x == 0)
        phx_barrier_init(barrier, 2);
    __syncthreads();
    if (threadIdx.x == 0)
        phx_barrier_arrive(barrier);
    phx_barrier_wait(barrier, 0);
}

__global__ void odd_descriptor_kernel()
{
    PHX_SHARED(unsigned char, shared);
    uint32_t a[4] = {};
    float    d[32] = {};

    phx_wgmma(d, a, phx_wgmma_b(phx_align_atoms(shared) + 128, 0), false);
    phx_wgmma_commit();
    phx_wgmma_wait<0>();
}

__global__ void forgotten_product_kernel()
{
    PHX_SHARED(unsigned char, shared);
    uint32_t a[4] = {};
    float    d[32] = {};

    phx_wgmma(d, a, phx_wgmma_b(phx_align_atoms(shared), 0), false);
}

__global__ void greedy_kernel()
{
    phx_registers_more<248>();
}

void expect_death(void (*kernel)(), unsigned threads = GROUP)
{
    pid_t pid = fork();
    int   status = 0;

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)!freopen("/dev/null", "w", stderr);
        for (int i = 0; i < 2; i++) { // one of them late
            (void)PHX_LAUNCH(kernel, 1, threads, 16384, stream);
            (void)cudaStreamSynchronize(stream);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

void what_a_device_would_punish_is_found(void **state)
{
    (void)state;
    expect_death(lone_warp_kernel);
    expect_death(dead_barrier_kernel);
    expect_death(odd_descriptor_kernel);
    expect_death(forgotten_product_kernel);
    expect_death(greedy_kernel, 3 * GROUP);
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warpgroups_multiply),
        cmocka_unit_test(products_are_done_when_waited_for),
        cmocka_unit_test(rings_go_round),
        cmocka_unit_test(what_a_device_would_punish_is_found),
    };

    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
