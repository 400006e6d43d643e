/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ops/support.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t         random_state;
static enum phx_compute test_compute;

void set_compute(enum phx_compute compute)
{
    test_compute = compute;
}

enum phx_compute get_compute(void)
{
    return test_compute;
}

struct phx_backend *next_backend(int *cursor)
{
    static const struct {
        const char *isa;
        int32_t     n_threads;
    } table[] = {{"ref", 1}, {"ref", 3}, {"avx2", 1}, {"avx2", 2}, {"avx512", 1}, {"avx512", 3},
                 {"amx", 1},  {"amx", 3}};

    while (*cursor < (int)(sizeof(table) / sizeof(table[0]))) {
        struct phx_backend_options options = {.isa = table[*cursor].isa,
                                              .compute = test_compute,
                                              .n_threads = table[*cursor].n_threads};
        char                       why[200];
        struct phx_backend        *b = phx_backend_open("cpu", &options, why, sizeof(why));

        (*cursor)++;
        if (b != NULL)
            return b;
        print_message("not on this processor: %s\n", why);
    }
    return NULL;
}

const char *backend_label(const struct phx_backend *b)
{
    static char label[64];

    (void)snprintf(label, sizeof(label), "%s x %d", phx_backend_isa(b), phx_backend_threads(b));
    return label;
}

void seed_random(uint64_t seed)
{
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
}

uint32_t random_u32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

float random_float(void)
{
    float sum = 0;

    for (int i = 0; i < 4; i++)
        sum += (float)random_u32() / 4294967296.0f - 0.5f;
    return random_u32() % 50 == 0 ? sum * 100.0f : sum;
}

void fill_random(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_float();
}

uint16_t to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float from_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float    f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

void *take(size_t n, size_t size)
{
    void *p = calloc(n > 0 ? n : 1, size);

    assert_non_null(p);
    return p;
}

void drop(void *p)
{
    free(p);
}

void expect_ok(struct phx_backend *b)
{
    const char *what = "";

    if (phx_backend_sync(b, &what) != 0)
        fail_msg("%s: %s", backend_label(b), what);
}
