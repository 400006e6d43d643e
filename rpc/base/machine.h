/* SPDX-License-Identifier: Apache-2.0
 * What this process may use of the machine: cores by NUMA node, and memory.
 *
 * `root` stands before every path ("" for the real machine, a folder in tests). */
#ifndef PHX_RPC_BASE_MACHINE_H
#define PHX_RPC_BASE_MACHINE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

enum { PHX_CORES_MAX = CPU_SETSIZE, PHX_NODES_MAX = 64, PHX_MEMORY_SOURCE_BYTES = 256 };

/* Allowed cores, node by node, ascending in each; nodes without an allowed core are left out. */
struct phx_topology {
    int32_t n_nodes;                   /* at least 1 */
    int32_t first[PHX_NODES_MAX + 1];  /* node i has cores [first[i], first[i + 1]) of the list */
    int32_t n_cores;                   /* at least 1 */
    int32_t core[PHX_CORES_MAX];
};

/* Reads ROOT/sys/devices/system/node; a machine that does not tell is one node. */
void phx_topology_read(const char *root, const cpu_set_t *allowed, struct phx_topology *out);
/* Of this process, on this machine. */
void phx_topology_here(struct phx_topology *out);

/* Where one of n_places teams goes that share a machine. */
struct phx_placement {
    int32_t n_threads; /* at least 1 */
    bool    is_pinned; /* thread i to core[i]; else all threads share the cores */
    int32_t n_nodes;   /* that the cores lie in */
    int32_t n_cores;
    int32_t core[PHX_CORES_MAX];
};

/* Pure.  Whole nodes, or equal parts of one node, where their number allows it and no team gets less than
 * half of an even share; else runs of the list.  n_threads 0 = one per core of the share.  With more teams
 * than cores, or more threads than cores, nobody is pinned. */
void phx_placement_plan(const struct phx_topology *t, int32_t place, int32_t n_places,
                        int32_t n_threads, struct phx_placement *out);
/* The cores as a mask. */
void phx_placement_mask(const struct phx_placement *p, cpu_set_t *mask);

struct phx_memory_room {
    int64_t free_bytes;  /* can be had without hurting anyone: page cache counts as free */
    int64_t limit_bytes; /* of the control group that binds; 0 = the machine's own memory does */
    char    source[PHX_MEMORY_SOURCE_BYTES]; /* what binds: a file, for messages */
};

/* The smallest of MemAvailable and what the limits of this process's control groups (version 1 and 2, all
 * levels) leave.  INT64_MAX when the machine does not say. */
void phx_memory_room(const char *root, struct phx_memory_room *out);

#endif
