/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: gRPC calls with the operator's certificate of a data folder. */
#ifndef PHX_DAEMON_CTL_OPERATOR_H
#define PHX_DAEMON_CTL_OPERATOR_H

#include "rpc/rpc.h"

/* grpc: "HOST:PORT", NULL = what DIR/run/ready.json says.  Owned: phx_rpc_client_close(). */
int phx_ctl_operator_open(const char *data_dir, const char *grpc, struct phx_rpc_client **out,
                          struct phx_err *err) PHX_CHECKED;

#endif
