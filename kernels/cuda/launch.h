/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: which streams' launches overlap (docs/internals/cuda.md, "Launches that overlap").  Kernels'
 * launchers know a stream and nothing else, and a process may have several devices of different kinds. */
#ifndef PHX_KERNELS_CUDA_LAUNCH_H
#define PHX_KERNELS_CUDA_LAUNCH_H

#include <stdbool.h>

#include "kernels/cuda/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of any thread. */
bool phx_cuda_launches_overlap(cudaStream_t stream);
/* From now on they do; false when too many streams do already.  Stop before the stream is destroyed; a stream that does not
 * overlap is allowed. */
bool phx_cuda_launches_start_overlap(cudaStream_t stream);
void phx_cuda_launches_stop_overlap(cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
