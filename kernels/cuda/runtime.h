/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the CUDA runtime as host code sees it.  With PHX_CUDA_EMULATED the folder tests/emu is
 * on the include path and this header is the emulator's; no other header of CUDA is included by host code. */
#ifndef PHX_KERNELS_CUDA_RUNTIME_H
#define PHX_KERNELS_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#endif
