/* SPDX-License-Identifier: Apache-2.0
 * The inner loops for the instruction set of the file that includes this: ISA_NAME names the table. */
#include "kernels/cpu/isa.h"
#include "kernels/cpu/v16_bytes.h"

#include "kernels/cpu/body_vector.h"

#include "kernels/cpu/body_attention.h"
#include "kernels/cpu/body_matmul.h"
#include "kernels/cpu/body_moe.h"
#include "kernels/cpu/body_rounded_attention.h"
#include "kernels/cpu/body_rounded_tiles.h"

#define TABLE(table_name, with_tiles, rounded)                                                              \
    {                                                                                              \
        .name = (table_name), .has_tiles = (with_tiles), .matmul = matmul, .round_rows = round_rows, \
        .moe_down = moe_down, .rmsnorm = rmsnorm, .attention = attention,                          \
        .rounded_attention = (rounded), .swiglu = swiglu, .rope = rope, .axpy = axpy, .add = add, .exp = exp_one, .sum_exp = sum_exp                                     \
    }

const struct isa ISA_TABLE = TABLE(ISA_NAME, false, attend_share);
