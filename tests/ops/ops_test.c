/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ops/support.h"

int main(void)
{
    int rc = _cmocka_run_group_tests("matmul", matmul_tests, n_matmul_tests, NULL, NULL);

    rc += _cmocka_run_group_tests("attention", attention_tests, n_attention_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("batch", batch_tests, n_batch_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("edge", edge_tests, n_edge_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("moe", moe_tests, n_moe_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("int8", i8_tests, n_i8_tests, NULL, NULL);
    set_compute(PHX_COMPUTE_BF16);
    rc += _cmocka_run_group_tests("matmul, rounded", matmul_tests, n_matmul_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("edge, rounded", edge_tests, n_edge_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("attention, rounded", attention_tests, n_attention_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("rounded attention", rounded_attention_tests, n_rounded_attention_tests, NULL, NULL);
    rc += _cmocka_run_group_tests("moe, rounded", moe_tests, n_moe_tests, NULL, NULL);
    return rc != 0;
}
