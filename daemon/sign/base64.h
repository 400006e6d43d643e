/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/sign: canonical standard base64. */
#ifndef PHX_DAEMON_SIGN_BASE64_H
#define PHX_DAEMON_SIGN_BASE64_H

#include "rpc/base/buf.h"

void phx_base64_put(struct phx_buf *out, const void *data, size_t size);
/* Appends the bytes; false for anything that would not be written the same way. */
bool phx_base64_get(const char *text, size_t size, struct phx_buf *out);

#endif
