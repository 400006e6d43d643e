/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/wire/convert.h"

static int encode_messages(const struct phx_generate *in, struct phx_arena *arena,
                           Phalanx__V1__GenerateRequest *m, struct phx_err *err)
{
    Phalanx__V1__ChatMessage *items;
    int rc = phx_wire_range("GenerateRequest.messages count", in->n_messages, 0,
                            PHX_RPC_MESSAGES_MAX, err);

    if (rc != 0)
        return rc;
    m->n_messages = (size_t)in->n_messages;
    m->messages = phx_arena_calloc(arena, m->n_messages, sizeof(*m->messages));
    items = phx_arena_calloc(arena, m->n_messages, sizeof(*items));
    for (size_t i = 0; i < m->n_messages; i++) {
        phalanx__v1__chat_message__init(&items[i]);
        items[i].role = phx_wire_str(in->messages[i].role);
        items[i].name = phx_wire_str(in->messages[i].name);
        items[i].content = phx_wire_str(in->messages[i].content);
        m->messages[i] = &items[i];
    }
    return 0;
}

int phx_wire_generate_encode(const struct phx_generate *in, struct phx_arena *arena,
                             struct phx_wire_out *out, struct phx_err *err)
{
    Phalanx__V1__GenerateRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int                           rc;

    phalanx__v1__generate_request__init(m);
    m->model = phx_wire_str(in->model);
    m->prompt = phx_wire_str(in->prompt);
    m->has_seed = in->has_seed;
    m->max_new = in->max_new;
    m->reasoning_effort = phx_wire_str(in->reasoning_effort);
    m->user = phx_wire_str(in->user);
    m->idempotency_key = phx_wire_str(in->idempotency_key);
    m->purpose = phx_wire_str(in->purpose);
    rc = phx_wire_range("GenerateRequest.stops count", in->n_stops, 0, PHX_RPC_STOPS_MAX, err);
    if (rc != 0)
        return rc;
    m->n_stops = (size_t)in->n_stops;
    m->stops = phx_arena_calloc(arena, m->n_stops, sizeof(*m->stops));
    for (size_t i = 0; i < m->n_stops; i++)
        m->stops[i] = phx_wire_str(in->stops[i]);
    rc = encode_messages(in, arena, m, err);
    if (rc == 0 && in->has_sampling)
        rc = phx_wire_sampling_encode(&in->sampling, arena, &m->sampling, err);
    return rc != 0 ? rc : phx_wire_finish(&m->base, out, err);
}

/* Text is bounded as a whole, not only piece by piece. */
static int check_text(const Phalanx__V1__GenerateRequest *m, struct phx_err *err)
{
    size_t total = strlen(m->prompt);

    for (size_t i = 0; i < m->n_messages; i++)
        total += strlen(m->messages[i]->content);
    if (total > PHX_RPC_PROMPT_MAX_BYTES)
        return phx_fail(err, PHX_E_TOOBIG, "GenerateRequest: the text has %zu bytes (limit %d)",
                        total, PHX_RPC_PROMPT_MAX_BYTES);
    if ((m->n_messages > 0) == (*m->prompt != '\0'))
        return phx_fail(err, PHX_E_INVALID,
                        "GenerateRequest: give either messages or prompt, not both or none");
    if (*m->model == '\0')
        return phx_fail(err, PHX_E_INVALID, "GenerateRequest.model is missing");
    return 0;
}

int phx_wire_generate_decode(const uint8_t *data, size_t size, struct phx_arena *arena,
                             struct phx_generate *out, struct phx_err *err)
{
    Phalanx__V1__GenerateRequest *m = phx_wire_unpack(
        &phalanx__v1__generate_request__descriptor, data, size, arena, err);
    struct phx_generate_message *messages;
    int                      rc;

    memset(out, 0, sizeof(*out));
    if (m == NULL)
        return err->code;
    rc = check_text(m, err);
    if (rc == 0)
        rc = phx_wire_range("GenerateRequest.max_new", m->max_new, 0, INT32_MAX, err);
    if (rc != 0)
        return rc;
    messages = phx_arena_calloc(arena, m->n_messages, sizeof(*messages));
    for (size_t i = 0; i < m->n_messages; i++)
        messages[i] = (struct phx_generate_message){m->messages[i]->role, m->messages[i]->name,
                                                m->messages[i]->content};
    *out = (struct phx_generate){
        .model = m->model,
        .messages = messages,
        .n_messages = (int32_t)m->n_messages,
        .prompt = m->prompt,
        .has_sampling = m->sampling != NULL,
        .has_seed = m->has_seed != 0,
        .max_new = m->max_new,
        .stops = (const char *const *)m->stops,
        .n_stops = (int32_t)m->n_stops,
        .reasoning_effort = m->reasoning_effort,
        .user = m->user,
        .idempotency_key = m->idempotency_key,
        .purpose = m->purpose,
    };
    return phx_wire_sampling_decode(m->sampling, arena, &out->sampling, err);
}

static Phalanx__V1__GenerateDone *encode_done(const struct phx_generate_event *in,
                                              struct phx_arena *arena)
{
    Phalanx__V1__GenerateDone *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__generate_done__init(m);
    m->request_id = phx_wire_str(in->request_id);
    m->receipt_id = phx_wire_str(in->receipt_id);
    m->finish_reason = phx_wire_str(in->finish_reason);
    m->usage = phx_arena_calloc(arena, 1, sizeof(*m->usage));
    phalanx__v1__usage__init(m->usage);
    m->usage->prompt_tokens = in->usage.prompt_tokens;
    m->usage->cached_tokens = in->usage.cached_tokens;
    m->usage->output_tokens = in->usage.output_tokens;
    m->usage->reasoning_tokens = in->usage.reasoning_tokens;
    return m;
}

int phx_wire_event_encode(const struct phx_generate_event *in, struct phx_arena *arena,
                          struct phx_wire_out *out, struct phx_err *err)
{
    Phalanx__V1__GenerateResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__generate_response__init(m);
    switch (in->kind) {
    case PHX_GENERATE_TEXT:
        m->kind_case = PHALANX__V1__GENERATE_RESPONSE__KIND_TEXT;
        m->text = phx_wire_str(in->text);
        break;
    case PHX_GENERATE_REASONING:
        m->kind_case = PHALANX__V1__GENERATE_RESPONSE__KIND_REASONING;
        m->reasoning = phx_wire_str(in->text);
        break;
    case PHX_GENERATE_DONE:
        m->kind_case = PHALANX__V1__GENERATE_RESPONSE__KIND_DONE;
        m->done = encode_done(in, arena);
        break;
    default:
        return phx_fail(err, PHX_E_INVALID, "GenerateResponse: no kind is set");
    }
    return phx_wire_finish(&m->base, out, err);
}

int phx_wire_event_decode(const uint8_t *data, size_t size, struct phx_arena *arena,
                          struct phx_generate_event *out, struct phx_err *err)
{
    Phalanx__V1__GenerateResponse *m = phx_wire_unpack(
        &phalanx__v1__generate_response__descriptor, data, size, arena, err);

    *out = (struct phx_generate_event){
        .text = "", .request_id = "", .receipt_id = "", .finish_reason = ""};
    if (m == NULL)
        return err->code;
    switch (m->kind_case) {
    case PHALANX__V1__GENERATE_RESPONSE__KIND_TEXT:
        out->kind = PHX_GENERATE_TEXT;
        out->text = m->text;
        return 0;
    case PHALANX__V1__GENERATE_RESPONSE__KIND_REASONING:
        out->kind = PHX_GENERATE_REASONING;
        out->text = m->reasoning;
        return 0;
    case PHALANX__V1__GENERATE_RESPONSE__KIND_DONE:
        out->kind = PHX_GENERATE_DONE;
        out->request_id = m->done->request_id;
        out->receipt_id = m->done->receipt_id;
        out->finish_reason = m->done->finish_reason;
        if (m->done->usage != NULL)
            out->usage = (struct phx_usage){
                m->done->usage->prompt_tokens, m->done->usage->cached_tokens,
                m->done->usage->output_tokens, m->done->usage->reasoning_tokens};
        return 0;
    default:
        return phx_fail(err, PHX_E_UNSUPPORTED, "GenerateResponse.kind is not known");
    }
}
