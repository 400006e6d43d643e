/* SPDX-License-Identifier: Apache-2.0
 * Ranks as threads over emulated devices that share memory, for tests of what they exchange. */
#ifndef PHX_TESTS_UNIT_SHARD_COMM_PEER_WORLD_H
#define PHX_TESTS_UNIT_SHARD_COMM_PEER_WORLD_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/cuda/pick_peer.h"
#include "kernels/exchange.h"
#include "shard/comm/nccl.h"
#include "tests/emu/control.h"

enum { RANKS_MAX = 8, LIMIT = CUDA_PEER_BYTES / 4, MOST = 2 * LIMIT + 77 };

extern struct phx_emu *emu;

struct rank {
    int32_t             index, n;
    struct phx_comm    *comm, *hosts; /* with devices, and without */
    struct phx_backend *b;
    enum phx_transport  transport;
    int32_t             wait_ms;
    int (*body)(struct rank *r); /* 0, or the line where something was wrong */
    int                 rc, line;
    struct phx_err      err;
    uint32_t            random;
};

#define CHECK(condition)     \
    do {                     \
        if (!(condition))    \
            return __LINE__; \
    } while (0)

/* Before all tests, and before each: every rank has a device of its own. */
int find_emulator(void **state);
int start(void **state);

void run_world(struct rank *ranks, int32_t n, enum phx_transport transport, int (*body)(struct rank *r));
/* All ranks open, and their bodies find nothing wrong. */
void expect_world(int32_t n, enum phx_transport transport, int (*body)(struct rank *r));

/* Of both signs and many magnitudes; another sequence on every rank. */
float draw(struct rank *r);

/* Device memory and what the hosts make of the same numbers. */
struct pair {
    float *memory, *device, *host, *got;
    size_t n;
};
/* n numbers, `shift` floats behind the memory's begin. */
bool make_pair(struct rank *r, size_t n, size_t shift, struct pair *p);
/* Frees it. */
bool is_same(struct rank *r, struct pair *p);
struct phx_tensor row_of(float *x, size_t n);

#endif
