/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sample/loops.h"

#include <stdbool.h>
#include <stddef.h>

const struct phx_sample_loops *phx_sample_loops_at(int i)
{
    bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
    bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
                      __builtin_cpu_supports("avx512vl") != 0;

    i += 2 - has_avx2 - has_avx512;
    return i == 0 ? &phx_sample_loops_avx512 : i == 1 ? &phx_sample_loops_avx2
           : i == 2 ? &phx_sample_loops_plain : NULL;
}
