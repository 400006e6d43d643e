/* SPDX-License-Identifier: Apache-2.0
 * What the daemon serves over gRPC: RankLink (handed to the fleet), Cluster and Inference, with one table
 * that says which role may call what.  A caller is who its certificate says (operator, rank) or, with an
 * API key in the authorization metadata, who the key says. */
#ifndef PHX_DAEMON_CLUSTER_H
#define PHX_DAEMON_CLUSTER_H

#include "rpc/base/err.h"

struct phx_cluster;
struct phx_daemon;

/* Opens the gRPC server on config grpc_listen with the certificates of DIR/tls into d->rpc. */
int phx_cluster_open(struct phx_daemon *d, struct phx_cluster **out, struct phx_err *err) PHX_CHECKED;
void phx_cluster_close(struct phx_cluster *c); /* closes d->rpc too; NULL is allowed */
/* "127.0.0.1:4711", with the real port.  Borrowed. */
const char *phx_cluster_target(const struct phx_cluster *c);
/* What the standard health service answers. */
void phx_cluster_set_serving(struct phx_cluster *c, int is_serving);

#endif
