/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/launch.h"

#include <stdatomic.h>
#include <stddef.h>

enum { STREAMS_MAX = 64 };

static _Atomic(cudaStream_t) streams[STREAMS_MAX]; /* NULL: the place is free */
static atomic_int            n_places;             /* behind these all are free */

bool phx_cuda_launches_overlap(cudaStream_t stream)
{
    int n = atomic_load_explicit(&n_places, memory_order_acquire);

    for (int i = 0; i < n; i++)
        if (atomic_load_explicit(&streams[i], memory_order_relaxed) == stream)
            return stream != NULL;
    return false;
}

bool phx_cuda_launches_start_overlap(cudaStream_t stream)
{
    for (int i = 0; i < STREAMS_MAX; i++) {
        cudaStream_t none = NULL;
        int          n = atomic_load(&n_places);

        if (!atomic_compare_exchange_strong(&streams[i], &none, stream))
            continue;
        while (n <= i && !atomic_compare_exchange_weak(&n_places, &n, i + 1))
            ;
        return true;
    }
    return false;
}

void phx_cuda_launches_stop_overlap(cudaStream_t stream)
{
    for (int i = 0; i < STREAMS_MAX; i++) {
        cudaStream_t own = stream;

        if (stream != NULL && atomic_compare_exchange_strong(&streams[i], &own, NULL))
            return;
    }
}
