/* SPDX-License-Identifier: Apache-2.0
 * A backend whose memory is not the host's, in every layout: the logits have the bits of the same operations in host
 * memory, nothing outside the backend touches device memory, and a failed step is dropped by all. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/model/harness.h"

static void every_layout_has_the_bits_of_host_memory(void **state)
{
    static const int32_t layouts[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}};
    static const char *const names[] = {"gpt-oss-window-f32", "llama3-tied-bf16"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct golden g = golden_load(names[i]);

        for (size_t k = 0; k < sizeof(layouts) / sizeof(layouts[0]); k++) {
            struct phx_ranks_options o = harness_options(&g, layouts[k][0], layouts[k][1]);
            float                   *want, *got;

            want = harness_text(&g, &o, 7);
            o.backend = "cuda";
            got = harness_text(&g, &o, 7);
            assert_same_bits(got, want, g.T, g.V, "through staging");
            phx_mem_free(want);
            phx_mem_free(got);
        }
        golden_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_has_the_bits_of_host_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
