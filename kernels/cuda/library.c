/* SPDX-License-Identifier: Apache-2.0
 * cuBLASLt, found at run time.  Of its API (cuBLAS library documentation, "Using the cuBLASLt API") only what one
 * product needs is declared here. */
#include "kernels/cuda/library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kernels/memory.h"

enum {
    LT_R_32F = 0,
    LT_R_16BF = 14,
    LT_COMPUTE_32F = 68,
    LT_OP_T = 1,
    LT_DESC_TRANSA = 3,
    LT_DESC_EPILOGUE = 7,
    LT_DESC_BIAS_POINTER = 8,
    LT_EPILOGUE_BIAS = 4,
    LT_PREF_MAX_WORKSPACE_BYTES = 1,
    LT_PREF_MIN_ALIGNMENT_A = 5, /* then B, C, D */
    LT_ALIGNMENT_MAX = 256
};

#ifdef __has_include
#if !defined(PHX_CUDA_EMULATED) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
_Static_assert(LT_R_16BF == (int)CUDA_R_16BF && LT_R_32F == (int)CUDA_R_32F && LT_COMPUTE_32F == (int)CUBLAS_COMPUTE_32F &&
                   LT_OP_T == (int)CUBLAS_OP_T && LT_DESC_TRANSA == (int)CUBLASLT_MATMUL_DESC_TRANSA &&
                   LT_DESC_EPILOGUE == (int)CUBLASLT_MATMUL_DESC_EPILOGUE &&
                   LT_DESC_BIAS_POINTER == (int)CUBLASLT_MATMUL_DESC_BIAS_POINTER &&
                   LT_EPILOGUE_BIAS == (int)CUBLASLT_EPILOGUE_BIAS &&
                   LT_PREF_MAX_WORKSPACE_BYTES == (int)CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
                   LT_PREF_MIN_ALIGNMENT_A == (int)CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
               "the numbers of cuBLASLt");
#endif
#endif

struct lt_algo {
    uint64_t data[8];
};

struct lt_heuristic {
    struct lt_algo algo;
    size_t         workspace_bytes;
    int            state;
    float          waves;
    int            reserved[4];
};

struct api {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*desc_create)(void **desc, int compute, int scale_type);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t size_bytes);
    int (*desc_destroy)(void *desc);
    int (*layout_create)(void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld);
    int (*layout_destroy)(void *layout);
    int (*pref_create)(void **pref);
    int (*pref_set)(void *pref, int attribute, const void *value, size_t size_bytes);
    int (*pref_destroy)(void *pref);
    int (*find)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted,
                struct lt_heuristic *results, int *found);
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b,
                  void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                  const struct lt_algo *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream);
};

struct cuda_library {
    void      *module, *handle;
    struct api api;
    bool       is_missing;
};

enum { WORKSPACE_BYTES = 32 << 20, WEIGHT_BYTES = 64 << 20 };

/* ---- finding it ------------------------------------------------------------------------------ */

#ifdef PHX_CUDA_EMULATED
static void *open_module(void)
{
    return phx_emu_blas("");
}

static void *find_symbol(void *module, const char *name)
{
    (void)module; /* there is one */
    return phx_emu_blas(name);
}

static void close_module(void *module)
{
    (void)module;
}
#else
static void *open_module(void)
{
    char name[32];

    (void)snprintf(name, sizeof(name), "libcublasLt.so.%d", CUDART_VERSION / 1000);
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

static void *find_symbol(void *module, const char *name)
{
    return dlsym(module, name);
}

static void close_module(void *module)
{
    (void)dlclose(module); /* nothing to be done about a library that stays */
}
#endif

static bool load_api(struct cuda_library *l)
{
    static const char *const names[] = {
        "cublasLtCreate", "cublasLtDestroy", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute",
        "cublasLtMatmulDescDestroy", "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutDestroy",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulPreferenceDestroy",
        "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"};
    enum { N = sizeof(names) / sizeof(names[0]) };

    _Static_assert(sizeof(l->api) == N * sizeof(void *), "a name for every function, in their order");
    for (size_t i = 0; i < N; i++) {
        void *symbol = find_symbol(l->module, names[i]);

        if (symbol == NULL)
            return false;
        memcpy((char *)&l->api + i * sizeof(symbol), &symbol, sizeof(symbol));
    }
    return true;
}

/* The library, or NULL: it is looked for once. */
static struct cuda_library *find_library(struct cuda_device *d)
{
    struct cuda_library *l = d->library;

    if (l == NULL) {
        l = d->library = phx_memory_alloc(sizeof(*l));
        if (l == NULL)
            return NULL;
        l->module = open_module();
        l->is_missing = l->module == NULL || !load_api(l) || l->api.create(&l->handle) != 0;
    }
    return l->is_missing ? NULL : l;
}

void phx_cuda_library_open(struct cuda_device *d)
{
    (void)find_library(d); /* without it products have kernels of their own */
}

void phx_cuda_library_close(struct cuda_device *d)
{
    struct cuda_library *l = d->library;

    if (l == NULL)
        return;
    if (!l->is_missing)
        (void)l->api.destroy(l->handle); /* fails when the device is lost */
    if (l->module != NULL)
        close_module(l->module);
    phx_memory_free(l);
    d->library = NULL;
}

/* ---- a product ------------------------------------------------------------------------------- */

/* Elements from one row of bf16 to the next: rows begin at 16 bytes. */
static int64_t row_stride(int32_t k)
{
    return ((int64_t)k + 7) / 8 * 8;
}

static int32_t count_chunk_rows(int32_t n, int32_t k)
{
    int64_t rows = WEIGHT_BYTES / (row_stride(k) * 2) / CUDA_TILE_ROWS * CUDA_TILE_ROWS;

    rows = rows < CUDA_TILE_ROWS ? CUDA_TILE_ROWS : rows;
    return rows < n ? (int32_t)rows : n;
}

static size_t count_bytes(int64_t rows, int32_t k)
{
    return cuda_round_up((size_t)rows * (size_t)row_stride(k) * 2, CUDA_ALIGN_BYTES);
}

size_t phx_cuda_library_scratch(const struct phx_weight_desc *w, int32_t n_rows)
{
    return WORKSPACE_BYTES + count_bytes(count_chunk_rows(w->n, w->k), w->k) + count_bytes(n_rows, w->k);
}

/* In the library's terms, column by column: D [outputs][rows] = A^T B, A [k][outputs], B [k][rows]. */
struct call {
    struct cuda_library *l;
    void                *desc, *layout[3], *pref; /* layouts of A, B, D */
    const void          *a, *b;
    float               *out;
    struct lt_heuristic  found;
};

static uint32_t alignment_of(const void *p, int64_t stride_bytes)
{
    uint64_t bits = (uint64_t)(uintptr_t)p | (uint64_t)stride_bytes | LT_ALIGNMENT_MAX;

    return (uint32_t)(bits & (~bits + 1));
}

static bool describe(struct call *c, const struct cuda_product *p, int32_t first, int32_t n)
{
    const struct api *api = &c->l->api;
    int64_t           stride = row_stride(p->w.k);
    int32_t           transposed = LT_OP_T, epilogue = LT_EPILOGUE_BIAS;
    const float      *bias = p->bias != NULL ? p->bias + first : NULL;
    uint64_t          workspace = WORKSPACE_BYTES, k = (uint64_t)p->w.k;
    uint32_t alignment[4] = {alignment_of(c->a, stride * 2), alignment_of(c->b, stride * 2)};

    alignment[2] = alignment[3] = alignment_of(c->out, p->out_stride * (int64_t)sizeof(float));
    if (api->desc_create(&c->desc, LT_COMPUTE_32F, LT_R_32F) != 0 ||
        api->desc_set(c->desc, LT_DESC_TRANSA, &transposed, sizeof(transposed)) != 0 ||
        (bias != NULL && (api->desc_set(c->desc, LT_DESC_EPILOGUE, &epilogue, sizeof(epilogue)) != 0 ||
                          api->desc_set(c->desc, LT_DESC_BIAS_POINTER, &bias, sizeof(bias)) != 0)) ||
        api->layout_create(&c->layout[0], LT_R_16BF, k, (uint64_t)n, stride) != 0 ||
        api->layout_create(&c->layout[1], LT_R_16BF, k, (uint64_t)p->n_rows, stride) != 0 ||
        api->layout_create(&c->layout[2], LT_R_32F, (uint64_t)n, (uint64_t)p->n_rows, p->out_stride) != 0 ||
        api->pref_create(&c->pref) != 0 ||
        api->pref_set(c->pref, LT_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)) != 0)
        return false;
    for (int i = 0; i < 4; i++)
        if (api->pref_set(c->pref, LT_PREF_MIN_ALIGNMENT_A + i, &alignment[i], sizeof(alignment[i])) != 0)
            return false;
    return true;
}

static void forget(struct call *c)
{
    const struct api *api = &c->l->api;

    if (c->pref != NULL)
        (void)api->pref_destroy(c->pref); /* descriptions in host memory */
    for (int i = 0; i < 3; i++)
        if (c->layout[i] != NULL)
            (void)api->layout_destroy(c->layout[i]);
    if (c->desc != NULL)
        (void)api->desc_destroy(c->desc);
}

/* Outputs first .. first + n - 1; false when the library does not take it. */
static bool multiply_chunk(struct cuda_device *d, const struct cuda_product *p, struct call *c, void *workspace,
                           int32_t first, int32_t n)
{
    const struct api *api = &c->l->api;
    const float       one = 1, zero = 0;
    int               found = 0;
    bool              is_done;

    c->out = p->out + first;
    c->desc = c->pref = NULL;
    memset(c->layout, 0, sizeof(c->layout));
    is_done = describe(c, p, first, n) &&
              api->find(c->l->handle, c->desc, c->layout[0], c->layout[1], c->layout[2], c->layout[2], c->pref, 1, &c->found,
                        &found) == 0 &&
              found > 0 &&
              api->matmul(c->l->handle, c->desc, &one, c->a, c->layout[0], c->b, c->layout[1], &zero, c->out, c->layout[2],
                          c->out, c->layout[2], &c->found.algo, workspace, WORKSPACE_BYTES, d->stream) == 0;
    forget(c);
    return is_done;
}

bool phx_cuda_library_multiply(struct cuda_device *d, const struct cuda_product *p)
{
    struct cuda_library    *l = find_library(d);
    int32_t                 chunk = count_chunk_rows(p->w.n, p->w.k);
    size_t                  w_bytes = count_bytes(chunk, p->w.k);
    unsigned char          *workspace;
    struct cuda_round_plain x = {p->x, p->x_stride, p->n_rows, p->w.k, NULL, row_stride(p->w.k)};
    struct cuda_write_out   w = {.w = p->w, .stride = row_stride(p->w.k)};
    struct call             c = {.l = l};

    if (l == NULL || p->w.k == 0)
        return false;
    workspace = phx_cuda_scratch(d, WORKSPACE_BYTES + w_bytes + count_bytes(p->n_rows, p->w.k));
    if (workspace == NULL)
        return true;
    c.a = w.out = (uint16_t *)(void *)(workspace + WORKSPACE_BYTES);
    c.b = x.out = (uint16_t *)(void *)(workspace + WORKSPACE_BYTES + w_bytes);
    if (!phx_cuda_check(d, phx_cuda_round_plain(d->stream, &x), "matmul"))
        return true;
    for (w.first_row = 0; w.first_row < p->w.n; w.first_row += chunk) {
        w.n_rows = p->w.n - w.first_row < chunk ? p->w.n - w.first_row : chunk;
        if (!phx_cuda_check(d, phx_cuda_write_out(d->stream, &w), "matmul"))
            return true;
        if (!multiply_chunk(d, p, &c, workspace, w.first_row, w.n_rows))
            return false;
    }
    return true;
}

/* ---- to be measured -------------------------------------------------------------------------- */

struct cuda_library_square {
    struct cuda_device *d;
    struct call         call;
    void               *workspace;
};

struct cuda_library_square *phx_cuda_library_square(struct cuda_device *d, const void *a, const void *b, float *c, int32_t n)
{
    const struct cuda_product   p = {.w = {.n = n, .k = n}, .n_rows = n, .out = c, .out_stride = n};
    struct cuda_library        *l = find_library(d);
    struct cuda_library_square *s = l != NULL ? phx_memory_alloc(sizeof(*s)) : NULL;
    int                         found = 0;

    if (s == NULL)
        return NULL;
    s->d = d;
    s->call = (struct call){.l = l, .a = a, .b = b, .out = c};
    s->workspace = phx_cuda_scratch(d, WORKSPACE_BYTES);
    if (s->workspace != NULL && describe(&s->call, &p, 0, n) &&
        l->api.find(l->handle, s->call.desc, s->call.layout[0], s->call.layout[1], s->call.layout[2], s->call.layout[2],
                    s->call.pref, 1, &s->call.found, &found) == 0 &&
        found > 0)
        return s;
    phx_cuda_library_square_free(s);
    return NULL;
}

bool phx_cuda_library_run(struct cuda_library_square *s)
{
    struct call *c = &s->call;
    const float  one = 1, zero = 0;

    return c->l->api.matmul(c->l->handle, c->desc, &one, c->a, c->layout[0], c->b, c->layout[1], &zero, c->out, c->layout[2],
                            c->out, c->layout[2], &c->found.algo, s->workspace, WORKSPACE_BYTES, s->d->stream) == 0 ||
           phx_cuda_fail(s->d, "measure: the library refused a product");
}

void phx_cuda_library_square_free(struct cuda_library_square *s)
{
    forget(&s->call);
    phx_memory_free(s);
}
