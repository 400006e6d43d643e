/* SPDX-License-Identifier: Apache-2.0
 * Door of rpc/wire/: domain structs to protobuf bytes and back.  The only place that knows the
 * generated types.
 *
 * Every message passes the same checks when it is encoded and when it is decoded: length of each
 * string, items of each list, UTF-8 without NUL, finite numbers; decoding checks ranges too.  An error
 * names message and field.  Decoding refuses, before it allocates, what would need more than PHX_WIRE_MEMORY_MAX bytes.
 * Decoded structs live in the caller's arena; encoded ones borrow from the domain struct. */
#ifndef PHX_RPC_WIRE_WIRE_H
#define PHX_RPC_WIRE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/rpc.h"

enum { PHX_WIRE_MEMORY_MAX = 64 << 20 };

/* An encoded message that is checked but not yet packed. */
struct phx_wire_out {
    const void *message; /* lives in the arena */
    size_t      size;    /* bytes that phx_wire_pack() writes */
};
void phx_wire_pack(const struct phx_wire_out *out, uint8_t *data);

enum phx_wire_side { PHX_WIRE_FROM_RANK = 1, PHX_WIRE_FROM_DAEMON };

int phx_wire_encode_link(const struct phx_link_msg *msg, struct phx_arena *arena,
                         struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
/* msg->arena is left NULL: the caller owns the arena. */
int phx_wire_decode_link(const uint8_t *data, size_t size, enum phx_wire_side side,
                         struct phx_arena *arena, struct phx_link_msg *msg, struct phx_err *err)
    PHX_CHECKED;

/* Calls of struct phx_rpc_request / phx_rpc_answer; request->method selects, peer is not touched. */
int phx_wire_encode_request(const struct phx_rpc_request *request, struct phx_arena *arena,
                            struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_decode_request(enum phx_rpc_method method, const uint8_t *data, size_t size,
                            struct phx_arena *arena, struct phx_rpc_request *request,
                            struct phx_err *err) PHX_CHECKED;
int phx_wire_encode_answer(enum phx_rpc_method method, const struct phx_rpc_answer *answer,
                           struct phx_arena *arena, struct phx_wire_out *out, struct phx_err *err)
    PHX_CHECKED;
int phx_wire_decode_answer(enum phx_rpc_method method, const uint8_t *data, size_t size,
                           struct phx_arena *arena, struct phx_rpc_answer *answer,
                           struct phx_err *err) PHX_CHECKED;

/* Standard health. */
enum phx_wire_health { PHX_HEALTH_UNKNOWN, PHX_HEALTH_SERVING, PHX_HEALTH_NOT_SERVING,
                       PHX_HEALTH_SERVICE_UNKNOWN };
int phx_wire_encode_health_request(const char *service, struct phx_arena *arena,
                                   struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_decode_health_request(const uint8_t *data, size_t size, struct phx_arena *arena,
                                   const char **service, struct phx_err *err) PHX_CHECKED;
int phx_wire_encode_health_answer(enum phx_wire_health status, struct phx_arena *arena,
                                  struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_decode_health_answer(const uint8_t *data, size_t size, struct phx_arena *arena,
                                  enum phx_wire_health *status, struct phx_err *err) PHX_CHECKED;

/* Standard reflection: one request in, one answer out, from the embedded descriptors.  `services` is
 * the NULL-terminated list of what the server has.  v1 and v1alpha have the same bytes. */
int phx_wire_answer_reflection(const uint8_t *data, size_t size, const char *const *services,
                               struct phx_arena *arena, struct phx_wire_out *out,
                               struct phx_err *err) PHX_CHECKED;

#endif
