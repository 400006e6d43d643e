/* SPDX-License-Identifier: Apache-2.0
 * The mixture: routing, and the experts against plain loops, on every path, alone and in a batch. */
#include <math.h>

#include "tests/ops/support.h"

enum { T = 39, E = 5, TOP = 2, D = 64, F = 96 };

struct mixture {
    float    x[T * D], logits[T * E], up_bias[E * 2 * F];
    uint16_t gate_up[E * 2 * F * D], down[E * D * F];
};

static struct phx_weight *pack(struct phx_backend *b, const uint16_t *data, int32_t n, int32_t k,
                               int32_t n_slices)
{
    struct phx_weight_desc desc = {PHX_DTYPE_BF16, n, k, E, n_slices, {0}};
    struct phx_weight     *w;

    for (int32_t s = 0; s < n_slices; s++)
        desc.slice_end[s] = k / 32 * (s + 1) / n_slices * 32;
    w = phx_weight_create(b, &desc);
    for (int32_t e = 0; e < E; e++) {
        struct phx_weight_source source = {.data = data + (size_t)e * (size_t)n * (size_t)k,
                                           .dtype = PHX_DTYPE_BF16, .row_stride = k * 2, .k_stride = 2,
                                           .expert = e, .n_rows = n};

        phx_weight_pack(b, w, &source);
    }
    expect_ok(b);
    return w;
}

static void run(struct phx_backend *b, struct mixture *m, int32_t first, int32_t n, float *out)
{
    struct phx_weight  *up = pack(b, m->gate_up, 2 * F, D, 1), *down = pack(b, m->down, D, F, 8);
    int32_t             ids[T * TOP];
    float               gates[T * TOP];
    struct phx_tensor   id_tensor = {ids, PHX_DTYPE_I32, {n, TOP}, TOP};
    struct phx_moe_args args = {.out = phx_view(out, n, D), .x = phx_view(m->x + first * D, n, D),
                                .ids = id_tensor, .gates = phx_view(gates, n, TOP), .gate_up = up,
                                .gate_up_bias = phx_view(m->up_bias, E, 2 * F), .down = down,
                                .kind = PHX_GLU_OAI, .limit = 7.0f};

    phx_moe_route(b, id_tensor, args.gates, phx_view(m->logits + first * E, n, E));
    phx_moe_ffn(b, &args);
    expect_ok(b);
    phx_weight_destroy(b, up);
    phx_weight_destroy(b, down);
}

/* What enters a product. */
static double entering(double v)
{
    return get_compute() == PHX_COMPUTE_BF16 ? (double)from_bf16(to_bf16((float)v)) : v;
}

static void exact_row(const struct mixture *m, int t, double *out)
{
    int    ids[TOP] = {-1, -1};
    double gate[TOP], sum = 0;

    for (int j = 0; j < TOP; j++)
        for (int e = 0; e < E; e++)
            if (e != ids[0] && (ids[j] < 0 || m->logits[t * E + e] > m->logits[t * E + ids[j]]))
                ids[j] = e;
    for (int j = 0; j < TOP; j++)
        sum += gate[j] = exp((double)m->logits[t * E + ids[j]] - (double)m->logits[t * E + ids[0]]);
    memset(out, 0, D * sizeof(double));
    for (int j = 0; j < TOP; j++) {
        double act[F];

        for (int f = 0; f < F; f++) {
            double g = (double)m->up_bias[ids[j] * 2 * F + f], u = (double)m->up_bias[ids[j] * 2 * F + F + f];

            for (int d = 0; d < D; d++) {
                g += entering((double)m->x[t * D + d]) * (double)from_bf16(m->gate_up[(ids[j] * 2 * F + f) * D + d]);
                u += entering((double)m->x[t * D + d]) *
                     (double)from_bf16(m->gate_up[(ids[j] * 2 * F + F + f) * D + d]);
            }
            g = g > 7 ? 7 : g;
            u = u > 7 ? 7 : u < -7 ? -7 : u;
            act[f] = entering(g / (1 + exp(-1.702 * g)) * (u + 1));
        }
        for (int d = 0; d < D; d++)
            for (int f = 0; f < F; f++)
                out[d] += gate[j] / sum * act[f] * (double)from_bf16(m->down[(ids[j] * D + d) * F + f]);
    }
}

static void experts_are_exact_and_equal_on_every_path(void **state)
{
    struct mixture     *m = take(1, sizeof(*m));
    float               ref[T * D], out[T * D];
    double              bound = get_compute() == PHX_COMPUTE_BF16 ? 5e-3 : 1e-3; /* an act that rounds the other way */
    int                 cursor = 0;
    struct phx_backend *b = next_backend(&cursor);

    (void)state;
    seed_random(8);
    fill_random(m->x, T * D);
    fill_random(m->logits, T * E);
    fill_random(m->up_bias, E * 2 * F);
    for (size_t i = 0; i < E * 2 * F * D; i++)
        m->gate_up[i] = to_bf16(random_float() * 0.2f);
    for (size_t i = 0; i < E * D * F; i++)
        m->down[i] = to_bf16(random_float() * 0.2f);
    run(b, m, 0, T, ref);
    for (int t = 0; t < T; t++) {
        double exact[D];

        exact_row(m, t, exact);
        for (int d = 0; d < D; d++)
            assert_true(fabs((double)ref[t * D + d] - exact[d]) < bound * (1 + fabs(exact[d])));
    }
    do {
        run(b, m, 0, T, out);
        assert_memory_equal(ref, out, sizeof(ref));
        for (int t = 0; t < T; t++) {
            run(b, m, t, 1, out);
            assert_memory_equal(ref + t * D, out, D * sizeof(float));
        }
        phx_backend_close(b);
    } while ((b = next_backend(&cursor)) != NULL);
    drop(m);
}

static void ties_go_to_the_lowest_expert(void **state)
{
    int                 cursor = 0;
    struct phx_backend *b = next_backend(&cursor);
    float               logits[6] = {1, 3, 3, 0, 3, 2}, gates[3];
    int32_t             ids[3];
    struct phx_tensor   id_tensor = {ids, PHX_DTYPE_I32, {1, 3}, 3};

    (void)state;
    phx_moe_route(b, id_tensor, phx_view(gates, 1, 3), phx_view(logits, 1, 6));
    expect_ok(b);
    assert_true(ids[0] == 1 && ids[1] == 2 && ids[2] == 4);
    assert_float_equal(gates[0], 1.0f / 3, 1e-6);
    phx_backend_close(b);
}

static void biases_are_weighted_by_the_gates(void **state)
{
    int                 cursor = 0;
    struct phx_backend *b = next_backend(&cursor);
    float               x[2] = {1, 2}, gates[2] = {0.25f, 0.75f}, bias[6] = {4, 8, 0, 0, 16, 32};
    int32_t             ids[2] = {0, 2};
    struct phx_tensor   id_tensor = {ids, PHX_DTYPE_I32, {1, 2}, 2};

    (void)state;
    phx_moe_bias(b, phx_view(x, 1, 2), id_tensor, phx_view(gates, 1, 2), phx_view(bias, 3, 2));
    expect_ok(b);
    assert_true(x[0] == 1 + 1 + 12 && x[1] == 2 + 2 + 24);
    phx_backend_close(b);
}

const struct CMUnitTest moe_tests[] = {
    cmocka_unit_test(experts_are_exact_and_equal_on_every_path),
    cmocka_unit_test(ties_go_to_the_lowest_expert),
    cmocka_unit_test(biases_are_weighted_by_the_gates),
};
const size_t n_moe_tests = sizeof(moe_tests) / sizeof(moe_tests[0]);
