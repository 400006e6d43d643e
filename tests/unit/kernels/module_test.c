/* SPDX-License-Identifier: Apache-2.0
 * Modules beside this program: phalanx_cuda.so works, phalanx_old.so is of another build, phalanx_idle.so
 * finds no device, phalanx_none.so does not exist. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/module.h"

static void a_good_module_becomes_a_backend(void **state)
{
    struct phx_backend_options options = {.isa = "ref", .n_threads = 1};
    char                       why[PHX_WHY_BYTES] = "";
    struct phx_backend        *b = phx_backend_open("cuda", &options, why, sizeof(why));
    float                      x[2] = {1, 2}, y[2] = {3, 4};

    (void)state;
    if (b == NULL)
        fail_msg("%s", why);
    phx_add(b, phx_view(x, 1, 2), phx_view(y, 1, 2));
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    assert_true(x[0] == 4 && x[1] == 6);
    phx_backend_close(b);
}

static void refuse(const char *name, const char *reason)
{
    char  why[PHX_WHY_BYTES] = "";
    void *handle = &why;

    assert_null(phx_module_load(name, &handle, why, sizeof(why)));
    assert_null(handle);
    if (strstr(why, reason) == NULL || strstr(why, name) == NULL)
        fail_msg("%s: %s", name, why);
}

static void other_modules_are_refused_with_the_reason(void **state)
{
    (void)state;
    refuse("old", "another build");
    refuse("idle", "compute capability");
    refuse("none", "was not found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_module_becomes_a_backend),
        cmocka_unit_test(other_modules_are_refused_with_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
