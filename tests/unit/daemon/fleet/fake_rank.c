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

#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/rpc.h"
#include "tests/unit/daemon/fleet/fake_rank.h"

enum { SEQS_MAX = 64, STEP_US = 2000, BEAT_MS = 100 };

struct seq {
    uint64_t id;
    int32_t  prompt[8], n_prompt, n_generated, n_before, max_new;
    int32_t  order; /* what the prompt's first token asks for */
};

struct fake {
    struct phx_link *link;
    struct seq       seqs[SEQS_MAX];
    int              n_seqs;
    uint64_t         step;
    int64_t          beat_ns;
    bool             is_stuck, is_draining;
};

static const char *option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return "";
}

static char *read_text(const char *path)
{
    struct phx_buf b;

    if (phx_buf_read_file(&b, path, 1 << 20, NULL) != 0)
        _exit(4);
    return b.data;
}

static void join(struct fake *f, int argc, char **argv, const char *way)
{
    struct phx_rank_info          rank = {0, getpid(), "test", 0, 0, "cpu"};
    struct phx_rpc_client_options o = {.target = option(argc, argv, "--join"),
                                       .server_name = "localhost"};
    struct phx_link_hello         hello = {
                .replica_id = option(argc, argv, "--replica"),
                .join_token = read_text(option(argc, argv, "--join-token-file")),
                .model_name = option(argc, argv, "--model"),
                .model_digest = "",
                .pp_size = 1,
                .tp_size = strcmp(way, "wronglayout") == 0 ? 2 : 1,
                .ranks = &rank,
                .n_ranks = 1,
    };
    struct phx_err err = {0};

    if (strcmp(way, "wrongtoken") == 0)
        hello.join_token = "0000000000000000000000000000000000000000000000000000000000000000";
    o.tls.ca_pem = read_text(option(argc, argv, "--tls-ca"));
    o.tls.cert_pem = read_text(option(argc, argv, "--tls-cert"));
    o.tls.key_pem = read_text(option(argc, argv, "--tls-key"));
    if (phx_link_connect(&f->link, &o, &hello, NULL, &err) != 0) {
        fprintf(stderr, "fake-rank: %s\n", err.text);
        _exit(5);
    }
}

static void send(struct fake *f, const struct phx_link_msg *msg)
{
    if (phx_link_send(f->link, msg, NULL) != 0)
        _exit(6); /* the daemon is gone */
}

static void get_ready(struct fake *f, const char *way)
{
    struct phx_rank_facts facts = {0, 1000, 2000, 300};
    struct phx_link_msg   msg = {.kind = PHX_LINK_LOADING};

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
    msg = (struct phx_link_msg){.kind = PHX_LINK_READY};
    msg.u.ready = (struct phx_link_ready){.ranks = &facts, .n_ranks = 1, .kv_blocks = 100,
                                          .block_tokens = 16, .max_seqs = 4,
                                          .max_context = FAKE_CONTEXT, .vocab_size = FAKE_VOCAB};
    send(f, &msg);
}

static void submit(struct fake *f, const struct phx_submit *s)
{
    struct seq *q = &f->seqs[f->n_seqs];

    if (f->n_seqs == SEQS_MAX || s->n_prompt > 8)
        _exit(7);
    f->n_seqs++;
    memset(q, 0, sizeof(*q));
    q->id = s->seq_id;
    q->n_prompt = s->n_prompt;
    memcpy(q->prompt, s->tokens, (size_t)s->n_prompt * sizeof(*q->prompt));
    q->n_generated = q->n_before = s->n_tokens - s->n_prompt;
    q->max_new = s->max_new;
    q->order = s->tokens[0];
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

static void leave(struct fake *f)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_BYE};

    send(f, &msg);
    phx_link_close(f->link, 1000);
    _exit(0);
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
            leave(f);
        else if (msg->kind == PHX_LINK_DRAIN)
            f->is_draining = true;
        phx_link_msg_free(msg);
        if (f->is_stuck)
            break;
    }
    if (rc != PHX_E_TIMEOUT && rc != 0)
        _exit(6);
    if (f->is_draining && f->n_seqs == 0)
        leave(f);
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
    bool is_first_life = q->n_before == 0;

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
    const char *way = strrchr(option(argc, argv, "--model"), '/');
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
