/* SPDX-License-Identifier: Apache-2.0
 * Gives a comm of hosts the memory of devices: sum, send, recv and gather then queue behind the backend's work and go
 * from device to device (kernels/exchange.h); plans, results, codes and status stay with the hosts. */
#ifndef PHX_SHARD_COMM_NCCL_H
#define PHX_SHARD_COMM_NCCL_H

#include "shard/comm/comm.h"

enum phx_transport { PHX_TRANSPORT_AUTO = 0, PHX_TRANSPORT_NCCL, PHX_TRANSPORT_HOST, PHX_TRANSPORT_PEER };

struct phx_comm_device_options {
    enum phx_transport transport;
    bool               is_fast;    /* sums in the library's order; else in that of phx_comm_sum() */
    int32_t            open_ms;    /* for all ranks to meet */
    int32_t            wait_ms;    /* for one wait: a rank that hangs costs its peers so long */
    const char        *interface;  /* network interface to ranks of other hosts; "" = the library's choice */
    const char        *ib_devices; /* InfiniBand devices; "" = the library's choice, "none" = not used */
};

/* -1, or 0 with the transport that a word means. */
int phx_transport_parse(const char *word, enum phx_transport *out) PHX_CHECKED;

/* Collective, before the comm carries its first tensor.  Decides the same on every rank.  `nccl`: the library.  `peer`: the
 * ranks of the tensor group write into each other's device memory; for one stage of ranks of one host, several of
 * which may have the same device.  `auto`: both when every rank has a device of its own and the library is there, peer memory
 * for small tensors where the tensor groups allow it; peer memory alone when there is no library and one stage; else the
 * hosts.  phx_comm_is_device() says whether it is not the hosts.
 * PHX_E_UNSUPPORTED: what was asked for by name cannot be had, or two ranks differ in library, runtime, driver, kind of
 * device or build; the text names both.  PHX_E_PEER: a rank did not come in open_ms.  PHX_E_INVALID: see nccl_env.c. */
int phx_comm_device_open(struct phx_comm *c, struct phx_backend *b, const struct phx_comm_device_options *options,
                         struct phx_err *err) PHX_CHECKED;

/* Waits for what is queued, or gives it up after a failure; before the backend is closed.  Afterwards the comm carries
 * host memory again.  phx_comm_close() calls it too. */
void phx_comm_device_close(struct phx_comm *c);

/* Puts the options where the library looks for them: its environment.  Variables of it that are there already would
 * change what the options say: PHX_E_INVALID with the first one's name (NCCL_DEBUG and NCCL_DEBUG_FILE may stay).  An
 * interface that is missing or has a public address is refused.  While the process has one thread. */
int phx_comm_device_environment(const struct phx_comm_device_options *options, struct phx_err *err) PHX_CHECKED;

#endif
