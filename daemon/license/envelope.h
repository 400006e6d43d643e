/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/license: a DSSE envelope with one Ed25519 signature. */
#ifndef PHX_DAEMON_LICENSE_ENVELOPE_H
#define PHX_DAEMON_LICENSE_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

/* Verifies over the raw payload bytes before anything looks into them.  PHX_E_LICENSE when no issuer's key
 * fits; *payload is initialised here, *issuer tells whose key it was. */
int phx_envelope_open(const void *data, size_t size, const uint8_t (*issuers)[32], size_t n_issuers,
                      struct phx_buf *payload, size_t *issuer, struct phx_err *err) PHX_CHECKED;
/* Owned text in *out. */
int phx_envelope_seal(const void *payload, size_t size, const uint8_t secret_key[64], char **out,
                      struct phx_err *err) PHX_CHECKED;

#endif
