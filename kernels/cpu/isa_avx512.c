/* SPDX-License-Identifier: Apache-2.0 */
#define V16_AVX512
#define ISA_TABLE isa_avx512
#define ISA_NAME "avx512"
#include "kernels/cpu/isa_body.h"
