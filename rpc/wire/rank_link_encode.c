/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/wire/convert.h"

/* Lists of pointers to structs, as the generated code wants them: both come from the arena. */
static int encode_hello(const struct phx_link_hello *in, struct phx_arena *arena,
                        Phalanx__V1__AttachRequest *out, struct phx_err *err)
{
    Phalanx__V1__Hello *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int rc = phx_wire_range("Hello.ranks count", in->n_ranks, 0, PHX_RPC_RANKS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__hello__init(m);
    m->protocol_min = in->protocol_min;
    m->protocol_max = in->protocol_max;
    m->replica_id = phx_wire_str(in->replica_id);
    m->join_token = phx_wire_str(in->join_token);
    m->build = phx_wire_str(in->build);
    m->model_name = phx_wire_str(in->model_name);
    m->model_digest = phx_wire_str(in->model_digest);
    m->model_parent = phx_wire_str(in->model_parent);
    m->pp_size = in->pp_size;
    m->tp_size = in->tp_size;
    m->n_ranks = (size_t)in->n_ranks;
    m->ranks = phx_arena_calloc(arena, m->n_ranks, sizeof(*m->ranks));
    for (size_t i = 0; i < m->n_ranks; i++)
        m->ranks[i] = phx_wire_rank_info_encode(&in->ranks[i], arena);
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_HELLO;
    out->hello = m;
    return 0;
}

static void encode_loading(const struct phx_link_loading *in, struct phx_arena *arena,
                           Phalanx__V1__AttachRequest *out)
{
    Phalanx__V1__Loading *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__loading__init(m);
    m->fraction = in->fraction;
    m->bytes = in->bytes;
    m->bytes_total = in->bytes_total;
    m->gb_per_s = in->gb_per_s;
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_LOADING;
    out->loading = m;
}

static int encode_ready(const struct phx_link_ready *in, struct phx_arena *arena,
                        Phalanx__V1__AttachRequest *out, struct phx_err *err)
{
    Phalanx__V1__Ready *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int rc = phx_wire_range("Ready.ranks count", in->n_ranks, 0, PHX_RPC_RANKS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__ready__init(m);
    m->n_ranks = (size_t)in->n_ranks;
    m->ranks = phx_arena_calloc(arena, m->n_ranks, sizeof(*m->ranks));
    for (size_t i = 0; i < m->n_ranks; i++)
        m->ranks[i] = phx_wire_rank_facts_encode(&in->ranks[i], arena);
    m->kv_blocks = in->kv_blocks;
    m->block_tokens = in->block_tokens;
    m->max_seqs = in->max_seqs;
    m->max_context = in->max_context;
    m->vocab_size = in->vocab_size;
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_READY;
    out->ready = m;
    return 0;
}

static int encode_token(const struct phx_token_out *in, struct phx_arena *arena,
                        Phalanx__V1__TokenOut *m, struct phx_err *err)
{
    Phalanx__V1__TokenLogprob *items;
    int rc = phx_wire_range("TokenOut.top count", in->n_top, 0, PHX_TOP_LOGPROBS_MAX, err);

    if (rc == 0)
        rc = phx_wire_range("TokenOut.token", in->token, -1, INT32_MAX - 1, err);
    if (rc == 0)
        rc = phx_wire_gap(in->gap, err);
    if (rc != 0)
        return rc;
    phalanx__v1__token_out__init(m);
    m->seq_id = in->seq_id;
    m->token_plus_one = in->token + 1;
    m->index = in->index;
    m->logprob = in->logprob;
    m->gap = in->gap;
    m->finish = (Phalanx__V1__Finish)in->finish;
    m->cached_tokens = in->cached_tokens;
    m->error_code = in->error_code;
    m->error_text = phx_wire_str(in->error_text);
    if (in->n_top == 0)
        return 0;
    m->n_top = (size_t)in->n_top;
    m->top = phx_arena_calloc(arena, m->n_top, sizeof(*m->top));
    items = phx_arena_calloc(arena, m->n_top, sizeof(*items));
    for (size_t i = 0; i < m->n_top; i++) {
        phalanx__v1__token_logprob__init(&items[i]);
        items[i].token = in->top[i].token;
        items[i].logprob = in->top[i].logprob;
        m->top[i] = &items[i];
    }
    return 0;
}

static Phalanx__V1__StepStats *encode_stats(const struct phx_step_stats *in,
                                            struct phx_arena *arena)
{
    Phalanx__V1__StepStats *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__step_stats__init(m);
    m->n_running = in->n_running;
    m->n_waiting = in->n_waiting;
    m->n_preempted = in->n_preempted;
    m->kv_blocks_used = in->kv_blocks_used;
    m->kv_blocks_total = in->kv_blocks_total;
    m->prefix_hit_tokens = in->prefix_hit_tokens;
    m->step_us = in->step_us;
    m->n_prefill_tokens = in->n_prefill_tokens;
    m->n_decode_tokens = in->n_decode_tokens;
    m->bytes_comm = in->bytes_comm;
    m->n_draft_tokens = in->n_draft_tokens;
    m->n_accepted_tokens = in->n_accepted_tokens;
    return m;
}

static int encode_step(const struct phx_link_step *in, struct phx_arena *arena,
                       Phalanx__V1__AttachRequest *out, struct phx_err *err)
{
    Phalanx__V1__Step     *m = phx_arena_calloc(arena, 1, sizeof(*m));
    Phalanx__V1__TokenOut *items;
    int rc = phx_wire_range("Step.tokens count", in->n_tokens, 0, PHX_RPC_STEP_TOKENS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__step__init(m);
    m->step = in->step;
    m->stats = encode_stats(&in->stats, arena);
    m->n_tokens = (size_t)in->n_tokens;
    m->tokens = phx_arena_calloc(arena, m->n_tokens, sizeof(*m->tokens));
    items = phx_arena_calloc(arena, m->n_tokens, sizeof(*items));
    for (size_t i = 0; rc == 0 && i < m->n_tokens; i++) {
        m->tokens[i] = &items[i];
        rc = encode_token(&in->tokens[i], arena, &items[i], err);
    }
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_STEP;
    out->step = m;
    return rc;
}

static void encode_heartbeat(const struct phx_link_heartbeat *in, struct phx_arena *arena,
                             Phalanx__V1__AttachRequest *out)
{
    Phalanx__V1__Heartbeat *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__heartbeat__init(m);
    m->step = in->step;
    m->progress = in->progress;
    m->is_busy = in->is_busy;
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_HEARTBEAT;
    out->heartbeat = m;
}

static void encode_fatal(const struct phx_link_fatal *in, struct phx_arena *arena,
                         Phalanx__V1__AttachRequest *out)
{
    Phalanx__V1__Fatal *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__fatal__init(m);
    m->code = in->code;
    m->text = phx_wire_str(in->text);
    m->rank = in->rank;
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_FATAL;
    out->fatal = m;
}

static void encode_bye(struct phx_arena *arena, Phalanx__V1__AttachRequest *out)
{
    out->bye = phx_arena_calloc(arena, 1, sizeof(*out->bye));
    phalanx__v1__bye__init(out->bye);
    out->kind_case = PHALANX__V1__ATTACH_REQUEST__KIND_BYE;
}

static int encode_from_rank(const struct phx_link_msg *msg, struct phx_arena *arena,
                            struct phx_wire_out *out, struct phx_err *err)
{
    Phalanx__V1__AttachRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int                         rc = 0;

    phalanx__v1__attach_request__init(m);
    switch (msg->kind) {
    case PHX_LINK_HELLO:
        rc = encode_hello(&msg->u.hello, arena, m, err);
        break;
    case PHX_LINK_LOADING:
        encode_loading(&msg->u.loading, arena, m);
        break;
    case PHX_LINK_READY:
        rc = encode_ready(&msg->u.ready, arena, m, err);
        break;
    case PHX_LINK_STEP:
        rc = encode_step(&msg->u.step, arena, m, err);
        break;
    case PHX_LINK_HEARTBEAT:
        encode_heartbeat(&msg->u.heartbeat, arena, m);
        break;
    case PHX_LINK_FATAL:
        encode_fatal(&msg->u.fatal, arena, m);
        break;
    default:
        encode_bye(arena, m);
        break;
    }
    return rc != 0 ? rc : phx_wire_finish(&m->base, out, err);
}

static void encode_welcome(const struct phx_link_welcome *in, struct phx_arena *arena,
                           Phalanx__V1__AttachResponse *out)
{
    Phalanx__V1__Welcome *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__welcome__init(m);
    m->protocol = in->protocol;
    m->build = phx_wire_str(in->build);
    m->heartbeat_ms = in->settings.heartbeat_ms;
    m->lost_after_ms = in->settings.lost_after_ms;
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_WELCOME;
    out->welcome = m;
}

static int check_submit(const struct phx_submit *in, struct phx_err *err)
{
    int rc = phx_wire_range("Sequence.tokens count", in->n_tokens, 1, PHX_RPC_TOKENS_MAX, err);

    if (rc == 0 && in->seq_id == 0)
        rc = phx_fail(err, PHX_E_INVALID, "Sequence.seq_id is 0");
    if (rc == 0)
        rc = phx_wire_range("Sequence.n_prompt", in->n_prompt, 1, in->n_tokens, err);
    if (rc == 0)
        rc = phx_wire_range("Sequence.max_new", in->max_new, 1, INT32_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("Sequence.n_check", in->n_check, 0, in->n_tokens - in->n_prompt, err);
    return rc;
}

static int encode_sequence(const struct phx_submit *in, struct phx_arena *arena,
                           Phalanx__V1__Sequence *m, struct phx_err *err)
{
    int rc = check_submit(in, err);

    if (rc != 0)
        return rc;
    phalanx__v1__sequence__init(m);
    m->seq_id = in->seq_id;
    m->cache_salt.data = (uint8_t *)in->cache_salt; /* packing only reads */
    m->cache_salt.len = sizeof(in->cache_salt);
    m->n_tokens = (size_t)in->n_tokens;
    m->tokens = (int32_t *)in->tokens; /* packing only reads */
    m->n_prompt = in->n_prompt;
    m->max_new = in->max_new;
    m->priority = in->priority;
    m->n_check = in->n_check;
    return phx_wire_sampling_encode(&in->sampling, arena, &m->sampling, err);
}

static int encode_submit(const struct phx_link_submit *in, struct phx_arena *arena,
                         Phalanx__V1__AttachResponse *out, struct phx_err *err)
{
    Phalanx__V1__Submit   *m = phx_arena_calloc(arena, 1, sizeof(*m));
    Phalanx__V1__Sequence *items;
    int rc = phx_wire_range("Submit.items count", in->n_items, 0, PHX_RPC_SUBMITS_MAX, err);

    if (rc != 0)
        return rc;
    phalanx__v1__submit__init(m);
    m->n_items = (size_t)in->n_items;
    m->items = phx_arena_calloc(arena, m->n_items, sizeof(*m->items));
    items = phx_arena_calloc(arena, m->n_items, sizeof(*items));
    for (size_t i = 0; rc == 0 && i < m->n_items; i++) {
        m->items[i] = &items[i];
        rc = encode_sequence(&in->items[i], arena, &items[i], err);
    }
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_SUBMIT;
    out->submit = m;
    return rc;
}

static int encode_cancel(const struct phx_link_cancel *in, struct phx_arena *arena,
                         Phalanx__V1__AttachResponse *out, struct phx_err *err)
{
    Phalanx__V1__CancelSequences *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int rc = phx_wire_range("CancelSequences.seq_ids count", in->n_seq_ids, 0, PHX_RPC_CANCELS_MAX,
                            err);

    if (rc != 0)
        return rc;
    phalanx__v1__cancel_sequences__init(m);
    m->n_seq_ids = (size_t)in->n_seq_ids;
    m->seq_ids = (uint64_t *)in->seq_ids; /* packing only reads */
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_CANCEL;
    out->cancel = m;
    return 0;
}

static void encode_drain(const struct phx_link_drain *in, struct phx_arena *arena,
                         Phalanx__V1__AttachResponse *out)
{
    Phalanx__V1__DrainReplica *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__drain_replica__init(m);
    m->timeout_ms = in->timeout_ms;
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_DRAIN;
    out->drain = m;
}

static void encode_stop(struct phx_arena *arena, Phalanx__V1__AttachResponse *out)
{
    out->stop = phx_arena_calloc(arena, 1, sizeof(*out->stop));
    phalanx__v1__stop_replica__init(out->stop);
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_STOP;
}

static void encode_ping(struct phx_arena *arena, Phalanx__V1__AttachResponse *out)
{
    out->ping = phx_arena_calloc(arena, 1, sizeof(*out->ping));
    phalanx__v1__ping__init(out->ping);
    out->kind_case = PHALANX__V1__ATTACH_RESPONSE__KIND_PING;
}

static int encode_from_daemon(const struct phx_link_msg *msg, struct phx_arena *arena,
                              struct phx_wire_out *out, struct phx_err *err)
{
    Phalanx__V1__AttachResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));
    int                          rc = 0;

    phalanx__v1__attach_response__init(m);
    switch (msg->kind) {
    case PHX_LINK_WELCOME:
        encode_welcome(&msg->u.welcome, arena, m);
        break;
    case PHX_LINK_SUBMIT:
        rc = encode_submit(&msg->u.submit, arena, m, err);
        break;
    case PHX_LINK_CANCEL:
        rc = encode_cancel(&msg->u.cancel, arena, m, err);
        break;
    case PHX_LINK_DRAIN:
        encode_drain(&msg->u.drain, arena, m);
        break;
    case PHX_LINK_STOP:
        encode_stop(arena, m);
        break;
    default:
        encode_ping(arena, m);
        break;
    }
    return rc != 0 ? rc : phx_wire_finish(&m->base, out, err);
}

int phx_wire_encode_link(const struct phx_link_msg *msg, struct phx_arena *arena,
                         struct phx_wire_out *out, struct phx_err *err)
{
    phx_assert(msg->kind > PHX_LINK_NONE && msg->kind <= PHX_LINK_PING);
    return msg->kind < PHX_LINK_WELCOME ? encode_from_rank(msg, arena, out, err)
                                        : encode_from_daemon(msg, arena, out, err);
}
