/* SPDX-License-Identifier: Apache-2.0
 * The thread that carries ring bytes between hosts as MPI messages.  Private to shard/comm.
 *
 * MPI progresses only inside MPI calls and would spin while waiting.  So one thread owns all MPI calls of
 * a running world: it tests, copies, and sleeps longer the longer nothing comes (4 ms at most; a local
 * writer wakes it at once).  The rank itself only ever touches rings. */
#ifndef PHX_SHARD_COMM_COURIER_H
#define PHX_SHARD_COMM_COURIER_H

#include <mpi.h>

#include "shard/comm/world.h"

struct phx_courier;

/* comm is borrowed until stop. */
struct phx_courier *phx_courier_create(MPI_Comm comm);
/* The rank's outgoing link: gets a ring of its own memory that the courier empties towards the peer. */
void phx_courier_add_out(struct phx_courier *p, struct phx_link *link);
/* The rank's incoming link, already attached: the courier fills it from the peer. */
void phx_courier_add_in(struct phx_courier *p, struct phx_link *link);
/* 0, or PHX_E_INTERNAL when no thread can be started. */
int phx_courier_start(struct phx_courier *p) PHX_CHECKED;
/* Sends what is left (at most a second), ends the thread and frees all. */
void phx_courier_stop(struct phx_courier *p);

#endif
