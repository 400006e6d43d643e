/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/comm/nccl.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/exchange.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/comm/world.h"

enum { NS_PER_MS = 1000000, SPIN_NS = 200000, NAP_US = 20, LOOK_NS = 100 * NS_PER_MS, LAST_WORDS_NS = 500 * NS_PER_MS };

struct phx_comm_device {
    struct phx_backend  *backend;      /* borrowed */
    struct phx_exchange *group, *chain; /* the ranks of this stage; this tp of all stages; NULL when alone there */
    int32_t              wait_ms;
    bool                 has_library, has_peers;
};

/* What a rank tells about itself. */
struct card {
    char          build[32], runtime[16], driver[16], device[40], device_name[64], why[200];
    int32_t       version; /* of the library; 0 = none, see why */
    int32_t       arch;
    int32_t       is_near; /* its tensor group is on its host */
    unsigned char group_id[PHX_EXCHANGE_ID_BYTES], chain_id[PHX_EXCHANGE_ID_BYTES]; /* of tp 0, of pp 0 */
};

struct verdict {
    int32_t code; /* 0, or PHX_E_UNSUPPORTED */
    int32_t has_library, has_peers; /* neither: the hosts */
    char    text[sizeof(((struct phx_err *)0)->text)];
};

int phx_transport_parse(const char *word, enum phx_transport *out)
{
    static const char *const words[] = {"auto", "nccl", "host", "peer"};

    for (int i = 0; i < 4; i++)
        if (strcmp(word, words[i]) == 0) {
            *out = (enum phx_transport)i;
            return 0;
        }
    return -1;
}

/* ---- what all ranks decide ------------------------------------------------------------------ */

static void ask_library(const struct phx_comm *c, struct phx_backend *b, struct card *card)
{
    if (phx_exchange_probe(b, &card->version, card->why, sizeof(card->why)) != 0 ||
        (c->shape.tp == 0 && phx_exchange_make_id(b, card->group_id, card->why, sizeof(card->why)) != 0) ||
        (c->shape.pp == 0 && phx_exchange_make_id(b, card->chain_id, card->why, sizeof(card->why)) != 0))
        card->version = 0;
}

/* All ranks of its tensor group share its memory. */
static bool is_group_near(const struct phx_comm *c)
{
    const struct phx_comm_shape *s = &c->shape;
    int32_t                     *near = phx_mem_calloc((size_t)s->n_ranks, sizeof(*near));
    int32_t                      n_near = phx_comm_host(c, near), n_found = 0;

    for (int32_t i = 0; i < n_near; i++)
        n_found += near[i] / s->tp_size == s->pp;
    phx_mem_free(near);
    return n_found == s->tp_size;
}

static void fill_card(const struct phx_comm *c, struct phx_backend *b, enum phx_transport wanted, struct card *card)
{
    struct phx_device_facts facts;

    memset(card, 0, sizeof(*card));
    phx_backend_facts(b, &facts);
    (void)snprintf(card->build, sizeof(card->build), "%s", PHX_VERSION);
    (void)snprintf(card->runtime, sizeof(card->runtime), "%s", facts.runtime);
    (void)snprintf(card->driver, sizeof(card->driver), "%s", facts.driver);
    (void)snprintf(card->device, sizeof(card->device), "%s", facts.id);
    (void)snprintf(card->device_name, sizeof(card->device_name), "%s", facts.name);
    card->arch = facts.arch;
    card->is_near = is_group_near(c);
    if (wanted != PHX_TRANSPORT_PEER)
        ask_library(c, b, card);
}

static void describe(const struct card *a, int32_t rank, char *text, size_t size)
{
    (void)snprintf(text, size, "rank %d has phalanx %s, NCCL %d.%d.%d, CUDA %s, driver for CUDA %s, %s (sm_%d)", rank,
                   a->build, a->version / 10000, a->version / 100 % 100, a->version % 100, a->runtime, a->driver,
                   a->device_name, a->arch);
}

static bool is_same_kind(const struct card *a, const struct card *b, bool has_library)
{
    return (!has_library || a->version == b->version) && a->arch == b->arch && strcmp(a->build, b->build) == 0 &&
           strcmp(a->runtime, b->runtime) == 0 && strcmp(a->driver, b->driver) == 0;
}

static bool is_device(const struct verdict *v)
{
    return v->has_library || v->has_peers;
}

/* What is asked for by name is an error when it cannot be had. */
static void refuse(enum phx_transport wanted, struct verdict *v, const char *why)
{
    v->has_library = v->has_peers = 0;
    v->code = wanted == PHX_TRANSPORT_AUTO ? 0 : PHX_E_UNSUPPORTED;
    (void)snprintf(v->text, sizeof(v->text), "%s%s", v->code == 0 ? "" : wanted == PHX_TRANSPORT_NCCL ?
                   "transport nccl: " : "transport peer: ", why);
}

/* The library, for all ranks. */
static void decide_library(enum phx_transport wanted, const struct card *cards, int32_t n, struct verdict *v)
{
    char text[256];

    v->has_library = 1;
    for (int32_t i = 0; i < n && v->has_library; i++)
        if (cards[i].version == 0) {
            (void)snprintf(text, sizeof(text), "rank %d: %.200s", i, cards[i].why);
            refuse(wanted, v, text);
        }
    for (int32_t i = 0; i < n && v->has_library; i++)
        for (int32_t j = 0; j < i && v->has_library; j++)
            if (strcmp(cards[i].device, cards[j].device) == 0) {
                (void)snprintf(text, sizeof(text), "ranks %d and %d share the device %s (%s); use transport host", j, i,
                               cards[i].device, cards[i].device_name);
                refuse(wanted, v, text);
            }
}

static bool shares_device(const struct card *cards, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < i; j++)
            if (strcmp(cards[i].device, cards[j].device) == 0)
                return true;
    return false;
}

/* Why tensor groups cannot have peer memory, or false. */
static bool lacks_peers(const struct phx_comm_shape *s, const struct card *cards, char *text, size_t size)
{
    if (s->tp_size == 1 || s->tp_size > PHX_EXCHANGE_PEERS_MAX) {
        (void)snprintf(text, size, "it carries the sums of 2 to %d ranks, and tp is %d", PHX_EXCHANGE_PEERS_MAX, s->tp_size);
        return true;
    }
    for (int32_t i = 0; i < s->n_ranks; i++)
        if (!cards[i].is_near) {
            (void)snprintf(text, size, "the tensor group of rank %d spans hosts", i);
            return true;
        }
    return false;
}

static void decide_peers(enum phx_transport wanted, const struct phx_comm_shape *s, const struct card *cards,
                         struct verdict *v)
{
    char text[160];
    bool is_missing = lacks_peers(s, cards, text, sizeof(text));

    if (wanted == PHX_TRANSPORT_PEER && s->pp_size > 1)
        refuse(wanted, v, "stages (pp > 1) do not reach each other by it; use auto, nccl or host");
    else if (wanted == PHX_TRANSPORT_PEER && is_missing)
        refuse(wanted, v, text);
    else
        v->has_peers = !is_missing && (wanted == PHX_TRANSPORT_PEER || v->has_library ||
                                       (s->pp_size == 1 && !shares_device(cards, s->n_ranks)));
}

static void decide(enum phx_transport wanted, const struct phx_comm_shape *s, const struct card *cards,
                   struct verdict *v)
{
    char a[160], b[160];

    *v = (struct verdict){.code = 0};
    if (wanted == PHX_TRANSPORT_HOST || s->n_ranks == 1)
        return;
    if (wanted != PHX_TRANSPORT_PEER)
        decide_library(wanted, cards, s->n_ranks, v);
    if (wanted != PHX_TRANSPORT_NCCL)
        decide_peers(wanted, s, cards, v);
    for (int32_t i = 1; i < s->n_ranks && is_device(v); i++)
        if (!is_same_kind(&cards[0], &cards[i], v->has_library)) {
            describe(&cards[0], 0, a, sizeof(a));
            describe(&cards[i], i, b, sizeof(b));
            v->has_library = v->has_peers = 0;
            v->code = PHX_E_UNSUPPORTED;
            (void)snprintf(v->text, sizeof(v->text), "the ranks differ: %s; %s", a, b);
        }
}

/* Rank 0 decides for all; *ids (owned) then holds the group's and the chain's id of every rank. */
static int agree(struct phx_comm *c, struct phx_backend *b, enum phx_transport wanted, struct verdict *v,
                 struct card **cards)
{
    int32_t     n = c->shape.n_ranks;
    size_t      size = sizeof(*v);
    struct card mine;
    int         rc;

    *cards = phx_mem_calloc((size_t)n, sizeof(**cards));
    if (wanted != PHX_TRANSPORT_HOST && n > 1)
        fill_card(c, b, wanted, &mine);
    else
        memset(&mine, 0, sizeof(mine));
    rc = phx_comm_collect(c, &mine, sizeof(mine), *cards);
    if (rc == 0 && c->shape.rank == 0)
        decide(wanted, &c->shape, *cards, v);
    if (rc == 0)
        rc = phx_comm_bcast(c, v, sizeof(*v), &size);
    for (int32_t i = 0; i < n && rc == 0 && v->has_library; i++) {
        size = sizeof(mine.group_id);
        rc = phx_comm_bcast(c, (*cards)[i].group_id, sizeof(mine.group_id), &size);
        size = sizeof(mine.chain_id);
        if (rc == 0)
            rc = phx_comm_bcast(c, (*cards)[i].chain_id, sizeof(mine.chain_id), &size);
    }
    return rc;
}

/* ---- opening -------------------------------------------------------------------------------- */

bool phx_comm_is_peer_gone(const struct phx_comm *c)
{
    bool is_gone = false;

    for (int32_t i = 0; i < c->n_in && !is_gone; i++)
        is_gone = phx_ring_is_peer_gone(&c->in[i].ring);
    for (int32_t i = 0; i < c->n_out && !is_gone; i++)
        is_gone = phx_ring_is_peer_gone(&c->out[i].ring);
    return is_gone;
}

/* Until all ranks have met. */
static int meet(struct phx_comm *c, struct phx_exchange *x, int64_t deadline_ns, struct phx_err *err)
{
    const char              *why = NULL;
    enum phx_exchange_state  state;

    while ((state = phx_exchange_poll(x, &why)) == PHX_EXCHANGE_BUSY) {
        if (phx_comm_is_peer_gone(c))
            return phx_fail(err, PHX_E_PEER, "nccl: a rank left while the ranks met");
        if (phx_clock_mono_ns() > deadline_ns)
            return phx_fail(err, PHX_E_PEER, "nccl: not all ranks came in time; is the interface the right one?");
        (void)usleep(1000); /* woken early is fine */
    }
    return state == PHX_EXCHANGE_OK ? 0 : phx_fail(err, PHX_E_PEER, "nccl: %s", why != NULL ? why : "failed");
}

static int open_one(struct phx_comm *c, const struct phx_comm_device_options *o, struct phx_exchange_options *x,
                    struct phx_exchange **out, struct phx_err *err)
{
    char why[200] = "";

    x->max_bytes = c->limits.max_activation_bytes;
    x->is_fast = o->is_fast;
    x->is_bare = !c->device->has_library;
    x->wait_ms = o->wait_ms;
    *out = phx_exchange_open(c->device->backend, x, why, sizeof(why));
    if (*out == NULL)
        return phx_fail(err, PHX_E_UNSUPPORTED, "nccl: %s", why);
    return meet(c, *out, phx_clock_mono_ns() + (int64_t)o->open_ms * NS_PER_MS, err);
}

/* What is queued is given up: a peer will not come any more. */
static int break_off(struct phx_comm *c, const char *why)
{
    struct phx_comm_device *d = c->device;

    phx_log(PHX_LOG_ERROR, "comm.device.lost", "rank=%d reason=%s", c->shape.rank, why);
    c->is_broken = true;
    if (d->group != NULL)
        phx_exchange_abort(d->group);
    if (d->chain != NULL)
        phx_exchange_abort(d->chain);
    phx_exchange_close(d->group);
    phx_exchange_close(d->chain);
    d->group = d->chain = NULL;
    return PHX_E_PEER;
}

/* One value each way that a step will go. */
static int exchange_once(struct phx_comm *c, struct phx_tensor mine, struct phx_tensor all)
{
    const struct phx_comm_shape *s = &c->shape;
    struct phx_comm_device      *d = c->device;
    int32_t                      first[PHX_TP_MAX], one[PHX_TP_MAX];
    int                          rc = 0;

    for (int32_t i = 0; i < s->tp_size; i++) {
        first[i] = i;
        one[i] = 1;
    }
    if (d->group != NULL)
        rc = phx_exchange_sum(d->group, mine);
    if (rc == 0 && d->group != NULL && s->pp == s->pp_size - 1)
        rc = phx_exchange_gather(d->group, all, mine, first, one);
    if (rc == 0 && s->pp > 0)
        rc = phx_exchange_recv(d->chain, mine, s->pp - 1);
    if (rc == 0 && s->pp < s->pp_size - 1)
        rc = phx_exchange_send(d->chain, mine, s->pp + 1);
    if (rc != 0)
        return break_off(c, "a first exchange could not be queued");
    return phx_comm_wait(c);
}

/* The worst code of all ranks, by their hosts. */
static int agree_codes(struct phx_comm *c, int32_t mine)
{
    int32_t  worst = 0, *all = phx_mem_calloc((size_t)c->shape.n_ranks, sizeof(*all));
    size_t   size = sizeof(worst);
    int      rc = phx_comm_collect(c, &mine, sizeof(mine), all);

    for (int32_t i = 0; i < c->shape.n_ranks; i++)
        worst = all[i] < worst ? all[i] : worst;
    phx_mem_free(all);
    if (rc == 0)
        rc = phx_comm_bcast(c, &worst, sizeof(worst), &size);
    return rc == 0 ? worst : rc;
}

/* The library connects, and takes memory for it, when two ranks first talk: now, so that no step does. */
static int connect_all(struct phx_comm *c, struct phx_err *err)
{
    struct phx_backend *b = c->device->backend;
    float              *memory = phx_backend_alloc(b, ((size_t)c->shape.tp_size + 1) * sizeof(*memory));
    int                 rc = agree_codes(c, 0); /* all have met: whoever fails from here on wakes the others */

    if (rc != 0)
        return phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
    rc = memory != NULL ? exchange_once(c, phx_view(memory, 1, 1), phx_view(memory + 1, 1, c->shape.tp_size))
                        : break_off(c, "no device memory");
    if (memory != NULL)
        phx_backend_free(b, memory);
    c->is_broken = false; /* what carries the activations may be, the hosts still talk */
    rc = agree_codes(c, rc);
    return rc == 0 ? 0 : phx_fail(err, rc, "nccl: the ranks met, but a first exchange between them failed");
}

static int open_both(struct phx_comm *c, const struct phx_comm_device_options *o, const struct card *cards,
                     struct phx_err *err)
{
    const struct phx_comm_shape *s = &c->shape;
    struct phx_exchange_options  group = {.rank = s->tp, .n_ranks = s->tp_size};
    struct phx_exchange_options  chain = {.rank = s->pp, .n_ranks = s->pp_size};
    int                          rc = 0;

    memcpy(group.id, cards[s->pp * s->tp_size].group_id, sizeof(group.id));
    memcpy(chain.id, cards[s->tp].chain_id, sizeof(chain.id));
    if (s->tp_size > 1)
        rc = open_one(c, o, &group, &c->device->group, err);
    if (rc == 0 && s->pp_size > 1)
        rc = open_one(c, o, &chain, &c->device->chain, err);
    if (rc == 0 && c->device->has_library)
        rc = connect_all(c, err);
    if (rc != 0)
        c->is_broken = true;
    return rc;
}

/* With `auto` the library goes on alone when peer memory cannot be had, or the hosts when there is none. */
static int add_peers(struct phx_comm *c, const struct phx_comm_device_options *o, struct verdict *v, struct phx_err *err)
{
    int rc = phx_comm_open_peers(c, c->device->backend, c->device->group, err);

    c->device->has_peers = rc == 0;
    if (rc != PHX_E_UNSUPPORTED)
        return rc;
    refuse(o->transport, v, err->text);
    v->has_library = v->code == 0 && c->device->has_library;
    return v->code == 0 ? 0 : phx_fail(err, v->code, "%s", v->text);
}

static int open_device(struct phx_comm *c, struct phx_backend *b, const struct phx_comm_device_options *o,
                       const struct card *cards, struct verdict *v, struct phx_err *err)
{
    int rc;

    c->device = phx_mem_calloc(1, sizeof(*c->device));
    c->device->backend = b;
    c->device->wait_ms = o->wait_ms;
    c->device->has_library = v->has_library;
    rc = open_both(c, o, cards, err);
    if (rc == 0 && v->has_peers)
        rc = add_peers(c, o, v, err);
    if (rc != 0 || !is_device(v))
        phx_comm_device_close(c);
    return rc;
}

static const char *name_way(const struct verdict *v)
{
    if (v->has_library)
        return v->has_peers ? "peer+nccl" : "nccl";
    return v->has_peers ? "peer" : "host";
}

int phx_comm_device_open(struct phx_comm *c, struct phx_backend *b, const struct phx_comm_device_options *options,
                         struct phx_err *err)
{
    struct verdict v = {0};
    struct card   *cards = NULL;
    int            rc;

    if (phx_backend_is_host(b))
        return options->transport == PHX_TRANSPORT_NCCL || options->transport == PHX_TRANSPORT_PEER
                   ? phx_fail(err, PHX_E_UNSUPPORTED, "transport %s needs backend cuda, not %s",
                              options->transport == PHX_TRANSPORT_NCCL ? "nccl" : "peer", phx_backend_name(b))
                   : 0;
    rc = agree(c, b, options->transport, &v, &cards);
    v.text[sizeof(v.text) - 1] = '\0';
    if (rc != 0)
        rc = phx_fail(err, rc, "the ranks could not talk: %s", phx_err_text(rc));
    else if (v.code != 0)
        rc = phx_fail(err, v.code, "%s", v.text);
    else if (is_device(&v))
        rc = open_device(c, b, options, cards, &v, err);
    if (rc == 0 && c->shape.rank == 0 && c->shape.n_ranks > 1)
        phx_log(PHX_LOG_INFO, "comm.transport", "activations=%s reason=%s", name_way(&v),
                v.text[0] != '\0' ? v.text : "asked");
    phx_mem_free(cards);
    return rc;
}

void phx_comm_device_close(struct phx_comm *c)
{
    struct phx_comm_device *d = c->device;

    if (d == NULL)
        return;
    if (!c->is_broken && phx_comm_wait(c) != 0) /* what is still on its way arrives, or is given up */
        c->is_broken = true;
    for (int i = 0; i < 2; i++) {
        struct phx_exchange *x = i == 0 ? d->group : d->chain;

        if (x != NULL && c->is_broken)
            phx_exchange_abort(x);
        phx_exchange_close(x);
    }
    phx_mem_free(d);
    c->device = NULL;
}

/* ---- the calls ------------------------------------------------------------------------------ */

bool phx_comm_is_device(const struct phx_comm *c)
{
    return c->device != NULL;
}

static const char *find_trouble(const struct phx_comm_device *d)
{
    const char *why = NULL;

    if (d->group != NULL && phx_exchange_poll(d->group, &why) == PHX_EXCHANGE_FAILED)
        return why != NULL ? why : "the tensor group failed";
    if (d->chain != NULL && phx_exchange_poll(d->chain, &why) == PHX_EXCHANGE_FAILED)
        return why != NULL ? why : "the pipeline failed";
    return NULL;
}

int phx_comm_wait(struct phx_comm *c)
{
    struct phx_comm_device *d = c->device;
    int64_t                 start, now, look, gone = 0;
    const char             *why;

    if (d == NULL)
        return 0;
    if (c->is_broken)
        return PHX_E_PEER;
    start = now = phx_clock_mono_ns();
    look = start + LOOK_NS;
    while (phx_exchange_is_done(d->backend) == PHX_EXCHANGE_BUSY) { /* a failure is told by phx_backend_sync */
        now = phx_clock_mono_ns();
        if (now - start > SPIN_NS)
            (void)usleep(NAP_US); /* woken early is fine */
        if (now < look)
            continue;
        look = now + LOOK_NS;
        why = find_trouble(d);
        if (why != NULL)
            return break_off(c, why);
        gone = gone == 0 && phx_comm_is_peer_gone(c) ? now : gone;
        if (gone != 0 && now - gone > LAST_WORDS_NS) /* what it sent before it went may still arrive */
            return break_off(c, "a rank is gone");
        if (now - start > (int64_t)d->wait_ms * NS_PER_MS)
            return break_off(c, "a rank did not come in time");
    }
    why = d->has_peers ? find_trouble(d) : NULL; /* a kernel gives up by itself too, and ends */
    return why != NULL ? break_off(c, why) : 0;
}

/* A call of the library that failed at once: the reason is the communicator's. */
static int queued(struct phx_comm *c, int rc, size_t moved_bytes)
{
    const char *why;

    atomic_fetch_add_explicit(&c->moved_bytes, moved_bytes, memory_order_relaxed);
    if (rc == 0)
        return 0;
    why = find_trouble(c->device);
    return break_off(c, why != NULL ? why : "a tensor could not be queued");
}

static size_t bytes_of(struct phx_tensor x)
{
    return (size_t)x.dim[0] * (size_t)x.dim[1] * sizeof(float);
}

int phx_comm_device_sum(struct phx_comm *c, struct phx_tensor x)
{
    return c->is_broken ? PHX_E_PEER : queued(c, phx_exchange_sum(c->device->group, x), bytes_of(x));
}

int phx_comm_device_sum_add_norm(struct phx_comm *c, const struct phx_add_norm_args *args)
{
    int rc;

    if (c->is_broken)
        return PHX_E_PEER;
    rc = phx_exchange_sum_add_norm(c->device->group, args);
    return rc == 1 ? 1 : queued(c, rc, bytes_of(args->y));
}

bool phx_comm_can_record(const struct phx_comm *c, size_t size_bytes)
{
    return c->device != NULL && c->device->group != NULL && phx_exchange_can_record(c->device->group, size_bytes);
}

int phx_comm_device_send(struct phx_comm *c, struct phx_tensor x)
{
    if (c->shape.pp == c->shape.pp_size - 1)
        return PHX_E_STATE;
    return c->is_broken ? PHX_E_PEER
                        : queued(c, phx_exchange_send(c->device->chain, x, c->shape.pp + 1), bytes_of(x));
}

int phx_comm_device_recv(struct phx_comm *c, struct phx_tensor x)
{
    if (c->shape.pp == 0)
        return PHX_E_STATE;
    return c->is_broken ? PHX_E_PEER : queued(c, phx_exchange_recv(c->device->chain, x, c->shape.pp - 1), 0);
}

int phx_comm_device_gather(struct phx_comm *c, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                           const int32_t *n)
{
    if (c->device->group == NULL && !c->is_broken)
        return PHX_E_STATE; /* one rank has all columns already */
    return c->is_broken ? PHX_E_PEER
                        : queued(c, phx_exchange_gather(c->device->group, out, part, first, n), bytes_of(part));
}
