/* SPDX-License-Identifier: Apache-2.0 */
#define WIDTH      8
#define LOOPS      phx_sample_loops_avx512
#define LOOPS_NAME "avx512"
#include "shard/sample/loops_body.h"
