/* SPDX-License-Identifier: Apache-2.0 */
#define V16_AVX512
#define ISA_TABLE isa_avx512
#define ISA_NAME "avx512"
#include "kernels/cpu/isa_body.h"
#include "kernels/cpu/tiles.h"

/* The same loops; products that pay for it go to the matrix unit (amx.c). */
const struct isa isa_amx = TABLE("amx", true, phx_tiles_attention);
