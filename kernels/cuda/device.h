/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: one device, its stream, memory and first error.  The thread that opened it uses it: which device is current
 * is a matter of the thread. */
#ifndef PHX_KERNELS_CUDA_DEVICE_H
#define PHX_KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/spans.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_ARCH_MIN = 80,               /* compute capability 8.0: bf16 products */
    CUDA_ALIGN_BYTES = 256,           /* of every piece of device memory */
    CUDA_STAGE_BYTES = 16 << 20,      /* host arrays between two syncs, and behind them ... */
    CUDA_COUNTERS = 4096,             /* ... words on the device that are 0 between launches */
    CUDA_UPLOAD_SLOTS = 4,
    CUDA_UPLOAD_SLOT_BYTES = 4 << 20
};

/* What kernels say through phx_fault(); sync turns it into text. */
enum cuda_fault { CUDA_FAULT_NONE = 0, CUDA_FAULT_EXPERT_ID, CUDA_FAULT_PEER };

/* Products on warpgroups (hopper.h). */
enum cuda_hopper_state { CUDA_HOPPER_MISSING = 0, CUDA_HOPPER_OTHER_BITS, CUDA_HOPPER_SAME_BITS };

/* One ring of pinned memory and its mirror on the device; it starts again at every sync outside a step, so that equal
 * steps put equal arrays at equal addresses. */
struct cuda_staging {
    unsigned char    *host, *device;
    size_t            used;
    bool              has_spans;
    struct cuda_spans spans;         /* of ops outside a step */
    const int32_t    *spans_host;    /* the same in pinned memory */
    int32_t           caller_stride; /* of the table they were made from */
    uint32_t         *counters;      /* [CUDA_COUNTERS] on the device; who counts leaves 0 */
};

/* Pinned memory through which bulk data passes: while one slot is on its way the next is filled. */
struct phx_team;

struct cuda_upload {
    unsigned char   *slot[CUDA_UPLOAD_SLOTS];
    cudaEvent_t      is_free[CUDA_UPLOAD_SLOTS];
    int              next;
    struct phx_team *team;     /* fills slots; made when the first large one is */
    bool             is_alone; /* there can be none */
};

/* A piece of a chunk of device memory. */
struct cuda_range {
    unsigned char *at;
    size_t         size_bytes;
    bool           is_free;
    bool           is_chunk_start; /* the address that cudaMalloc gave */
};

/* All device memory of a backend: big requests have a chunk of their own, small ones share chunks. */
struct cuda_pool {
    struct cuda_range *ranges; /* of one chunk adjacent, addresses ascending */
    int32_t            n_ranges, capacity;
    size_t             chunk_bytes; /* taken from the device */
    size_t             used_bytes;
};

struct cuda_step; /* step.h */
struct cuda_stamps;

struct cuda_device {
    cudaStream_t        stream;
    enum phx_compute    compute;
    bool                is_fast; /* class B: heuristics may choose */
    int                 index;   /* among the visible devices */
    int                 arch;    /* 90: compute capability 9.0 */
    int                 sm_count;
    size_t              shared_max; /* bytes a block may have */
    size_t              l2_bytes;   /* of the second-level cache */
    char                isa[16];    /* "sm_90" */
    enum cuda_hopper_state hopper;
    const char         *launches; /* "overlapped", or "one by one: " and why (overlap.h); static text */
    struct cuda_staging staging;
    struct cuda_upload  upload;
    struct cuda_pool    pool;
    void               *scratch;
    size_t              scratch_bytes;
    struct cuda_step    *step;
    struct cuda_stamps  *stamps;  /* when a benchmark asked for times (stamp.c) */
    struct cuda_library *library; /* cuBLASLt, when class B has looked for it (library.c) */
    int32_t            *fault; /* pinned; kernels write an enum cuda_fault */
    bool                has_failed;
    bool                is_lost; /* nothing will work any more */
    const char         *last_op;
    char                why[PHX_WHY_BYTES]; /* the first error since the last sync */
};

/* ---- device.c -------------------------------------------------------------------------------- */

/* True when rc (a cudaError_t) is success; else the first error is kept for sync, op named. */
bool phx_cuda_check(struct cuda_device *d, int rc, const char *op);
/* Keeps an error of our own; false. */
bool phx_cuda_fail(struct cuda_device *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- memory.c -------------------------------------------------------------------------------- */

/* Device memory, CUDA_ALIGN_BYTES aligned, contents unknown; NULL when short, the numbers kept for sync. */
void *phx_cuda_take(struct cuda_device *d, size_t size_bytes, const char *what);
/* NULL is allowed.  The memory may be used again by later work of the stream. */
void phx_cuda_drop(struct cuda_device *d, void *ptr);
/* Scratch of one op: at least size_bytes, contents unknown, the same memory for every op; grows only (reserve it
 * ahead of the steps).  NULL when short. */
void *phx_cuda_scratch(struct cuda_device *d, size_t size_bytes);
void  phx_cuda_pool_close(struct cuda_device *d);

/* ---- stage.c --------------------------------------------------------------------------------- */

/* The bytes of a host array in device memory: where the step has it, or on their way in the stream; 16-byte aligned,
 * valid until the next sync.  The array may be changed at once.  NULL when more than CUDA_STAGE_BYTES are staged
 * (error kept). */
const void *phx_cuda_stage(struct cuda_device *d, const void *host, size_t size_bytes);
/* Room in the ring, 16-byte aligned: its offset, or SIZE_MAX (error kept); and sending what was written there. */
size_t phx_cuda_stage_reserve(struct cuda_device *d, size_t size_bytes);
bool   phx_cuda_stage_send(struct cuda_device *d, size_t at, size_t size_bytes);
/* The rows of a step; uploaded once for all ops that get the same content.  0, or -1 (error kept). */
int phx_cuda_spans(struct cuda_device *d, const struct phx_spans *spans, struct cuda_spans *out);
/* n_rows rows of row_bytes that lie row_stride bytes apart on the host, to `to`, adjacent there.  The host memory may
 * be changed at once; the stream orders the arrival. */
void phx_cuda_upload_rows(struct cuda_device *d, void *to, const void *host, size_t row_bytes, int64_t row_stride,
                          size_t n_rows);
/* Entries of struct phx_ops; a download is complete when it returns. */
void phx_cuda_upload(void *device, void *to, const void *host, size_t size_bytes);
void phx_cuda_download(void *device, void *host, const void *from, size_t size_bytes);
bool phx_cuda_stage_open(struct cuda_device *d);
void phx_cuda_stage_close(struct cuda_device *d);
void phx_cuda_stage_restart(struct cuda_device *d); /* the stream is empty */

static inline size_t cuda_round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

#ifdef __cplusplus
}
#endif
#endif
