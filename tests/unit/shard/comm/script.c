/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/shard/comm/script.h"

#include <string.h>

#include "rpc/base/mem.h"

const struct phx_comm_limits script_limits = {
    .max_activation_bytes = 1 << 20, .max_plan_bytes = 100000, .max_result_bytes = 20000};

/* Rank-dependent values whose sum depends on the order of additions. */
static float value_of(int32_t tp, int64_t i, int32_t round)
{
    uint32_t h = (uint32_t)(i * 2654435761U) ^ (uint32_t)(tp * 40503 + round * 7919);

    h ^= h >> 15;
    h *= 2246822519U;
    h ^= h >> 13;
    return (float)((int32_t)(h % 20001) - 10000) * ((tp & 1) != 0 ? 1e-3F : 37.7F);
}

/* The sum as the door promises it: a tree of pairs, or rank order. */
static float sum_of(int32_t size, int64_t i, int32_t round)
{
    float v[64] = {0};

    for (int32_t tp = 0; tp < size; tp++)
        v[tp] = value_of(tp, i, round);
    if ((size & (size - 1)) == 0) {
        for (int32_t d = 1; d < size; d *= 2)
            for (int32_t tp = 0; tp < size; tp += 2 * d)
                v[tp] = v[tp] + v[tp + d];
    } else {
        for (int32_t tp = 1; tp < size; tp++)
            v[0] = v[0] + v[tp];
    }
    return v[0];
}

static int check_sum(struct phx_comm *c, int32_t rows, int32_t columns, int32_t gap, int32_t round)
{
    const struct phx_comm_shape *s = phx_comm_shape(c);
    int64_t                      stride = columns + gap;
    float            *x = phx_mem_calloc((size_t)(rows * stride + 1), sizeof(float));
    struct phx_tensor t = {x, PHX_DTYPE_F32, {rows, columns}, stride};
    int               rc;

    for (int32_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < stride; k++)
            x[r * stride + k] = k < columns ? value_of(s->tp, (int64_t)r * columns + k, round) : -1;
    rc = phx_comm_sum(c, t);
    for (int32_t r = 0; r < rows && rc == 0; r++)
        for (int64_t k = 0; k < stride && rc == 0; k++) {
            float want = k < columns ? sum_of(s->tp_size, (int64_t)r * columns + k, round) : -1;

            if (memcmp(&x[r * stride + k], &want, sizeof(want)) != 0)
                rc = __LINE__;
        }
    phx_mem_free(x);
    return rc;
}

static int check_stage(struct phx_comm *c, int32_t rows, int32_t columns, int32_t round)
{
    const struct phx_comm_shape *s = phx_comm_shape(c);
    int32_t                      n = rows * columns;
    float                       *x = phx_mem_calloc((size_t)n, sizeof(float));
    int                          rc = 0;

    for (int32_t i = 0; i < n; i++)
        x[i] = value_of(s->tp, i, round);
    if (s->pp > 0) {
        memset(x, 0, (size_t)n * sizeof(float));
        rc = phx_comm_recv(c, phx_view(x, rows, columns));
        for (int32_t i = 0; i < n && rc == 0; i++)
            if (x[i] != value_of(s->tp, i, round) + (float)(s->pp - 1))
                rc = __LINE__;
        for (int32_t i = 0; i < n; i++)
            x[i] = value_of(s->tp, i, round);
    }
    for (int32_t i = 0; i < n; i++)
        x[i] += (float)s->pp;
    if (rc == 0 && s->pp < s->pp_size - 1)
        rc = phx_comm_send(c, phx_view(x, rows, columns));
    phx_mem_free(x);
    return rc;
}

static int check_gather(struct phx_comm *c)
{
    const struct phx_comm_shape *s = phx_comm_shape(c);
    int32_t                      first[64], n[64], total = 0;
    float                        part[3 * 200], out[3 * 64 * 70];
    int                          rc;

    for (int32_t tp = 0; tp < s->tp_size; tp++) {
        first[tp] = total;
        n[tp] = 5 + tp;
        total += n[tp];
    }
    for (int32_t i = 0; i < 3 * n[s->tp]; i++)
        part[i] = value_of(s->tp, i, 1);
    rc = phx_comm_gather(c, phx_view(out, 3, total), phx_view(part, 3, n[s->tp]), first, n);
    for (int32_t t = 0; t < 3 && rc == 0 && s->tp == 0; t++)
        for (int32_t tp = 0; tp < s->tp_size; tp++)
            for (int32_t k = 0; k < n[tp]; k++)
                if (out[t * total + first[tp] + k] != value_of(tp, t * n[tp] + k, 1))
                    return __LINE__;
    return rc;
}

static int check_plans_and_results(struct phx_comm *c)
{
    const struct phx_comm_shape *s = phx_comm_shape(c);
    static const size_t          sizes[] = {0, 1, 3, 4, 4097, 100000, 12};
    char                        *plan = phx_mem_calloc(1, 100000), *got = phx_mem_calloc(1, 20000);
    int                          rc = 0;

    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]) && rc == 0; k++) {
        size_t n = s->rank == 0 ? sizes[k] : 0;

        memset(plan, s->rank == 0 ? (int)k + 1 : 0, 100000);
        rc = phx_comm_bcast(c, plan, 100000, &n);
        if (rc == 0 && (n != sizes[k] || (n > 0 && plan[n - 1] != (char)(k + 1))))
            rc = __LINE__;
    }
    for (int k = 0; k < 3 && rc == 0; k++) /* several steps in flight */
        if (s->pp == s->pp_size - 1 && s->tp == 0)
            rc = phx_comm_result_send(c, plan, (size_t)(7001 + k));
    for (int k = 0; k < 3 && rc == 0; k++) {
        size_t n = 0;

        if (s->rank == 0)
            rc = phx_comm_result_recv(c, got, 20000, &n, -1);
        if (rc == 0 && s->rank == 0 && n != (size_t)(7001 + k))
            rc = __LINE__;
    }
    phx_mem_free(plan);
    phx_mem_free(got);
    return rc;
}

static int check_status_and_facts(struct phx_comm *c)
{
    const struct phx_comm_shape *s = phx_comm_shape(c);
    int32_t                      worst = 1, facts[64 * 3] = {0};
    int32_t                      mine[3] = {s->rank, s->rank * 7, -s->rank};
    int rc = phx_comm_status(c, s->tp == s->tp_size - 1 ? -5 - s->pp : 0, &worst);

    if (rc == 0 && worst != -5 - s->pp)
        return __LINE__;
    if (rc == 0)
        rc = phx_comm_collect(c, mine, sizeof(mine), facts);
    for (int32_t r = 0; r < s->n_ranks && rc == 0 && s->rank == 0; r++)
        if (facts[3 * r] != r || facts[3 * r + 1] != 7 * r || facts[3 * r + 2] != -r)
            return __LINE__;
    return rc;
}

int script_run(struct phx_comm *c, const void *arg)
{
    static const int32_t shapes[][3] = {{1, 1, 0},   {1, 7, 0},     {3, 5, 2},    {1, 2880, 0},
                                        {4, 2880, 0}, {33, 1000, 24}, {90, 2880, 0}, {2, 3, 0}};
    uint64_t before = phx_comm_progress(c);
    int      rc = check_status_and_facts(c);

    (void)arg;
    for (int32_t i = 0; i < 8 && rc == 0; i++)
        rc = check_sum(c, shapes[i][0], shapes[i][1], shapes[i][2], i);
    if (rc == 0)
        rc = check_gather(c);
    if (rc == 0)
        rc = check_plans_and_results(c);
    for (int32_t i = 0; i < 6 && rc == 0; i++)
        rc = check_stage(c, i % 2 != 0 ? 90 : 1, 2880, i);
    for (int32_t i = 0; i < 50 && rc == 0; i++)
        rc = check_sum(c, 1, 96, 0, i);
    if (rc == 0)
        rc = check_plans_and_results(c);
    if (rc == 0 && phx_comm_progress(c) <= before)
        rc = __LINE__;
    if (rc == 0 && phx_comm_shape(c)->n_ranks > 1 && phx_comm_bytes(c) == 0)
        rc = __LINE__;
    return rc;
}
