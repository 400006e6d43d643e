/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: what a receipt needs of an open folder. */
#ifndef PHX_DAEMON_AUDIT_READER_H
#define PHX_DAEMON_AUDIT_READER_H

#include "daemon/audit/audit.h"

/* Borrowed. */
const struct phx_checkpoint *phx_tiles_checkpoint(const struct phx_tiles *t, const struct phx_buf **note,
                                                  int64_t *epoch);
const char                  *phx_tiles_dir(const struct phx_tiles *t);

#endif
