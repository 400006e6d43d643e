/* SPDX-License-Identifier: Apache-2.0
 * Keys, envelopes and notes against published vectors; nothing changed is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "daemon/sign/sign.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static int start(void **state)
{
    struct phx_err err = {0};

    (void)state;
    return phx_sign_init(&err);
}

static struct phx_sign_key key_of(uint8_t number)
{
    struct phx_sign_key k;
    uint8_t             seed[32];

    memset(seed, number, sizeof(seed));
    phx_sign_key_from_seed(seed, &k);
    return k;
}

/* ---- Ed25519 --------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *test, const char *key)
{
    return json_string_value(json_object_get(test, key));
}

static void wycheproof_is_judged_as_published(void **state)
{
    json_t        *tests = NULL, *t;
    struct phx_err err = {0};
    size_t         i;
    int            n_valid = 0, n_invalid = 0;

    (void)state;
    assert_int_equal(phx_json_load(&tests, PHX_SOURCE_DIR "/tests/data/wycheproof/ed25519.json", 1 << 20, 0, &err),
                     0);
    json_array_foreach(tests, i, t) {
        uint8_t  key[32], sig[64];
        size_t   n = strlen(text_of(t, "msg")) / 2;
        uint8_t *msg = phx_mem_calloc(1, n + 1);
        bool     is_valid = strcmp(text_of(t, "result"), "valid") == 0, is_accepted;

        assert_int_equal(phx_hex_decode(key, 32, text_of(t, "key"), NULL), 0);
        assert_int_equal(phx_hex_decode(msg, n, text_of(t, "msg"), NULL), 0);
        is_accepted = phx_hex_decode(sig, 64, text_of(t, "sig"), NULL) == 0 && phx_sign_verify(key, msg, n, sig);
        assert_int_equal(is_accepted, is_valid);
        n_valid += is_valid;
        n_invalid += !is_valid;
        phx_mem_free(msg);
    }
    assert_int_equal(n_valid + n_invalid, json_array_size(tests));
    assert_true(n_valid > 50 && n_invalid > 50);
    json_decref(tests);
}

static void key_files_are_for_their_owner(void **state)
{
    char                dir[] = "/tmp/phx-sign-XXXXXX", path[64], id[PHX_KEY_ID_BYTES];
    struct phx_sign_key k = key_of(7), again;
    struct phx_err      err = {0};
    struct stat         st;
    uint8_t             public_key[32];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/key", dir);
    assert_int_equal(phx_sign_key_write(path, &k, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(phx_sign_key_read(path, &again, &err), 0);
    assert_memory_equal(&again, &k, sizeof(k));
    assert_int_equal(phx_sign_public_read(path, public_key, &err), PHX_E_FORMAT); /* the other kind */
    assert_int_equal(phx_sign_public_write(path, k.public_key, &err), 0);
    assert_int_equal(phx_sign_public_read(path, public_key, &err), 0);
    assert_memory_equal(public_key, k.public_key, 32);
    phx_sign_key_id(public_key, id);
    assert_int_equal(strlen(id), PHX_KEY_ID_BYTES - 1);
    assert_int_equal(phx_file_write(path, "phalanx-secret-key:ed25519:00", 29, 0600, &err), 0);
    assert_int_equal(phx_sign_key_read(path, &again, &err), PHX_E_FORMAT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- DSSE --------------------------------------------------------------------------------------------------- */

static int open_envelope(const char *text, size_t size, const struct phx_sign_key *k, int n, int threshold)
{
    uint8_t                 keys[4][32];
    struct phx_buf          payload;
    struct phx_dsse_signers signers;
    struct phx_err          err = {0};
    int                     rc;

    for (int i = 0; i < n; i++)
        memcpy(keys[i], k[i].public_key, 32);
    phx_buf_init(&payload, 0);
    rc = phx_dsse_open(text, size, 1 << 16, "application/x", (const uint8_t(*)[32])keys, (size_t)n, threshold, &payload,
                       &signers, &err);
    assert_true(rc != 0 || (payload.size == 5 && memcmp(payload.data, "hello", 5) == 0));
    assert_true(rc == 0 || payload.size == 0); /* nothing comes out unverified */
    phx_buf_fini(&payload);
    return rc;
}

/* protocol.md's own example: "DSSEv1 29 http://example.com/HelloWorld 11 hello world" is what is signed. */
static void what_is_signed_is_the_published_encoding(void **state)
{
    static const char   pae[] = "DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    struct phx_sign_key k = key_of(1);
    char               *text = phx_dsse_seal("http://example.com/HelloWorld", "hello world", 11, &k, 1);
    json_t             *root = NULL;
    struct phx_err      err = {0};
    uint8_t             sig[64];
    char                base64[89];

    (void)state;
    phx_sign_bytes(&k, pae, strlen(pae), sig);
    (void)sodium_bin2base64(base64, sizeof(base64), sig, sizeof(sig), sodium_base64_VARIANT_ORIGINAL);
    assert_int_equal(phx_json_parse(&root, text, strlen(text), 4096, 0, "envelope", &err), 0);
    assert_string_equal(text_of(root, "payload"), "aGVsbG8gd29ybGQ=");
    assert_string_equal(text_of(json_array_get(json_object_get(root, "signatures"), 0), "sig"), base64);
    json_decref(root);
    phx_mem_free(text);
}

static void thresholds_count_different_keys(void **state)
{
    struct phx_sign_key k[3] = {key_of(1), key_of(2), key_of(3)}, twice[2] = {k[0], k[0]};
    char               *one = phx_dsse_seal("application/x", "hello", 5, k, 1);
    char               *two = phx_dsse_seal("application/x", "hello", 5, k, 2);
    char               *same = phx_dsse_seal("application/x", "hello", 5, twice, 2);
    char               *other = phx_dsse_seal("application/y", "hello", 5, k, 2);

    (void)state;
    assert_int_equal(open_envelope(one, strlen(one), k, 3, 1), 0);
    assert_int_equal(open_envelope(one, strlen(one), k, 3, 2), PHX_E_LICENSE);
    assert_int_equal(open_envelope(two, strlen(two), k, 3, 2), 0);
    assert_int_equal(open_envelope(same, strlen(same), k, 3, 2), PHX_E_LICENSE);
    assert_int_equal(open_envelope(same, strlen(same), twice, 2, 2), 0); /* a caller's list that has it twice */
    assert_int_equal(open_envelope(two, strlen(two), k + 2, 1, 1), PHX_E_LICENSE);
    assert_int_equal(open_envelope(two, strlen(two), k, 3, 0), PHX_E_LICENSE);
    assert_int_equal(open_envelope(other, strlen(other), k, 3, 1), PHX_E_FORMAT);
    phx_mem_free(one);
    phx_mem_free(two);
    phx_mem_free(same);
    phx_mem_free(other);
}

static void no_changed_envelope_is_accepted(void **state)
{
    struct phx_sign_key k = key_of(1);
    char               *text = phx_dsse_seal("application/x", "hello", 5, &k, 1), *end, *id;
    size_t              size = strlen(text);

    (void)state;
    id = strstr(text, "\"keyid\":\"") + 9; /* a hint that nothing rests on */
    end = strchr(id, '"');
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ (1 << bit));
            if ((text + i < id || text + i >= end) && text[i] != '\n' && text[i] != ' ' && i + 1 < size)
                assert_int_not_equal(open_envelope(text, size, &k, 1, 1), 0);
            text[i] = (char)(text[i] ^ (1 << bit));
        }
    for (size_t n = 0; n + 1 < size; n++)
        assert_int_not_equal(open_envelope(text, n, &k, 1, 1), 0);
    phx_mem_free(text);
}

static void odd_envelopes_are_refused(void **state)
{
    static const char *const odd[] = {
        "{\"payloadType\":\"application/x\",\"payload\":\"aGVsbG8=\",\"signatures\":[]}",
        "{\"payloadType\":\"application/x\",\"payload\":\"aGVsbG8=\",\"payload\":\"aGVsbG8=\",\"signatures\":[]}",
        "{\"payloadType\":\"application/x\",\"payload\":\"aGVsbG9=\",\"signatures\":[]}", /* not canonical */
        "{\"payloadType\":\"application/x\",\"payload\":\"aGVs bG8=\",\"signatures\":[]}",
        "{\"payloadType\":\"application/x\",\"payload\":\"aGVsbG8=\",\"signatures\":[],\"more\":1}",
        "[]", "null", "",
    };
    struct phx_sign_key k = key_of(1);

    (void)state;
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        assert_int_not_equal(open_envelope(odd[i], strlen(odd[i]), &k, 1, 1), 0);
}

/* ---- notes ---------------------------------------------------------------------------------------------------- */

static const char VKEY[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
static const char NOTE[] =
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\xe2\x80\x94 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

/* The example of Go's note package, from which the specification comes. */
static void the_published_note_verifies(void **state)
{
    struct phx_note_verifier v;
    struct phx_buf           again;
    struct phx_err           err = {0};
    size_t                   n = 0;
    bool                     is_signed = false;

    (void)state;
    assert_int_equal(phx_note_vkey_parse(VKEY, &v, &err), 0);
    phx_buf_init(&again, 0);
    phx_note_vkey(v.name, v.public_key, &again);
    assert_string_equal(again.data, VKEY);
    phx_buf_fini(&again);
    assert_int_equal(phx_note_open(NOTE, strlen(NOTE), &v, 1, &is_signed, &n, &err), 0);
    assert_true(is_signed);
    assert_int_equal(n, strstr(NOTE, "\n\n") + 1 - NOTE);
}

static void no_changed_note_is_accepted(void **state)
{
    struct phx_note_verifier v;
    struct phx_err           err = {0};
    char                    *text = phx_mem_strdup(NOTE);
    size_t                   size = strlen(NOTE), n;
    bool                     is_signed;

    (void)state;
    assert_int_equal(phx_note_vkey_parse(VKEY, &v, &err), 0);
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ (1 << bit));
            if (phx_note_open(text, size, &v, 1, &is_signed, &n, &err) == 0)
                assert_false(is_signed); /* another name or hash: nobody that is known */
            text[i] = (char)(text[i] ^ (1 << bit));
        }
    for (size_t cut = 0; cut < size; cut++)
        if (phx_note_open(text, cut, &v, 1, &is_signed, &n, &err) == 0)
            assert_false(is_signed);
    phx_mem_free(text);
}

static void witnesses_add_lines(void **state)
{
    struct phx_sign_key      a = key_of(1), w = key_of(2);
    struct phx_note_verifier v[2];
    struct phx_buf           note, vkey;
    struct phx_err           err = {0};
    const char *const        names[2] = {"log", "witness"};
    const struct phx_sign_key *keys[2] = {&a, &w};
    size_t                   n;
    bool                     is_signed[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        phx_buf_init(&vkey, 0);
        phx_note_vkey(names[i], keys[i]->public_key, &vkey);
        assert_int_equal(phx_note_vkey_parse(vkey.data, &v[i], &err), 0);
        phx_buf_fini(&vkey);
    }
    phx_buf_init(&note, 0);
    assert_int_equal(phx_note_sign("text\n", "log", &a, &note, &err), 0);
    assert_int_equal(phx_note_open(note.data, note.size, v, 2, is_signed, &n, &err), 0);
    assert_true(is_signed[0] && !is_signed[1]);
    assert_int_equal(phx_note_cosign(&note, "witness", &w, &err), 0);
    assert_int_equal(phx_note_open(note.data, note.size, v, 2, is_signed, &n, &err), 0);
    assert_true(is_signed[0] && is_signed[1]);
    assert_int_equal(phx_note_cosign(&note, "a name", &w, &err), PHX_E_INVALID);
    phx_buf_fini(&note);
    phx_buf_init(&note, 0);
    assert_int_equal(phx_note_sign("no newline", "log", &a, &note, &err), PHX_E_FORMAT);
    assert_int_equal(phx_note_sign("bell\a\n", "log", &a, &note, &err), PHX_E_FORMAT);
    phx_buf_fini(&note);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wycheproof_is_judged_as_published),
        cmocka_unit_test(key_files_are_for_their_owner),
        cmocka_unit_test(what_is_signed_is_the_published_encoding),
        cmocka_unit_test(thresholds_count_different_keys),
        cmocka_unit_test(no_changed_envelope_is_accepted),
        cmocka_unit_test(odd_envelopes_are_refused),
        cmocka_unit_test(the_published_note_verifies),
        cmocka_unit_test(no_changed_note_is_accepted),
        cmocka_unit_test(witnesses_add_lines),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
