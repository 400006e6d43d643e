/* SPDX-License-Identifier: Apache-2.0 */
#define WIDTH      4
#define LOOPS      phx_sample_loops_avx2
#define LOOPS_NAME "avx2"
#include "shard/sample/loops_body.h"
