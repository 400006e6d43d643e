/* SPDX-License-Identifier: Apache-2.0
 * The ready line: where the cluster listens, on standard output and in DATA_DIR/run/ready.json. */
#ifndef PHX_DAEMON_READY_H
#define PHX_DAEMON_READY_H

#include <stdbool.h>

#include "rpc/base/err.h"

struct phx_daemon;

int  phx_ready_tell(struct phx_daemon *d, const char *grpc_target, bool is_json, struct phx_err *err)
    PHX_CHECKED;
void phx_ready_forget(struct phx_daemon *d); /* removes the file */

#endif
