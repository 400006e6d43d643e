/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/cpu/isa.h"

static bool has_avx2(void)
{
#if defined(__x86_64__)
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

    /* not every compiler's __builtin_cpu_supports knows F16C; AVX2 already proves the system saves YMM */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
#else
    return false;
#endif
}

static bool has_avx512(void)
{
#if defined(__x86_64__)
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

const struct isa *phx_isa_pick(const char *name, char *why, size_t why_size)
{
    bool is_auto = name == NULL || strcmp(name, "auto") == 0;

    if (is_auto)
        return has_avx512() ? &isa_avx512 : has_avx2() ? &isa_avx2 : &isa_ref;
    if (strcmp(name, "ref") == 0)
        return &isa_ref;
    if (strcmp(name, "avx2") == 0 && has_avx2())
        return &isa_avx2;
    if (strcmp(name, "avx512") == 0 && has_avx512())
        return &isa_avx512;
    if (strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0)
        (void)snprintf(why, why_size, "isa %s: this processor does not have it", name);
    else if (strcmp(name, "amx") == 0)
        (void)snprintf(why, why_size, "isa amx: not in this build; use auto, ref, avx2 or avx512");
    else
        (void)snprintf(why, why_size, "isa '%.20s' is unknown: auto, ref, avx2 or avx512", name);
    return NULL;
}
