/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "kernels/exchange.h"
#include "rpc/base/mem.h"
#include "shard/comm/world.h"

/* How opening went on a rank. */
struct outcome {
    int32_t code;
    char    text[200];
};

/* The first failure of all ranks, the same everywhere; before one that the ranks can do without, one that they cannot. */
static int agree_outcome(struct phx_comm *c, const struct outcome *mine, struct phx_err *err)
{
    struct outcome *all = phx_mem_calloc((size_t)c->shape.n_ranks, sizeof(*all)), first = {0};
    size_t          size = sizeof(first);
    int             rc = phx_comm_collect(c, mine, sizeof(*mine), all);

    for (int32_t i = 0; i < c->shape.n_ranks; i++)
        if (all[i].code != 0 && (first.code == 0 || (first.code == PHX_E_UNSUPPORTED && all[i].code != first.code))) {
            first.code = all[i].code;
            (void)snprintf(first.text, sizeof(first.text), "rank %d: %.180s", i, all[i].text);
        }
    phx_mem_free(all);
    if (rc == 0)
        rc = phx_comm_bcast(c, &first, sizeof(first), &size);
    if (rc != 0 || size != sizeof(first))
        return phx_fail(err, rc != 0 ? rc : PHX_E_INTERNAL, "the ranks could not talk: %s",
                        phx_err_text(rc != 0 ? rc : PHX_E_INTERNAL));
    first.text[sizeof(first.text) - 1] = '\0';
    return first.code == 0 ? 0 : phx_fail(err, first.code, "%s", first.text);
}

/* Every rank's card, on every rank. */
static int share_cards(struct phx_comm *c, const unsigned char *mine, unsigned char *cards)
{
    int rc = phx_comm_collect(c, mine, PHX_EXCHANGE_CARD_BYTES, cards);

    for (int32_t i = 0; i < c->shape.n_ranks && rc == 0; i++) {
        size_t size = PHX_EXCHANGE_CARD_BYTES;

        rc = phx_comm_bcast(c, cards + (size_t)i * PHX_EXCHANGE_CARD_BYTES, PHX_EXCHANGE_CARD_BYTES, &size);
        if (rc == 0 && size != PHX_EXCHANGE_CARD_BYTES)
            rc = PHX_E_INTERNAL;
    }
    return rc;
}

static int open_group(struct phx_comm *c, struct phx_exchange *group, struct phx_err *err)
{
    const struct phx_comm_shape *s = &c->shape;
    unsigned char                mine[PHX_EXCHANGE_CARD_BYTES];
    unsigned char               *cards = phx_mem_calloc((size_t)s->n_ranks, PHX_EXCHANGE_CARD_BYTES);
    struct outcome               o = {0};
    int                          rc;

    if (phx_exchange_offer(group, mine, o.text, sizeof(o.text)) != 0)
        o.code = PHX_E_UNSUPPORTED;
    rc = share_cards(c, mine, cards);
    if (rc == 0 && o.code == 0 &&
        phx_exchange_accept(group, cards + (size_t)(s->pp * s->tp_size) * PHX_EXCHANGE_CARD_BYTES, o.text,
                            sizeof(o.text)) != 0)
        o.code = PHX_E_UNSUPPORTED;
    phx_mem_free(cards);
    return rc == 0 ? agree_outcome(c, &o, err) : phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
}

/* A host whose devices say that they reach each other, and do not, is found before it costs an answer: the sum of
 * rank + 1, more than once since slots take turns. */
static int try_sum(struct phx_comm *c, struct phx_backend *b, struct phx_exchange *group, float *x)
{
    enum { TURNS = 3 };
    int32_t n = c->shape.tp_size;
    float   value;
    bool    is_wrong = false;

    if (x == NULL)
        return PHX_E_NOMEM;
    for (int i = 0; i < TURNS; i++) {
        int rc;

        value = (float)(c->shape.tp + 1 + i);
        phx_upload(b, x, &value, sizeof(value));
        if (phx_exchange_sum(group, phx_view(x, 1, 1)) != 0)
            return PHX_E_INTERNAL;
        rc = phx_comm_wait(c);
        if (rc != 0)
            return rc;
        phx_download(b, &value, x, sizeof(value));
        is_wrong |= (int32_t)value != n * (n + 1) / 2 + n * i;
    }
    return is_wrong ? PHX_E_UNSUPPORTED : 0;
}

int phx_comm_open_peers(struct phx_comm *c, struct phx_backend *b, struct phx_exchange *group, struct phx_err *err)
{
    struct outcome o = {0};
    float         *x = phx_backend_alloc(b, sizeof(*x)); /* before any rank waits on a device */
    bool           was_broken;
    int            rc = open_group(c, group, err);

    if (rc == 0) {
        o.code = try_sum(c, b, group, x);
        (void)snprintf(o.text, sizeof(o.text), "a first sum over peer memory failed: %s",
                       o.code == PHX_E_UNSUPPORTED ? "it was wrong" : phx_err_text(o.code));
        was_broken = c->is_broken;
        c->is_broken = false; /* what carries the activations may be, the hosts still talk */
        rc = agree_outcome(c, &o, err);
        c->is_broken = was_broken;
    }
    if (x != NULL)
        phx_backend_free(b, x);
    if (rc == PHX_E_UNSUPPORTED)
        phx_exchange_retract(group);
    return rc;
}
