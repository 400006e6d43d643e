/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/wire/. */
#ifndef PHX_RPC_WIRE_CLUSTER_H
#define PHX_RPC_WIRE_CLUSTER_H

#include "rpc/wire/convert.h"

int phx_wire_cluster_encode(const struct phx_cluster_state *in, struct phx_arena *arena,
                            Phalanx__V1__ClusterState **out, struct phx_err *err) PHX_CHECKED;
/* in == NULL is refused: every answer carries a state. */
int phx_wire_cluster_decode(const Phalanx__V1__ClusterState *in, struct phx_arena *arena,
                            struct phx_cluster_state *out, struct phx_err *err) PHX_CHECKED;

#endif
