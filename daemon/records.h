/* SPDX-License-Identifier: Apache-2.0
 * Opens and closes everything durable in its order: database, time, keys, identities, licence, audit log,
 * admission. */
#ifndef PHX_DAEMON_RECORDS_H
#define PHX_DAEMON_RECORDS_H

#include <stddef.h>

#include "rpc/base/err.h"

struct phx_daemon;

/* Random bytes that are made once and stay with the data folder (a file of hex digits, 0600). */
int phx_constant_read(struct phx_daemon *d, const char *name, void *out, size_t size,
                      struct phx_err *err) PHX_CHECKED;
int phx_records_open(struct phx_daemon *d, struct phx_err *err) PHX_CHECKED;
/* Ends on disk what is queued, publishes the log's last checkpoint; also after a failed open. */
void phx_records_close(struct phx_daemon *d);

#endif
