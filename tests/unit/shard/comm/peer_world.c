/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/shard/comm/peer_world.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"

struct phx_emu *emu;

int find_emulator(void **state)
{
    void *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    if (module == NULL)
        fail_msg("%s", dlerror());
    emu = dlsym(module, "phx_emu");
    assert_non_null(emu);
    return 0;
}

int start(void **state)
{
    (void)state;
    emu->reset();
    emu->n_devices = RANKS_MAX;
    return 0;
}

static void *run_rank(void *arg)
{
    struct rank                   *r = arg;
    struct phx_backend_options     o = {.compute = PHX_COMPUTE_F32, .device = r->index, .is_wrapped = true};
    struct phx_comm_device_options d = {.transport = r->transport, .open_ms = 10000, .wait_ms = r->wait_ms, .interface = "",
                                        .ib_devices = ""};
    char                           why[200];

    r->random = 12345u + (uint32_t)r->index;
    r->b = phx_backend_open("cuda", &o, why, sizeof(why));
    r->rc = r->b == NULL ? PHX_E_INTERNAL : phx_comm_device_open(r->comm, r->b, &d, &r->err);
    r->line = r->rc == 0 && r->body != NULL ? r->body(r) : 0;
    phx_comm_close(r->comm);
    phx_comm_close(r->hosts);
    phx_backend_close(r->b);
    return NULL;
}

void run_world(struct rank *ranks, int32_t n, enum phx_transport transport, int (*body)(struct rank *r))
{
    const struct phx_comm_limits limits = {MOST * sizeof(float), 4096, 4096, 0};
    struct phx_comm             *with[RANKS_MAX], *without[RANKS_MAX];
    struct phx_err               err;
    pthread_t                    thread[RANKS_MAX];

    memset(ranks, 0, RANKS_MAX * sizeof(*ranks));
    assert_int_equal(phx_comm_local(n, 1, &limits, with, &err), 0);
    assert_int_equal(phx_comm_local(n, 1, &limits, without, &err), 0);
    for (int32_t i = 0; i < n; i++)
        ranks[i] = (struct rank){.index = i, .n = n, .comm = with[i], .hosts = without[i], .transport = transport,
                                 .wait_ms = 3000, .body = body};
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &ranks[i]), 0);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
}

void expect_world(int32_t n, enum phx_transport transport, int (*body)(struct rank *r))
{
    struct rank ranks[RANKS_MAX];

    run_world(ranks, n, transport, body);
    for (int32_t i = 0; i < n; i++)
        if (ranks[i].rc != 0 || ranks[i].line != 0)
            fail_msg("rank %d of %d: line %d, %s", i, n, ranks[i].line, ranks[i].rc != 0 ? ranks[i].err.text : "");
}

/* ---- numbers --------------------------------------------------------------------------------- */

float draw(struct rank *r)
{
    r->random = r->random * 1664525u + 1013904223u;
    return ((float)(r->random >> 8) / 16777216.0f - 0.5f) * (float)(1 << (r->random & 15u));
}

bool make_pair(struct rank *r, size_t n, size_t shift, struct pair *p)
{
    *p = (struct pair){.memory = phx_backend_alloc(r->b, (n + shift) * sizeof(float)), .n = n,
                       .host = phx_mem_calloc(n, sizeof(float)), .got = phx_mem_calloc(n, sizeof(float))};
    for (size_t i = 0; i < n; i++)
        p->host[i] = draw(r);
    if (p->memory == NULL)
        return false;
    p->device = p->memory + shift;
    phx_upload(r->b, p->device, p->host, n * sizeof(float));
    return true;
}

bool is_same(struct rank *r, struct pair *p)
{
    bool same;

    phx_download(r->b, p->got, p->device, p->n * sizeof(float));
    same = memcmp(p->got, p->host, p->n * sizeof(float)) == 0;
    phx_backend_free(r->b, p->memory);
    phx_mem_free(p->host);
    phx_mem_free(p->got);
    return same;
}

struct phx_tensor row_of(float *x, size_t n)
{
    return phx_view(x, 1, (int32_t)n);
}
