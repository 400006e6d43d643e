/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: the one place of this folder that asks the system for memory. */
#ifndef PHX_KERNELS_MEMORY_H
#define PHX_KERNELS_MEMORY_H

#include <stddef.h>

/* Zeroed, 64-byte aligned; huge pages are asked for above 4 MiB.  NULL when short. */
void *phx_memory_alloc(size_t size_bytes);
void  phx_memory_free(void *ptr);

#endif
