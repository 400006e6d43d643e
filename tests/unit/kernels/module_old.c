/* SPDX-License-Identifier: Apache-2.0
 * A module of another build: its probe must not be called. */
#include <stdlib.h>

#include "kernels/module.h"

extern struct phx_module phx_backend_module;

static int probe(char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    abort();
}

struct phx_module phx_backend_module = {PHX_BACKEND_ABI + 1, probe, NULL};
