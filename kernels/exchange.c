/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/exchange.h"

#include <stdio.h>
#include <string.h>

#include "kernels/door.h"
#include "kernels/exchange_ops.h"
#include "kernels/memory.h"

struct phx_exchange {
    struct phx_backend            *backend;
    const struct phx_exchange_ops *ops;
    void                          *impl;
};

static const struct phx_exchange_ops *find_ops(const struct phx_backend *b, char *why, size_t why_size)
{
    if (b->ops->exchange == NULL)
        (void)snprintf(why, why_size, "backend %s does not exchange tensors by itself", b->ops->name);
    return b->ops->exchange;
}

int phx_exchange_probe(struct phx_backend *b, int32_t *version, char *why, size_t why_size)
{
    const struct phx_exchange_ops *ops = find_ops(b, why, why_size);

    *version = 0;
    return ops != NULL ? ops->probe(version, why, why_size) : -1;
}

int phx_exchange_make_id(struct phx_backend *b, unsigned char id[PHX_EXCHANGE_ID_BYTES], char *why, size_t why_size)
{
    const struct phx_exchange_ops *ops = find_ops(b, why, why_size);

    return ops != NULL ? ops->make_id(id, why, why_size) : -1;
}

struct phx_exchange *phx_exchange_open(struct phx_backend *b, const struct phx_exchange_options *options, char *why,
                                       size_t why_size)
{
    const struct phx_exchange_ops *ops = find_ops(b, why, why_size);
    struct phx_exchange           *x;

    if (ops == NULL)
        return NULL;
    if (options->n_ranks < 1 || options->rank < 0 || options->rank >= options->n_ranks) {
        (void)snprintf(why, why_size, "rank %d of %d", options->rank, options->n_ranks);
        return NULL;
    }
    x = phx_memory_alloc(sizeof(*x));
    if (x == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return NULL;
    }
    x->backend = b;
    x->ops = ops;
    x->impl = ops->open(b->device, options, why, why_size);
    if (x->impl != NULL)
        return x;
    phx_memory_free(x);
    return NULL;
}

void phx_exchange_close(struct phx_exchange *x)
{
    if (x == NULL)
        return;
    x->ops->close(x->impl);
    phx_memory_free(x);
}

void phx_exchange_abort(struct phx_exchange *x)
{
    x->ops->abort(x->impl);
}

enum phx_exchange_state phx_exchange_poll(struct phx_exchange *x, const char **why)
{
    return x->ops->poll(x->impl, why);
}

enum phx_exchange_state phx_exchange_is_done(struct phx_backend *b)
{
    return b->ops->exchange != NULL ? b->ops->exchange->is_done(b->device) : PHX_EXCHANGE_OK;
}

int phx_exchange_offer(struct phx_exchange *x, unsigned char card[PHX_EXCHANGE_CARD_BYTES], char *why, size_t why_size)
{
    memset(card, 0, PHX_EXCHANGE_CARD_BYTES);
    if (x->ops->offer != NULL)
        return x->ops->offer(x->impl, card, why, why_size);
    (void)snprintf(why, why_size, "this backend has no memory that peers write to");
    return -1;
}

int phx_exchange_accept(struct phx_exchange *x, const unsigned char *cards, char *why, size_t why_size)
{
    if (x->ops->accept != NULL)
        return x->ops->accept(x->impl, cards, why, why_size);
    (void)snprintf(why, why_size, "this backend has no memory that peers write to");
    return -1;
}

void phx_exchange_retract(struct phx_exchange *x)
{
    if (x->ops->retract != NULL)
        x->ops->retract(x->impl);
}

static bool is_dense(struct phx_tensor t)
{
    return t.data != NULL && t.dtype == PHX_DTYPE_F32 && t.dim[0] >= 0 && t.dim[1] >= 0 &&
           (t.stride0 == t.dim[1] || t.dim[0] <= 1);
}

int phx_exchange_sum(struct phx_exchange *x, struct phx_tensor t)
{
    return is_dense(t) ? x->ops->sum(x->impl, t) : -1;
}

int phx_exchange_sum_add_norm(struct phx_exchange *x, const struct phx_add_norm_args *args)
{
    static const char op[] = "sum_add_norm";
    int               rc;

    if (x->ops->sum_add_norm == NULL || !is_dense(args->y))
        return 1;
    if (!check_add_norm(x->backend, op, args))
        return -1;
    rc = x->ops->sum_add_norm(x->impl, args);
    if (rc == 0)
        traced(x->backend, op, args->x);
    return rc;
}

bool phx_exchange_can_record(struct phx_exchange *x, size_t size_bytes)
{
    return x->ops->can_record != NULL && x->ops->can_record(x->impl, size_bytes);
}

int phx_exchange_send(struct phx_exchange *x, struct phx_tensor t, int32_t to)
{
    return is_dense(t) ? x->ops->send(x->impl, t, to) : -1;
}

int phx_exchange_recv(struct phx_exchange *x, struct phx_tensor t, int32_t from)
{
    return is_dense(t) ? x->ops->recv(x->impl, t, from) : -1;
}

int phx_exchange_gather(struct phx_exchange *x, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                        const int32_t *n)
{
    return is_dense(part) ? x->ops->gather(x->impl, out, part, first, n) : -1;
}
