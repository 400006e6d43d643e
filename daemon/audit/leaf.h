/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: how leaves and their chain are hashed. */
#ifndef PHX_DAEMON_AUDIT_LEAF_H
#define PHX_DAEMON_AUDIT_LEAF_H

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "rpc/base/hash.h"

/* SHA-256(0x00 || record), RFC 6962. */
void phx_leaf_hash(const char *record, size_t size, uint8_t out[PHX_SHA256_BYTES]);
/* SHA-256(chain before || leaf hash); the chain before leaf 0 is 32 zero bytes. */
void phx_leaf_chain(const uint8_t before[PHX_SHA256_BYTES], const uint8_t leaf[PHX_SHA256_BYTES],
                    uint8_t out[PHX_SHA256_BYTES]);

#endif
