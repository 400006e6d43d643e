/* SPDX-License-Identifier: Apache-2.0
 * The head's link to the daemon: joins, reports loading, then feeds the engine and sends one message per
 * step.  A thread of its own beats once a second, so that the daemon sees a hang of the loop. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/step/provenance.h"
#include "shard/step/stage.h"

enum {
    PEM_MAX_BYTES = 1 << 20, TOKEN_MAX_BYTES = 4096, HOST_MAX = 64, DEVICE_MAX = 144,
    FLUSH_MS = 2000, TICK_MS = 100, TELL_LOADING_MS = 200,
    DRAIN_MAX_MS = 7 * 86400 * 1000 /* longer is for ever */
};

struct rank_card { /* what each rank tells rank 0 about itself */
    int32_t pid;
    char    host[HOST_MAX], device[DEVICE_MAX];
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
};

struct serve {
    struct phx_step  *s;
    struct phx_link  *link;
    struct phx_head  *head;
    pthread_t         beat_thread;
    atomic_bool       is_over;
    atomic_bool       is_busy;
    atomic_ullong     step;
    atomic_ullong     loaded_bytes, total_bytes;
    int64_t           load_began_ns, load_told_ns;
    int32_t           heartbeat_ms;
    int64_t           drain_by_ns; /* 0 = no limit */
    bool              is_draining, is_leaving;
    bool              is_alone; /* the link ended; the other ranks are fine */
    struct phx_link_msg unsent; /* of the last step, when has_unsent */
    bool              has_unsent;
    int               send_code;
    struct phx_err    send_err;
};

static void *beat(void *ctx)
{
    struct serve *v = ctx;
    int64_t       next = phx_clock_mono_ns();

    while (!atomic_load(&v->is_over)) {
        struct phx_link_msg msg = {.kind = PHX_LINK_HEARTBEAT};

        usleep(TICK_MS * 1000);
        if (phx_clock_mono_ns() < next)
            continue;
        next = phx_clock_mono_ns() + (int64_t)v->heartbeat_ms * 1000000;
        msg.u.heartbeat.step = atomic_load(&v->step);
        msg.u.heartbeat.progress =
            phx_comm_progress(v->s->comm) + atomic_load(&v->loaded_bytes) + atomic_load(&v->step);
        msg.u.heartbeat.is_busy = atomic_load(&v->is_busy);
        if (phx_link_send(v->link, &msg, NULL) != 0 && !phx_link_is_connected(v->link))
            break; /* the loop sees the same and leaves */
    }
    return NULL;
}

/* "cpu", or "cuda:" with what tells a GPU from all others, and behind a space what kind it is. */
static void describe_device(const struct phx_step *s, char *text, size_t size)
{
    const struct phx_device_facts *d = &s->device;

    if (phx_backend_is_host(s->backend))
        (void)snprintf(text, size, "%s", phx_backend_name(s->backend));
    else
        (void)snprintf(text, size, "%s:%s %s sm_%d CUDA %s driver %s", phx_backend_name(s->backend), d->id, d->name,
                       d->arch, d->runtime, d->driver);
}

static void fill_card(const struct phx_step *s, struct rank_card *card)
{
    struct phx_model_memory memory = {0};

    memset(card, 0, sizeof(*card));
    card->pid = (int32_t)getpid();
    if (gethostname(card->host, sizeof(card->host) - 1) != 0)
        memcpy(card->host, "?", 2);
    describe_device(s, card->device, sizeof(card->device));
    if (s->model != NULL)
        phx_model_memory(s->model, &memory);
    card->weights_bytes = memory.weights_bytes;
    card->kv_bytes = memory.kv_bytes;
    card->scratch_bytes = memory.scratch_bytes;
}

/* Collective: every rank calls it; rank 0 gets all cards (owned). */
static int collect_cards(const struct phx_step *s, struct rank_card **all, struct phx_err *err)
{
    struct rank_card card;
    int32_t          n = s->options->tp * s->options->pp;
    int              rc;

    *all = phx_mem_calloc((size_t)n, sizeof(card));
    fill_card(s, &card);
    rc = phx_comm_collect(s->comm, &card, sizeof(card), *all);
    if (rc == 0)
        return 0;
    phx_mem_free(*all);
    *all = NULL;
    return phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
}

static int connect_link(struct serve *v, const struct rank_card *cards, struct phx_err *err)
{
    const struct phx_step_options *o = v->s->options;
    int32_t                        n = o->tp * o->pp;
    struct phx_rank_info          *ranks = phx_mem_calloc((size_t)n, sizeof(*ranks));
    struct phx_buf                 token = {0}, ca = {0}, cert = {0}, key = {0};
    struct phx_link_welcome        welcome = {0};
    struct phx_link_hello          hello = {
                 .replica_id = o->replica_id,
                 .model_name = o->model_dir,
                 .model_digest = phx_provenance_root(v->s->provenance),
                 .model_parent = phx_provenance_parent(v->s->provenance),
                 .pp_size = o->pp,
                 .tp_size = o->tp,
                 .ranks = ranks,
                 .n_ranks = n,
    };
    struct phx_rpc_client_options client = {.target = o->join, .server_name = "localhost"};
    int rc = phx_buf_read_file(&token, o->join_token_file, TOKEN_MAX_BYTES, err);

    for (int32_t i = 0; i < n; i++)
        ranks[i] = (struct phx_rank_info){.rank = i, .pid = cards[i].pid, .host = cards[i].host,
                                          .pp = i / o->tp, .tp = i % o->tp,
                                          .device = cards[i].device};
    if (rc == 0)
        rc = phx_buf_read_file(&ca, o->tls_ca_file, PEM_MAX_BYTES, err);
    if (rc == 0)
        rc = phx_buf_read_file(&cert, o->tls_cert_file, PEM_MAX_BYTES, err);
    if (rc == 0)
        rc = phx_buf_read_file(&key, o->tls_key_file, PEM_MAX_BYTES, err);
    if (rc == 0) {
        token.data[strcspn(token.data, "\r\n")] = '\0';
        hello.join_token = token.data;
        client.tls = (struct phx_rpc_tls){ca.data, cert.data, key.data};
        rc = phx_link_connect(&v->link, &client, &hello, &welcome, err);
    }
    v->heartbeat_ms = welcome.settings.heartbeat_ms > 0 ? welcome.settings.heartbeat_ms : 1000;
    if (token.data != NULL)
        phx_secret_wipe(token.data, token.size);
    if (key.data != NULL)
        phx_secret_wipe(key.data, key.size);
    phx_buf_fini(&token);
    phx_buf_fini(&ca);
    phx_buf_fini(&cert);
    phx_buf_fini(&key);
    phx_mem_free(ranks);
    return rc;
}

static void on_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct serve       *v = ctx;
    int64_t             now = phx_clock_mono_ns();
    struct phx_link_msg msg = {.kind = PHX_LINK_LOADING};
    double              seconds = (double)(now - v->load_began_ns) / 1e9;

    atomic_store(&v->loaded_bytes, done);
    if (now - v->load_told_ns < (int64_t)TELL_LOADING_MS * 1000000 && done < total)
        return;
    v->load_told_ns = now;
    msg.u.loading = (struct phx_link_loading){
        .fraction = total > 0 ? (double)done / (double)total : 1.0,
        .bytes = done,
        .bytes_total = total,
        .gb_per_s = seconds > 0 ? (double)done / 1e9 / seconds : 0,
    };
    if (phx_link_send(v->link, &msg, NULL) != 0)
        phx_log(PHX_LOG_WARN, "step.load.mute", "reason=%s", "the daemon is gone");
}

static int send_ready(struct serve *v, const struct rank_card *cards, struct phx_err *err)
{
    int32_t                n = v->s->options->tp * v->s->options->pp;
    struct phx_rank_facts *facts = phx_mem_calloc((size_t)n, sizeof(*facts));
    struct phx_link_msg    msg = {.kind = PHX_LINK_READY};
    int                    rc;

    for (int32_t i = 0; i < n; i++)
        facts[i] = (struct phx_rank_facts){i, cards[i].weights_bytes, cards[i].kv_bytes,
                                           cards[i].scratch_bytes};
    msg.u.ready = (struct phx_link_ready){
        .ranks = facts,
        .n_ranks = n,
        .kv_blocks = v->s->n_blocks,
        .block_tokens = v->s->options->block_tokens,
        .max_seqs = v->s->options->max_seqs,
        .max_context = v->s->max_context,
        .vocab_size = v->s->config.vocab_size,
    };
    rc = phx_link_send(v->link, &msg, err);
    phx_mem_free(facts);
    return rc;
}

static void handle(struct serve *v, const struct phx_link_msg *msg)
{
    switch (msg->kind) {
    case PHX_LINK_SUBMIT:
        for (int32_t i = 0; i < msg->u.submit.n_items; i++)
            if (v->is_draining)
                phx_head_refuse(v->head, msg->u.submit.items[i].seq_id, PHX_E_BUSY,
                                "the replica is leaving");
            else
                phx_head_submit(v->head, &msg->u.submit.items[i]);
        break;
    case PHX_LINK_CANCEL:
        for (int32_t i = 0; i < msg->u.cancel.n_seq_ids; i++)
            phx_head_cancel(v->head, msg->u.cancel.seq_ids[i]);
        break;
    case PHX_LINK_DRAIN:
        v->is_draining = true;
        if (msg->u.drain.timeout_ms > 0 && msg->u.drain.timeout_ms < DRAIN_MAX_MS)
            v->drain_by_ns = phx_clock_mono_ns() + msg->u.drain.timeout_ms * 1000000;
        break;
    case PHX_LINK_STOP: v->is_leaving = true; break;
    default: break; /* PING: that it came is all it says */
    }
}

/* Tells the daemon of the last step, if that has not been done: while a device computes the next one, or when there
 * is none. */
static void tell_step(void *ctx)
{
    struct serve *v = ctx;

    if (!v->has_unsent)
        return;
    v->has_unsent = false;
    v->send_code = phx_link_send(v->link, &v->unsent, &v->send_err);
}

static int check_sent(struct serve *v, struct phx_err *err)
{
    if (v->send_code == 0)
        return 0;
    *err = v->send_err;
    v->is_alone = true;
    return v->send_code;
}

/* Takes what has come; waits for something when there is nothing to do. */
static int take_messages(struct serve *v, struct phx_err *err)
{
    while (!v->is_leaving && !phx_head_is_full(v->head)) {
        struct phx_link_msg *msg = NULL;
        bool has_work = phx_head_has_work(v->head);
        int  rc;

        /* what still runs when the time is up goes on elsewhere: to the daemon this replica is gone */
        if (v->is_draining &&
            (!has_work || (v->drain_by_ns != 0 && phx_clock_mono_ns() > v->drain_by_ns))) {
            v->is_leaving = true;
            break;
        }
        atomic_store(&v->is_busy, has_work);
        if (!has_work)
            tell_step(v);
        rc = phx_link_recv(v->link, has_work ? 0 : -1, &msg, err);
        if (rc == PHX_E_TIMEOUT)
            return 0;
        if (rc != 0) {
            phx_err_prefix(err, "the daemon is gone: ");
            v->is_alone = true;
            return rc;
        }
        handle(v, msg);
        phx_link_msg_free(msg);
    }
    return 0;
}

static int run_loop(struct serve *v, struct phx_err *err)
{
    int rc = 0;

    while (rc == 0 && !v->is_leaving) {
        struct phx_link_msg msg = {.kind = PHX_LINK_STEP};

        rc = take_messages(v, err);
        if (rc != 0 || v->is_leaving)
            break;
        rc = phx_head_run(v->head, &msg.u.step, err);
        tell_step(v); /* where no plan was started */
        if (rc != 0)
            break;
        atomic_store(&v->step, msg.u.step.step);
        v->unsent = msg;
        v->has_unsent = msg.u.step.n_tokens > 0 || msg.u.step.stats.n_prefill_tokens > 0;
        if (phx_backend_is_host(v->s->backend))
            tell_step(v);
        rc = check_sent(v, err);
    }
    tell_step(v);
    return rc != 0 ? rc : check_sent(v, err);
}

static void tell_fatal(struct serve *v, int code, const struct phx_err *err)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_FATAL};

    msg.u.fatal = (struct phx_link_fatal){.code = code, .text = err->text, .rank = v->s->rank};
    if (phx_link_send(v->link, &msg, NULL) != 0)
        phx_log(PHX_LOG_WARN, "step.fatal.mute", "reason=%s", "the daemon is gone");
}

static int load_and_run(struct serve *v, struct phx_err *err)
{
    struct rank_card *cards = NULL;
    int               rc;

    v->load_began_ns = phx_clock_mono_ns();
    atomic_store(&v->is_busy, true);
    rc = phx_step_load(v->s, on_progress, v, err);
    if (rc == 0)
        rc = collect_cards(v->s, &cards, err);
    if (rc == 0)
        rc = phx_head_create(v->s, &v->head, err);
    if (rc == 0)
        phx_stage_set_meanwhile(v->s->stage, tell_step, v);
    if (rc == 0)
        rc = send_ready(v, cards, err);
    phx_mem_free(cards);
    if (rc == 0)
        rc = run_loop(v, err);
    return rc;
}

static int serve_as_head(struct phx_step *s, const struct rank_card *cards, struct phx_err *err)
{
    struct serve        v = {.s = s};
    struct phx_link_msg bye = {.kind = PHX_LINK_BYE};
    int                 rc = connect_link(&v, cards, err);

    if (rc != 0)
        return rc;
    phx_assert(pthread_create(&v.beat_thread, NULL, beat, &v) == 0);
    rc = load_and_run(&v, err);
    if (rc != 0 && !v.is_alone)
        tell_fatal(&v, rc, err);
    else if (rc == 0 && phx_link_send(v.link, &bye, NULL) != 0)
        phx_log(PHX_LOG_WARN, "step.bye.mute", "reason=%s", "the daemon is gone");
    if (v.head != NULL && (rc != PHX_E_PEER || v.is_alone))
        phx_head_stop(v.head);
    atomic_store(&v.is_over, true);
    (void)pthread_join(v.beat_thread, NULL); /* a thread we started ourselves */
    phx_link_close(v.link, FLUSH_MS);
    phx_head_destroy(v.head);
    return rc;
}

int phx_step_serve(struct phx_step *s, struct phx_err *err)
{
    struct rank_card *cards = NULL;
    int               rc = collect_cards(s, &cards, err);

    if (rc == 0 && s->rank == 0)
        rc = serve_as_head(s, cards, err);
    phx_mem_free(cards);
    if (rc != 0 || s->rank == 0)
        return rc;
    rc = phx_step_load(s, NULL, NULL, err);
    cards = NULL;
    if (rc == 0)
        rc = collect_cards(s, &cards, err);
    phx_mem_free(cards);
    return rc == 0 ? phx_step_follow(s, err) : rc;
}
