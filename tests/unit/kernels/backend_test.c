/* SPDX-License-Identifier: Apache-2.0
 * The checks of the door: whatever does not fit is refused by name, nothing after it runs, and the backend
 * works again once the error has been read. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"

static int open_backend(void **state)
{
    struct phx_backend_options options = {.n_threads = 2};
    char                       why[200];

    *state = phx_backend_open("cpu", &options, why, sizeof(why));
    return *state != NULL ? 0 : -1;
}

static int close_backend(void **state)
{
    phx_backend_close(*state);
    return 0;
}

static void expect_fault(struct phx_backend *b, const char *op, const char *word)
{
    const char *what = "nothing failed";

    if (phx_backend_sync(b, &what) != -1 || strncmp(what, op, strlen(op)) != 0 ||
        strstr(what, word) == NULL)
        fail_msg("expected %s ... %s, got %s", op, word, what);
    assert_int_equal(phx_backend_sync(b, NULL), 0); /* read once */
}

static void backends_are_opened_by_name(void **state)
{
    struct phx_backend_options negative = {.n_threads = -1}, absurd = {.n_threads = 1 << 20};
    struct phx_backend_options unknown = {.isa = "mmx"};
    struct phx_backend        *b = *state;
    char                       why[240] = "";

    assert_string_equal(phx_backend_name(b), "cpu");
    assert_int_equal(phx_backend_threads(b), 2);
    assert_non_null(strstr("ref avx2 avx512 amx", phx_backend_isa(b)));
    assert_null(phx_backend_open("tpu", NULL, why, sizeof(why)));
    assert_non_null(strstr(why, "tpu"));
    assert_null(phx_backend_open("cpu", &negative, why, sizeof(why)));
    assert_non_null(strstr(why, "-1"));
    assert_null(phx_backend_open("cpu", &absurd, why, sizeof(why)));
    assert_non_null(strstr(why, "threads"));
    assert_null(phx_backend_open("cpu", &unknown, why, sizeof(why)));
    assert_non_null(strstr(why, "mmx"));
    phx_backend_close(NULL);
}

static void weights_that_cannot_be_are_refused(void **state)
{
    const struct phx_weight_desc bad[] = {
        {PHX_DTYPE_I32, 4, 4, 1, 1, {4}},
        {PHX_DTYPE_F8_E4M3, 4, 4, 1, 1, {4}},
        {PHX_DTYPE_BF16, 0, 4, 1, 1, {4}},
        {PHX_DTYPE_BF16, 4, -1, 1, 1, {-1}},
        {PHX_DTYPE_BF16, 4, 4, 0, 1, {4}},
        {PHX_DTYPE_BF16, 4, 4, 1, 0, {4}},
        {PHX_DTYPE_BF16, 4, 4, 1, 9, {4, 4, 4, 4, 4, 4, 4, 4}},
        {PHX_DTYPE_BF16, 4, 4, 1, 2, {4, 3}},
        {PHX_DTYPE_BF16, 4, 4, 1, 2, {2, 3}},
        {PHX_DTYPE_MXFP4, 4, 40, 1, 1, {40}},
        {PHX_DTYPE_MXFP4, 4, 64, 1, 2, {40, 64}},
        {PHX_DTYPE_F32, INT32_MAX, INT32_MAX, 4096, 1, {INT32_MAX}},
    };
    const struct phx_weight_desc huge = {PHX_DTYPE_F32, 1 << 30, 1 << 18, 1, 1, {1 << 18}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(phx_weight_bytes(*state, &bad[i]), 0);
        assert_null(phx_weight_create(*state, &bad[i]));
        expect_fault(*state, "weight_create", "");
    }
    assert_null(phx_weight_create(*state, &huge)); /* no machine has so much */
    expect_fault(*state, "weight_create", "cannot be had");
}

static void packs_that_do_not_fit_are_refused(void **state)
{
    struct phx_backend            *b = *state;
    const struct phx_weight_desc   d = {PHX_DTYPE_BF16, 20, 4, 2, 1, {4}};
    const struct phx_weight_desc   mx = {PHX_DTYPE_MXFP4, 20, 32, 1, 1, {32}};
    uint16_t                       data[80] = {0};
    const struct phx_weight_source good = {data, PHX_DTYPE_BF16, 8, 2, NULL, 0, 1, 0, 20};
    struct phx_weight             *w = phx_weight_create(b, &d), *w_mx = phx_weight_create(b, &mx);
    struct phx_weight_source       bad[7];

    for (int i = 0; i < 7; i++)
        bad[i] = good;
    bad[0].dtype = PHX_DTYPE_F32; /* would round */
    bad[1].dtype = PHX_DTYPE_F16;
    bad[2].expert = 2;
    bad[3].first_row = 1; /* 1 + 20 rows */
    bad[4].n_rows = -1;
    bad[5].first_row = INT32_MAX;
    bad[6].data = NULL;
    phx_weight_pack(b, w, &good);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    for (int i = 0; i < 7; i++) {
        phx_weight_pack(b, w, &bad[i]);
        expect_fault(b, "weight_pack", "");
    }
    bad[0] = good;
    bad[0].dtype = PHX_DTYPE_MXFP4; /* without scales */
    bad[0].expert = 0;
    phx_weight_pack(b, w_mx, &bad[0]);
    expect_fault(b, "weight_pack", "no source");
    phx_weight_destroy(b, w);
    phx_weight_destroy(b, w_mx);
    phx_weight_destroy(b, NULL);
}

static void tensors_that_do_not_fit_are_refused(void **state)
{
    struct phx_backend          *b = *state;
    const struct phx_weight_desc d = {PHX_DTYPE_F32, 3, 4, 1, 1, {4}}, stack = {PHX_DTYPE_F32, 3, 4, 2, 1, {4}};
    struct phx_weight           *w = phx_weight_create(b, &d), *experts = phx_weight_create(b, &stack);
    float                        x[16] = {0}, y[16] = {7};
    struct phx_tensor            narrow = phx_view(x, 2, 4), none = {0}, ids = phx_view(y, 2, 1);
    const int32_t                rows[] = {0, 2};

    ids.dtype = PHX_DTYPE_I32;
    narrow.stride0 = 3;
    phx_matmul(b, phx_view(y, 2, 3), phx_view(x, 2, 5), w, none);
    expect_fault(b, "matmul", "expected [2, 4]");
    phx_matmul(b, phx_view(y, 2, 2), phx_view(x, 2, 4), w, none);
    expect_fault(b, "matmul", "out");
    phx_matmul(b, phx_view(y, 2, 3), narrow, w, none);
    expect_fault(b, "matmul", "stride");
    phx_matmul(b, phx_view(y, 2, 3), phx_view(x, 2, 4), experts, none);
    expect_fault(b, "matmul", "experts");
    phx_matmul(b, phx_view(y, 2, 3), phx_view(x, 2, 4), w, phx_view(x, 1, 4));
    expect_fault(b, "matmul", "bias");
    phx_rmsnorm(b, phx_view(y, 1, 4), phx_view(x, 1, 4), phx_view(x, 1, 3), 1e-5f);
    expect_fault(b, "rmsnorm", "gain");
    phx_embed(b, phx_view(y, 1, 3), rows, w, 0);
    expect_fault(b, "embed", "out");
    phx_swiglu(b, phx_view(y, 1, 2), phx_view(x, 1, 5), PHX_GLU_SILU, 0);
    expect_fault(b, "swiglu", "gate_up");
    phx_swiglu(b, phx_view(y, 1, 2), phx_view(x, 1, 4), (enum phx_glu)9, 0);
    expect_fault(b, "swiglu", "kind 9");
    phx_gather_rows(b, phx_view(y, 2, 4), phx_view(x, 2, 4), rows);
    expect_fault(b, "gather_rows", "row 2 of 2");
    phx_add_row(b, phx_view(y, 2, 4), phx_view(x, 2, 4));
    expect_fault(b, "add_row", "row");
    phx_top(b, phx_view(y, 2, 1), phx_view(y, 2, 1), phx_view(y, 2, 1), phx_view(x, 2, 4));
    expect_fault(b, "top", "ids");
    ids.dim[1] = 5;
    ids.stride0 = 5;
    phx_top(b, ids, phx_view(y, 2, 5), phx_view(y, 2, 1), phx_view(x, 2, 4));
    expect_fault(b, "top", "5 of 4 logits");
    ids.dim[1] = 1;
    phx_top(b, ids, phx_view(y, 2, 1), phx_view(y, 1, 2), phx_view(x, 2, 4));
    expect_fault(b, "top", "lse");
    assert_true(y[0] == 7); /* none of them ran */
    phx_weight_destroy(b, w);
    phx_weight_destroy(b, experts);
}

static void caches_and_spans_that_do_not_fit_are_refused(void **state)
{
    struct phx_backend      *b = *state;
    const struct phx_kv_desc bad[] = {{0, 1, 16, 1, 4, PHX_DTYPE_F32}, {1, 0, 16, 1, 4, PHX_DTYPE_F32},
                                      {1, 1, 8, 1, 4, PHX_DTYPE_F32},  {1, 1, 16, 0, 4, PHX_DTYPE_F32},
                                      {1, 1, 16, 1, 3, PHX_DTYPE_F32}, {1, 1, 16, 1, 514, PHX_DTYPE_F32},
                                      {1, 1, 16, 1, 4, PHX_DTYPE_F16},
                                      {INT32_MAX, INT32_MAX, 32, 65536, 512, PHX_DTYPE_F32}};
    const struct phx_kv_desc d = {1, 2, 16, 1, 4, PHX_DTYPE_F32};
    struct phx_kv           *kv;
    float                    x[64] = {0};
    int32_t                  row = 0, n = 2, pos = 31, table[3] = {0, 1, 2};
    struct phx_spans         spans = {1, &row, &n, &pos, table, 3};
    struct phx_attention_args args = {.out = phx_view(x + 32, 2, 4), .q = phx_view(x, 2, 4),
                                      .n_heads = 1, .group = 1, .scale = 1, .spans = &spans};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(phx_kv_bytes(b, &bad[i]), 0);
        assert_null(phx_kv_create(b, &bad[i]));
        expect_fault(b, "kv_create", "");
    }
    kv = phx_kv_create(b, &d);
    assert_non_null(kv);
    args.kv = kv;
    phx_kv_write(b, kv, 0, phx_view(x, 2, 4), phx_view(x, 2, 4), &spans); /* block 2 of 2 */
    expect_fault(b, "kv_write", "block");
    spans.table_stride = 2;
    phx_attention(b, &args);
    expect_fault(b, "attention", "past the block table");
    n = 3;
    phx_attention(b, &args);
    expect_fault(b, "attention", "rows 0+3 of 2");
    n = 2;
    pos = INT32_MAX;
    phx_attention(b, &args);
    expect_fault(b, "attention", "position");
    pos = 0;
    phx_kv_write(b, kv, 1, phx_view(x, 2, 4), phx_view(x, 2, 4), &spans);
    expect_fault(b, "kv_write", "layer 1 of 1");
    args.window = -1;
    phx_attention(b, &args);
    expect_fault(b, "attention", "window");
    args.window = 0;
    args.head_first = 1; /* reads kv head 1 of 1 */
    phx_attention(b, &args);
    expect_fault(b, "attention", "kv heads");
    phx_rope(b, phx_view(x, 2, 4), 3, &spans, phx_view(x, 1, 1), phx_view(x, 1, 1));
    expect_fault(b, "rope", "heads of 3");
    phx_rope(b, phx_view(x, 2, 4), 4, &spans, phx_view(x, 1, 2), phx_view(x, 1, 2));
    expect_fault(b, "rope", "position 1");
    phx_kv_destroy(b, kv);
    phx_kv_destroy(b, NULL);
}

static void experts_that_do_not_fit_are_refused(void **state)
{
    struct phx_backend          *b = *state;
    const struct phx_weight_desc up = {PHX_DTYPE_F32, 8, 4, 3, 1, {4}}, down = {PHX_DTYPE_F32, 4, 4, 3, 1, {4}};
    struct phx_weight           *w_up = phx_weight_create(b, &up), *w_down = phx_weight_create(b, &down);
    float                        x[16] = {0}, gates[2] = {1, 0};
    int32_t                      ids[2] = {0, 3};
    struct phx_tensor            id_tensor = {ids, PHX_DTYPE_I32, {1, 2}, 2};
    struct phx_moe_args          args = {.out = phx_view(x + 8, 1, 4), .x = phx_view(x, 1, 4),
                                         .ids = id_tensor, .gates = phx_view(gates, 1, 2),
                                         .gate_up = w_up, .down = w_down, .kind = PHX_GLU_SILU};

    phx_moe_ffn(b, &args);
    expect_fault(b, "moe_ffn", "out of range");
    ids[1] = -1;
    phx_moe_ffn(b, &args);
    expect_fault(b, "moe_ffn", "out of range");
    phx_moe_bias(b, args.x, id_tensor, args.gates, phx_view(x, 3, 4));
    expect_fault(b, "moe_bias", "out of range");
    ids[1] = 2;
    phx_moe_ffn(b, &args);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    args.kind = (enum phx_glu)0;
    phx_moe_ffn(b, &args);
    expect_fault(b, "moe_ffn", "kind");
    args.kind = PHX_GLU_SILU;
    args.gate_up = w_down;
    phx_moe_ffn(b, &args);
    expect_fault(b, "moe_ffn", "does not fit");
    phx_moe_reserve(b, -1, 2, w_up, w_down);
    expect_fault(b, "moe_reserve", "-1 rows");
    phx_moe_route(b, id_tensor, phx_view(gates, 1, 2), phx_view(x, 1, 1));
    expect_fault(b, "moe_route", "top 2 of 1");
    phx_weight_destroy(b, w_up);
    phx_weight_destroy(b, w_down);
}

/* The first of two errors is the one told, and what follows it does not run. */
static void the_first_error_sticks(void **state)
{
    struct phx_backend *b = *state;
    float               x[4] = {1, 2, 3, 4}, y[4] = {1, 1, 1, 1}, host[4] = {0};

    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 3));
    phx_add_row(b, phx_view(x, 1, 4), phx_view(y, 1, 2));
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 4));
    phx_upload(b, x, host, sizeof(x));
    expect_fault(b, "add:", "[1, 3]");
    assert_true(x[0] == 1 && x[3] == 4);
}

static void trace(void *ctx, const char *op, struct phx_tensor out)
{
    char *seen = ctx;

    strcat(seen, op);
    strcat(seen, out.dim[0] == 1 ? "1 " : "n ");
}

static void each_op_is_traced(void **state)
{
    struct phx_backend *b = *state;
    float               x[4] = {1, 2, 3, 4}, y[4] = {1, 1, 1, 1};
    char                seen[64] = "";

    phx_backend_set_trace(b, trace, seen);
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 4));
    phx_rmsnorm(b, phx_view(x, 2, 2), phx_view(y, 2, 2), phx_view(y, 1, 2), 0);
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 3)); /* refused: not traced */
    phx_backend_set_trace(b, NULL, NULL);
    expect_fault(b, "add", "");
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 4));
    assert_string_equal(seen, "add1 rmsnormn ");
    phx_backend_set_watch(b, trace, seen);
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 4));
    phx_backend_set_watch(b, NULL, NULL);
    phx_add(b, phx_view(x, 1, 4), phx_view(y, 1, 4));
    assert_string_equal(seen, "add1 rmsnormn add1 ");
}

static void memory_goes_up_and_down(void **state)
{
    struct phx_backend *b = *state;
    float               up[3] = {1, 2, 3}, down[3] = {0};
    float              *device = phx_backend_alloc(b, sizeof(up));

    phx_upload(b, device, up, sizeof(up));
    phx_download(b, down, device, sizeof(down));
    assert_memory_equal(up, down, sizeof(up));
    assert_null(phx_backend_alloc(b, SIZE_MAX / 2));
    phx_backend_free(b, device);
    phx_backend_free(b, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backends_are_opened_by_name),
        cmocka_unit_test(weights_that_cannot_be_are_refused),
        cmocka_unit_test(packs_that_do_not_fit_are_refused),
        cmocka_unit_test(tensors_that_do_not_fit_are_refused),
        cmocka_unit_test(caches_and_spans_that_do_not_fit_are_refused),
        cmocka_unit_test(experts_that_do_not_fit_are_refused),
        cmocka_unit_test(the_first_error_sticks),
        cmocka_unit_test(each_op_is_traced),
        cmocka_unit_test(memory_goes_up_and_down),
    };

    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
