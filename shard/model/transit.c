/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/model/transit.h"

#include "rpc/base/mem.h"

int phx_transit_init(struct phx_transit *t, struct phx_backend *backend, struct phx_comm *comm,
                     size_t staging_bytes, struct phx_err *err)
{
    *t = (struct phx_transit){.backend = backend, .comm = comm, .is_host = phx_backend_is_host(backend)};
    if (t->is_host || phx_comm_is_device(comm) || phx_comm_shape(comm)->n_ranks == 1)
        return 0;
    t->staging = phx_backend_alloc_host(backend, staging_bytes);
    t->staging_bytes = staging_bytes;
    if (t->staging == NULL)
        return phx_fail(err, PHX_E_NOMEM, "no page-locked memory for %zu bytes of activations on their way; raise "
                        "the limit of locked memory or lower max_rows", staging_bytes);
    return 0;
}

void phx_transit_fini(struct phx_transit *t)
{
    if (t->backend != NULL)
        phx_backend_free_host(t->backend, t->staging);
    *t = (struct phx_transit){.backend = NULL};
}

bool phx_transit_is_queued(const struct phx_transit *t)
{
    return phx_comm_is_device(t->comm);
}

static size_t bytes_of(struct phx_tensor x)
{
    return (size_t)x.dim[0] * (size_t)x.dim[1] * sizeof(float);
}

/* The tensor's place in host memory. */
static struct phx_tensor stage(const struct phx_transit *t, struct phx_tensor x)
{
    phx_assert(x.stride0 == x.dim[1] && bytes_of(x) <= t->staging_bytes);
    return phx_view(t->staging, x.dim[0], x.dim[1]);
}

static struct phx_tensor take_out(const struct phx_transit *t, struct phx_tensor x)
{
    struct phx_tensor host = stage(t, x);

    phx_download(t->backend, host.data, x.data, bytes_of(x));
    return host;
}

static void put_back(const struct phx_transit *t, struct phx_tensor x, struct phx_tensor host)
{
    phx_upload(t->backend, x.data, host.data, bytes_of(x));
}

int phx_transit_sum(const struct phx_transit *t, struct phx_tensor x)
{
    struct phx_tensor host;
    int               rc;

    if (t->staging == NULL)
        return phx_comm_sum(t->comm, x);
    host = take_out(t, x);
    rc = phx_comm_sum(t->comm, host);
    put_back(t, x, host);
    return rc;
}

int phx_transit_sum_add_norm(const struct phx_transit *t, const struct phx_add_norm_args *args)
{
    return phx_comm_is_device(t->comm) ? phx_comm_sum_add_norm(t->comm, args) : 1;
}

/* A failed stage sends, instead of its garbage, a first row whose every element is one quiet NaN that
 * no arithmetic makes (hardware makes 0x7fc00000, 0x7fffffff and 0xffc00000) with the code in its low byte: no
 * extra message in the common case, and impossible to take for data. */
enum { MARK = 0x7fe5a500, MARK_MASK = 0x7fffff00 };

static void mark_failed(struct phx_tensor x, int code)
{
    uint32_t  bits = (uint32_t)MARK | ((uint32_t)-code & 0xffu);
    uint32_t *row = x.data;

    for (int32_t i = 0; i < x.dim[1]; i++)
        row[i] = bits;
}

static int marked_code(struct phx_tensor x)
{
    const uint32_t *row = x.data;

    for (int32_t i = 0; i < x.dim[1]; i++)
        if ((row[i] & MARK_MASK) != MARK || row[i] != row[0])
            return 0;
    return -(int)(row[0] & 0xffu);
}

int phx_transit_send(const struct phx_transit *t, struct phx_tensor x, int failure)
{
    int rc;

    if (phx_comm_is_device(t->comm)) { /* the code goes ahead on the host: device memory need not be read */
        rc = phx_comm_tell(t->comm, failure);
        return rc == 0 && failure == 0 ? phx_comm_send(t->comm, x) : rc;
    }
    if (t->staging != NULL)
        x = failure == 0 ? take_out(t, x) : stage(t, x);
    if (failure != 0)
        mark_failed(x, failure);
    return phx_comm_send(t->comm, x);
}

int phx_transit_recv(const struct phx_transit *t, struct phx_tensor x, int *failure)
{
    struct phx_tensor host = t->staging != NULL ? stage(t, x) : x;
    int               rc;

    *failure = 0;
    if (phx_comm_is_device(t->comm)) {
        rc = phx_comm_hear(t->comm, failure);
        return rc == 0 && *failure == 0 ? phx_comm_recv(t->comm, x) : rc;
    }
    rc = phx_comm_recv(t->comm, host);
    if (rc != 0)
        return rc;
    *failure = marked_code(host);
    if (t->staging != NULL)
        put_back(t, x, host);
    return 0;
}

int phx_transit_gather(const struct phx_transit *t, struct phx_tensor out, struct phx_tensor all,
                       struct phx_tensor part, const int32_t *first, const int32_t *n)
{
    int rc;

    if (t->is_host)
        return phx_comm_gather(t->comm, out, part, first, n);
    if (!phx_comm_is_device(t->comm))
        return phx_comm_gather(t->comm, out, take_out(t, part), first, n);
    rc = phx_comm_gather(t->comm, all, part, first, n);
    if (rc == 0)
        rc = phx_comm_wait(t->comm);
    if (rc == 0 && out.data != NULL)
        phx_download(t->backend, out.data, all.data, bytes_of(all));
    return rc;
}
