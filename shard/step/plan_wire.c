/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/plan_wire.h"

#include <stddef.h>
#include <string.h>

#include "rpc/base/mem.h"

enum { FLAG_NEW = 1, FLAG_SAMPLED = 2, FLAG_CHECKED = 4, FLAG_GUESSED = 8, FLAGS = 15, HEADER_BYTES = 24, SEQ_BYTES = 24, NEW_BYTES = 48 };

static const uint32_t MAGIC = 0x31584850u; /* "PHX1" */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "integers are copied as they lie in memory");

size_t phx_plan_max_bytes(const struct phx_plan_limits *l)
{
    size_t per_seq = SEQ_BYTES + sizeof(int32_t) + NEW_BYTES + PHX_BIAS_MAX * sizeof(struct phx_bias);
    size_t n_tokens = l->max_context > PHX_PLAN_NEW_TOKENS ? l->max_context : PHX_PLAN_NEW_TOKENS;

    /* per sequence a token and two blocks beyond those of the admitted prompts, none of which has more
     * blocks than tokens; guesses add a number each, themselves, and the tokens and blocks that come of them */
    return HEADER_BYTES + (size_t)l->max_seqs * (per_seq + 4 * sizeof(int32_t)) +
           3 * (size_t)l->max_results * sizeof(int32_t) + 2 * n_tokens * sizeof(int32_t);
}

/* ---- encoding ------------------------------------------------------------------------------- */

struct known {
    int32_t n_tokens, n_blocks;
};

struct phx_plan_encoder {
    struct known *slots;
};

struct phx_plan_encoder *phx_plan_encoder_create(const struct phx_plan_limits *limits)
{
    struct phx_plan_encoder *e = phx_mem_calloc(1, sizeof(*e));

    e->slots = phx_mem_calloc((size_t)limits->max_seqs, sizeof(*e->slots));
    return e;
}

void phx_plan_encoder_destroy(struct phx_plan_encoder *e)
{
    if (e == NULL)
        return;
    phx_mem_free(e->slots);
    phx_mem_free(e);
}

/* Words go to memory that was reserved for all of a sequence: a step writes thousands of them. */
static int32_t *put(int32_t *at, const void *data, size_t size)
{
    if (size > 0)
        memcpy(at, data, size);
    return at + size / sizeof(*at);
}

static int32_t *put_ints(int32_t *at, const int32_t *list, int32_t n)
{
    if (n == 1) {
        *at = *list;
        return at + 1;
    }
    return put(at, list, (size_t)n * sizeof(*list));
}

static int32_t *put_sampling(int32_t *at, const struct phx_sampling *s)
{
    at = put(at, &s->temperature, 4);
    at = put(at, &s->top_p, 4);
    at = put(at, &s->min_p, 4);
    at = put(at, &s->presence_penalty, 4);
    at = put(at, &s->frequency_penalty, 4);
    at = put(at, &s->repetition_penalty, 4);
    *at++ = s->top_k;
    at = put(at, &s->seed, 8);
    *at++ = s->n_logprobs;
    *at++ = s->n_bias;
    return put(at, s->bias, (size_t)s->n_bias * sizeof(*s->bias));
}

static size_t bytes_of(const struct phx_plan_seq *p, const struct phx_sched_seq_info *info, int32_t n_tokens,
                       int32_t n_blocks)
{
    size_t n = SEQ_BYTES + ((size_t)n_tokens + (size_t)n_blocks) * sizeof(int32_t);

    if (p->n_checked > 0)
        n += sizeof(int32_t);
    if (p->n_drafts > 0)
        n += sizeof(int32_t) + (size_t)p->n_drafts * sizeof(int32_t);
    if (p->is_new)
        n += NEW_BYTES + (size_t)info->sampling->n_bias * sizeof(struct phx_bias);
    return n;
}

static void put_seq(struct phx_plan_encoder *e, const struct phx_sched *sched,
                    const struct phx_plan_seq *p, struct phx_buf *out)
{
    struct phx_sched_seq_info info;
    struct known             *known = &e->slots[p->slot];
    int32_t                   n_tokens, n_blocks, *at;

    phx_assert(phx_sched_info(sched, p->slot, &info));
    if (p->is_new)
        *known = (struct known){0, 0};
    n_tokens = info.n_tokens - known->n_tokens;
    n_blocks = p->n_blocks - known->n_blocks;
    at = phx_buf_extend(out, bytes_of(p, &info, n_tokens, n_blocks));
    if (at == NULL)
        return; /* the buffer is over, which whoever owns it looks for */
    *at++ = p->slot;
    *at++ = (p->is_new ? FLAG_NEW : 0) | (p->is_sampled ? FLAG_SAMPLED : 0) |
            (p->n_checked > 0 ? FLAG_CHECKED : 0) | (p->n_drafts > 0 ? FLAG_GUESSED : 0);
    *at++ = p->pos;
    *at++ = p->n_rows;
    if (p->n_checked > 0)
        *at++ = p->n_checked;
    if (p->n_drafts > 0) {
        *at++ = p->n_drafts;
        at = put_ints(at, p->tokens + p->n_rows - p->n_drafts, p->n_drafts);
    }
    *at++ = n_tokens;
    at = put_ints(at, info.tokens + known->n_tokens, n_tokens);
    *at++ = n_blocks;
    at = put_ints(at, p->blocks + known->n_blocks, n_blocks);
    if (p->is_new) {
        *at++ = info.n_prompt;
        at = put_sampling(at, info.sampling);
    }
    *known = (struct known){info.n_tokens, p->n_blocks};
}

static void put_header(struct phx_buf *out, enum phx_plan_kind kind, uint64_t step, int32_t n_seqs,
                       int32_t n_rows)
{
    int32_t *at = phx_buf_extend(out, HEADER_BYTES);

    if (at == NULL)
        return;
    at = put(at, &MAGIC, sizeof(MAGIC));
    *at++ = (int32_t)kind;
    at = put(at, &step, sizeof(step));
    *at++ = n_seqs;
    *at = n_rows;
}

void phx_plan_encode(struct phx_plan_encoder *e, const struct phx_sched *sched,
                     const struct phx_plan *plan, struct phx_buf *out)
{
    put_header(out, PHX_PLAN_STEP, plan->step, plan->n_seqs, plan->n_rows);
    for (int32_t i = 0; i < plan->n_seqs; i++)
        put_seq(e, sched, &plan->seqs[i], out);
}

void phx_plan_encode_stop(struct phx_buf *out)
{
    put_header(out, PHX_PLAN_STOP, 0, 0, 0);
}

/* ---- decoding ------------------------------------------------------------------------------- */

struct phx_plan_decoder {
    struct phx_plan_limits limits;
    struct phx_wire_plan   plan;
    bool                  *has_slot; /* [max_seqs] slots of this plan, to refuse doubles */
};

struct phx_plan_decoder *phx_plan_decoder_create(const struct phx_plan_limits *limits)
{
    struct phx_plan_decoder *d = phx_mem_calloc(1, sizeof(*d));

    d->limits = *limits;
    d->plan.seqs = phx_mem_calloc((size_t)limits->max_seqs, sizeof(*d->plan.seqs));
    d->has_slot = phx_mem_calloc((size_t)limits->max_seqs, sizeof(*d->has_slot));
    return d;
}

void phx_plan_decoder_destroy(struct phx_plan_decoder *d)
{
    if (d == NULL)
        return;
    phx_mem_free(d->plan.seqs);
    phx_mem_free(d->has_slot);
    phx_mem_free(d);
}

struct reader {
    const unsigned char *at;
    size_t               left;
    struct phx_err      *err;
    int                  code;
};

static bool fail(struct reader *r, const char *field)
{
    if (r->code == 0)
        r->code = phx_fail(r->err, PHX_E_FORMAT, "step plan: %s is wrong or cut off", field);
    return false;
}

static inline bool get(struct reader *r, void *out, size_t size, const char *field)
{
    if (r->code != 0 || r->left < size)
        return fail(r, field);
    memcpy(out, r->at, size);
    r->at += size;
    r->left -= size;
    return true;
}

static inline bool get_int(struct reader *r, int32_t *out, int32_t min, int32_t max, const char *field)
{
    return get(r, out, sizeof(*out), field) && ((*out >= min && *out <= max) || fail(r, field));
}

/* A counted list of 32-bit integers, each in [0, limit).  The message is 4-byte aligned throughout. */
static bool get_list(struct reader *r, const int32_t **out, int32_t *n, int32_t max, int32_t limit,
                     const char *field)
{
    if (!get_int(r, n, 0, max, field))
        return false;
    if (r->left / sizeof(int32_t) < (size_t)*n)
        return fail(r, field);
    *out = (const int32_t *)(const void *)r->at;
    for (int32_t i = 0; i < *n; i++)
        if ((*out)[i] < 0 || (*out)[i] >= limit)
            return fail(r, field);
    r->at += (size_t)*n * sizeof(int32_t);
    r->left -= (size_t)*n * sizeof(int32_t);
    return true;
}

static bool get_sampling(struct reader *r, struct phx_sampling *s)
{
    struct phx_err why;

    phx_sampling_init(s);
    if (!get(r, &s->temperature, 4, "temperature") || !get(r, &s->top_p, 4, "top_p") ||
        !get(r, &s->min_p, 4, "min_p") || !get(r, &s->presence_penalty, 4, "presence_penalty") ||
        !get(r, &s->frequency_penalty, 4, "frequency_penalty") ||
        !get(r, &s->repetition_penalty, 4, "repetition_penalty") ||
        !get(r, &s->top_k, 4, "top_k") || !get(r, &s->seed, 8, "seed") ||
        !get(r, &s->n_logprobs, 4, "n_logprobs") ||
        !get_int(r, &s->n_bias, 0, PHX_BIAS_MAX, "n_bias"))
        return false;
    if (r->left / sizeof(*s->bias) < (size_t)s->n_bias)
        return fail(r, "bias");
    s->bias = (const struct phx_bias *)(const void *)r->at;
    r->at += (size_t)s->n_bias * sizeof(*s->bias);
    r->left -= (size_t)s->n_bias * sizeof(*s->bias);
    if (phx_sampling_check(s, &why) == 0)
        return true;
    r->code = phx_fail(r->err, PHX_E_FORMAT, "step plan: %s", why.text);
    return false;
}

/* Which of the rows give a result. */
static bool get_results(const struct phx_plan_limits *l, struct reader *r, uint32_t flags, struct phx_wire_seq *s,
                        int32_t results_left)
{
    s->is_sampled = (flags & FLAG_SAMPLED) != 0;
    if (s->is_sampled && ((flags & FLAG_CHECKED) != 0 || results_left == 0))
        return fail(r, "sampled");
    if ((flags & FLAG_GUESSED) != 0 && !s->is_sampled)
        return fail(r, "guessed");
    if ((flags & FLAG_CHECKED) != 0 &&
        !get_int(r, &s->n_checked, 1, s->n_rows < results_left ? s->n_rows : results_left, "n_checked"))
        return false;
    if ((flags & FLAG_GUESSED) == 0)
        return true;
    if (!get_list(r, &s->drafts, &s->n_drafts, results_left - 1, l->vocab_size, "drafts"))
        return false;
    return (s->n_drafts > 0 && s->n_drafts == s->n_rows - 1) || fail(r, "drafts");
}

static bool get_seq(struct phx_plan_decoder *d, struct reader *r, struct phx_wire_seq *s,
                    int32_t rows_left, int32_t results_left)
{
    const struct phx_plan_limits *l = &d->limits;
    uint32_t                      flags;

    memset(s, 0, offsetof(struct phx_wire_seq, sampling)); /* which is filled in, when new */
    if (!get_int(r, &s->slot, 0, l->max_seqs - 1, "slot") || !get(r, &flags, 4, "flags") ||
        (flags & ~(uint32_t)FLAGS) != 0)
        return fail(r, "flags");
    if (d->has_slot[s->slot])
        return fail(r, "slot (doubled)");
    d->has_slot[s->slot] = true;
    s->is_new = (flags & FLAG_NEW) != 0;
    if (!get_int(r, &s->pos, 0, l->max_context - 1, "pos") ||
        !get_int(r, &s->n_rows, 1, rows_left, "n_rows") || !get_results(l, r, flags, s, results_left) ||
        !get_list(r, &s->tokens, &s->n_tokens, l->max_context, l->vocab_size, "tokens") ||
        !get_list(r, &s->blocks, &s->n_blocks, l->max_blocks, l->n_blocks, "blocks"))
        return false;
    if (!s->is_new)
        return true;
    return get_int(r, &s->n_prompt, 1, l->max_context, "n_prompt") && get_sampling(r, &s->sampling);
}

int phx_plan_decode(struct phx_plan_decoder *d, const void *data, size_t size,
                    const struct phx_wire_plan **plan, struct phx_err *err)
{
    struct reader         r = {data, size, err, 0};
    struct phx_wire_plan *p = &d->plan;
    uint32_t              magic = 0, kind = 0;
    int32_t               n_rows = 0;

    *plan = NULL;
    memset(d->has_slot, 0, (size_t)d->limits.max_seqs * sizeof(*d->has_slot));
    if (!get(&r, &magic, 4, "magic") || magic != MAGIC)
        (void)fail(&r, "magic");
    if (!get(&r, &kind, 4, "kind") || (kind != PHX_PLAN_STEP && kind != PHX_PLAN_STOP))
        (void)fail(&r, "kind");
    if (!get(&r, &p->step, 8, "step") ||
        !get_int(&r, &p->n_seqs, 0, d->limits.max_seqs, "n_seqs") ||
        !get_int(&r, &p->n_rows, 0, d->limits.max_rows, "n_rows"))
        return r.code;
    p->kind = (enum phx_plan_kind)kind;
    p->n_results = 0;
    for (int32_t i = 0; i < p->n_seqs; i++) {
        if (!get_seq(d, &r, &p->seqs[i], p->n_rows - n_rows, d->limits.max_results - p->n_results))
            return r.code;
        n_rows += p->seqs[i].n_rows;
        p->n_results += p->seqs[i].is_sampled + p->seqs[i].n_checked + p->seqs[i].n_drafts;
    }
    if (r.code == 0 && (n_rows != p->n_rows || r.left != 0))
        (void)fail(&r, "n_rows or the end");
    if (r.code == 0)
        *plan = p;
    return r.code;
}
