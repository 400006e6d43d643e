/* SPDX-License-Identifier: Apache-2.0
 * Pipeline parallelism: how many layers each stage gets.
 *
 * A step is as slow as its slowest stage.  All layers of a model weigh the same, so giving each further
 * layer to the stage that stays cheapest with it makes the largest load as small as it can be. */
#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/partition/cut.h"

struct stages {
    const struct phx_partition_request *request;
    struct phx_part                    *parts;
    struct phx_share_bytes             *share; /* [tp] */
    int32_t                            *n_layers; /* [pp] */
};

static double speed_of(const struct phx_partition_request *q, int32_t rank)
{
    double speed = q->resources != NULL ? q->resources[rank].speed : 0;

    return speed > 0 ? speed : 1;
}

/* Bytes read per token over speed, of the slowest rank of the stage with n layers. */
static double load_of(const struct stages *s, int32_t pp, int32_t n)
{
    const struct phx_partition_request *q = s->request;
    double                              worst = 0;

    for (int32_t tp = 0; tp < q->tp; tp++) {
        const struct phx_share_bytes *b = &s->share[tp];
        double                        read = (double)n * (double)b->layer_read;

        if (pp == 0)
            read += (double)b->row;
        if (pp == q->pp - 1)
            read += (double)b->head;
        worst = fmax(worst, read / speed_of(q, pp * q->tp + tp));
    }
    return worst;
}

/* By how many bytes the tightest rank of a stage is short with n layers; 0 when all fit. */
static uint64_t shortage(const struct stages *s, int32_t pp, int32_t n, int32_t *rank,
                         uint64_t *need_bytes)
{
    const struct phx_partition_request *q = s->request;
    uint64_t                            worst = 0;

    for (int32_t tp = 0; tp < q->tp && q->resources != NULL; tp++) {
        struct phx_part part = s->parts[pp * q->tp + tp];
        uint64_t        have = q->resources[part.rank].memory_bytes, need;

        part.layers = (struct phx_range){0, n};
        phx_part_bytes(q, &part);
        need = part.weights_bytes + part.scratch_bytes + part.overhead_bytes + part.kv_bytes_per_block;
        if (have > 0 && need > have && need - have > worst) {
            worst = need - have;
            *rank = part.rank;
            *need_bytes = need;
        }
    }
    return worst;
}

static int refuse(const struct stages *s, int32_t pp, int32_t n, struct phx_err *err)
{
    int32_t  rank = 0;
    uint64_t need = 0, by = shortage(s, pp, n, &rank, &need);

    return phx_fail(err, PHX_E_NOMEM, "rank %d (stage %d, %d layers) needs %llu bytes for weights, "
                    "scratch and one block of cache, %llu more than it has; add stages, ranks or memory",
                    rank, pp, n, (unsigned long long)need, (unsigned long long)by);
}

/* The stage that stays cheapest with one more layer and has room for it; -1 when none has. */
static int32_t cheapest(const struct stages *s, int32_t *cheapest_full)
{
    int32_t best = -1, full = 0;
    double  best_load = 0, full_load = INFINITY;

    for (int32_t pp = 0; pp < s->request->pp; pp++) {
        int32_t  n = s->n_layers[pp] + 1, rank;
        uint64_t need;
        double   load = load_of(s, pp, n);

        if (shortage(s, pp, n, &rank, &need) > 0) {
            if (load < full_load) {
                full_load = load;
                full = pp;
            }
        } else if (best < 0 || load < best_load) {
            best_load = load;
            best = pp;
        }
    }
    *cheapest_full = full;
    return best;
}

static int deal(struct stages *s, struct phx_err *err)
{
    int32_t L = s->request->config->n_layers, pp_size = s->request->pp, rank, full;
    uint64_t need;

    for (int32_t pp = 0; pp < pp_size; pp++) {
        s->n_layers[pp] = 1;
        if (shortage(s, pp, 1, &rank, &need) > 0)
            return refuse(s, pp, 1, err);
    }
    for (int32_t left = L - pp_size; left > 0; left--) {
        int32_t pp = cheapest(s, &full);

        if (pp < 0)
            return refuse(s, full, s->n_layers[full] + 1, err);
        s->n_layers[pp]++;
    }
    return 0;
}

int phx_cut_stages(const struct phx_partition_request *q, struct phx_part *parts, struct phx_err *err)
{
    struct stages s = {.request = q, .parts = parts};
    int           rc;

    s.share = phx_mem_calloc((size_t)q->tp, sizeof(*s.share));
    s.n_layers = phx_mem_calloc((size_t)q->pp, sizeof(*s.n_layers));
    for (int32_t tp = 0; tp < q->tp; tp++)
        phx_share_bytes(q, &parts[tp], &s.share[tp]);
    rc = deal(&s, err);
    for (int32_t pp = 0, first = 0; pp < q->pp && rc == 0; first += s.n_layers[pp++])
        for (int32_t tp = 0; tp < q->tp; tp++)
            parts[pp * q->tp + tp].layers = (struct phx_range){first, first + s.n_layers[pp]};
    phx_mem_free(s.share);
    phx_mem_free(s.n_layers);
    return rc;
}
