/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/i8.h"

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

/* The system lets a process use the tile registers only when it asks, once for all of its threads. */
static bool has_amx(void)
{
#if defined(__x86_64__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, TILE = 1 << 24, TILE_INT8 = 1 << 25, TILE_BF16 = 1 << 22,
           AVX512_BF16 = 1 << 5 };
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;

    if (!has_avx512() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 ||
        (edx & (TILE | TILE_INT8 | TILE_BF16)) != (TILE | TILE_INT8 | TILE_BF16))
        return false;
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0 || (eax & AVX512_BF16) == 0)
        return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

const struct isa *phx_isa_pick(const char *name, char *why, size_t why_size)
{
    bool is_auto = name == NULL || strcmp(name, "auto") == 0;

    if (is_auto)
        return has_amx()      ? &isa_amx
               : has_avx512() ? &isa_avx512
               : has_avx2()   ? &isa_avx2
                              : &isa_ref;
    if (strcmp(name, "ref") == 0)
        return &isa_ref;
    if (strcmp(name, "avx2") == 0 && has_avx2())
        return &isa_avx2;
    if (strcmp(name, "avx512") == 0 && has_avx512())
        return &isa_avx512;
    if (strcmp(name, "amx") == 0 && has_amx())
        return &isa_amx;
    if (strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0 || strcmp(name, "amx") == 0)
        (void)snprintf(why, why_size, "isa %s: this processor, or its system, does not have it", name);
    else
        (void)snprintf(why, why_size, "isa '%.20s' is unknown: auto, ref, avx2, avx512 or amx", name);
    return NULL;
}

enum cpu_path phx_cpu_pick_matmul(const struct isa *isa, enum phx_compute compute,
                                  const struct cpu_weight *w, int32_t n_rows)
{
    enum phx_dtype dtype = w->desc.dtype;

    if (dtype == PHX_DTYPE_I8)
        return isa->has_tiles && n_rows > I8_VECTOR_ROWS ? PATH_I8_TILES : PATH_I8;
    if (compute == PHX_COMPUTE_F32 || (dtype != PHX_DTYPE_BF16 && dtype != PHX_DTYPE_MXFP4))
        return PATH_FLOAT;
    return isa->has_tiles && !w->is_wild && n_rows >= TILES_MIN_ROWS ? PATH_TILES : PATH_ROUNDED;
}

static bool has_vnni(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

const struct i8_isa *phx_i8_pick(const struct isa *isa)
{
    if (isa == &isa_ref)
        return &i8_ref;
    return isa != &isa_avx2 && has_vnni() ? &i8_vnni : &i8_avx2;
}

enum cpu_path phx_cpu_pick_moe(const struct isa *isa, enum phx_compute compute, const struct cpu_weight *gate_up,
                               const struct cpu_weight *down, int32_t n_pairs, int32_t n_active)
{
    int32_t       each = n_active > 0 ? n_pairs / n_active : 0;
    enum cpu_path up = phx_cpu_pick_matmul(isa, compute, gate_up, each);
    enum cpu_path back = phx_cpu_pick_matmul(isa, compute, down, each);

    if (up == PATH_FLOAT || back == PATH_FLOAT)
        return PATH_FLOAT;
    return up == PATH_TILES ? back : up;
}

const char *phx_cpu_path_name(enum cpu_path path)
{
    static const char *const names[] = {"", "float", "rounded", "tiles", "int8", "int8 tiles"};

    return names[path];
}
