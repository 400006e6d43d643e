/* SPDX-License-Identifier: Apache-2.0
 * How many kernels a step that decodes launches on the emulated device: each costs a GPU microseconds in which it does
 * nothing else. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/emu/control.h"
#include "tests/model/harness.h"

enum { ROWS_MAX = 8, AROUND = 5 /* embedding, the first norm, the rows asked for, their norm, their product */ };

struct count {
    struct phx_emu *emu;
    int32_t         n_rows, n_layers;
    int64_t         n_launches;
};

static struct phx_emu *find_emulator(void)
{
    char    path[600];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) / 2);
    void   *module;

    assert_true(n > 0 && n < (ssize_t)sizeof(path) / 2);
    path[n] = '\0';
    memcpy(strrchr(path, '/') + 1, "phalanx_cuda.so", sizeof("phalanx_cuda.so"));
    module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (module == NULL)
        fail_msg("%s", dlerror());
    return dlsym(module, "phx_emu");
}

static int run_rank(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct count    *c = ctx;
    int32_t          row[ROWS_MAX], n_rows[ROWS_MAX], pos[ROWS_MAX], table[ROWS_MAX], V = rank->config->vocab_size, rc = 0;
    float           *logits = phx_mem_calloc((size_t)ROWS_MAX * (size_t)V, sizeof(*logits));
    struct phx_batch batch = {.n_rows = c->n_rows, .tokens = row, .n_logits = c->n_rows, .logit_rows = row,
                              .spans = {.n_seqs = c->n_rows, .row = row, .n_rows = n_rows, .pos = pos, .table = table,
                                        .table_stride = 1}};

    for (int32_t i = 0; i < c->n_rows; i++) {
        row[i] = table[i] = i;
        n_rows[i] = 1;
    }
    c->n_layers = rank->config->n_layers;
    for (int32_t k = 0; k < 2 && rc == 0; k++) { /* the first makes what is made once */
        int64_t before = c->emu->n_launches;

        for (int32_t i = 0; i < c->n_rows; i++)
            pos[i] = k;
        rc = phx_model_step(rank->model, &batch, phx_view(logits, c->n_rows, V), err);
        c->n_launches = c->emu->n_launches - before;
    }
    phx_mem_free(logits);
    return rc;
}

static void count_launches(const char *name, int32_t n_rows, int64_t most)
{
    struct golden            g = golden_load(name);
    struct phx_ranks_options o;
    struct phx_err           err = {0};
    struct count             c = {.emu = find_emulator(), .n_rows = n_rows};

    harness_backend = "cuda";
    harness_compute = PHX_COMPUTE_BF16;
    o = harness_options(&g, 1, 1);
    o.is_eager = true;
    o.kv_dtype = PHX_DTYPE_BF16;
    o.max_seqs = ROWS_MAX;
    o.n_blocks = ROWS_MAX;
    if (phx_ranks_run(&o, run_rank, &c, &err) != 0)
        fail_msg("%s: %s", name, err.text);
    print_message("%s, %d rows: %lld launches for %d layers\n", name, n_rows, (long long)c.n_launches, c.n_layers);
    if (c.n_launches > AROUND + most * c.n_layers)
        fail_msg("%s, %d rows: %lld launches, more than %lld a layer", name, n_rows, (long long)c.n_launches, (long long)most);
    golden_free(&g);
}

static void a_layer_launches_few(void **state)
{
    (void)state;
    for (int32_t rows = 1; rows <= ROWS_MAX; rows += ROWS_MAX - 1) {
        count_launches("gpt-oss-long-window-bf16", rows, 6);
        count_launches("gpt-oss-parameters-bf16", rows, 7); /* heads of 24, whose halves are no whole tiles */
        count_launches("llama3-tied-bf16", rows, 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layer_launches_few),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
