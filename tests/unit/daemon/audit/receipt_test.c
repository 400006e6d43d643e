/* SPDX-License-Identifier: Apache-2.0
 * A receipt is enough: record, proof and checkpoint fit, and the keys lead from the first to its signature. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/audit/logkey.h"
#include "log.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static void open_signed(const json_t *note, int64_t epoch, const uint8_t key[32], size_t *text_size)
{
    struct phx_note_verifier v;
    struct phx_err           err = {0};
    struct phx_buf           vkey;
    char                     name[128];
    bool                     is_signed = false;

    (void)snprintf(name, sizeof(name), LOG_ORIGIN "/%lld", (long long)epoch);
    phx_buf_init(&vkey, 1024);
    phx_note_vkey(name, key, &vkey);
    assert_int_equal(phx_note_vkey_parse(vkey.data, &v, &err), 0);
    phx_buf_fini(&vkey);
    assert_int_equal(phx_note_open(json_string_value(note), json_string_length(note), &v, 1, &is_signed, text_size,
                                   &err), 0);
    assert_true(is_signed);
}

static void read_trust(const struct log *l, uint8_t key[32])
{
    struct phx_err err = {0};
    char          *path = phx_mem_printf("%s/trust.json", l->dir);
    json_t        *root = NULL;
    const json_t  *first;

    assert_int_equal(phx_json_load(&root, path, 4096, 0, &err), 0);
    assert_string_equal(json_string_value(json_object_get(root, "origin")), LOG_ORIGIN);
    assert_int_equal(json_integer_value(json_object_get(root, "v")), 1);
    first = json_array_get(json_object_get(root, "keys"), 0);
    assert_int_equal(json_integer_value(json_object_get(first, "epoch")), 1);
    assert_int_equal(phx_hex_decode(key, 32, json_string_value(json_object_get(first, "public_key")), &err), 0);
    json_decref(root);
    phx_mem_free(path);
}

static void follow_keys(const json_t *keys, int64_t n_epochs, uint8_t key[32])
{
    assert_int_equal(json_array_size(keys), n_epochs);
    for (int64_t e = 1; e <= n_epochs; e++) {
        const json_t       *note = json_array_get(keys, (size_t)e - 1);
        struct phx_handover h;
        struct phx_err      err = {0};
        size_t              text_size = 0;

        open_signed(note, e > 1 ? e - 1 : 1, key, &text_size);
        assert_int_equal(phx_handover_parse(json_string_value(note), text_size, &h, &err), 0);
        assert_int_equal(h.epoch, e);
        if (e == 1)
            assert_memory_equal(h.public_key, key, 32);
        memcpy(key, h.public_key, 32);
        open_signed(note, e, key, &text_size);
    }
}

static void check_proof(const json_t *root, const struct phx_checkpoint *c, uint64_t index)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX], leaf;
    const json_t        *list = json_object_get(root, "proof"), *record = json_object_get(root, "record");
    int                  n = (int)json_array_size(list);
    struct phx_err       err = {0};
    char                 expected[128];

    for (int i = 0; i < n; i++)
        assert_int_equal(phx_hex_decode(proof[i].bytes, 32, json_string_value(json_array_get(list, (size_t)i)),
                                        &err), 0);
    (void)snprintf(expected, sizeof(expected), "{\"at_ns\":%llu,\"kind\":\"admin\",\"v\":1}",
                   (unsigned long long)index);
    assert_string_equal(json_string_value(record), expected);
    phx_tlog_leaf(json_string_value(record), json_string_length(record), &leaf);
    assert_true(phx_tlog_check_inclusion(index, c->size, &leaf, proof, n, &c->root));
    leaf.bytes[0] ^= 1;
    assert_false(phx_tlog_check_inclusion(index, c->size, &leaf, proof, n, &c->root));
}

static void check_receipt(const struct log *l, struct phx_tiles *t, uint64_t index, int64_t n_epochs)
{
    struct phx_buf        text;
    struct phx_err        err = {0};
    struct phx_checkpoint c;
    json_t               *root = NULL;
    uint8_t               key[32];
    size_t                text_size = 0;

    phx_buf_init(&text, 1 << 20);
    if (phx_receipt_format(t, index, &text, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(phx_json_parse(&root, text.data, text.size, 1 << 20, 0, "receipt", &err), 0);
    assert_int_equal(json_object_size(root), 7);
    assert_int_equal(json_integer_value(json_object_get(root, "index")), index);
    assert_int_equal(json_integer_value(json_object_get(root, "v")), 1);
    assert_string_equal(json_string_value(json_object_get(root, "origin")), LOG_ORIGIN);
    read_trust(l, key);
    follow_keys(json_object_get(root, "keys"), n_epochs, key);
    open_signed(json_object_get(root, "checkpoint"), n_epochs, key, &text_size);
    assert_int_equal(phx_checkpoint_parse(json_string_value(json_object_get(root, "checkpoint")), text_size, &c,
                                          &err), 0);
    assert_int_equal(c.size, l->frontier.size);
    check_proof(root, &c, index);
    json_decref(root);
    phx_buf_fini(&text);
}

static void test_receipts_verify(void **state)
{
    static const uint64_t sizes[] = {1, 2, 256, 257, 1000, 66000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct log        l;
        struct phx_tiles *t;
        struct phx_err    err = {0};
        int64_t           n_epochs = 1 + (int64_t)i % 3;

        log_make(&l);
        log_append(&l, sizes[i]);
        for (int64_t e = 0; e < n_epochs; e++) {
            log_open(&l);
            log_close(&l);
        }
        assert_int_equal(phx_tiles_open(l.dir, &t, &err), 0);
        for (uint64_t k = 0; k < sizes[i]; k += 1 + sizes[i] / 50)
            check_receipt(&l, t, k, n_epochs);
        check_receipt(&l, t, sizes[i] - 1, n_epochs);
        phx_tiles_close(t);
        log_remove(&l);
    }
}

static void test_refusals(void **state)
{
    struct log           l;
    struct phx_tiles    *t;
    struct phx_err       err = {0};
    struct phx_buf       text;
    struct phx_tlog_hash hash;

    (void)state;
    log_make(&l);
    assert_int_equal(phx_tiles_open(l.dir, &t, &err), PHX_E_NOTFOUND);
    log_append(&l, 600);
    log_open(&l);
    log_close(&l);
    assert_int_equal(phx_tiles_open(l.dir, &t, &err), 0);
    phx_buf_init(&text, 1 << 20);
    assert_int_equal(phx_receipt_format(t, 600, &text, &err), PHX_E_NOTFOUND);
    assert_int_equal(phx_tiles_read(t, 8, 2, &hash, &err), PHX_E_INVALID);
    assert_int_equal(phx_tiles_read(t, -1, 0, &hash, &err), PHX_E_INVALID);
    log_copy(&l, "audit/tile/0/001", "audit/tile/0/000"); /* whole, but another one */
    assert_int_equal(phx_receipt_format(t, 3, &text, &err), PHX_E_FORMAT);
    log_copy(&l, "audit/checkpoint", "audit/tile/0/000");
    assert_int_equal(phx_tiles_read(t, 0, 300, &hash, &err), 0);
    assert_int_equal(phx_receipt_format(t, 3, &text, &err), PHX_E_FORMAT);
    phx_buf_fini(&text);
    phx_tiles_close(t);
    log_remove(&l);
}

/* A folder that is read after it has grown: its partial tiles are wider, then full. */
static void test_reader_of_a_growing_folder(void **state)
{
    struct log l;

    (void)state;
    log_make(&l);
    log_append(&l, 300);
    log_open(&l);
    log_close(&l);
    for (int i = 0; i < 4; i++) {
        struct phx_tlog_frontier at_open = l.frontier;
        struct phx_tlog_hash     root, expected;
        struct phx_tiles        *t;
        struct phx_err           err = {0};
        struct phx_buf           record;

        assert_int_equal(phx_tiles_open(l.dir, &t, &err), 0);
        log_append(&l, 100);
        log_open(&l);
        log_close(&l);
        assert_int_equal(phx_tiles_size(t), at_open.size);
        assert_int_equal(phx_tlog_root(at_open.size, phx_tiles_read, t, &root, &err), 0);
        phx_tlog_frontier_root(&at_open, &expected);
        assert_memory_equal(&root, &expected, sizeof(root));
        phx_buf_init(&record, 65536);
        assert_int_equal(phx_tiles_entry(t, 299, &record, &err), 0);
        assert_string_equal(record.data, "{\"at_ns\":299,\"kind\":\"admin\",\"v\":1}");
        phx_buf_fini(&record);
        phx_tiles_close(t);
    }
    log_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receipts_verify),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_reader_of_a_growing_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
