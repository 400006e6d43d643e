/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: gated units where a product ends in one. */
#ifndef PHX_KERNELS_CUDA_GLU_CUH
#define PHX_KERNELS_CUDA_GLU_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/backend.h"

/* backend.h, enum phx_glu; single operations, so that no compiler fuses them differently in two kernels. */
static __device__ __forceinline__ float cuda_glu(float gate, float up, enum phx_glu kind, float limit)
{
    if (kind == PHX_GLU_SILU)
        return __fmul_rn(gate / __fadd_rn(1.0f, phx_exp(-gate)), up);
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up;
    up = up < -limit ? -limit : up;
    return __fmul_rn(gate / __fadd_rn(1.0f, phx_exp(__fmul_rn(gate, -1.702f))), __fadd_rn(up, 1.0f));
}

#endif
