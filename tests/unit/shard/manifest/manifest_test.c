/* SPDX-License-Identifier: Apache-2.0
 * Signed manifests: a round trip, everything that makes a folder another model, and the reference
 * implementation's signature. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "rpc/base/buf.h"
#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"

#define REFERENCE PHX_SOURCE_DIR "/tests/data/model-signing"

struct folder {
    char root[64], dir[80], secret[96], public_key[96], other[96];
};

static void write_text(const struct folder *f, const char *name, const char *text)
{
    char          *path = phx_mem_printf("%s/%s", f->dir, name);
    struct phx_err err = {0};

    assert_int_equal(phx_file_write(path, text, strlen(text), 0644, &err), 0);
    phx_mem_free(path);
}

static void make_key(const char *curve, const char *secret, const char *public_key)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "EC", curve);
    FILE     *s = fopen(secret, "w"), *p = fopen(public_key, "w");

    assert_non_null(key);
    assert_int_equal(PEM_write_PrivateKey(s, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(PEM_write_PUBKEY(p, key), 1);
    assert_int_equal(fclose(s), 0);
    assert_int_equal(fclose(p), 0);
    EVP_PKEY_free(key);
}

static void make_folder(struct folder *f, const char *curve)
{
    char other_secret[128];

    memset(f, 0, sizeof(*f));
    (void)snprintf(f->root, sizeof(f->root), "/tmp/phx-manifest-XXXXXX");
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->dir, sizeof(f->dir), "%s/model", f->root);
    (void)snprintf(f->secret, sizeof(f->secret), "%s/secret.pem", f->root);
    (void)snprintf(f->public_key, sizeof(f->public_key), "%s/public.pem", f->root);
    (void)snprintf(f->other, sizeof(f->other), "%s/other.pem", f->root);
    (void)snprintf(other_secret, sizeof(other_secret), "%s/other-secret.pem", f->root);
    assert_int_equal(mkdir(f->dir, 0700), 0);
    make_key(curve, f->secret, f->public_key);
    make_key(curve, other_secret, f->other);
    write_text(f, "config.json", "{}");
    write_text(f, "model.safetensors", "weights of the model");
    write_text(f, "notes.txt", "hello");
}

static void remove_folder(const struct folder *f)
{
    char *command = phx_mem_printf("rm -rf %s", f->root);

    assert_int_equal(system(command), 0);
    phx_mem_free(command);
}

static void sign(const struct folder *f, char root[PHX_MANIFEST_ROOT_BYTES])
{
    struct phx_err err = {0};

    assert_int_equal(phx_manifest_sign(f->dir, "m", f->secret, "", NULL, NULL, root, &err), 0);
}

/* Opens with a key and checks everything; the code, and the text in *err. */
static int check(const struct folder *f, const char *key, struct phx_err *err)
{
    struct phx_manifest *m = NULL;
    int                  rc = phx_manifest_open(f->dir, key, &m, err);

    if (rc == 0)
        rc = phx_manifest_check(m, f->dir, 0, 1, NULL, NULL, err);
    phx_manifest_close(m);
    return rc;
}

static void what_was_signed_checks_on_every_curve(void **state)
{
    static const char *const curves[] = {"P-256", "P-384", "P-521"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct folder             f;
        struct phx_manifest      *m;
        struct phx_manifest_facts facts;
        struct phx_err            err = {0};
        char                      root[PHX_MANIFEST_ROOT_BYTES];

        make_folder(&f, curves[i]);
        sign(&f, root);
        assert_int_equal(check(&f, f.public_key, &err), 0);
        assert_int_equal(check(&f, "", &err), 0);
        assert_int_equal(phx_manifest_open(f.dir, f.public_key, &m, &err), 0);
        phx_manifest_facts(m, &facts);
        assert_true(facts.is_verified);
        assert_string_equal(facts.root, root);
        assert_string_equal(facts.model_name, "m");
        assert_int_equal(facts.n_files, 3);
        phx_manifest_close(m);
        assert_int_equal(check(&f, f.other, &err), PHX_E_DENIED);
        assert_non_null(strstr(err.text, "another key"));
        remove_folder(&f);
    }
}

static void each_change_is_named(void **state)
{
    static const struct {
        const char *name, *text, *said; /* text NULL: the file is removed */
    } changes[] = {
        {"config.json", "{ }", "config.json"},                          /* size */
        {"model.safetensors", "weights of the_model", "other content"}, /* same size */
        {"notes.txt", NULL, "notes.txt"},
        {"generation_config.json", "{}", "is not in the manifest"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct folder  f;
        struct phx_err err = {0};
        char           root[PHX_MANIFEST_ROOT_BYTES], *path;

        make_folder(&f, "P-256");
        sign(&f, root);
        path = phx_mem_printf("%s/%s", f.dir, changes[i].name);
        if (changes[i].text != NULL)
            write_text(&f, changes[i].name, changes[i].text);
        else
            assert_int_equal(unlink(path), 0);
        assert_int_equal(check(&f, f.public_key, &err), PHX_E_DENIED);
        assert_non_null(strstr(err.text, changes[i].said));
        phx_mem_free(path);
        remove_folder(&f);
    }
}

static void every_part_together_reads_all_bytes(void **state)
{
    struct folder        f;
    struct phx_manifest *m;
    struct phx_err       err = {0};
    char                 root[PHX_MANIFEST_ROOT_BYTES];
    int                  n_found = 0;

    (void)state;
    make_folder(&f, "P-256");
    sign(&f, root);
    write_text(&f, "notes.txt", "hellO"); /* the same size */
    assert_int_equal(phx_manifest_open(f.dir, f.public_key, &m, &err), 0);
    for (int part = 0; part < 4; part++)
        n_found += phx_manifest_check(m, f.dir, part, 4, NULL, NULL, &err) == PHX_E_DENIED;
    assert_int_equal(n_found, 1); /* one rank has the piece */
    phx_manifest_close(m);
    remove_folder(&f);
}

static void every_flipped_bit_of_the_signature_file_is_refused(void **state)
{
    struct folder  f;
    struct phx_buf text = {0};
    struct phx_err err = {0};
    char           root[PHX_MANIFEST_ROOT_BYTES], *path;
    size_t         from;

    (void)state;
    make_folder(&f, "P-256");
    sign(&f, root);
    path = phx_mem_printf("%s/" PHX_MANIFEST_FILE, f.dir);
    assert_int_equal(phx_buf_read_file(&text, path, 1 << 20, &err), 0);
    from = (size_t)(strstr(text.data, "\"payload\":") - text.data) + 11;
    for (size_t i = from; i < text.size; i += 7) { /* payload, type and signature */
        size_t at = i;

        text.data[at] ^= 1;
        assert_int_equal(phx_file_write(path, text.data, text.size, 0644, &err), 0);
        if (check(&f, f.public_key, &err) == 0) /* outside of what is signed: "keyid" and its like */
            assert_true(at > (size_t)(strstr(text.data, "\"sig\":\"") - text.data) + 80);
        text.data[at] ^= 1;
    }
    phx_buf_fini(&text);
    phx_mem_free(path);
    remove_folder(&f);
}

static void a_derived_model_carries_its_papers(void **state)
{
    static const char parent[] = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct folder             f;
    struct phx_manifest      *m;
    struct phx_manifest_facts facts;
    struct phx_err            err = {0};
    char                      root[PHX_MANIFEST_ROOT_BYTES];

    (void)state;
    make_folder(&f, "P-256");
    assert_int_equal(phx_manifest_sign(f.dir, "m", f.secret, parent, NULL, NULL, root, &err), PHX_E_DENIED);
    write_text(&f, "LICENSE", "terms");
    assert_int_equal(phx_manifest_sign(f.dir, "m", f.secret, parent, NULL, NULL, root, &err), PHX_E_DENIED);
    write_text(&f, "NOTICE", "names");
    assert_int_equal(phx_manifest_sign(f.dir, "m", f.secret, parent, NULL, NULL, root, &err), 0);
    assert_int_equal(phx_manifest_open(f.dir, f.public_key, &m, &err), 0);
    phx_manifest_facts(m, &facts);
    assert_string_equal(facts.parent, parent);
    phx_manifest_close(m);
    assert_int_equal(check(&f, f.public_key, &err), 0);
    assert_int_equal(phx_manifest_sign(f.dir, "m", f.secret, "sha256:12", NULL, NULL, root, &err), PHX_E_INVALID);
    remove_folder(&f);
}

static void the_reference_implementations_signature_is_read(void **state)
{
    struct phx_manifest      *m;
    struct phx_manifest_facts facts;
    struct phx_err            err = {0};

    (void)state;
    assert_int_equal(phx_manifest_open(REFERENCE "/model", REFERENCE "/public.pem", &m, &err), 0);
    phx_manifest_facts(m, &facts);
    assert_true(facts.is_verified);
    assert_int_equal(facts.n_files, 3);
    assert_int_equal(phx_manifest_check(m, REFERENCE "/model", 0, 1, NULL, NULL, &err), 0);
    phx_manifest_close(m);
}

static void a_folder_without_a_manifest_is_told_apart(void **state)
{
    struct folder        f;
    struct phx_manifest *m;
    struct phx_err       err = {0};

    (void)state;
    make_folder(&f, "P-256");
    assert_int_equal(phx_manifest_open(f.dir, "", &m, &err), PHX_E_NOTFOUND);
    assert_null(m);
    write_text(&f, PHX_MANIFEST_FILE, "not json");
    assert_int_equal(phx_manifest_open(f.dir, "", &m, &err), PHX_E_FORMAT);
    remove_folder(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_signed_checks_on_every_curve),
        cmocka_unit_test(each_change_is_named),
        cmocka_unit_test(every_part_together_reads_all_bytes),
        cmocka_unit_test(every_flipped_bit_of_the_signature_file_is_refused),
        cmocka_unit_test(a_derived_model_carries_its_papers),
        cmocka_unit_test(the_reference_implementations_signature_is_read),
        cmocka_unit_test(a_folder_without_a_manifest_is_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
