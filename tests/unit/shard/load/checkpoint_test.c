/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/buf.h"
#include "rpc/base/mem.h"
#include "shard/load/load.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    (void)strcpy(dir, "/tmp/phx-load-test-XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    DIR           *d = opendir(dir);
    struct dirent *entry;
    char           path[400];

    (void)state;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        (void)unlink(path);
    }
    if (d != NULL)
        (void)closedir(d);
    return rmdir(dir);
}

static void write_file(const char *name, const void *data, size_t size)
{
    char           path[400];
    struct phx_err err = {0};

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(phx_file_write(path, data, size, 0600, &err), 0);
}

/* A safetensors file of that header and n zero bytes of data (header_size < 0: the true one). */
static void write_tensors(const char *name, const char *header, int64_t header_size, size_t n)
{
    struct phx_buf b;
    uint64_t       size = header_size < 0 ? strlen(header) : (uint64_t)header_size;

    phx_buf_init(&b, 0);
    phx_buf_put(&b, &size, sizeof(size));
    phx_buf_puts(&b, header);
    for (size_t i = 0; i < n; i++)
        phx_buf_putc(&b, (char)i);
    write_file(name, b.data, b.size);
    phx_buf_fini(&b);
}

static void expect_refusal(int code, const char *text)
{
    struct phx_checkpoint *c;
    struct phx_err         err = {0};
    int                    rc = phx_checkpoint_open(dir, &c, &err);

    assert_null(c);
    if (rc != code || strstr(err.text, text) == NULL)
        print_error("got %d \"%s\"\nwanted %d \"%s\"\n", rc, err.text, code, text);
    assert_int_equal(rc, code);
    assert_non_null(strstr(err.text, text));
}

static const char two_tensors[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}   ";

static void test_tensors_are_found_with_shape_and_bytes(void **state)
{
    struct phx_checkpoint        *c;
    struct phx_err                err = {0};
    const struct phx_ckpt_tensor *t;

    (void)state;
    write_tensors("model.safetensors", two_tensors, -1, 28);
    assert_int_equal(phx_checkpoint_open(dir, &c, &err), 0);
    assert_int_equal(phx_checkpoint_count(c), 2);
    assert_int_equal(phx_checkpoint_bytes(c), 28);
    assert_int_equal(phx_checkpoint_files(c), 1);
    assert_string_equal(phx_checkpoint_file(c, 0), "model.safetensors");
    assert_string_equal(phx_checkpoint_at(c, 0)->name, "a"); /* sorted */
    t = phx_checkpoint_find(c, "b");
    assert_non_null(t);
    assert_int_equal(t->dtype, PHX_CKPT_F32);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], 3);
    assert_int_equal(t->size_bytes, 24);
    assert_int_equal(t->data[0], 4);
    assert_null(phx_checkpoint_find(c, "c"));
    phx_checkpoint_read(t, 0, 24);
    phx_checkpoint_drop(t, 0, 24);
    assert_int_equal(t->data[23], 27); /* dropped pages come back from the file */
    phx_checkpoint_close(c);
}

static void test_scalars_empty_tensors_and_every_dtype(void **state)
{
    static const struct {
        const char *name;
        int         bits;
    } all[] = {{"BOOL", 8}, {"F4", 4}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8}, {"I8", 8},
               {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
               {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},
               {"U32", 32}, {"F32", 32}, {"C64", 64}, {"F64", 64}, {"I64", 64}, {"U64", 64}};
    struct phx_checkpoint *c;
    struct phx_err         err = {0};
    char                   header[300];

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        int n = all[i].bits; /* 8 elements */

        (void)snprintf(header, sizeof(header),
                       "{\"x\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%d]},"
                       "\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[%d,%d]},"
                       "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%d,%d]}}",
                       all[i].name, n, n, n, n, n + 1);
        write_tensors("model.safetensors", header, -1, (size_t)n + 1);
        assert_int_equal(phx_checkpoint_open(dir, &c, &err), 0);
        assert_int_equal(phx_ckpt_dtype_bits(phx_checkpoint_find(c, "x")->dtype), all[i].bits);
        assert_string_equal(phx_ckpt_dtype_name(phx_checkpoint_find(c, "x")->dtype), all[i].name);
        assert_int_equal(phx_checkpoint_find(c, "s")->n_dims, 0);
        assert_int_equal(phx_checkpoint_find(c, "e")->size_bytes, 0);
        phx_checkpoint_close(c);
    }
}

/* header, bytes of data, code, words of the message */
static const struct {
    const char *header;
    size_t      n;
    int         code;
    const char *text;
} bad[] = {
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12, PHX_E_FORMAT,
     "4 bytes at the end belong to no tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, PHX_E_FORMAT,
     "tensor a: data_offsets 0 to 8 lie outside the 4 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, PHX_E_FORMAT,
     "tensor a has 8 bytes, its shape needs 12"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, PHX_E_FORMAT, "tensor a"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[0,6]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[6],\"data_offsets\":[2,8]}}", 8, PHX_E_FORMAT,
     "tensor b overlaps the one before it"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, PHX_E_FORMAT, "overlaps"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, PHX_E_FORMAT,
     "tensor b leaves a hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8, PHX_E_FORMAT, "hole"},
    {"{\"a\":{\"dtype\":\"X9\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, PHX_E_UNSUPPORTED,
     "tensor a has the unknown dtype \"X9\""},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, PHX_E_FORMAT,
     "tensor a does not fill whole bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     PHX_E_FORMAT, "tensor a: its shape overflows"},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
     PHX_E_FORMAT, "tensor a: its size overflows"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0,
     PHX_E_FORMAT, "number over 63 bits"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
     PHX_E_UNSUPPORTED, "more than 8 dimensions"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, PHX_E_FORMAT,
     "expected a whole number"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, PHX_E_FORMAT,
     "expected a whole number"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 0, PHX_E_FORMAT, "tensor a has no data_offsets"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", 1, PHX_E_FORMAT,
     "shape twice"},
    {"{\"ab\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\\u0062\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, PHX_E_FORMAT,
     "tensor ab is there twice"},
    {"[1]", 0, PHX_E_FORMAT, "must start with '{'"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}x", 1, PHX_E_FORMAT,
     "something behind"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}", 1, PHX_E_FORMAT, "expected '}'"},
    {"{\"a\\ud800\":{}}", 0, PHX_E_FORMAT, "lone surrogate"},
    {"{\"a\\u0000\":{}}", 0, PHX_E_FORMAT, "NUL"},
    {"{\"a\xff\":{}}", 0, PHX_E_FORMAT, "not valid UTF-8"},
    {"{\"a\":[]}", 0, PHX_E_FORMAT, "expected '{'"},
    {"{}", 0, PHX_E_FORMAT, "holds no tensors"},
    {"{}", 5, PHX_E_FORMAT, "data without tensors"},
    {"{\"__metadata__\":7}", 0, PHX_E_FORMAT, "__metadata__ must be an object"},
};

static void test_lies_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_tensors("model.safetensors", bad[i].header, -1, bad[i].n);
        expect_refusal(bad[i].code, bad[i].text);
    }
}

static void test_truncated_and_oversized_headers(void **state)
{
    (void)state;
    write_file("model.safetensors", "\1\2\3", 3);
    expect_refusal(PHX_E_FORMAT, "3 bytes are no safetensors file");
    write_file("model.safetensors", "", 0);
    expect_refusal(PHX_E_FORMAT, "is empty");
    write_tensors("model.safetensors", two_tensors, 5000, 28);
    expect_refusal(PHX_E_FORMAT, "model.safetensors: truncated: a header of 5000 bytes");
    write_tensors("model.safetensors", two_tensors, 100000001, 28);
    expect_refusal(PHX_E_TOOBIG, "limit 100000000");
    write_tensors("model.safetensors", two_tensors, INT64_MAX, 28);
    expect_refusal(PHX_E_TOOBIG, "limit 100000000");
}

static void test_every_truncation_of_a_header_is_refused(void **state)
{
    struct phx_checkpoint *c;
    struct phx_err         err = {0};

    (void)state;
    for (int64_t n = 0; n < (int64_t)strlen(two_tensors) - 3; n++) {
        write_tensors("model.safetensors", two_tensors, n, 28);
        assert_int_not_equal(phx_checkpoint_open(dir, &c, &err), 0);
        assert_null(c);
    }
}

static void test_json_of_depth_10000(void **state)
{
    struct phx_buf b;

    (void)state;
    phx_buf_init(&b, 0);
    phx_buf_puts(&b, "{\"a\":{\"x\":");
    for (int i = 0; i < 10000; i++)
        phx_buf_putc(&b, '[');
    write_tensors("model.safetensors", b.data, -1, 0);
    expect_refusal(PHX_E_FORMAT, "nested too deep");
    phx_buf_fini(&b);
}

static void write_shards(const char *index)
{
    write_tensors("m-1.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", -1, 2);
    write_tensors("m-2.safetensors", "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", -1, 3);
    write_file("model.safetensors.index.json", index, strlen(index));
}

static void test_shards_follow_the_index(void **state)
{
    struct phx_checkpoint *c;
    struct phx_err         err = {0};

    (void)state;
    write_shards("{\"metadata\":{\"total_size\":5,\"x\":1},\"weight_map\":"
                 "{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}}");
    assert_int_equal(phx_checkpoint_open(dir, &c, &err), 0);
    assert_int_equal(phx_checkpoint_files(c), 2);
    assert_int_equal(phx_checkpoint_bytes(c), 5);
    assert_string_equal(phx_checkpoint_file(c, phx_checkpoint_find(c, "b")->file), "m-2.safetensors");
    phx_checkpoint_close(c);
    write_shards("{\"weight_map\":{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}}");
    assert_int_equal(phx_checkpoint_open(dir, &c, &err), 0);
    phx_checkpoint_close(c);
}

static void test_a_lying_index_is_refused(void **state)
{
    static const char only_b[] = "{\"weight_map\":{\"b\":\"m-2.safetensors\"}}";
    static const struct {
        const char *index;
        int         code;
        const char *text;
    } cases[] = {
        {"{\"metadata\":{\"total_size\":6},\"weight_map\":{\"b\":\"m-2.safetensors\","
         "\"a\":\"m-1.safetensors\"}}", PHX_E_FORMAT, "total_size is 6, the tensors have 5 bytes"},
        {"{\"weight_map\":{\"b\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}}", PHX_E_FORMAT,
         "is not in"},
        {"{\"weight_map\":{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\","
         "\"c\":\"m-1.safetensors\"}}", PHX_E_FORMAT, "tensor c is not in m-1.safetensors"},
        {"{\"weight_map\":{\"b\":\"../m-2.safetensors\"}}", PHX_E_FORMAT, "not a plain file name"},
        {"{\"weight_map\":{\"b\":\"/etc/passwd\"}}", PHX_E_FORMAT, "not a plain file name"},
        {"{\"weight_map\":{\"b\":7}}", PHX_E_FORMAT, "not a plain file name"},
        {"{\"weight_map\":{\"b\":\"m-9.safetensors\"}}", PHX_E_NOTFOUND, "m-9.safetensors"},
        {"{\"weight_map\":{}}", PHX_E_FORMAT, "holds no tensors"},
        {"{\"weight_map\":[]}", PHX_E_INVALID, "weight_map"},
        {"{\"weight_map\":{\"b\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\"}}", PHX_E_FORMAT,
         "not valid JSON"},
        {"{", PHX_E_FORMAT, "not valid JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_shards(cases[i].index);
        expect_refusal(cases[i].code, cases[i].text);
    }
    write_tensors("m-2.safetensors",
                  "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                  "\"z\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", -1, 3);
    write_file("model.safetensors.index.json", only_b, strlen(only_b));
    expect_refusal(PHX_E_FORMAT, "does not name tensor z of m-2.safetensors");
}

static void test_a_tensor_in_two_shards_is_refused(void **state)
{
    (void)state;
    write_shards("{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
    write_tensors("m-2.safetensors",
                  "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                  "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}", -1, 3);
    expect_refusal(PHX_E_FORMAT, "tensor a is there twice, in m-1.safetensors and m-2.safetensors");
}

static void test_a_folder_without_a_checkpoint(void **state)
{
    char path[400];

    (void)state;
    expect_refusal(PHX_E_NOTFOUND, "model.safetensors");
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refusal(PHX_E_IO, "not a regular file");
    assert_int_equal(rmdir(path), 0);
}

static void test_golden_checkpoints_open(void **state)
{
    static const char *const names[] = {"gpt-oss-window-f32", "gpt-oss-long-window-bf16",
                                        "llama3-untied-f16"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct phx_checkpoint *c;
        struct phx_err         err = {0};
        char                  *path = phx_mem_printf("%s/tests/golden/%s", PHX_SOURCE_DIR, names[i]);

        assert_int_equal(phx_checkpoint_open(path, &c, &err), 0);
        assert_true(phx_checkpoint_count(c) > 20);
        phx_checkpoint_close(c);
        phx_mem_free(path);
    }
}

#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIR(test_tensors_are_found_with_shape_and_bytes),
        IN_DIR(test_scalars_empty_tensors_and_every_dtype),
        IN_DIR(test_lies_are_refused_by_name),
        IN_DIR(test_truncated_and_oversized_headers),
        IN_DIR(test_every_truncation_of_a_header_is_refused),
        IN_DIR(test_json_of_depth_10000),
        IN_DIR(test_shards_follow_the_index),
        IN_DIR(test_a_lying_index_is_refused),
        IN_DIR(test_a_tensor_in_two_shards_is_refused),
        IN_DIR(test_a_folder_without_a_checkpoint),
        cmocka_unit_test(test_golden_checkpoints_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
