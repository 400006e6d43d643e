/* SPDX-License-Identifier: Apache-2.0
 * A rank without a model, for tests of fleet and engine: it joins as phalanx-rank does, and what it then
 * does is told by its model folder's name and by the first token of each prompt.
 *
 * Tokens follow a rule that depends on the prompt and the index alone, as the real ones do:
 * fake_token().  A resumed sequence must therefore go on with exactly the tokens an unbroken one has. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/rpc.h"
#include "tests/mock/rank_link.h"
#include "tests/unit/daemon/fleet/fake_rank.h"

enum { SEQS_MAX = 64, CHECK_MAX = 64, STEP_US = 2000, BEAT_MS = 100 };

struct seq {
    uint64_t id;
    int32_t  prompt[8], n_prompt, n_generated, n_before, max_new;
    int32_t  order; /* what the prompt's first token asks for */
    int32_t  recorded[CHECK_MAX], n_check;
    bool     is_resumed; /* what was lost comes back with a higher priority */
};

struct fake {
    struct phx_link *link;
    struct seq       seqs[SEQS_MAX];
    int              n_seqs;
    uint64_t         step;
    int64_t          beat_ns;
    bool             is_stuck, is_draining;
};

static void join(struct fake *f, int argc, char **argv, const char *way)
{
    static const char wrong[] = "0000000000000000000000000000000000000000000000000000000000000000";

    f->link = mock_join(argc, argv, strcmp(way, "wronglayout") == 0 ? 2 : 1,
                        strcmp(way, "wrongtoken") == 0 ? wrong : NULL);
}

static void send(struct fake *f, const struct phx_link_msg *msg)
{
    mock_send(f->link, msg);
}

static void get_ready(struct fake *f, const char *way)
{
    static const struct phx_link_ready shape = {.kv_blocks = 100, .block_tokens = 16, .max_seqs = 4,
                                                .max_context = FAKE_CONTEXT, .vocab_size = FAKE_VOCAB};
    struct phx_link_msg                msg = {.kind = PHX_LINK_LOADING};

    msg.u.loading = (struct phx_link_loading){0.5, 500, 1000, 1.0};
    send(f, &msg);
    if (strcmp(way, "fatal") == 0) {
        msg = (struct phx_link_msg){.kind = PHX_LINK_FATAL};
        msg.u.fatal = (struct phx_link_fatal){PHX_E_FORMAT, "tensor x is missing", 0};
        send(f, &msg);
        phx_link_close(f->link, 1000);
        _exit(1);
    }
    if (strcmp(way, "dieinload") == 0)
        raise(SIGKILL);
    mock_ready(f->link, &shape);
}

static void submit(struct fake *f, const struct phx_submit *s)
{
    struct seq *q = &f->seqs[f->n_seqs];

    if (f->n_seqs == SEQS_MAX || s->n_prompt > 8 || s->n_check > CHECK_MAX)
        _exit(7);
    f->n_seqs++;
    memset(q, 0, sizeof(*q));
    q->id = s->seq_id;
    q->n_prompt = s->n_prompt;
    memcpy(q->prompt, s->tokens, (size_t)s->n_prompt * sizeof(*q->prompt));
    q->n_generated = q->n_before = s->n_check > 0 ? 0 : s->n_tokens - s->n_prompt;
    q->max_new = s->n_check > 0 ? s->n_check : s->max_new;
    q->order = s->tokens[0];
    q->is_resumed = s->priority > 0;
    q->n_check = s->n_check;
    for (int32_t i = 0; i < s->n_check; i++)
        q->recorded[i] = s->tokens[s->n_prompt + i];
    for (int32_t i = 0; i < q->n_before; i++) /* what is sent back must be what was generated */
        if (s->tokens[s->n_prompt + i] != fake_token(s->tokens, s->n_prompt, i))
            _exit(8);
}

static void cancel(struct fake *f, uint64_t id)
{
    for (int i = 0; i < f->n_seqs; i++)
        if (f->seqs[i].id == id) {
            struct phx_token_out out = {.seq_id = id, .token = -1, .finish = PHX_FINISH_CANCELLED,
                                        .error_text = ""};
            struct phx_link_msg  msg = {.kind = PHX_LINK_STEP};

            msg.u.step = (struct phx_link_step){.step = ++f->step, .tokens = &out, .n_tokens = 1};
            f->seqs[i] = f->seqs[--f->n_seqs];
            send(f, &msg);
            return;
        }
}

static void take_messages(struct fake *f)
{
    struct phx_link_msg *msg;
    int                  rc;

    while ((rc = phx_link_recv(f->link, f->n_seqs > 0 && !f->is_stuck ? 0 : BEAT_MS, &msg, NULL)) == 0) {
        if (msg->kind == PHX_LINK_SUBMIT)
            for (int32_t i = 0; i < msg->u.submit.n_items; i++)
                submit(f, &msg->u.submit.items[i]);
        else if (msg->kind == PHX_LINK_CANCEL)
            for (int32_t i = 0; i < msg->u.cancel.n_seq_ids; i++)
                cancel(f, msg->u.cancel.seq_ids[i]);
        else if (msg->kind == PHX_LINK_STOP)
            mock_leave(f->link);
        else if (msg->kind == PHX_LINK_DRAIN)
            f->is_draining = true;
        phx_link_msg_free(msg);
        if (f->is_stuck)
            break;
    }
    if (rc != PHX_E_TIMEOUT && rc != 0)
        _exit(6);
    if (f->is_draining && f->n_seqs == 0)
        mock_leave(f->link);
}

static void beat(struct fake *f)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_HEARTBEAT};

    if (phx_clock_mono_ns() < f->beat_ns)
        return;
    f->beat_ns = phx_clock_mono_ns() + BEAT_MS * 1000000;
    msg.u.heartbeat = (struct phx_link_heartbeat){f->step, f->step, f->n_seqs > 0};
    send(f, &msg);
}

/* What a sequence of its order does at its fifth new token in this life. */
static void misbehave(struct fake *f, const struct seq *q, struct phx_token_out *out)
{
    bool is_first_life = !q->is_resumed;

    if (q->n_generated - q->n_before != 5)
        return;
    switch (q->order) {
    case FAKE_DIE_ONCE:
        if (is_first_life)
            raise(SIGKILL);
        break;
    case FAKE_DIE_ALWAYS: raise(SIGKILL); break;
    case FAKE_SILENT_ONCE:
        if (is_first_life)
            raise(SIGSTOP);
        break;
    case FAKE_STUCK_ONCE: f->is_stuck = is_first_life; break;
    case FAKE_SKIP_ONCE: out->index += is_first_life; break;
    case FAKE_ERROR:
        out->token = -1;
        out->finish = PHX_FINISH_ERROR;
        out->error_code = PHX_E_INTERNAL;
        out->error_text = "logits are not finite";
        break;
    default: break;
    }
}

static void run_step(struct fake *f)
{
    struct phx_token_out outs[2 * SEQS_MAX];
    struct phx_link_msg  msg = {.kind = PHX_LINK_STEP};
    int                  n = 0;

    memset(outs, 0, sizeof(outs));
    for (int i = f->n_seqs - 1; i >= 0; i--) {
        struct seq           *q = &f->seqs[i];
        struct phx_token_out *out = &outs[n++];

        *out = (struct phx_token_out){.seq_id = q->id, .index = q->n_generated, .error_text = ""};
        out->token = fake_token(q->prompt, q->n_prompt, q->n_generated);
        if (q->n_check > 0)
            out->gap = q->recorded[q->n_generated] == out->token ? 0.0f : 0.5f;
        misbehave(f, q, out);
        if (f->is_stuck)
            return;
        if (q->order == FAKE_TWICE && q->n_generated > 0 && out->finish == PHX_FINISH_NONE) {
            outs[n] = *out; /* an old token again, as around a resume */
            outs[n].index--;
            outs[n++].token = fake_token(q->prompt, q->n_prompt, q->n_generated - 1);
        }
        q->n_generated++;
        if (q->n_generated - q->n_before == q->max_new && out->finish == PHX_FINISH_NONE)
            out->finish = PHX_FINISH_LENGTH;
        if (out->finish != PHX_FINISH_NONE)
            f->seqs[i] = f->seqs[--f->n_seqs];
    }
    msg.u.step = (struct phx_link_step){.step = ++f->step, .tokens = outs, .n_tokens = n};
    msg.u.step.stats = (struct phx_step_stats){.n_running = f->n_seqs, .kv_blocks_total = 100,
                                               .step_us = STEP_US, .n_decode_tokens = n};
    send(f, &msg);
    usleep(STEP_US);
}

int main(int argc, char **argv)
{
    const char *way = strrchr(mock_option(argc, argv, "--model"), '/');
    struct fake f = {0};

    way = way != NULL ? way + 1 : "";
    if (strcmp(way, "exit") == 0)
        _exit(3); /* as all its exits: without the leak checks of sanitizers, whose status would hide it */
    if (strcmp(way, "never") == 0)
        for (;;)
            pause();
    join(&f, argc, argv, way);
    get_ready(&f, way);
    for (;;) {
        take_messages(&f);
        beat(&f);
        if (f.n_seqs > 0 && !f.is_stuck)
            run_step(&f);
    }
}
