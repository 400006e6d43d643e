/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/transport/: what server, link and client share of the gRPC C core.  That API is not
 * promised to be stable, so nothing outside this folder sees it. */
#ifndef PHX_RPC_TRANSPORT_CORE_H
#define PHX_RPC_TRANSPORT_CORE_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <signal.h>

#include "rpc/rpc.h"
#include "rpc/wire/wire.h"

enum { PHX_RPC_DEFAULT_QUEUE_BYTES = 64 << 20, PHX_RPC_READ_WINDOW = 64 };

#define PHX_META_ERROR "phalanx-error"         /* trailing metadata: name of the PHX_E_* code */
#define PHX_META_RETRY "grpc-retry-pushback-ms" /* trailing metadata: when to try again */

#define PHX_META_RULE "phalanx-rule"           /* trailing metadata: the rule that refused */

/* Starts / leaves the library (counted).  Its log goes to phx_log. */
void phx_core_open(void);
void phx_core_close(void);
/* Blocks all signals for this thread, so that threads made meanwhile never run a handler. */
void phx_core_mask_signals(sigset_t *old);
void phx_core_unmask_signals(const sigset_t *old);

/* Both check the PEM text first, since gRPC itself only says "no". */
int phx_core_server_credentials(const struct phx_rpc_tls *tls, grpc_server_credentials **out,
                                struct phx_err *err) PHX_CHECKED;
int phx_core_channel(const struct phx_rpc_client_options *options, grpc_channel **out,
                     struct phx_err *err) PHX_CHECKED;
grpc_channel_args phx_core_server_args(void); /* static storage */

gpr_timespec phx_core_deadline(int timeout_ms); /* from now; 0 or below = never */

grpc_byte_buffer *phx_core_pack(const struct phx_wire_out *out);
/* The whole message; unref the slice. */
bool phx_core_read(grpc_byte_buffer *buffer, grpc_slice *out);
/* "Bearer x" as call metadata; 0 or 1 entries. */
size_t phx_core_bearer(const char *bearer, grpc_metadata *entry);
/* Owned by the caller: phx_mem_free(). */
char *phx_core_text(grpc_slice slice);

/* What a client makes of a call's end.  0 for OK. */
int phx_core_status(grpc_status_code status, grpc_slice details, const grpc_metadata_array *trailing,
                    struct phx_err *err) PHX_CHECKED;

/* Rule and delay of a refusal, where the peer told them. */
void phx_core_refusal(const grpc_metadata_array *trailing, struct phx_rpc_refusal *out);

#endif
