/* SPDX-License-Identifier: Apache-2.0
 * One script that every rank of a world runs, whatever carries it: it uses every call and checks every
 * value against what the rank can compute alone. */
#ifndef PHX_TESTS_COMM_SCRIPT_H
#define PHX_TESTS_COMM_SCRIPT_H

#include "shard/comm/comm.h"

extern const struct phx_comm_limits script_limits;

/* 0, a code of phx_comm_*, or the (positive) line where a value was wrong. */
int script_run(struct phx_comm *c, const void *arg);

#endif
