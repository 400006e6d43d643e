// SPDX-License-Identifier: Apache-2.0
// What kernels/cuda/warpgroup.cuh is written on in the emulated build: products of a warpgroup, barriers in shared memory, bulk
// copies.  Products and copies are under way until somebody waits for them, or, in odd launches, done at once: operands that
// are written too early, sums that are read too early, stages that are given back too early show.
#ifndef PHX_TESTS_EMU_WARPGROUP_H
#define PHX_TESTS_EMU_WARPGROUP_H

#include "tests/emu/emulator.h"

// An address in the window of shared memory; the block's memory does not begin at a round one.
uint32_t phx_shared_address(const void *shared);

void phx_emu_wgmma(float *d, const uint32_t *a, uint64_t b, bool adds, int columns);
void phx_emu_wgmma_wait(int n);
void phx_wgmma_commit();
static inline void phx_wgmma_publish() {}
static inline void phx_wgmma_fence() { phx_emu_warp(phx_emu_warp_nothing, nullptr); }
template <int n> static inline void phx_wgmma_wait() { phx_emu_wgmma_wait(n); }

template <size_t sums> static inline void phx_wgmma(float (&d)[sums], const uint32_t (&a)[4], uint64_t b, bool adds)
{
    phx_emu_wgmma(d, a, b, adds, (int)sums * 2);
}

// What all threads have in the end must be in what the block began with, else a device would wait for ever.
void phx_emu_registers(int n);
template <int n> static inline void phx_registers_less() { phx_emu_registers(n); }
template <int n> static inline void phx_registers_more() { phx_emu_registers(n); }

void phx_barrier_init(uint64_t *barrier, int n);
void phx_barrier_arrive(uint64_t *barrier);
void phx_barrier_expect(uint64_t *barrier, uint32_t bytes);
void phx_barrier_wait(uint64_t *barrier, uint32_t parity);
void phx_bulk_copy(void *shared, const void *global, uint32_t bytes, uint64_t *barrier);
static inline void phx_barrier_ready() {}

#endif
