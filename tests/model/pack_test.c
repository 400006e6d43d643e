/* SPDX-License-Identifier: Apache-2.0
 * Rectangles of a tensor in each lie, in several pieces, become exactly the rows and columns asked for.
 * The packed weight is read back by multiplying it with the columns of the unit matrix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/model/pack.h"

enum { ROWS = 70, COLUMNS = 96, EXPERTS = 3 };

/* Pages are given back while packing, so the data has to lie in a mapped file, as a checkpoint does. */
static const uint8_t *in_file(const void *data, size_t size)
{
    int fd = memfd_create("tensor", 0);
    assert_true(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    void *mapped = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(mapped != MAP_FAILED);
    (void)close(fd);
    return mapped;
}

struct fixture {
    struct phx_backend *backend;
    struct phx_packer   packer;
    uint64_t            last_done;
};

static void progress(void *ctx, uint64_t done, uint64_t total)
{
    struct fixture *f = ctx;
    (void)total;
    assert_true(done > f->last_done);
    f->last_done = done;
}

static void open_fixture(struct fixture *f)
{
    char                       why[200] = "";
    struct phx_backend_options options = {.n_threads = 2};
    memset(f, 0, sizeof *f);
    f->backend = phx_backend_open("cpu", &options, why, sizeof why);
    if (f->backend == NULL)
        fail_msg("%s", why);
    f->packer.backend = f->backend;
    f->packer.progress = progress;
    f->packer.progress_ctx = f;
    f->packer.chunk_bytes = (int64_t)20 * COLUMNS * 4; /* 16 rows of floats at a time */
}

/* Elements that name their own place. */
static float value_at(int32_t expert, int32_t row, int32_t k)
{
    return (float)(expert * 8192 + row * COLUMNS + k);
}

/* w[n][k] of a packed plain weight into out [n * k]. */
static void read_back(struct phx_backend *b, const struct phx_weight *w, float *out)
{
    const struct phx_weight_desc *d = phx_weight_describe(w);
    size_t units = (size_t)d->k * (size_t)d->k, products = (size_t)d->k * (size_t)d->n;
    float *x = phx_backend_alloc(b, units * sizeof *x);
    float *y = phx_backend_alloc(b, products * sizeof *y);
    for (int32_t k = 0; k < d->k; k++)
        x[(ptrdiff_t)k * d->k + k] = 1;
    phx_matmul(b, phx_view(y, d->k, d->n), phx_view(x, d->k, d->k), w, (struct phx_tensor){0});
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    for (int32_t n = 0; n < d->n; n++)
        for (int32_t k = 0; k < d->k; k++)
            out[(ptrdiff_t)n * d->k + k] = y[(ptrdiff_t)k * d->n + n];
    phx_backend_free(b, x);
    phx_backend_free(b, y);
}

static struct phx_weight *pack(struct fixture *f, enum phx_dtype dtype, int32_t n, int32_t k,
                               const struct phx_rect *rect)
{
    struct phx_err         err = {0};
    struct phx_weight     *w = NULL;
    struct phx_weight_desc desc = {.dtype = dtype, .n = n, .k = k, .n_experts = 1, .n_slices = 2,
                                   .slice_end = {32, k}};
    struct phx_rect        only = *rect;
    assert_int_equal(phx_pack_create(&f->packer, "w", &desc, &w, &err), 0);
    if (phx_pack_rect(&f->packer, w, &only, &err) != 0)
        fail_msg("%s", err.text);
    return w;
}

static void a_rectangle_in_several_chunks_is_exact(void **state)
{
    struct fixture f;
    float         *data = phx_mem_calloc((size_t)ROWS * COLUMNS, sizeof *data);
    float          got[ROWS * COLUMNS];
    (void)state;
    open_fixture(&f);
    for (int32_t r = 0; r < ROWS; r++)
        for (int32_t k = 0; k < COLUMNS; k++)
            data[r * COLUMNS + k] = value_at(0, r, k);
    struct phx_ckpt_tensor t = {.name = "t", .dtype = PHX_CKPT_F32, .n_dims = 2,
                                .dim = {ROWS, COLUMNS}, .data = in_file(data, sizeof got),
                                .size_bytes = sizeof got};
    struct phx_rect r = {.tensor = &t, .lie = PHX_LIE_OUT_IN, .row = 3, .row_step = 1, .n_rows = 61,
                         .k = 32, .n_k = 48};
    struct phx_weight *w = pack(&f, PHX_DTYPE_F32, 61, 48, &r);
    read_back(f.backend, w, got);
    for (int32_t n = 0; n < 61; n++)
        for (int32_t k = 0; k < 48; k++)
            assert_true(got[n * 48 + k] == value_at(0, 3 + n, 32 + k));
    assert_int_equal(f.last_done, 61 * 48 * 4);
    phx_weight_destroy(f.backend, w);
    phx_backend_close(f.backend);
    (void)munmap((void *)(uintptr_t)t.data, t.size_bytes);
    phx_mem_free(data);
}

/* [E, in, out] with alternating rows: every second column of one expert. */
static void a_transposed_interleaved_stack_is_exact(void **state)
{
    enum { OUT = 40 };
    struct fixture f;
    static float   data[EXPERTS][COLUMNS][OUT];
    float          got[OUT / 2 * COLUMNS];
    (void)state;
    open_fixture(&f);
    for (int32_t e = 0; e < EXPERTS; e++)
        for (int32_t k = 0; k < COLUMNS; k++)
            for (int32_t n = 0; n < OUT; n++)
                data[e][k][n] = value_at(e, n, k);
    struct phx_ckpt_tensor t = {.name = "t", .dtype = PHX_CKPT_F32, .n_dims = 3,
                                .dim = {EXPERTS, COLUMNS, OUT}, .data = in_file(data, sizeof data),
                                .size_bytes = sizeof data};
    for (int32_t half = 0; half < 2; half++) {
        struct phx_err    err = {0};
        struct phx_rect   r = {.tensor = &t, .lie = PHX_LIE_IN_OUT, .row = 10 + half, .row_step = 2,
                               .n_rows = 15, .k = 0, .n_k = COLUMNS};
        struct phx_weight_desc desc = {.dtype = PHX_DTYPE_F32, .n = 15, .k = COLUMNS, .n_experts = 1,
                                       .n_slices = 1, .slice_end = {COLUMNS}};
        struct phx_weight *w = NULL;
        assert_int_equal(phx_pack_create(&f.packer, "w", &desc, &w, &err), 0);
        assert_int_equal(phx_pack_rect(&f.packer, w, &r, &err), 0);
        read_back(f.backend, w, got);
        for (int32_t n = 0; n < 15; n++)
            for (int32_t k = 0; k < COLUMNS; k++)
                assert_true(got[n * COLUMNS + k] == value_at(0, 10 + half + 2 * n, k));
        phx_weight_destroy(f.backend, w);
    }
    phx_backend_close(f.backend);
}

/* Blocks 1 and 2 of every second row of the middle expert, scales and nibbles by the format. */
static void packed_blocks_are_exact(void **state)
{
    enum { N = 34, BLOCKS = 3, HALF = PHX_MX_BLOCK / 2 };
    static const float value[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    static uint8_t     blocks[1][N][BLOCKS][HALF], scales[1][N][BLOCKS];
    struct fixture     f;
    float              got[N / 2 * 64];
    (void)state;
    open_fixture(&f);
    for (int32_t n = 0; n < N; n++)
        for (int32_t g = 0; g < BLOCKS; g++) {
            scales[0][n][g] = (uint8_t)(125 + (n + g) % 5);
            for (int32_t i = 0; i < HALF; i++)
                blocks[0][n][g][i] = (uint8_t)(n * 37 + g * 11 + i * 29);
        }
    struct phx_ckpt_tensor t = {.name = "t", .dtype = PHX_CKPT_U8, .n_dims = 4,
                                .dim = {1, N, BLOCKS, HALF}, .data = in_file(blocks, sizeof blocks),
                                .size_bytes = sizeof blocks};
    struct phx_ckpt_tensor s = {.name = "s", .dtype = PHX_CKPT_U8, .n_dims = 3, .dim = {1, N, BLOCKS},
                                .data = in_file(scales, sizeof scales), .size_bytes = sizeof scales};
    struct phx_rect r = {.tensor = &t, .scales = &s, .lie = PHX_LIE_BLOCKS, .row = 1, .row_step = 2,
                         .n_rows = N / 2, .k = 32, .n_k = 64};
    struct phx_weight *w = pack(&f, PHX_DTYPE_MXFP4, N / 2, 64, &r);
    read_back(f.backend, w, got);
    for (int32_t n = 0; n < N / 2; n++)
        for (int32_t k = 0; k < 64; k++) {
            int32_t row = 2 * n + 1, g = 1 + k / 32, i = k % 32;
            uint8_t byte = blocks[0][row][g][i / 2];
            float   want = value[i % 2 ? byte >> 4 : byte & 15];
            for (int32_t j = 125; j < 125 + (row + g) % 5; j++)
                want *= 2;
            assert_true(got[n * 64 + k] == want / 4);
        }
    phx_weight_destroy(f.backend, w);
    phx_backend_close(f.backend);
}

static void vectors_of_every_type_become_floats(void **state)
{
    static const uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0x3555, 0x7c00, 0x03ff};
    static const float    from_half[] = {1, -2, 0x1p-24f, -0.0f, 65504, 0x1.554p-2f, 0, 0x1.ff8p-15f};
    static const uint16_t brain[] = {0x3f80, 0xc000, 0x0001, 0x7f7f};
    static const float    from_brain[] = {1, -2, 0x1p-133f, 0x1.fep127f};
    struct phx_err        err = {0};
    struct fixture        f;
    struct phx_tensor     v;
    (void)state;
    open_fixture(&f);
    assert_int_equal(phx_pack_alloc(&f.packer, "v", 1, 8, &v, &err), 0);
    struct phx_ckpt_tensor t = {.name = "h", .dtype = PHX_CKPT_F16, .n_dims = 1, .dim = {8},
                                .data = (const uint8_t *)half, .size_bytes = sizeof half};
    assert_int_equal(phx_pack_vector(&f.packer, &t, 0, 1, 8, v, 0, &err), 0);
    for (int32_t i = 0; i < 8; i++)
        assert_true(((float *)v.data)[i] == (i == 6 ? __builtin_inff() : from_half[i]));
    t = (struct phx_ckpt_tensor){.name = "b", .dtype = PHX_CKPT_BF16, .n_dims = 1, .dim = {4},
                                 .data = (const uint8_t *)brain, .size_bytes = sizeof brain};
    assert_int_equal(phx_pack_vector(&f.packer, &t, 1, 2, 2, v, 5, &err), 0); /* every second one */
    assert_true(((float *)v.data)[5] == from_brain[1] && ((float *)v.data)[6] == from_brain[3]);
    assert_true(((float *)v.data)[4] == 65504);
    phx_backend_free(f.backend, v.data);
    phx_backend_close(f.backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rectangle_in_several_chunks_is_exact),
        cmocka_unit_test(a_transposed_interleaved_stack_is_exact),
        cmocka_unit_test(packed_blocks_are_exact),
        cmocka_unit_test(vectors_of_every_type_become_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
