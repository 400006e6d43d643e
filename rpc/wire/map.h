/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/wire/: conversions that a table tells.  A table has one row per field of a message:
 * the field's number, where it lies in the plain struct, and its range.  The same rows serve both
 * directions, so a check cannot be on one side only; lengths are in the table of limits (check.c). */
#ifndef PHX_RPC_WIRE_MAP_H
#define PHX_RPC_WIRE_MAP_H

#include "rpc/wire/convert.h"

enum phx_map_kind {
    PHX_MAP_STRING = 1, /* const char * */
    PHX_MAP_I64,
    PHX_MAP_U64,
    PHX_MAP_I32,
    PHX_MAP_ENUM, /* any enum without negative values */
    PHX_MAP_BOOL,
    PHX_MAP_BYTES,   /* struct phx_rpc_bytes */
    PHX_MAP_MESSAGE, /* an embedded struct with a table of its own */
    PHX_MAP_STRINGS, /* lists: pointer to constant items, int32_t count */
    PHX_MAP_DIGESTS, /* struct phx_rpc_bytes, 32 bytes each */
    PHX_MAP_MESSAGES
};
enum phx_map_rule {
    PHX_MAP_NEEDED = 1, /* not empty; a message: there */
    PHX_MAP_DIGEST = 2  /* bytes: none or 32 */
};

struct phx_map;
struct phx_map_row {
    const char           *member; /* its name in the struct, which is also the field's */
    uint32_t              id; /* number in the proto */
    enum phx_map_kind     kind;
    size_t                at;
    size_t                n_at; /* list: its count; message: its "has" flag; 0 = no flag, always sent */
    int64_t               min, max; /* of integers and enums */
    unsigned              rules;
    const struct phx_map *sub;
};
struct phx_map {
    const ProtobufCMessageDescriptor *type;
    const struct phx_map_row         *rows;
    size_t                            n_rows;
    size_t                            size;    /* of the plain struct */
    bool                              is_one;  /* a oneof: the enum at one_at holds the set field's number */
    size_t                            one_at;
    int (*check)(const void *plain, struct phx_err *err); /* rules between fields; NULL = none */
};

/* The kind follows from the member's type, so a table that does not fit its struct does not compile. */
#define PHX_MAP_KIND(T, m)                                                                         \
    _Generic(((T *)0)->m, const char *: PHX_MAP_STRING, int64_t: PHX_MAP_I64,                      \
             uint64_t: PHX_MAP_U64, int32_t: PHX_MAP_I32, bool: PHX_MAP_BOOL,                      \
             unsigned: PHX_MAP_ENUM, struct phx_rpc_bytes: PHX_MAP_BYTES)
#define PHX_MAP_LIST_KIND(T, m)                                                                    \
    _Generic(((T *)0)->m, const char *const *: PHX_MAP_STRINGS,                                    \
             const struct phx_rpc_bytes *: PHX_MAP_DIGESTS, default: PHX_MAP_MESSAGES)

#define PHX_MAP_INT(no, T, m, low, high)                                                           \
    {.member = #m, .id = (no), .kind = PHX_MAP_KIND(T, m), .at = offsetof(T, m), .min = (low),     \
     .max = (high)}
#define PHX_MAP_COUNT(no, T, m) PHX_MAP_INT(no, T, m, 0, PHX_RPC_COUNT_MAX)
#define PHX_MAP_TIME(no, T, m) PHX_MAP_INT(no, T, m, 0, INT64_MAX)
#define PHX_MAP_ANY(no, T, m) PHX_MAP_INT(no, T, m, 0, 0) /* strings, bytes, bool, unsigned numbers */
#define PHX_MAP_RULE(no, T, m, rule)                                                               \
    {.member = #m, .id = (no), .kind = PHX_MAP_KIND(T, m), .at = offsetof(T, m), .rules = (rule)}
#define PHX_MAP_SUB(no, T, m, table)                                                               \
    {.member = #m, .id = (no), .kind = PHX_MAP_MESSAGE, .at = offsetof(T, m), .sub = (table)}
#define PHX_MAP_SUB_IF(no, T, m, has, table, rule)                                                 \
    {.member = #m, .id = (no), .kind = PHX_MAP_MESSAGE, .at = offsetof(T, m),                      \
     .n_at = offsetof(T, has), .sub = (table), .rules = (rule)}
#define PHX_MAP_LIST(no, T, m, n, table)                                                           \
    {.member = #m, .id = (no), .kind = PHX_MAP_LIST_KIND(T, m), .at = offsetof(T, m),              \
     .n_at = offsetof(T, n), .sub = (table)}
/* name##_rows must be an array in scope. */
#define PHX_MAP(T, message, name)                                                                  \
    .type = &phalanx__v1__##message##__descriptor, .rows = name##_rows,                            \
    .n_rows = sizeof(name##_rows) / sizeof(name##_rows[0]), .size = sizeof(T)

int phx_map_encode(const struct phx_map *map, const void *plain, struct phx_arena *arena,
                   struct phx_wire_out *out, struct phx_err *err) PHX_CHECKED;
int phx_map_decode(const struct phx_map *map, const uint8_t *data, size_t size,
                   struct phx_arena *arena, void *plain, struct phx_err *err) PHX_CHECKED;

/* The tables of a method of Admission, License, Metering or Audit; NULL for any other. */
struct phx_map_pair {
    enum phx_rpc_method   method;
    const struct phx_map *request, *answer;
};
const struct phx_map_pair *phx_map_find(enum phx_rpc_method method);

extern const struct phx_map phx_map_admit, phx_map_admit_answer, phx_map_renew, phx_map_renew_answer,
    phx_map_settle, phx_map_settle_answer, phx_map_cancel_lease, phx_map_cancel_lease_answer;
extern const struct phx_map phx_map_license_get, phx_map_license_answer, phx_map_license_install,
    phx_map_license_install_answer, phx_map_seats, phx_map_seats_answer, phx_map_accept_clock,
    phx_map_accept_clock_answer;
extern const struct phx_map phx_map_usage_query, phx_map_usage_answer, phx_map_usage_export,
    phx_map_usage_part;
extern const struct phx_map phx_map_audit_get, phx_map_audit_get_answer, phx_map_audit_prove,
    phx_map_prove_answer, phx_map_checkpoint, phx_map_checkpoint_answer, phx_map_audit_search,
    phx_map_search_answer, phx_map_audit_replay, phx_map_replay_answer;

/* from <= to where to 0 means "now"; `what` names both. */
int phx_map_span(const char *what, uint64_t from, uint64_t to, struct phx_err *err) PHX_CHECKED;

#endif
