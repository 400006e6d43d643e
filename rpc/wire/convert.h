/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/wire/: the shared tail of all conversions. */
#ifndef PHX_RPC_WIRE_CONVERT_H
#define PHX_RPC_WIRE_CONVERT_H

#include <protobuf-c/protobuf-c.h>

#include "phalanx/v1/admission.pb-c.h"
#include "phalanx/v1/audit.pb-c.h"
#include "phalanx/v1/cluster.pb-c.h"
#include "phalanx/v1/inference.pb-c.h"
#include "phalanx/v1/license.pb-c.h"
#include "phalanx/v1/metering.pb-c.h"
#include "phalanx/v1/rank.pb-c.h"
#include "phalanx/v1/rank_link.pb-c.h"
#include "phalanx/v1/sampling.pb-c.h"
#include "rpc/wire/wire.h"

/* The limit of a string (bytes) or a list (items); one table for both directions. */
size_t phx_wire_limit(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field);

/* Checks a filled message by its descriptor: lengths, items, UTF-8, finite numbers, sub-messages. */
int phx_wire_check(const ProtobufCMessage *message, struct phx_err *err) PHX_CHECKED;

/* Checks and unpacks into the arena; NULL with *err on failure. */
void *phx_wire_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                      struct phx_arena *arena, struct phx_err *err);
/* Checks a message that lives in the arena and measures it. */
int phx_wire_finish(const ProtobufCMessage *message, struct phx_wire_out *out, struct phx_err *err)
    PHX_CHECKED;

/* Generated structs want char pointers that are not const; packing only reads them. */
char *phx_wire_str(const char *s);

/* PHX_E_INVALID "Message.field ..." unless min <= value <= max. */
int phx_wire_range(const char *field, int64_t value, int64_t min, int64_t max, struct phx_err *err)
    PHX_CHECKED;

/* PHX_E_INVALID unless the gap of a checked token is finite and 0 or more. */
int phx_wire_gap(float gap, struct phx_err *err) PHX_CHECKED;

int phx_wire_sampling_encode(const struct phx_sampling *in, struct phx_arena *arena,
                             Phalanx__V1__Sampling **out, struct phx_err *err) PHX_CHECKED;
/* in may be NULL: neutral values. */
int phx_wire_sampling_decode(const Phalanx__V1__Sampling *in, struct phx_arena *arena,
                             struct phx_sampling *out, struct phx_err *err) PHX_CHECKED;

Phalanx__V1__RankInfo *phx_wire_rank_info_encode(const struct phx_rank_info *in,
                                                 struct phx_arena *arena);
/* in may be NULL: zeros and empty strings. */
int phx_wire_rank_info_decode(const Phalanx__V1__RankInfo *in, struct phx_rank_info *out,
                              struct phx_err *err) PHX_CHECKED;
Phalanx__V1__RankFacts *phx_wire_rank_facts_encode(const struct phx_rank_facts *in,
                                                   struct phx_arena *arena);
void phx_wire_rank_facts_decode(const Phalanx__V1__RankFacts *in, struct phx_rank_facts *out);

int phx_wire_generate_encode(const struct phx_generate *in, struct phx_arena *arena,
                             struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_generate_decode(const uint8_t *data, size_t size, struct phx_arena *arena,
                             struct phx_generate *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_event_encode(const struct phx_generate_event *in, struct phx_arena *arena,
                          struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_wire_event_decode(const uint8_t *data, size_t size, struct phx_arena *arena,
                          struct phx_generate_event *out, struct phx_err *err) PHX_CHECKED;

#endif
