/* SPDX-License-Identifier: Apache-2.0
 * A module on a machine without its device. */
#include <stdio.h>

#include "kernels/module.h"

extern struct phx_module phx_backend_module;

static int probe(char *why, size_t why_size)
{
    (void)snprintf(why, why_size, "no device of compute capability 9.0 or newer");
    return -1;
}

struct phx_module phx_backend_module = {PHX_BACKEND_ABI, probe, NULL};
