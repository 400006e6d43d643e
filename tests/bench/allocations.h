/* SPDX-License-Identifier: Apache-2.0
 * Counts what a program takes from the heap and the system.  Linking phx_allocations is enough. */
#ifndef PHX_TESTS_BENCH_ALLOCATIONS_H
#define PHX_TESTS_BENCH_ALLOCATIONS_H

#include <stdint.h>

/* Calls of malloc, calloc, realloc, aligned_alloc, posix_memalign and mmap by all threads so far; those of shared
 * libraries are not counted. */
uint64_t allocations_count(void);

#endif
