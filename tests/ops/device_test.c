/* SPDX-License-Identifier: Apache-2.0
 * Ops on every kind of backend against double precision (rig.h).  device_test [GROUP]: that group, or all. */
#include <stdio.h>

#include "tests/ops/rig.h"

int main(int argc, char **argv)
{
    const struct {
        const char              *name;
        const struct CMUnitTest *tests;
        size_t                   n;
    } groups[] = {
        {"attention", device_attention_tests, n_device_attention_tests},
        {"draw", device_draw_tests, n_device_draw_tests},
        {"embed", device_embed_tests, n_device_embed_tests},
        {"ends", device_ends_tests, n_device_ends_tests},
        {"fused", device_fused_tests, n_device_fused_tests},
        {"matmul", device_matmul_tests, n_device_matmul_tests},
        {"moe", device_moe_tests, n_device_moe_tests},
        {"top", device_top_tests, n_device_top_tests},
        {"vector", device_vector_tests, n_device_vector_tests},
        {"weight", device_weight_tests, n_device_weight_tests},
    };
    int rc = 0, n_run = 0;

    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        if (argc < 2 || strcmp(argv[1], groups[i].name) == 0) {
            rc += _cmocka_run_group_tests(groups[i].name, groups[i].tests, groups[i].n, NULL, NULL);
            n_run++;
        }
    if (n_run == 0)
        (void)fprintf(stderr, "%s: no such group\n", argv[1]);
    return rc != 0 || n_run == 0;
}
