/* SPDX-License-Identifier: Apache-2.0
 * A rank that generates without a model, as fast as its messages travel: token i of an answer is a hash of
 * the prompt, the seed and i, and an answer has 1 to 32 tokens before the model's stop id by the same hash.
 * Started by a daemon in place of phalanx-rank (launcher.rank_program); a step takes MOCK_STEP_US. */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "tests/mock/rank_link.h"

enum { SEQS_MAX = 1024, BEAT_MS = 200, TEXT_TOKENS = 200, ANSWER_MAX = 32 };

struct seq {
    uint64_t id, hash;
    int32_t  n_generated, n_end, n_new, max_new, stop_id;
};

struct mock {
    struct phx_link *link;
    struct seq       seqs[SEQS_MAX];
    int              n_seqs;
    uint64_t         step;
    int64_t          beat_ns;
    useconds_t       step_us;
    bool             is_draining;
};

static uint64_t mix(uint64_t h, uint64_t x)
{
    h ^= x + 0x9e3779b97f4a7c15u + (h << 6) + (h >> 2);
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}

static void submit(struct mock *m, const struct phx_submit *s)
{
    struct seq *q = &m->seqs[m->n_seqs];

    if (m->n_seqs == SEQS_MAX)
        _exit(7);
    m->n_seqs++;
    *q = (struct seq){.id = s->seq_id, .max_new = s->max_new, .stop_id = -1};
    q->hash = mix(s->sampling.seed, (uint64_t)s->n_prompt);
    for (int32_t i = 0; i < s->n_prompt; i++)
        q->hash = mix(q->hash, (uint64_t)s->tokens[i]);
    q->n_generated = s->n_tokens - s->n_prompt;
    q->n_end = 1 + (int32_t)(q->hash % ANSWER_MAX);
    if (s->sampling.n_stop_ids > 0 && !s->sampling.ignore_eos)
        q->stop_id = s->sampling.stop_ids[0];
}

static void cancel(struct mock *m, uint64_t id)
{
    for (int i = 0; i < m->n_seqs; i++)
        if (m->seqs[i].id == id) {
            struct phx_token_out out = {.seq_id = id, .token = -1, .finish = PHX_FINISH_CANCELLED,
                                        .error_text = ""};
            struct phx_link_msg  msg = {.kind = PHX_LINK_STEP};

            msg.u.step = (struct phx_link_step){.step = ++m->step, .tokens = &out, .n_tokens = 1};
            m->seqs[i] = m->seqs[--m->n_seqs];
            mock_send(m->link, &msg);
            return;
        }
}

static void take_message(struct mock *m, const struct phx_link_msg *msg)
{
    switch (msg->kind) {
    case PHX_LINK_SUBMIT:
        for (int32_t i = 0; i < msg->u.submit.n_items; i++)
            submit(m, &msg->u.submit.items[i]);
        break;
    case PHX_LINK_CANCEL:
        for (int32_t i = 0; i < msg->u.cancel.n_seq_ids; i++)
            cancel(m, msg->u.cancel.seq_ids[i]);
        break;
    case PHX_LINK_STOP: mock_leave(m->link);
    case PHX_LINK_DRAIN: m->is_draining = true; break;
    default: break;
    }
}

static void take_messages(struct mock *m)
{
    struct phx_link_msg *msg;
    int                  rc;

    while ((rc = phx_link_recv(m->link, m->n_seqs > 0 ? 0 : BEAT_MS, &msg, NULL)) == 0) {
        take_message(m, msg);
        phx_link_msg_free(msg);
    }
    if (rc != PHX_E_TIMEOUT)
        _exit(6);
    if (m->is_draining && m->n_seqs == 0)
        mock_leave(m->link);
}

static void beat(struct mock *m)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_HEARTBEAT};

    if (phx_clock_mono_ns() < m->beat_ns)
        return;
    m->beat_ns = phx_clock_mono_ns() + (int64_t)BEAT_MS * 1000000;
    msg.u.heartbeat = (struct phx_link_heartbeat){m->step, m->step, m->n_seqs > 0};
    mock_send(m->link, &msg);
}

static void run_step(struct mock *m)
{
    struct phx_token_out *outs = phx_mem_calloc(SEQS_MAX, sizeof(*outs));
    struct phx_link_msg   msg = {.kind = PHX_LINK_STEP};
    int                   n = 0;

    if (m->step_us > 0)
        usleep(m->step_us);
    for (int i = m->n_seqs - 1; i >= 0; i--) {
        struct seq           *q = &m->seqs[i];
        struct phx_token_out *out = &outs[n++];
        bool                  is_stop = q->n_generated == q->n_end && q->stop_id >= 0;

        *out = (struct phx_token_out){.seq_id = q->id, .index = q->n_generated++, .error_text = ""};
        out->token = is_stop ? q->stop_id : (int32_t)(mix(q->hash, (uint64_t)out->index) % TEXT_TOKENS);
        q->n_new++;
        out->finish = is_stop                  ? PHX_FINISH_STOP
                      : q->n_new == q->max_new ? PHX_FINISH_LENGTH
                                               : PHX_FINISH_NONE;
        if (out->finish != PHX_FINISH_NONE)
            m->seqs[i] = m->seqs[--m->n_seqs];
    }
    msg.u.step = (struct phx_link_step){.step = ++m->step, .tokens = outs, .n_tokens = n};
    msg.u.step.stats = (struct phx_step_stats){.n_running = m->n_seqs, .kv_blocks_total = 1 << 20,
                                               .n_decode_tokens = n};
    mock_send(m->link, &msg);
    phx_mem_free(outs);
}

int main(int argc, char **argv)
{
    static const struct phx_link_ready shape = {.kv_blocks = 1 << 20, .block_tokens = 16, .max_seqs = SEQS_MAX,
                                                .max_context = 4096, .vocab_size = 512};
    struct mock *m = phx_mem_calloc(1, sizeof(*m));
    const char  *step = getenv("MOCK_STEP_US");

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    m->step_us = step != NULL ? (useconds_t)atoi(step) : 0;
    m->link = mock_join(argc, argv, 1, NULL);
    mock_ready(m->link, &shape);
    for (;;) {
        take_messages(m);
        beat(m);
        if (m->n_seqs > 0)
            run_step(m);
    }
}
