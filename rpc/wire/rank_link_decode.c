/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/wire/convert.h"

static int decode_hello(const Phalanx__V1__Hello *in, struct phx_arena *arena,
                        struct phx_link_hello *out, struct phx_err *err)
{
    struct phx_rank_info *ranks = phx_arena_calloc(arena, in->n_ranks, sizeof(*ranks));
    int                   rc = 0;

    for (size_t i = 0; rc == 0 && i < in->n_ranks; i++)
        rc = phx_wire_rank_info_decode(in->ranks[i], &ranks[i], err);
    *out = (struct phx_link_hello){
        .protocol_min = in->protocol_min,
        .protocol_max = in->protocol_max,
        .replica_id = in->replica_id,
        .join_token = in->join_token,
        .build = in->build,
        .model_name = in->model_name,
        .model_digest = in->model_digest,
        .model_parent = in->model_parent,
        .pp_size = in->pp_size,
        .tp_size = in->tp_size,
        .ranks = ranks,
        .n_ranks = (int32_t)in->n_ranks,
    };
    if (rc == 0)
        rc = phx_wire_range("Hello.pp_size", in->pp_size, 1, PHX_RPC_RANKS_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("Hello.tp_size", in->tp_size, 1, PHX_RPC_RANKS_MAX, err);
    if (rc == 0 && (int64_t)in->pp_size * in->tp_size != (int64_t)in->n_ranks)
        rc = phx_fail(err, PHX_E_INVALID, "Hello.ranks has %zu items, pp_size x tp_size is %lld",
                      in->n_ranks, (long long)in->pp_size * in->tp_size);
    return rc;
}

static int decode_loading(const Phalanx__V1__Loading *in, struct phx_link_loading *out,
                          struct phx_err *err)
{
    *out = (struct phx_link_loading){in->fraction, in->bytes, in->bytes_total, in->gb_per_s};
    if (in->fraction < 0.0 || in->fraction > 1.0)
        return phx_fail(err, PHX_E_INVALID, "Loading.fraction is %g (allowed 0 to 1)",
                        in->fraction);
    return 0;
}

static int decode_ready(const Phalanx__V1__Ready *in, struct phx_arena *arena,
                        struct phx_link_ready *out, struct phx_err *err)
{
    const struct {
        const char *field;
        int32_t     value;
    } rows[] = {
        {"Ready.kv_blocks", in->kv_blocks},     {"Ready.block_tokens", in->block_tokens},
        {"Ready.max_seqs", in->max_seqs},       {"Ready.max_context", in->max_context},
        {"Ready.vocab_size", in->vocab_size},
    };
    struct phx_rank_facts *ranks = phx_arena_calloc(arena, in->n_ranks, sizeof(*ranks));
    int                    rc = 0;

    for (size_t i = 0; i < in->n_ranks; i++)
        phx_wire_rank_facts_decode(in->ranks[i], &ranks[i]);
    *out = (struct phx_link_ready){ranks,        (int32_t)in->n_ranks, in->kv_blocks,
                                   in->block_tokens, in->max_seqs,     in->max_context,
                                   in->vocab_size};
    for (size_t i = 0; rc == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
        rc = phx_wire_range(rows[i].field, rows[i].value, 1, INT32_MAX, err);
    return rc;
}

static int decode_token(const Phalanx__V1__TokenOut *in, struct phx_arena *arena,
                        struct phx_token_out *out, struct phx_err *err)
{
    int rc = phx_wire_range("TokenOut.token_plus_one", in->token_plus_one, 0, INT32_MAX, err);

    if (rc == 0)
        rc = phx_wire_range("TokenOut.finish", in->finish, PHX_FINISH_NONE, PHX_FINISH_ERROR, err);
    if (rc == 0)
        rc = phx_wire_range("TokenOut.index", in->index, 0, INT32_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("TokenOut.cached_tokens", in->cached_tokens, 0, INT32_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("TokenOut.error_code", in->error_code, INT16_MIN, 0, err);
    if (rc == 0)
        rc = phx_wire_gap(in->gap, err);
    if (rc != 0)
        return rc;
    *out = (struct phx_token_out){
        .seq_id = in->seq_id,
        .token = in->token_plus_one - 1,
        .index = in->index,
        .logprob = in->logprob,
        .gap = in->gap,
        .n_top = (int32_t)in->n_top,
        .finish = (enum phx_finish)in->finish,
        .cached_tokens = in->cached_tokens,
        .error_code = in->error_code,
        .error_text = in->error_text,
    };
    if (in->n_top > 0) {
        struct phx_logprob *top = phx_arena_calloc(arena, in->n_top, sizeof(*top));

        for (size_t i = 0; i < in->n_top; i++)
            top[i] = (struct phx_logprob){in->top[i]->token, in->top[i]->logprob};
        out->top = top;
    }
    return 0;
}

static void decode_stats(const Phalanx__V1__StepStats *in, struct phx_step_stats *out)
{
    *out = (struct phx_step_stats){0};
    if (in == NULL)
        return;
    out->n_running = in->n_running;
    out->n_waiting = in->n_waiting;
    out->n_preempted = in->n_preempted;
    out->kv_blocks_used = in->kv_blocks_used;
    out->kv_blocks_total = in->kv_blocks_total;
    out->prefix_hit_tokens = in->prefix_hit_tokens;
    out->step_us = in->step_us;
    out->n_prefill_tokens = in->n_prefill_tokens;
    out->n_decode_tokens = in->n_decode_tokens;
    out->bytes_comm = in->bytes_comm;
    out->n_draft_tokens = in->n_draft_tokens;
    out->n_accepted_tokens = in->n_accepted_tokens;
}

static int decode_step(const Phalanx__V1__Step *in, struct phx_arena *arena,
                       struct phx_link_step *out, struct phx_err *err)
{
    struct phx_token_out *tokens = phx_arena_calloc(arena, in->n_tokens, sizeof(*tokens));
    int                   rc = 0;

    for (size_t i = 0; rc == 0 && i < in->n_tokens; i++)
        rc = decode_token(in->tokens[i], arena, &tokens[i], err);
    out->step = in->step;
    out->tokens = tokens;
    out->n_tokens = (int32_t)in->n_tokens;
    decode_stats(in->stats, &out->stats);
    return rc;
}

static int decode_from_rank(const Phalanx__V1__AttachRequest *m, struct phx_arena *arena,
                            struct phx_link_msg *msg, struct phx_err *err)
{
    switch (m->kind_case) {
    case PHALANX__V1__ATTACH_REQUEST__KIND_HELLO:
        msg->kind = PHX_LINK_HELLO;
        return decode_hello(m->hello, arena, &msg->u.hello, err);
    case PHALANX__V1__ATTACH_REQUEST__KIND_LOADING:
        msg->kind = PHX_LINK_LOADING;
        return decode_loading(m->loading, &msg->u.loading, err);
    case PHALANX__V1__ATTACH_REQUEST__KIND_READY:
        msg->kind = PHX_LINK_READY;
        return decode_ready(m->ready, arena, &msg->u.ready, err);
    case PHALANX__V1__ATTACH_REQUEST__KIND_STEP:
        msg->kind = PHX_LINK_STEP;
        return decode_step(m->step, arena, &msg->u.step, err);
    case PHALANX__V1__ATTACH_REQUEST__KIND_HEARTBEAT:
        msg->kind = PHX_LINK_HEARTBEAT;
        msg->u.heartbeat = (struct phx_link_heartbeat){m->heartbeat->step, m->heartbeat->progress,
                                                       m->heartbeat->is_busy != 0};
        return 0;
    case PHALANX__V1__ATTACH_REQUEST__KIND_FATAL:
        msg->kind = PHX_LINK_FATAL;
        msg->u.fatal = (struct phx_link_fatal){m->fatal->code, m->fatal->text, m->fatal->rank};
        return phx_wire_range("Fatal.code", m->fatal->code, INT16_MIN, 0, err);
    case PHALANX__V1__ATTACH_REQUEST__KIND_BYE:
        msg->kind = PHX_LINK_BYE;
        return 0;
    default:
        return phx_fail(err, PHX_E_UNSUPPORTED, "AttachRequest.kind is not one this build knows");
    }
}

static int decode_sequence(const Phalanx__V1__Sequence *in, struct phx_arena *arena,
                           struct phx_submit *out, struct phx_err *err)
{
    int rc = 0;

    if (in->seq_id == 0)
        return phx_fail(err, PHX_E_INVALID, "Sequence.seq_id is 0");
    if (in->cache_salt.len != PHX_CACHE_SALT_BYTES)
        return phx_fail(err, PHX_E_INVALID, "Sequence.cache_salt has %zu bytes (must be %d)",
                        in->cache_salt.len, PHX_CACHE_SALT_BYTES);
    out->seq_id = in->seq_id;
    memcpy(out->cache_salt, in->cache_salt.data, sizeof(out->cache_salt));
    out->tokens = in->tokens;
    out->n_tokens = (int32_t)in->n_tokens;
    out->n_prompt = in->n_prompt;
    out->max_new = in->max_new;
    out->priority = in->priority;
    out->n_check = in->n_check;
    rc = phx_wire_range("Sequence.tokens count", (int64_t)in->n_tokens, 1, PHX_RPC_TOKENS_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("Sequence.n_prompt", in->n_prompt, 1, (int64_t)in->n_tokens, err);
    if (rc == 0)
        rc = phx_wire_range("Sequence.max_new", in->max_new, 1, INT32_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("Sequence.n_check", in->n_check, 0, out->n_tokens - in->n_prompt, err);
    for (size_t i = 0; rc == 0 && i < in->n_tokens; i++)
        if (in->tokens[i] < 0)
            rc = phx_wire_range("Sequence.tokens", in->tokens[i], 0, INT32_MAX, err);
    return rc != 0 ? rc : phx_wire_sampling_decode(in->sampling, arena, &out->sampling, err);
}

static int decode_submit(const Phalanx__V1__Submit *in, struct phx_arena *arena,
                         struct phx_link_submit *out, struct phx_err *err)
{
    struct phx_submit *items = phx_arena_calloc(arena, in->n_items, sizeof(*items));
    int                rc = 0;

    for (size_t i = 0; rc == 0 && i < in->n_items; i++)
        rc = decode_sequence(in->items[i], arena, &items[i], err);
    *out = (struct phx_link_submit){items, (int32_t)in->n_items};
    return rc;
}

static int decode_welcome(const Phalanx__V1__Welcome *in, struct phx_link_welcome *out,
                          struct phx_err *err)
{
    int rc = phx_wire_range("Welcome.heartbeat_ms", in->heartbeat_ms, 1, 3600000, err);

    if (rc == 0)
        rc = phx_wire_range("Welcome.lost_after_ms", in->lost_after_ms, 1, 3600000, err);
    *out = (struct phx_link_welcome){in->protocol, in->build,
                                     {in->heartbeat_ms, in->lost_after_ms}};
    return rc;
}

static int decode_from_daemon(const Phalanx__V1__AttachResponse *m, struct phx_arena *arena,
                              struct phx_link_msg *msg, struct phx_err *err)
{
    switch (m->kind_case) {
    case PHALANX__V1__ATTACH_RESPONSE__KIND_WELCOME:
        msg->kind = PHX_LINK_WELCOME;
        return decode_welcome(m->welcome, &msg->u.welcome, err);
    case PHALANX__V1__ATTACH_RESPONSE__KIND_SUBMIT:
        msg->kind = PHX_LINK_SUBMIT;
        return decode_submit(m->submit, arena, &msg->u.submit, err);
    case PHALANX__V1__ATTACH_RESPONSE__KIND_CANCEL:
        msg->kind = PHX_LINK_CANCEL;
        msg->u.cancel = (struct phx_link_cancel){m->cancel->seq_ids, (int32_t)m->cancel->n_seq_ids};
        return 0;
    case PHALANX__V1__ATTACH_RESPONSE__KIND_DRAIN:
        msg->kind = PHX_LINK_DRAIN;
        msg->u.drain.timeout_ms = m->drain->timeout_ms;
        return phx_wire_range("DrainReplica.timeout_ms", m->drain->timeout_ms, 0, INT32_MAX, err);
    case PHALANX__V1__ATTACH_RESPONSE__KIND_STOP:
        msg->kind = PHX_LINK_STOP;
        return 0;
    case PHALANX__V1__ATTACH_RESPONSE__KIND_PING:
        msg->kind = PHX_LINK_PING;
        return 0;
    default:
        return phx_fail(err, PHX_E_UNSUPPORTED, "AttachResponse.kind is not one this build knows");
    }
}

int phx_wire_decode_link(const uint8_t *data, size_t size, enum phx_wire_side side,
                         struct phx_arena *arena, struct phx_link_msg *msg, struct phx_err *err)
{
    const ProtobufCMessageDescriptor *type = side == PHX_WIRE_FROM_RANK
                                                 ? &phalanx__v1__attach_request__descriptor
                                                 : &phalanx__v1__attach_response__descriptor;
    struct phx_err                    local;
    void                             *m;

    memset(msg, 0, sizeof(*msg));
    m = phx_wire_unpack(type, data, size, arena, &local);
    if (m == NULL)
        return phx_fail(err, local.code, "%s", local.text);
    return side == PHX_WIRE_FROM_RANK ? decode_from_rank(m, arena, msg, err)
                                      : decode_from_daemon(m, arena, msg, err);
}
