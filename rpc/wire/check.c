/* SPDX-License-Identifier: Apache-2.0
 * The checks that hold for every message, driven by the generated descriptors. */
#include <math.h>
#include <string.h>

#include "rpc/base/utf8.h"
#include "rpc/wire/convert.h"

struct limit {
    const ProtobufCMessageDescriptor *type;
    const char                       *field;
    size_t                            max;
};

/* Strings not named here: PHX_RPC_NAME_MAX bytes.  Lists not named here: none allowed. */
static const struct limit limits[] = {
    {&phalanx__v1__hello__descriptor, "ranks", PHX_RPC_RANKS_MAX},
    {&phalanx__v1__ready__descriptor, "ranks", PHX_RPC_RANKS_MAX},
    {&phalanx__v1__step__descriptor, "tokens", PHX_RPC_STEP_TOKENS_MAX},
    {&phalanx__v1__token_out__descriptor, "top", PHX_TOP_LOGPROBS_MAX},
    {&phalanx__v1__token_out__descriptor, "error_text", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__fatal__descriptor, "text", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__submit__descriptor, "items", PHX_RPC_SUBMITS_MAX},
    {&phalanx__v1__sequence__descriptor, "tokens", PHX_RPC_TOKENS_MAX},
    {&phalanx__v1__sequence__descriptor, "cache_salt", PHX_CACHE_SALT_BYTES},
    {&phalanx__v1__cancel_sequences__descriptor, "seq_ids", PHX_RPC_CANCELS_MAX},
    {&phalanx__v1__sampling__descriptor, "bias", PHX_BIAS_MAX},
    {&phalanx__v1__sampling__descriptor, "stop_ids", PHX_STOP_IDS_MAX},
    {&phalanx__v1__replica__descriptor, "ranks", PHX_RPC_RANKS_MAX},
    {&phalanx__v1__replica__descriptor, "last_error", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__cluster_state__descriptor, "replicas", PHX_RPC_REPLICAS_MAX},
    {&phalanx__v1__cluster_state__descriptor, "licence", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__drain_request__descriptor, "reason", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__restart_request__descriptor, "reason", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__generate_request__descriptor, "messages", PHX_RPC_MESSAGES_MAX},
    {&phalanx__v1__generate_request__descriptor, "prompt", PHX_RPC_PROMPT_MAX_BYTES},
    {&phalanx__v1__generate_request__descriptor, "stops", PHX_RPC_STOPS_MAX},
    {&phalanx__v1__generate_request__descriptor, "idempotency_key", 128},
    {&phalanx__v1__chat_message__descriptor, "content", PHX_RPC_PROMPT_MAX_BYTES},
    {&phalanx__v1__generate_response__descriptor, "text", PHX_RPC_PROMPT_MAX_BYTES},
    {&phalanx__v1__generate_response__descriptor, "reasoning", PHX_RPC_PROMPT_MAX_BYTES},
    {&phalanx__v1__admit_request__descriptor, "idempotency_key", PHX_RPC_IDEM_MAX},
    {&phalanx__v1__admit_request__descriptor, "request_digest", PHX_RPC_DIGEST_BYTES},
    {&phalanx__v1__admit_response__descriptor, "warnings", PHX_RPC_WARNINGS_MAX},
    {&phalanx__v1__settle_request__descriptor, "response_digest", PHX_RPC_DIGEST_BYTES},
    {&phalanx__v1__cancel_lease_request__descriptor, "reason", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__licensed_model__descriptor, "denied_purposes", PHX_RPC_PURPOSES_MAX},
    {&phalanx__v1__license_facts__descriptor, "models", PHX_RPC_LICENSED_MODELS_MAX},
    {&phalanx__v1__license_facts__descriptor, "legal_name", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__license_facts__descriptor, "state_reason", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__license_facts__descriptor, "problem", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__install_license_request__descriptor, "envelope", PHX_RPC_ENVELOPE_MAX_BYTES},
    {&phalanx__v1__install_license_request__descriptor, "key_set", PHX_RPC_ENVELOPE_MAX_BYTES},
    {&phalanx__v1__install_license_request__descriptor, "note", PHX_RPC_TEXT_MAX},
    {&phalanx__v1__list_seats_response__descriptor, "seats", PHX_RPC_SEATS_MAX},
    {&phalanx__v1__query_usage_request__descriptor, "group_by", PHX_RPC_USAGE_GROUPS_MAX},
    {&phalanx__v1__usage_row__descriptor, "group", PHX_RPC_USAGE_GROUPS_MAX},
    {&phalanx__v1__query_usage_response__descriptor, "rows", PHX_RPC_USAGE_ROWS_MAX},
    {&phalanx__v1__export_usage_response__descriptor, "data", PHX_RPC_EXPORT_MAX_BYTES},
    {&phalanx__v1__audit_record__descriptor, "leaf", PHX_RPC_LEAF_MAX_BYTES},
    {&phalanx__v1__get_record_response__descriptor, "records", PHX_RPC_RECORDS_MAX},
    {&phalanx__v1__prove_response__descriptor, "hashes", PHX_RPC_PROOF_MAX},
    {&phalanx__v1__prove_response__descriptor, "checkpoint", PHX_RPC_ENVELOPE_MAX_BYTES},
    {&phalanx__v1__checkpoint_response__descriptor, "checkpoint", PHX_RPC_ENVELOPE_MAX_BYTES},
    {&phalanx__v1__search_records_response__descriptor, "records", PHX_RPC_RECORDS_MAX},
    {&phalanx__v1__replay_response__descriptor, "tolerance", PHX_RPC_TEXT_MAX},
};

static const struct limit *find_limit(const ProtobufCMessageDescriptor *type, const char *field)
{
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        if (limits[i].type == type && strcmp(limits[i].field, field) == 0)
            return &limits[i];
    return NULL;
}

/* Answers of the reflection service are made by the server itself, from its own descriptors. */
static bool is_reflection(const ProtobufCMessageDescriptor *type)
{
    return strncmp(type->name, "grpc.reflection.", 16) == 0;
}

size_t phx_wire_limit(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field)
{
    const struct limit *limit = find_limit(type, field->name);

    if (is_reflection(type))
        return PHX_RPC_MESSAGE_MAX_BYTES;
    if (limit != NULL)
        return limit->max;
    return field->label == PROTOBUF_C_LABEL_REPEATED ? 0 : PHX_RPC_NAME_MAX;
}

static size_t item_limit(const ProtobufCMessageDescriptor *type)
{
    return is_reflection(type) ? PHX_RPC_MESSAGE_MAX_BYTES : PHX_RPC_NAME_MAX;
}

static int check_string(const ProtobufCMessageDescriptor *type,
                        const ProtobufCFieldDescriptor *field, const char *s, size_t max,
                        struct phx_err *err)
{
    size_t size = strlen(s);

    if (size > max)
        return phx_fail(err, PHX_E_TOOBIG, "%s.%s has %zu bytes (limit %zu)", type->short_name,
                        field->name, size, max);
    if (!phx_utf8_is_valid(s, size))
        return phx_fail(err, PHX_E_INVALID, "%s.%s is not valid UTF-8", type->short_name,
                        field->name);
    return 0;
}

/* Minus infinity is the log-probability of what cannot happen; nothing else may be infinite. */
static int check_number(const ProtobufCMessageDescriptor *type,
                        const ProtobufCFieldDescriptor *field, double x, struct phx_err *err)
{
    if (isfinite(x) || (isinf(x) && x < 0 && strcmp(field->name, "logprob") == 0))
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s.%s is not a finite number", type->short_name,
                    field->name);
}

/* One value at `p`, single or an item of a list. */
static int check_value(const ProtobufCMessageDescriptor *type,
                       const ProtobufCFieldDescriptor *field, const void *p, size_t max,
                       struct phx_err *err)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char *const *)p;

        return s == NULL ? 0 : check_string(type, field, s, max, err);
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *b = p;

        if (b->len > max)
            return phx_fail(err, PHX_E_TOOBIG, "%s.%s has %zu bytes (limit %zu)", type->short_name,
                            field->name, b->len, max);
        return 0;
    }
    case PROTOBUF_C_TYPE_FLOAT:
        return check_number(type, field, (double)*(const float *)p, err);
    case PROTOBUF_C_TYPE_DOUBLE:
        return check_number(type, field, *(const double *)p, err);
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *m = *(ProtobufCMessage *const *)p;

        return m == NULL ? 0 : phx_wire_check(m, err);
    }
    default:
        return 0; /* integers, enums and booleans: ranges are the conversions' affair */
    }
}

/* Bytes between items of a list in memory; 0 = items need no check. */
static size_t item_stride(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_FLOAT:
        return sizeof(float);
    case PROTOBUF_C_TYPE_DOUBLE:
        return sizeof(double);
    default:
        return 0;
    }
}

static int check_list(const ProtobufCMessageDescriptor *type,
                      const ProtobufCFieldDescriptor *field, const char *items, size_t n,
                      struct phx_err *err)
{
    size_t max = phx_wire_limit(type, field), stride = item_stride(field);
    int    rc = 0;

    if (n > max)
        return phx_fail(err, PHX_E_TOOBIG, "%s.%s has %zu items (limit %zu)", type->short_name,
                        field->name, n, max);
    if (stride == 0)
        return 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = check_value(type, field, items + i * stride, item_limit(type), err);
    return rc;
}

int phx_wire_check(const ProtobufCMessage *message, struct phx_err *err)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;
    const char                       *base = (const char *)message;
    int                               rc = 0;

    for (unsigned i = 0; rc == 0 && i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        const void                     *p = base + field->offset;

        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);

            rc = check_list(type, field, *(const char *const *)p, n, err);
            continue;
        }
        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
            *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
            continue;
        rc = check_value(type, field, p, phx_wire_limit(type, field), err);
    }
    return rc;
}
