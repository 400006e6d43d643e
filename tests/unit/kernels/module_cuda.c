/* SPDX-License-Identifier: Apache-2.0
 * A module as it should be: the tested door with the CPU's table behind it. */
#include "kernels/module.h"

extern struct phx_module phx_backend_module;

static int probe(char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    return 0;
}

struct phx_module phx_backend_module = {PHX_BACKEND_ABI, probe, &phx_cpu_ops};
