/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint that is not exactly the model its config.json describes is refused, naming the tensor.
 * The files are edited in place of the same length, so that only the change under test is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/buf.h"
#include "rpc/base/mem.h"
#include "tests/model/harness.h"

static char scratch[] = "/tmp/phx-refusal-XXXXXX";

/* Copies a file of the golden case into the scratch folder with `from` replaced by `to` once. */
static void copy_edited(const char *name, const char *file, const char *from, const char *to)
{
    struct phx_err err;
    struct phx_buf b;
    char *source = phx_mem_printf("%s/tests/golden/%s/%s", PHX_SOURCE_DIR, name, file);
    char *target = phx_mem_printf("%s/%s", scratch, file);
    phx_buf_init(&b, 0);
    assert_int_equal(phx_buf_read_file(&b, source, 1 << 24, &err), 0);
    if (from != NULL) {
        char *at = memmem(b.data, b.size, from, strlen(from));
        assert_non_null(at);
        assert_int_equal(strlen(from), strlen(to));
        memcpy(at, to, strlen(to));
    }
    assert_int_equal(phx_file_write(target, b.data, b.size, 0600, &err), 0);
    phx_buf_fini(&b);
    phx_mem_free(source);
    phx_mem_free(target);
}

struct edit {
    const char *name, *file, *from, *to;
    const char *says; /* part of the message */
};

#define ST "model.safetensors"

static const struct edit edits[] = {
    {"gpt-oss-window-f32", ST, "layers.2.self_attn.sinks", "layers.2.self_attn.sinkz",
     "tensor model.layers.2.self_attn.sinks is missing"},
    {"gpt-oss-window-f32", ST, "layers.1.mlp.router.bias", "layers.1.mlp.router.bia_",
     "tensor model.layers.1.mlp.router.bias is missing"},
    {"gpt-oss-window-f32", ST, "layers.0.mlp.experts.down_proj_blocks\":{\"dtype\":\"U8\"",
     "layers.0.mlp.experts.down_proj_blocks\":{\"dtype\":\"I8\"", "stored as I8, not as U8"},
    {"llama-mha-f32", ST, "\"lm_head.weight\"", "\"lm_heat.weight\"",
     "lm_heat.weight is not part of a llama model"},
    {"llama-mha-f32", ST, "\"model.norm.weight\"", "\"model.morn.weight\"",
     "tensor model.norm.weight is missing"},
    {"llama-mha-f32", ST, "model.norm.weight\":{\"dtype\":\"F32\"",
     "model.norm.weight\":{\"dtype\":\"I32\"", "model.norm.weight is stored as I32"},
    {"llama-mha-f32", ST, "layers.3.mlp.up_proj.weight\":{\"dtype\":\"F32\",\"shape\":[128,32]",
     "layers.3.mlp.up_proj.weight\":{\"dtype\":\"F32\",\"shape\":[32,128]",
     "up_proj.weight has shape [32, 128], config.json asks for [128, 32]"},
    {"llama-mha-f32", "config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true ",
     "lm_head.weight differs from model.embed_tokens.weight"},
    {"llama-linear-bias-f32", "config.json", "\"attention_bias\": true", "\"attention_bias\":false",
     "self_attn.k_proj.bias is not part of a llama model of 2 layers"},
    {"llama-linear-bias-f32", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
     "is not part of a llama model of 1 layers"},
    {"llama-linear-bias-f32", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
     "model.layers.2.input_layernorm.weight is missing"},
};

static int never(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    (void)rank;
    (void)ctx;
    return phx_fail(err, PHX_E_STATE, "it was loaded");
}

static int load(const char *dir, struct phx_err *err)
{
    struct phx_ranks_options o;
    phx_ranks_defaults(&o);
    o.dir = dir;
    o.n_threads = 1;
    o.max_rows = o.max_seqs = o.max_logits = o.max_context = o.n_blocks = 1;
    return phx_ranks_run(&o, never, NULL, err);
}

static void a_checkpoint_that_is_not_the_model_is_refused_by_name(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(scratch));
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        const struct edit *e = &edits[i];
        bool               is_config = strcmp(e->file, ST) != 0;
        struct phx_err     err = {0};
        copy_edited(e->name, "config.json", is_config ? e->from : NULL, e->to);
        copy_edited(e->name, ST, is_config ? NULL : e->from, e->to);
        int code = load(scratch, &err);
        if (code == PHX_E_STATE || strstr(err.text, e->says) == NULL)
            fail_msg("edit %zu: \"%s\" does not say \"%s\"", i, err.text, e->says);
    }
    copy_edited("llama-mha-f32", "config.json", NULL, NULL);
    copy_edited("llama-mha-f32", ST, NULL, NULL);
    struct phx_err err = {0};
    assert_int_equal(load(scratch, &err), PHX_E_STATE); /* the unedited copy loads */
}

/* Where the bytes of a tensor begin and end in the file in memory. */
static void find_tensor(const struct phx_buf *b, const char *name, size_t *first, size_t *end)
{
    uint64_t header = 0;
    long     from = 0, to = 0;
    memcpy(&header, b->data, sizeof header);
    const char *at = memmem(b->data, b->size, name, strlen(name));
    assert_non_null(at);
    at = strstr(at, "data_offsets\":[");
    assert_int_equal(sscanf(at, "data_offsets\":[%ld,%ld", &from, &to), 2);
    *first = 8 + header + (size_t)from;
    *end = 8 + header + (size_t)to;
}

/* Exporters write a tied head twice: the second copy is accepted when it is one. */
static void a_tied_head_that_equals_the_embedding_is_accepted(void **state)
{
    struct phx_err err = {0};
    struct phx_buf b;
    char          *path = phx_mem_printf("%s/%s", scratch, ST);
    size_t         head, head_end, table, table_end;
    (void)state;
    copy_edited("llama-mha-f32", "config.json", "\"tie_word_embeddings\": false",
                "\"tie_word_embeddings\": true ");
    copy_edited("llama-mha-f32", ST, NULL, NULL);
    phx_buf_init(&b, 0);
    assert_int_equal(phx_buf_read_file(&b, path, 1 << 24, &err), 0);
    find_tensor(&b, "lm_head.weight", &head, &head_end);
    find_tensor(&b, "model.embed_tokens.weight", &table, &table_end);
    assert_int_equal(head_end - head, table_end - table);
    memcpy(b.data + head, b.data + table, head_end - head);
    assert_int_equal(phx_file_write(path, b.data, b.size, 0600, &err), 0);
    assert_int_equal(load(scratch, &err), PHX_E_STATE);
    phx_buf_fini(&b);
    phx_mem_free(path);
}

/* A scale byte of 255 is a NaN for 32 weights. */
static void a_nan_scale_is_refused_by_name(void **state)
{
    struct phx_err err = {0};
    struct phx_buf b;
    char          *path = phx_mem_printf("%s/%s", scratch, ST);
    size_t         first, end;
    (void)state;
    copy_edited("gpt-oss-window-f32", "config.json", NULL, NULL);
    copy_edited("gpt-oss-window-f32", ST, NULL, NULL);
    phx_buf_init(&b, 0);
    assert_int_equal(phx_buf_read_file(&b, path, 1 << 24, &err), 0);
    find_tensor(&b, "layers.3.mlp.experts.down_proj_scales", &first, &end);
    b.data[first + 5] = (char)255;
    assert_int_equal(phx_file_write(path, b.data, b.size, 0600, &err), 0);
    assert_int_equal(load(scratch, &err), PHX_E_FORMAT);
    assert_non_null(strstr(err.text, "model.layers.3.mlp.experts.down_proj_scales: expert 0"));
    phx_buf_fini(&b);
    phx_mem_free(path);
}

static int clean_up(void **state)
{
    (void)state;
    const char *const files[] = {"config.json", ST};
    for (size_t i = 0; i < 2; i++) {
        char *path = phx_mem_printf("%s/%s", scratch, files[i]);
        (void)unlink(path);
        phx_mem_free(path);
    }
    return rmdir(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_that_is_not_the_model_is_refused_by_name),
        cmocka_unit_test(a_tied_head_that_equals_the_embedding_is_accepted),
        cmocka_unit_test(a_nan_scale_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
