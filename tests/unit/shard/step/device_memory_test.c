/* SPDX-License-Identifier: Apache-2.0
 * The memory plan of a device beside what is really taken, on the emulated device with the sizes of a real one: published
 * layer shapes in every dtype, class and layout.  Checkpoints are holes in a file: memory does not ask for values. */
#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/step/device.h"
#include "shard/tool/ranks.h"
#include "shard/tool/synth.h"
#include "tests/emu/control.h"

#define GB 1e9

static struct phx_emu *emu;
static int64_t         open_bytes; /* what an open backend holds before it is asked for anything */

static int64_t used_bytes(void)
{
    return (int64_t)emu->used_bytes;
}

static struct phx_backend *open_backend(enum phx_compute compute)
{
    struct phx_backend_options options = {.compute = compute};
    char                       why[240] = "";
    struct phx_backend        *b = phx_backend_open("cuda", &options, why, sizeof(why));

    if (b == NULL)
        fail_msg("%s", why);
    return b;
}

static int find_emulator(void **state)
{
    void *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    if (module == NULL)
        fail_msg("%s", dlerror());
    emu = dlsym(module, "phx_emu");
    assert_non_null(emu);
    return 0;
}

/* The sizes that kernels/cuda has without an emulator. */
static int start(void **state)
{
    struct phx_backend *b;

    (void)state;
    emu->reset();
    emu->memory_bytes = (size_t)80 << 30;
    emu->share_below = (size_t)4 << 20;
    emu->landing_bytes = (size_t)16 << 20;
    emu->top_bytes = (size_t)8 << 20;
    emu->pieces_bytes = (size_t)64 << 20;
    emu->page_bytes = (size_t)2 << 20;
    b = open_backend(PHX_COMPUTE_BF16);
    open_bytes = used_bytes();
    phx_backend_close(b);
    assert_int_equal(used_bytes(), 0);
    return 0;
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(used_bytes(), 0);
    emu->reset();
    return 0;
}

/* ---- a checkpoint without contents ------------------------------------------------------------ */

struct shape {
    const char     *preset, *dtype; /* of the dense weights: NULL = bfloat16 */
    int32_t         n_layers, n_experts, vocab_size;
    enum phx_compute compute;
    bool            is_int8, is_fast;
    int32_t         tp, max_rows, n_blocks;
    bool            is_i8_cache;
};

static json_t *config_of(const struct shape *s)
{
    json_error_t error;
    json_t      *config = json_loads(phx_synth_preset(s->preset), 0, &error);

    assert_non_null(config);
    if (s->n_layers > 0)
        assert_int_equal(json_object_set_new(config, "num_hidden_layers", json_integer(s->n_layers)), 0);
    if (s->n_experts > 0)
        assert_int_equal(json_object_set_new(config, "num_local_experts", json_integer(s->n_experts)), 0);
    if (s->n_experts > 0 && s->n_experts < 4) {
        assert_int_equal(json_object_set_new(config, "num_experts_per_tok", json_integer(s->n_experts)), 0);
        assert_int_equal(json_object_set_new(config, "experts_per_token", json_integer(s->n_experts)), 0);
    }
    if (s->vocab_size > 0) {
        assert_int_equal(json_object_set_new(config, "vocab_size", json_integer(s->vocab_size)), 0);
        assert_int_equal(json_object_set_new(config, "eos_token_id", json_integer(1)), 0);
        assert_int_equal(json_object_set_new(config, "bos_token_id", json_integer(0)), 0);
        assert_int_equal(json_object_set_new(config, "pad_token_id", json_integer(2)), 0);
    }
    if (s->dtype != NULL)
        assert_int_equal(json_object_set_new(config, "torch_dtype", json_string(s->dtype)), 0);
    return config;
}

static void write_header(int fd, const struct phx_synth_layout *l, uint64_t *size_bytes)
{
    static const char *const names[] = {"", "U8", "BF16", "F16", "F32"};
    struct phx_buf b;
    uint64_t       size = 0;

    phx_buf_init(&b, 0);
    phx_buf_put(&b, &size, sizeof(size));
    phx_buf_puts(&b, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int32_t i = 0; i < l->n; i++) {
        const struct phx_synth_tensor *t = &l->tensors[i];

        phx_buf_printf(&b, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, names[t->type]);
        for (int32_t d = 0; d < t->n_dims; d++)
            phx_buf_printf(&b, "%s%lld", d > 0 ? "," : "", (long long)t->dim[d]);
        phx_buf_printf(&b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->begin,
                       (unsigned long long)(t->begin + t->size_bytes));
    }
    phx_buf_putc(&b, '}');
    while (b.size % 8 != 0)
        phx_buf_putc(&b, ' ');
    size = b.size - sizeof(size);
    memcpy(b.data, &size, sizeof(size));
    assert_int_equal(write(fd, b.data, b.size), (ssize_t)b.size);
    *size_bytes = b.size;
    phx_buf_fini(&b);
}

static void make_checkpoint(const struct shape *s, char dir[64])
{
    json_t                 *config = config_of(s);
    struct phx_synth_layout layout;
    struct phx_err          err = {0};
    uint64_t                header;
    char                   *path, *text = json_dumps(config, 0);
    int                     fd;

    (void)snprintf(dir, 64, "/tmp/phx-memory-XXXXXX");
    assert_non_null(mkdtemp(dir));
    path = phx_mem_printf("%s/config.json", dir);
    assert_int_equal(phx_file_write(path, text, strlen(text), 0644, &err), 0);
    phx_mem_free(path);
    if (phx_synth_layout_make(config, UINT64_MAX, &layout, &err) != 0)
        fail_msg("%s", err.text);
    path = phx_mem_printf("%s/model.safetensors", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    write_header(fd, &layout, &header);
    assert_int_equal(ftruncate(fd, (off_t)(header + layout.total_bytes)), 0);
    assert_int_equal(close(fd), 0);
    phx_mem_free(path);
    phx_synth_layout_fini(&layout);
    json_decref(config);
    free(text);
}

static void remove_checkpoint(const char *dir)
{
    static const char *const files[] = {"config.json", "model.safetensors"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char *path = phx_mem_printf("%s/%s", dir, files[i]);

        assert_int_equal(unlink(path), 0);
        phx_mem_free(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

/* ---- the plan beside the truth ---------------------------------------------------------------- */

struct outcome {
    int64_t planned, used, tensors;
};

/* One sequence from its beginning, all rows of it. */
static int step(struct phx_rank *rank, int32_t n_rows, struct phx_err *err)
{
    int32_t  block_tokens = rank->options->block_tokens, n_blocks = (n_rows - 1) / block_tokens + 1, V = rank->config->vocab_size;
    int32_t *tokens = phx_mem_calloc((size_t)n_rows, sizeof(*tokens)), *table = phx_mem_calloc((size_t)n_blocks, sizeof(*table));
    int32_t  row = 0, pos = 0, last = n_rows - 1;
    float   *logits = rank->has_logits ? phx_mem_calloc((size_t)V, sizeof(*logits)) : NULL;
    const struct phx_logits_want want = {.n_best = 20, .n_draws = 2, .draws = {{0.5f, 0.25}, {1.0f, 0}}};
    struct phx_logits_got        got;
    const struct phx_batch batch = {.n_rows = n_rows, .tokens = tokens, .spans = {1, &row, &n_rows, &pos, table, n_blocks},
                                    .n_logits = 1, .logit_rows = &last, .wants = &want, .got = &got};
    int rc;

    for (int32_t i = 0; i < n_rows; i++)
        tokens[i] = i * 7 % V;
    for (int32_t i = 0; i < n_blocks; i++)
        table[i] = i;
    rc = phx_model_step(rank->model, &batch, phx_view(logits, 1, V), err);
    phx_mem_free(tokens);
    phx_mem_free(table);
    phx_mem_free(logits);
    return rc;
}

/* Steps of every size take nothing of the device, the first ones neither. */
static int run_steps(struct phx_rank *rank, struct phx_err *err)
{
    int64_t before = emu->n_mallocs;
    int     rc = phx_rank_agree(rank->comm, 0, err);

    for (int32_t n = rank->options->max_rows; n > 0 && rc == 0; n /= 4)
        rc = step(rank, n, err);
    if (rc == 0)
        rc = phx_rank_agree(rank->comm, rc, err);
    if (rc == 0 && emu->n_mallocs != before)
        rc = phx_fail(err, PHX_E_STATE, "steps took device memory %lld times", (long long)(emu->n_mallocs - before));
    return rc;
}

/* Of all ranks together: they share the emulated device. */
static int compare(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    const struct phx_ranks_options    *o = rank->options;
    const struct phx_partition_request request = {
        .backend = rank->backend, .config = rank->config, .tp = o->tp, .pp = o->pp, .block_tokens = o->block_tokens,
        .kv_dtype = o->kv_dtype, .max_step_rows = o->max_rows, .max_seqs = o->max_seqs, .max_logits = o->max_logits,
        .max_context = o->max_context};
    struct phx_part *parts = phx_mem_calloc((size_t)o->tp * (size_t)o->pp, sizeof(*parts));
    struct outcome  *out = ctx;
    int              rc = phx_partition(&request, parts, err);

    if (rank->part->rank == 0)
        for (int32_t i = 0; i < o->tp * o->pp && rc == 0; i++) {
            out->tensors += (int64_t)(parts[i].weights_bytes + parts[i].scratch_bytes) +
                            (int64_t)parts[i].kv_bytes_per_block * o->n_blocks;
            out->planned += (int64_t)phx_part_device_bytes(&request, &parts[i], o->n_blocks);
        }
    rc = phx_rank_agree(rank->comm, rc, err); /* all have loaded, none has closed */
    if (rank->part->rank == 0)
        out->used = used_bytes() - open_bytes * o->tp * o->pp;
    phx_mem_free(parts);
    if (rc == 0)
        rc = phx_rank_agree(rank->comm, rc, err);
    return rc == 0 && rank->config->dim <= 64 ? run_steps(rank, err) : rc;
}

static void check_shape(const struct shape *s)
{
    struct phx_ranks_options o;
    struct outcome           out = {0};
    struct phx_err           err = {0};
    char                     dir[64];
    double                   off;

    make_checkpoint(s, dir);
    phx_ranks_defaults(&o);
    o.dir = dir;
    o.backend = "cuda";
    o.compute = s->compute;
    o.is_fast = s->is_fast;
    o.is_int8 = s->is_int8;
    o.tp = s->tp;
    o.pp = 1;
    o.comm = PHX_RANKS_LOCAL;
    o.transport = PHX_TRANSPORT_HOST;
    o.kv_dtype = s->is_i8_cache ? PHX_DTYPE_I8 : s->compute == PHX_COMPUTE_BF16 ? PHX_DTYPE_BF16 : PHX_DTYPE_F32;
    o.max_rows = s->max_rows;
    o.max_seqs = o.max_logits = 8;
    o.max_context = 1024;
    o.n_blocks = s->n_blocks;
    if (phx_ranks_run(&o, compare, &out, &err) != 0)
        fail_msg("%s: %s", s->preset, err.text);
    remove_checkpoint(dir);
    off = fabs((double)(out.planned - out.used)) / (double)out.used;
    print_message("%-13s %-8s tp %d, %s%s: planned %8.1f MB, used %8.1f MB, off by %.3f %% (tensors alone %.1f MB)\n",
                  s->preset, s->is_int8 ? "int8" : s->dtype != NULL ? s->dtype : "bf16", s->tp,
                  s->compute == PHX_COMPUTE_BF16 ? "bf16" : "f32", s->is_fast ? ", fast" : "", (double)out.planned / 1e6,
                  (double)out.used / 1e6, 100 * off, (double)out.tensors / 1e6);
    assert_true(out.planned >= out.tensors);
    if (!(off < 0.02))
        fail_msg("%s: the plan is off by %.2f %%", s->preset, 100 * off);
}

static void the_plan_is_what_is_taken(void **state)
{
    static const struct shape shapes[] = {
        {"gpt-oss-20b", NULL, 1, 2, 512, PHX_COMPUTE_BF16, false, false, 1, 256, 64},
        {"gpt-oss-120b", NULL, 1, 4, 512, PHX_COMPUTE_BF16, false, true, 1, 512, 64},
        {"gpt-oss-20b", NULL, 1, 2, 512, PHX_COMPUTE_BF16, false, false, 2, 64, 64},
        {"gpt-oss-20b", NULL, 1, 2, 512, PHX_COMPUTE_F32, false, false, 1, 64, 64},
        {"gpt-oss-20b", NULL, 1, 2, 512, PHX_COMPUTE_BF16, true, false, 1, 64, 64},
        {"llama-3.2-1b", NULL, 1, 0, 512, PHX_COMPUTE_BF16, false, false, 1, 2048, 128},
        {"llama-3.2-1b", NULL, 1, 0, 512, PHX_COMPUTE_BF16, false, true, 2, 2048, 128},
        {"llama-3.2-1b", "float32", 1, 0, 512, PHX_COMPUTE_F32, false, false, 1, 128, 128},
        {"llama-3.2-1b", NULL, 1, 0, 512, PHX_COMPUTE_BF16, true, false, 2, 128, 128},
        {"tiny-gpt-oss", NULL, 0, 0, 0, PHX_COMPUTE_BF16, false, false, 1, 256, 64},
        {"tiny-gpt-oss", NULL, 0, 0, 0, PHX_COMPUTE_F32, false, false, 2, 256, 64},
        {"tiny-gpt-oss", NULL, 0, 0, 0, PHX_COMPUTE_BF16, false, false, 2, 256, 64, true},
        {"llama-3.2-1b", NULL, 1, 0, 512, PHX_COMPUTE_BF16, false, false, 2, 128, 2048, true},
        {"tiny-gpt-oss", NULL, 0, 0, 0, PHX_COMPUTE_BF16, true, true, 2, 16, 700},
        {"tiny-llama", NULL, 0, 0, 0, PHX_COMPUTE_BF16, false, true, 1, 520, 64},
        {"tiny-llama", "float32", 0, 0, 0, PHX_COMPUTE_F32, false, false, 2, 256, 64},
        {"tiny-llama", NULL, 0, 0, 0, PHX_COMPUTE_BF16, true, false, 1, 256, 64},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_shape(&shapes[i]);
}

/* ---- published models on published cards ------------------------------------------------------ */

/* Sequences of n_tokens that a card holds besides the whole model. */
static int64_t count_sequences(const char *preset, double card_bytes, int32_t n_tokens, struct phx_part *part)
{
    struct shape            shape = {.preset = preset};
    json_t                 *json = config_of(&shape);
    char                   *text = json_dumps(json, 0);
    struct phx_model_config config;
    struct phx_device_facts facts;
    struct phx_err          err = {0};
    struct phx_backend     *b;
    int64_t                 n;

    emu->memory_bytes = (size_t)card_bytes;
    b = open_backend(PHX_COMPUTE_BF16);
    if (phx_model_config_parse(text, strlen(text), &config, &err) != 0)
        fail_msg("%s", err.text);
    const struct phx_partition_request request = {
        .backend = b, .config = &config, .tp = 1, .pp = 1, .block_tokens = 16, .kv_dtype = PHX_DTYPE_BF16,
        .max_step_rows = 4096, .max_seqs = 256, .max_logits = 256, .max_context = 16384};

    if (phx_partition(&request, part, &err) != 0)
        fail_msg("%s", err.text);
    phx_backend_facts(b, &facts);
    n = phx_device_blocks(part, phx_device_room(&facts, 1));
    print_message("%s on %.0f GB: weights %.2f GB, scratch %.2f GB, backend %.2f GB, %lld blocks of %.2f MB\n", preset,
                  card_bytes / GB, (double)part->weights_bytes / GB, (double)part->scratch_bytes / GB,
                  (double)part->overhead_bytes / GB, (long long)n, (double)part->kv_bytes_per_block / 1e6);
    assert_int_equal(phx_device_check(part, n, &facts, 1, &err), n > 0 ? 0 : PHX_E_NOMEM);
    assert_int_equal(phx_device_check(part, n + 1, &facts, 1, &err), PHX_E_NOMEM);
    phx_backend_close(b);
    json_decref(json);
    free(text);
    return n * 16 / n_tokens;
}

static void published_models_fit_published_cards(void **state)
{
    struct phx_part part;

    (void)state;
    assert_true(count_sequences("gpt-oss-120b", 141 * GB, 8192, &part) >= 64);
    assert_in_range(part.weights_bytes, (uint64_t)(63 * GB), (uint64_t)(67 * GB));
    assert_true(part.overhead_bytes < (uint64_t)(1 * GB));
    assert_true(count_sequences("gpt-oss-120b", 80 * GB, 8192, &part) >= 8);
    assert_int_equal(count_sequences("gpt-oss-120b", 64 * GB, 8192, &part), 0);
    assert_true(count_sequences("gpt-oss-20b", 80 * GB, 8192, &part) >= 64);
    assert_in_range(part.weights_bytes, (uint64_t)(13 * GB), (uint64_t)(14.5 * GB));
    assert_true(count_sequences("gpt-oss-20b", 16 * GB, 8192, &part) < 8);
    assert_true(count_sequences("llama-3.1-8b", 24 * GB, 8192, &part) >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_plan_is_what_is_taken, start, finish),
        cmocka_unit_test_setup_teardown(published_models_fit_published_cards, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
