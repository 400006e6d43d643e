/* SPDX-License-Identifier: Apache-2.0
 * What a test may say about the emulated device.  The emulated phalanx_cuda.so exports the object `phx_emu`; a test
 * gets it with dlopen() of the module beside it and dlsym().  Change it while no other thread uses the backend. */
#ifndef PHX_TESTS_EMU_CONTROL_H
#define PHX_TESTS_EMU_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct phx_emu {
    /* facts, set anew by reset() */
    int    driver_version; /* 13000 for CUDA 13.0; 0: no driver on this host */
    int    n_devices;
    int    arch;           /* 90 for compute capability 9.0 */
    int    sm_count;
    size_t memory_bytes;
    size_t shared_max;     /* bytes of a block */
    /* The n-th call from now on fails, 1 being the next; 0: none. */
    int    fail_malloc;    /* device memory */
    int    fail_pinned;    /* pinned host memory */
    int    fail_copy;
    int    fail_launch;    /* refused at once; the device goes on */
    int    die_at_launch;  /* runs into die_error, which every later call answers too (Xid, ECC) */
    int    die_error;      /* a cudaError_t */
    /* counted */
    int64_t n_launches, n_copies, n_mallocs, n_syncs;
    size_t  used_bytes, used_bytes_max, pinned_bytes;
    /* Everything as it was at start, a dead device included; memory that is taken stays taken. */
    void (*reset)(void);
    /* cuBLASLt: facts, set anew by reset(), and products it was asked for */
    int     lacks_blas, blas_refuses;
    int64_t n_blas;
    /* Sizes of the backend, which are its own constants on a real device; reset() makes them small, so that tests see
     * many pieces and the address sanitizer many borders.  What was allocated must be free when they change. */
    size_t  share_below, landing_bytes, top_bytes, pieces_bytes, page_bytes;
    /* Does all work that is put off, as waiting for every stream would. */
    void (*drain)(void);
    /* graphs: the n-th instantiation or launch fails; counted; how many there are now */
    int     fail_instantiate, fail_graph_launch;
    int64_t n_graph_launches, n_graphs;
    /* Threads that fill pinned memory, and what one takes at a time; set anew by reset(). */
    int     copy_threads;
    size_t  copy_bytes;
    int     is_sink; /* copies and kernels do nothing: what the host does can be timed */
    /* whether wgmma rounds its sums towards zero, and so otherwise than mma.sync */
    int     truncates;
    /* peers: devices do not reach each other's memory; the n-th map of another rank's fails; a process may map what is its
     * own, as if it were another's; maps that are open */
    int     lacks_peers, fail_map, maps_own;
    int64_t n_maps;
    /* launches that overlap: what kernels were built for, 0 for arch (fact, set anew by reset()); 1: the driver refuses them,
     * 2: only while a stream is captured; counted */
    int     built_for, refuses_overlap;
    int64_t n_overlapped;
    /* of a device (fact); asked for ahead of a turn (counted) */
    size_t  l2_bytes;
    int64_t prefetched_bytes;
};

extern struct phx_emu phx_emu; /* inside the module */

#ifdef __cplusplus
}
#endif
#endif
