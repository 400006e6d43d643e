/* SPDX-License-Identifier: Apache-2.0
 * Which team gets which cores: pure. */
#include "rpc/base/err.h"
#include "rpc/base/machine.h"

struct run {
    int32_t first, end; /* of the topology's list of cores */
};

static int32_t part(int32_t n, int32_t i, int32_t count)
{
    return (int32_t)((int64_t)n * i / count);
}

/* Every team an equal part of one node, or whole nodes; false where the numbers do not go up. */
static bool run_by_nodes(const struct phx_topology *t, int32_t place, int32_t n_places, struct run *out)
{
    if (n_places % t->n_nodes == 0) {
        int32_t each = n_places / t->n_nodes, node = place / each;
        int32_t first = t->first[node], n = t->first[node + 1] - first;

        *out = (struct run){first + part(n, place % each, each), first + part(n, place % each + 1, each)};
        return true;
    }
    if (t->n_nodes % n_places == 0) {
        int32_t each = t->n_nodes / n_places;

        *out = (struct run){t->first[place * each], t->first[(place + 1) * each]};
        return true;
    }
    return false;
}

/* All teams work in step, so the smallest share decides: a lopsided machine is better cut evenly. */
static bool is_fair(const struct phx_topology *t, int32_t n_places)
{
    for (int32_t i = 0; i < n_places; i++) {
        struct run r;

        if (!run_by_nodes(t, i, n_places, &r) || r.end == r.first ||
            2 * (int64_t)(r.end - r.first) * n_places < t->n_cores)
            return false;
    }
    return true;
}

static int32_t count_nodes(const struct phx_topology *t, struct run r)
{
    int32_t n = 0;

    for (int32_t i = 0; i < t->n_nodes; i++)
        n += t->first[i] < r.end && t->first[i + 1] > r.first;
    return n;
}

void phx_placement_plan(const struct phx_topology *t, int32_t place, int32_t n_places,
                        int32_t n_threads, struct phx_placement *out)
{
    bool       is_crowded = n_places > t->n_cores;
    struct run r = {0, t->n_cores};

    phx_assert(place >= 0 && place < n_places);
    if (!is_crowded && !(is_fair(t, n_places) && run_by_nodes(t, place, n_places, &r)))
        r = (struct run){part(t->n_cores, place, n_places), part(t->n_cores, place + 1, n_places)};
    out->n_cores = r.end - r.first;
    out->n_nodes = count_nodes(t, r);
    out->n_threads = n_threads > 0 ? n_threads : is_crowded ? 1 : out->n_cores;
    out->is_pinned = !is_crowded && out->n_threads <= out->n_cores;
    for (int32_t i = 0; i < out->n_cores; i++)
        out->core[i] = t->core[r.first + i];
}

void phx_placement_mask(const struct phx_placement *p, cpu_set_t *mask)
{
    CPU_ZERO(mask);
    for (int32_t i = 0; i < p->n_cores; i++)
        CPU_SET(p->core[i], mask);
}
