/* SPDX-License-Identifier: Apache-2.0
 * Ops on every kind of backend against double precision (rig.h). */
#include "tests/ops/rig.h"

int main(void)
{
    int rc = _cmocka_run_group_tests("vector ops", device_vector_tests, n_device_vector_tests, NULL, NULL);

    rc += _cmocka_run_group_tests("attention", device_attention_tests, n_device_attention_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("tables", device_embed_tests, n_device_embed_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("products", device_matmul_tests, n_device_matmul_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("weights", device_weight_tests, n_device_weight_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("mixture", device_moe_tests, n_device_moe_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("top", device_top_tests, n_device_top_tests, NULL, NULL);
    return rc != 0;
}
