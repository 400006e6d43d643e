/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/daemon/queue/fake_fleet.h"

#include "rpc/base/mem.h"

void fake_fleet_open(struct phx_fleet *f, struct event_base *base)
{
    *f = (struct phx_fleet){.base = base};
}

/* The only replica is the fleet itself. */
struct phx_replica *phx_fleet_replica(const struct phx_fleet *f, int32_t index)
{
    (void)index;
    return (struct phx_replica *)(uintptr_t)f;
}

static struct phx_fleet *fleet_of(struct phx_replica *r)
{
    return (struct phx_fleet *)(void *)r;
}

int32_t phx_fleet_count(const struct phx_fleet *f)
{
    (void)f;
    return 1;
}

struct event_base *phx_fleet_base(const struct phx_fleet *f)
{
    return f->base;
}

void phx_fleet_listen(struct phx_fleet *f, const struct phx_fleet_listener *listener)
{
    f->listener = *listener;
}

void phx_fleet_facts(const struct phx_fleet *f, struct phx_fleet_facts *out)
{
    (void)f;
    *out = (struct phx_fleet_facts){.n_replicas = 1, .n_ready = 1};
}

void phx_replica_facts(const struct phx_replica *r, struct phx_replica_facts *out)
{
    (void)r;
    *out = (struct phx_replica_facts){.is_taking = true, .max_seqs = FAKE_SEQS, .max_context = FAKE_CONTEXT,
                                      .vocab_size = FAKE_VOCAB, .kv_blocks = 1000};
}

int phx_replica_submit(struct phx_replica *r, const struct phx_submit *items, int32_t n, struct phx_err *err)
{
    struct phx_fleet *f = fleet_of(r);

    (void)err;
    for (int32_t i = 0; i < n; i++) {
        phx_assert(f->n_sent < FAKE_SENT_MAX);
        f->sent[f->n_sent] = items[i];
        f->n_told[f->n_sent++] = items[i].n_tokens - items[i].n_prompt;
    }
    return 0;
}

void phx_replica_cancel(struct phx_replica *r, uint64_t seq_id)
{
    (void)r;
    (void)seq_id;
}

void phx_replica_give_up(struct phx_replica *r, const struct phx_err *reason)
{
    (void)r;
    (void)reason;
    phx_assert(false);
}

void fake_fleet_ready(struct phx_fleet *f)
{
    f->listener.on_ready(f->listener.ctx, phx_fleet_replica(f, 0));
}

void fake_fleet_lose(struct phx_fleet *f)
{
    f->n_sent = 0;
    f->listener.on_lost(f->listener.ctx, phx_fleet_replica(f, 0), &(struct phx_err){.code = PHX_E_PEER});
}

void fake_fleet_step(struct phx_fleet *f)
{
    struct phx_token_out outs[FAKE_SEQS] = {{0}};
    struct phx_link_step step = {.step = ++f->step, .tokens = outs};
    int32_t              n_kept = 0, n_sent = f->n_sent;

    for (int32_t i = 0; i < n_sent; i++) {
        int32_t index = f->n_told[i];
        int32_t last = f->sent[i].n_tokens - f->sent[i].n_prompt + f->sent[i].max_new - 1;

        if (i < FAKE_SEQS) {
            outs[step.n_tokens++] = (struct phx_token_out){
                .seq_id = f->sent[i].seq_id, .token = 1, .index = index, .error_text = "",
                .finish = index == last ? PHX_FINISH_LENGTH : PHX_FINISH_NONE};
            f->n_told[i]++;
            if (index == last)
                continue;
        }
        f->sent[n_kept] = f->sent[i];
        f->n_told[n_kept++] = f->n_told[i];
    }
    f->n_sent = n_kept;
    f->listener.on_step(f->listener.ctx, phx_fleet_replica(f, 0), &step);
}
