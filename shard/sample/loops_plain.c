/* SPDX-License-Identifier: Apache-2.0 */
#define WIDTH      2
#define LOOPS      phx_sample_loops_plain
#define LOOPS_NAME "plain"
#include "shard/sample/loops_body.h"
