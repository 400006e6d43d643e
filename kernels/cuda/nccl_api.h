/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the part of NCCL's interface that exchange.c uses, found at run time.  No header and no
 * library of NCCL is needed to build or to start; names, numbers and layouts are those of its nccl.h since 2.18. */
#ifndef PHX_KERNELS_CUDA_NCCL_API_H
#define PHX_KERNELS_CUDA_NCCL_API_H

#include <stddef.h>

#include "kernels/cuda/runtime.h"

enum {
    NCCL_SUCCESS = 0,
    NCCL_IN_PROGRESS = 7,
    NCCL_FLOAT32 = 7,
    NCCL_SUM = 0,
    NCCL_VERSION_MIN = 21800,    /* the oldest whose calls may return before they are done */
    NCCL_CONFIG_VERSION = 21400  /* of the layout below, which later libraries complete by their defaults */
};

#define NCCL_CONFIG_MAGIC 0xcafebeefu

struct nccl_id {
    char bytes[128];
};

/* ncclConfig_t as 2.14 had it. */
struct nccl_config {
    size_t   size;
    unsigned magic, version;
    int      blocking;
};

typedef void *nccl_comm;

struct nccl_api {
    void *library; /* NULL: not loaded */
    int (*GetVersion)(int *version);
    int (*GetUniqueId)(struct nccl_id *id);
    int (*CommInitRankConfig)(nccl_comm *comm, int n_ranks, struct nccl_id id, int rank, struct nccl_config *config);
    int (*CommFinalize)(nccl_comm comm);
    int (*CommDestroy)(nccl_comm comm);
    int (*CommAbort)(nccl_comm comm);
    int (*CommGetAsyncError)(nccl_comm comm, int *state);
    const char *(*GetErrorString)(int rc);
    int (*AllReduce)(const void *from, void *to, size_t count, int type, int op, nccl_comm comm, cudaStream_t stream);
    int (*AllGather)(const void *from, void *to, size_t count, int type, nccl_comm comm, cudaStream_t stream);
    int (*Send)(const void *from, size_t count, int type, int peer, nccl_comm comm, cudaStream_t stream);
    int (*Recv)(void *to, size_t count, int type, int peer, nccl_comm comm, cudaStream_t stream);
    int (*GroupStart)(void);
    int (*GroupEnd)(void);
};

/* The library, loaded on the first call: libnccl.so.2 beside the module, else where the system finds it.  NULL with what
 * is missing; it stays loaded. */
const struct nccl_api *phx_nccl_load(char *why, size_t why_size);

#endif
