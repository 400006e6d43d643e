/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/ops/rig.h"

#include <dlfcn.h>

#include <math.h>
#include <stdlib.h>

/* The name at position `at` of a list with spaces; false behind its end. */
static bool pick_name(const char *list, int at, char name[16])
{
    for (;; at--) {
        size_t n;

        list += strspn(list, " ");
        n = strcspn(list, " ");
        if (n == 0 || n > 15)
            return false;
        if (at == 0) {
            memcpy(name, list, n);
            name[n] = '\0';
            return true;
        }
        list += n;
    }
}

bool next_rig(struct rig *r, int *cursor, enum phx_compute compute)
{
    struct phx_backend_options options = {.compute = compute, .n_threads = 2};
    const char                *list = getenv("PHX_OPS_BACKENDS");
    char                       name[16], why[240];

    memset(r, 0, sizeof(*r));
    if (!pick_name(list != NULL ? list : "cpu cuda", (*cursor)++, name))
        return false;
    r->b = phx_backend_open(name, &options, why, sizeof(why));
    if (r->b == NULL)
        fail_msg("%s", why);
    r->is_cuda = strcmp(name, "cuda") == 0;
    return true;
}

void rig_back(struct rig *r, int n_memory)
{
    while (r->n_memory > n_memory)
        phx_backend_free(r->b, r->memory[--r->n_memory]);
}

struct rig rig_open_class(bool is_fast)
{
    struct phx_backend_options options = {.compute = PHX_COMPUTE_BF16, .is_fast = is_fast};
    char                       why[240];
    struct rig                 r = {.b = phx_backend_open("cuda", &options, why, sizeof(why)), .is_cuda = true};

    if (r.b == NULL)
        fail_msg("%s", why);
    return r;
}

struct phx_emu *rig_find_emulator(void)
{
    struct rig      r;
    int             cursor = 0;
    struct phx_emu *emu = NULL;

    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        void *module = r.is_cuda ? dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_NOLOAD) : NULL;

        if (module != NULL)
            emu = dlsym(module, "phx_emu"); /* the handle keeps it loaded */
        close_rig(&r);
    }
    return emu;
}

void close_rig(struct rig *r)
{
    rig_back(r, 0);
    expect_ok(r->b);
    phx_backend_close(r->b);
}

static void *take_device(struct rig *r, size_t size_bytes)
{
    void *p = phx_backend_alloc(r->b, size_bytes > 0 ? size_bytes : 1);

    assert_non_null(p);
    assert_true(r->n_memory < RIG_MEMORY_MAX);
    return r->memory[r->n_memory++] = p;
}

void *rig_put(struct rig *r, const void *host, size_t size_bytes)
{
    void *p = take_device(r, size_bytes);

    phx_upload(r->b, p, host, size_bytes);
    return p;
}

float *rig_floats(struct rig *r, const float *host, size_t n)
{
    return rig_put(r, host, n * sizeof(float));
}

void *rig_blank(struct rig *r, size_t size_bytes)
{
    void *poison = take(size_bytes, 1), *p;

    memset(poison, 0xff, size_bytes);
    p = rig_put(r, poison, size_bytes);
    drop(poison); /* an upload has read it */
    return p;
}

void rig_get(struct rig *r, void *host, const void *device, size_t size_bytes)
{
    phx_download(r->b, host, device, size_bytes);
    expect_ok(r->b);
}

void expect_near(const char *what, const struct rig *r, const float *got, const double *want, const double *scale,
                 size_t n, double bound)
{
    double largest = 1;

    for (size_t i = 0; i < n; i++)
        largest = fabs(want[i]) > largest ? fabs(want[i]) : largest;
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= bound * (scale != NULL ? scale[i] : largest)))
            fail_msg("%s on %s: output %zu is %.9g, exactly %.9g", what, phx_backend_name(r->b), i, (double)got[i],
                     want[i]);
}

struct phx_tensor rig_rows(struct rig *r, uint64_t seed, int32_t rows, int32_t n, int32_t gap)
{
    size_t            size = (size_t)gap + (size_t)rows * (size_t)(n + gap);
    float            *host = take(size, sizeof(float));
    struct phx_tensor t;

    seed_random(seed);
    fill_random(host, size);
    t = phx_view(rig_floats(r, host, size) + gap, rows, n);
    t.stride0 = n + gap;
    drop(host);
    return t;
}

void rig_expect_same(struct rig *r, struct phx_tensor a, struct phx_tensor b, const char *what)
{
    size_t n = (size_t)a.dim[1];
    float *got = take(n, sizeof(float)), *want = take(n, sizeof(float));

    for (int32_t i = 0; i < a.dim[0]; i++) {
        rig_get(r, got, (float *)a.data + i * a.stride0, n * sizeof(float));
        rig_get(r, want, (float *)b.data + i * b.stride0, n * sizeof(float));
        for (size_t j = 0; j < n; j++)
            if (!(got[j] == want[j]))
                fail_msg("%s on %s: row %d, column %zu of %zu is %.9g, else %.9g", what, phx_backend_name(r->b), i, j, n,
                         (double)got[j], (double)want[j]);
    }
    drop(got);
    drop(want);
}
