/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/random.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/synth.h"

enum { POOLS_MAX = 16 };
#define POOL_BYTES ((size_t)32 << 20)

/* Values of one kind. */
struct pool {
    enum phx_synth_fill fill;
    enum phx_synth_type type;
    int                 fd; /* of memory */
};

struct range {
    void  *at;
    size_t size_bytes;
};

struct phx_random {
    struct pool   pools[POOLS_MAX];
    int32_t       n_pools;
    struct range *ranges; /* one per tensor */
    int32_t       n_ranges;
};

void phx_random_close(struct phx_random *r)
{
    if (r == NULL)
        return;
    for (int32_t i = 0; i < r->n_ranges; i++)
        (void)munmap(r->ranges[i].at, r->ranges[i].size_bytes); /* cannot fail: own map */
    for (int32_t i = 0; i < r->n_pools; i++)
        (void)close(r->pools[i].fd); /* memory: nothing is written back */
    phx_mem_free(r->ranges);
    phx_mem_free(r);
}

static int fill_pool(struct pool *p, const struct phx_synth_tensor *t, struct phx_err *err)
{
    void *at = MAP_FAILED;

    *p = (struct pool){t->fill, t->type, memfd_create("phalanx-random", MFD_CLOEXEC)};
    if (p->fd >= 0 && ftruncate(p->fd, (off_t)POOL_BYTES) == 0)
        at = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
    if (at == MAP_FAILED)
        return phx_fail(err, PHX_E_NOMEM, "memory for random weights: %s", strerror(errno));
    phx_synth_fill(t, (uint64_t)t->fill * 64 + (uint64_t)t->type, 0, at, POOL_BYTES);
    (void)munmap(at, POOL_BYTES); /* cannot fail: own map */
    return 0;
}

static int find_pool(struct phx_random *r, const struct phx_synth_tensor *t, int *fd, struct phx_err *err)
{
    struct pool *p = r->pools;

    while (p < r->pools + r->n_pools && (p->fill != t->fill || p->type != t->type))
        p++;
    if (p == r->pools + r->n_pools) {
        phx_assert(r->n_pools < POOLS_MAX); /* six ways to fill, four types, few of them together */
        r->n_pools++;
        if (fill_pool(p, t, err) != 0)
            return PHX_E_NOMEM;
    }
    *fd = p->fd;
    return 0;
}

static int map_tensor(struct phx_random *r, const struct phx_synth_tensor *t, const uint8_t **data, struct phx_err *err)
{
    size_t         page = (size_t)sysconf(_SC_PAGESIZE), size = ((size_t)t->size_bytes + page - 1) / page * page;
    unsigned char *at;
    int            fd = -1, rc = find_pool(r, t, &fd, err);

    if (rc != 0)
        return rc;
    at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return phx_fail(err, PHX_E_NOMEM, "addresses for %s: %s", t->name, strerror(errno));
    r->ranges[r->n_ranges++] = (struct range){at, size};
    for (size_t done = 0; done < size; done += POOL_BYTES)
        if (mmap(at + done, size - done < POOL_BYTES ? size - done : POOL_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED)
            return phx_fail(err, PHX_E_NOMEM, "mapping %s: %s", t->name, strerror(errno));
    *data = at;
    return 0;
}

static enum phx_ckpt_dtype dtype_of(enum phx_synth_type type)
{
    switch (type) {
    case PHX_SYNTH_U8: return PHX_CKPT_U8;
    case PHX_SYNTH_BF16: return PHX_CKPT_BF16;
    case PHX_SYNTH_F16: return PHX_CKPT_F16;
    default: return PHX_CKPT_F32;
    }
}

static int lend_all(struct phx_random *r, const struct phx_synth_layout *l, struct phx_checkpoint **out, struct phx_err *err)
{
    struct phx_ckpt_tensor *tensors = phx_mem_calloc((size_t)l->n, sizeof(*tensors));
    int                     rc = 0;

    r->ranges = phx_mem_calloc((size_t)l->n, sizeof(*r->ranges));
    for (int32_t i = 0; i < l->n && rc == 0; i++) {
        const struct phx_synth_tensor *t = &l->tensors[i];

        tensors[i] = (struct phx_ckpt_tensor){.name = t->name, .dtype = dtype_of(t->type), .n_dims = t->n_dims,
                                              .size_bytes = t->size_bytes};
        memcpy(tensors[i].dim, t->dim, sizeof(t->dim));
        rc = map_tensor(r, t, &tensors[i].data, err);
    }
    if (rc == 0)
        *out = phx_checkpoint_lend(tensors, l->n);
    phx_mem_free(tensors);
    return rc;
}

static int make(const char *preset, int32_t n_layers, struct phx_random *r, struct phx_checkpoint **checkpoint,
                struct phx_model_config *config, struct phx_err *err)
{
    struct phx_synth_layout layout = {0};
    const char             *text = phx_synth_preset(preset);
    json_t                 *tree = NULL;
    char                   *changed;
    int                     rc;

    if (text == NULL)
        return phx_fail(err, PHX_E_NOTFOUND, "no preset \"%.40s\"; there are %s", preset, phx_synth_preset_names());
    rc = phx_json_parse(&tree, text, strlen(text), 1 << 20, 0, preset, err);
    if (rc != 0)
        return rc;
    if (n_layers > 0)
        phx_synth_set_layers(tree, n_layers);
    changed = json_dumps(tree, JSON_COMPACT);
    rc = phx_model_config_parse(changed, strlen(changed), config, err);
    free(changed); /* jansson's memory */
    if (rc == 0)
        rc = phx_synth_layout_make(tree, UINT64_MAX, &layout, err);
    if (rc == 0)
        rc = lend_all(r, &layout, checkpoint, err);
    phx_synth_layout_fini(&layout);
    json_decref(tree);
    return rc;
}

int phx_random_open(const char *preset, int32_t n_layers, struct phx_random **random, struct phx_checkpoint **checkpoint,
                    struct phx_model_config *config, struct phx_err *err)
{
    struct phx_random *r = phx_mem_calloc(1, sizeof(*r));
    int                rc = make(preset, n_layers, r, checkpoint, config, err);

    if (rc != 0) {
        phx_random_close(r);
        r = NULL;
    }
    *random = r;
    return rc;
}
