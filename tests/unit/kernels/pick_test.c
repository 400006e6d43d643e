/* SPDX-License-Identifier: Apache-2.0
 * Which code path a product takes, and what happens where the system does not let AMX be used. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "kernels/cpu/isa.h"

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

static bool is_refusing;

/* The one request that is refused; the rest goes through. */
long __wrap_syscall(long number, ...)
{
    long    a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
#ifdef SYS_arch_prctl
    if (is_refusing && number == SYS_arch_prctl) {
        errno = EINVAL;
        return -1;
    }
#endif
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void amx_that_is_refused_is_left_alone(void **state)
{
    char              why[200] = "";
    const struct isa *best;

    (void)state;
    is_refusing = true;
    best = phx_isa_pick("auto", why, sizeof(why));
    assert_non_null(best);
    assert_false(best->has_tiles);
    assert_null(phx_isa_pick("amx", why, sizeof(why)));
    assert_non_null(strstr(why, "isa amx: this processor, or its system"));
    is_refusing = false;
}

static enum cpu_path pick(const struct isa *isa, enum phx_compute compute, enum phx_dtype dtype, bool is_wild,
                          int32_t rows)
{
    struct cpu_weight w = {.desc = {.dtype = dtype}, .is_wild = is_wild};

    return phx_cpu_pick_matmul(isa, compute, &w, rows);
}

static void the_path_follows_mode_dtype_and_rows(void **state)
{
    static const struct {
        const struct isa *isa;
        enum phx_compute  compute;
        enum phx_dtype    dtype;
        bool              is_wild;
        int32_t           rows;
        enum cpu_path     path;
    } table[] = {
        {&isa_amx, PHX_COMPUTE_F32, PHX_DTYPE_BF16, false, 512, PATH_FLOAT},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_F32, false, 512, PATH_FLOAT},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_F16, false, 512, PATH_FLOAT},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_BF16, false, 512, PATH_TILES},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_BF16, false, 1, PATH_ROUNDED},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_MXFP4, false, 64, PATH_TILES},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_MXFP4, true, 64, PATH_ROUNDED},
        {&isa_avx512, PHX_COMPUTE_BF16, PHX_DTYPE_BF16, false, 512, PATH_ROUNDED},
        {&isa_avx2, PHX_COMPUTE_F32, PHX_DTYPE_MXFP4, false, 512, PATH_FLOAT},
        {&isa_amx, PHX_COMPUTE_F32, PHX_DTYPE_I8, false, 512, PATH_I8_TILES},
        {&isa_amx, PHX_COMPUTE_BF16, PHX_DTYPE_I8, false, 1, PATH_I8},
        {&isa_ref, PHX_COMPUTE_BF16, PHX_DTYPE_I8, false, 512, PATH_I8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        enum cpu_path got = pick(table[i].isa, table[i].compute, table[i].dtype, table[i].is_wild, table[i].rows);

        if (got != table[i].path)
            fail_msg("row %zu: %s, expected %s", i, phx_cpu_path_name(got), phx_cpu_path_name(table[i].path));
    }
    assert_string_equal(phx_cpu_path_name(PATH_I8_TILES), "int8 tiles");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(amx_that_is_refused_is_left_alone),
        cmocka_unit_test(the_path_follows_mode_dtype_and_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
