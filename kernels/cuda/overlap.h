/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: whether the launches of a device overlap. */
#ifndef PHX_KERNELS_CUDA_OVERLAP_H
#define PHX_KERNELS_CUDA_OVERLAP_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_OVERLAP_ARCH_MIN = 90 }; /* PTX ISA, griddepcontrol */

/* Launches of d->stream overlap from here on, where the device, this build's kernels and the driver bear it; d->launches
 * says what is so.  is_serial: not wanted.  0, or -1 when the device is lost (error kept). */
int phx_cuda_overlap_open(struct cuda_device *d, bool is_serial);
/* From here on they do not.  why: static text. */
void phx_cuda_overlap_stop(struct cuda_device *d, const char *why);

/* overlap.cu: the compute capability (90 for 9.0) that kernels were compiled for as this device runs them. */
int phx_cuda_overlap_built_for(int *arch);
/* Two launches that do nothing. */
int phx_cuda_overlap_try(cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
