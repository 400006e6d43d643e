/* SPDX-License-Identifier: Apache-2.0
 * Finding NCCL: a library beside the module that is too old or lacks a function is refused by name and not kept, and a
 * good one that takes its place is used.  The libraries lie in the folders old/, bare/ and good/ beside this program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cuda/nccl_api.h"

static void put_beside(const char *folder)
{
    char target[64], link[512];
    int  n = snprintf(link, sizeof(link), "%s/libnccl.so.2", PHX_NCCL_DIR);

    assert_true(n > 0 && (size_t)n < sizeof(link));
    (void)unlink(link); /* the one of the test before, if any */
    if (folder == NULL)
        return;
    (void)snprintf(target, sizeof(target), "%s/libnccl.so.2", folder);
    assert_int_equal(symlink(target, link), 0);
}

static void expect_refusal(const char *folder, const char *text)
{
    char why[200] = "";

    put_beside(folder);
    assert_null(phx_nccl_load(why, sizeof(why)));
    assert_string_equal(why, text);
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    char                   why[200] = "";
    const struct nccl_api *nccl;
    int                    version = 0;

    (void)state;
    expect_refusal("old", "NCCL 2.17 is too old: 2.18 or newer is needed, or use transport host");
    expect_refusal("bare", "libnccl.so.2 has no ncclCommInitRankConfig: 2.18 or newer is needed, or use transport host");
    put_beside("good");
    nccl = phx_nccl_load(why, sizeof(why));
    assert_non_null(nccl);
    assert_int_equal(nccl->GetVersion(&version), NCCL_SUCCESS);
    assert_int_equal(version, 22809);
    put_beside("old"); /* what is loaded stays */
    assert_ptr_equal(phx_nccl_load(why, sizeof(why)), nccl);
    put_beside(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
