/* SPDX-License-Identifier: Apache-2.0 */
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
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "daemon/certs/certs.h"
#include "rpc/base/buf.h"
#include "rpc/base/mem.h"

static char dir[] = "/tmp/phx-certs-XXXXXX";

static X509 *read_cert(const char *name)
{
    char *path = phx_mem_printf("%s/%s", dir, name);
    FILE *f = fopen(path, "r");
    X509 *cert;

    assert_non_null(f);
    cert = PEM_read_X509(f, NULL, NULL, NULL);
    assert_non_null(cert);
    fclose(f);
    phx_mem_free(path);
    return cert;
}

static unsigned mode_of(const char *name)
{
    char       *path = phx_mem_printf("%s/%s", dir, name);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    phx_mem_free(path);
    return st.st_mode & 0777;
}

static void copy_name(X509 *cert, char name[80])
{
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, 80) > 0);
}

/* 1 when ca verifies cert for that purpose. */
static int verify(const char *name, int purpose)
{
    X509           *ca = read_cert("tls/ca.crt"), *cert = read_cert(name);
    X509_STORE     *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int             answer;

    X509_STORE_add_cert(store, ca);
    X509_STORE_CTX_init(ctx, store, cert, NULL);
    X509_STORE_CTX_set_purpose(ctx, purpose);
    answer = X509_verify_cert(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(ca);
    X509_free(cert);
    return answer;
}

static void everything_is_made_once(void **state)
{
    struct phx_buf before, after;
    char          *path = phx_mem_printf("%s/tls/ca.crt", dir);
    char          *server = phx_mem_printf("%s/tls/server.crt", dir);

    (void)state;
    assert_int_equal(phx_certs_ensure(dir, NULL, NULL), 0);
    assert_int_equal(phx_buf_read_file(&before, path, 1 << 20, NULL), 0);
    assert_int_equal(phx_certs_ensure(dir, NULL, NULL), 0);
    assert_int_equal(phx_buf_read_file(&after, path, 1 << 20, NULL), 0);
    assert_string_equal(before.data, after.data);
    phx_buf_fini(&before);
    assert_int_equal(phx_buf_read_file(&before, server, 1 << 20, NULL), 0);
    /* another host needs another server certificate, from the same CA */
    assert_int_equal(phx_certs_ensure(dir, "node7.example", NULL), 0);
    phx_buf_fini(&after);
    assert_int_equal(phx_buf_read_file(&after, server, 1 << 20, NULL), 0);
    assert_string_not_equal(before.data, after.data);
    phx_buf_fini(&before);
    phx_buf_fini(&after);
    phx_mem_free(path);
    phx_mem_free(server);
}

static void keys_are_private(void **state)
{
    (void)state;
    assert_int_equal(mode_of("tls/ca.key"), 0600);
    assert_int_equal(mode_of("tls/server.key"), 0600);
    assert_int_equal(mode_of("tls/operator.key"), 0600);
    assert_int_equal(mode_of("tls"), 0700);
}

static void certificates_serve_their_purpose_only(void **state)
{
    X509 *server = read_cert("tls/server.crt");
    char  name[80];

    (void)state;
    assert_int_equal(verify("tls/server.crt", X509_PURPOSE_SSL_SERVER), 1);
    assert_int_not_equal(verify("tls/server.crt", X509_PURPOSE_SSL_CLIENT), 1);
    assert_int_equal(verify("tls/operator.crt", X509_PURPOSE_SSL_CLIENT), 1);
    assert_int_not_equal(verify("tls/operator.crt", X509_PURPOSE_SSL_SERVER), 1);
    assert_int_equal(X509_check_host(server, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(server, "node7.example", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(server, "127.0.0.1", 0), 1);
    assert_int_not_equal(X509_check_host(server, "other.example", 0, 0, NULL), 1);
    copy_name(server, name);
    assert_string_equal(name, "phalanxd");
    X509_free(server);
}

static void ranks_get_short_lived_ones(void **state)
{
    char *cert = phx_mem_printf("%s/r.crt", dir), *key = phx_mem_printf("%s/r.key", dir);
    X509 *made;
    char  name[80];
    const char *replica;
    int   days, seconds;

    (void)state;
    assert_int_equal(phx_certs_issue(dir, PHX_CERT_RANK, "r12", 3600, cert, key, NULL), 0);
    assert_int_equal(verify("r.crt", X509_PURPOSE_SSL_CLIENT), 1);
    assert_int_equal(mode_of("r.key"), 0600);
    made = read_cert("r.crt");
    copy_name(made, name);
    assert_int_equal(phx_certs_role(name, &replica), PHX_CERT_RANK);
    assert_string_equal(replica, "r12");
    assert_int_equal(ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(made)), 1);
    assert_int_equal(days, 0);
    assert_in_range(seconds, 3500, 3600);
    X509_free(made);
    assert_int_equal(phx_certs_issue(dir, PHX_CERT_SERVER, "x", 3600, cert, key, NULL), PHX_E_INVALID);
    phx_mem_free(cert);
    phx_mem_free(key);
}

static void users_get_a_name(void **state)
{
    static const char uri[] = "spiffe://phalanx/tenant/icu/user/ann/roles/user,auditor";
    char             *cert = phx_mem_printf("%s/u.crt", dir), *key = phx_mem_printf("%s/u.key", dir);
    X509             *made;
    GENERAL_NAMES    *names;
    const GENERAL_NAME *first;
    const ASN1_STRING  *text;
    int               type;

    (void)state;
    assert_int_equal(phx_certs_issue_name(dir, "user:ann", uri, 3600, cert, key, NULL), 0);
    assert_int_equal(verify("u.crt", X509_PURPOSE_SSL_CLIENT), 1);
    assert_int_not_equal(verify("u.crt", X509_PURPOSE_SSL_SERVER), 1);
    assert_int_equal(mode_of("u.key"), 0600);
    made = read_cert("u.crt");
    names = X509_get_ext_d2i(made, NID_subject_alt_name, NULL, NULL);
    assert_int_equal(sk_GENERAL_NAME_num(names), 1); /* the comma began no second name */
    first = sk_GENERAL_NAME_value(names, 0);
    text = GENERAL_NAME_get0_value(first, &type);
    assert_int_equal(type, GEN_URI);
    assert_int_equal(ASN1_STRING_length(text), sizeof(uri) - 1);
    assert_memory_equal(ASN1_STRING_get0_data(text), uri, sizeof(uri) - 1);
    GENERAL_NAMES_free(names);
    X509_free(made);
    /* a user cannot be called like a part of the cluster */
    assert_int_equal(phx_certs_issue_name(dir, "operator", uri, 3600, cert, key, NULL), PHX_E_INVALID);
    assert_int_equal(phx_certs_issue_name(dir, "phalanxd", uri, 3600, cert, key, NULL), PHX_E_INVALID);
    assert_int_equal(phx_certs_issue_name(dir, "rank:r1", uri, 3600, cert, key, NULL), PHX_E_INVALID);
    phx_mem_free(cert);
    phx_mem_free(key);
}

static void roles_are_exact(void **state)
{
    const char *name;

    (void)state;
    assert_int_equal(phx_certs_role("operator", &name), PHX_CERT_OPERATOR);
    assert_int_equal(phx_certs_role("phalanxd", &name), PHX_CERT_SERVER);
    assert_int_equal(phx_certs_role("operator2", &name), PHX_CERT_NONE);
    assert_int_equal(phx_certs_role("rank:", &name), PHX_CERT_NONE);
    assert_int_equal(phx_certs_role("", &name), PHX_CERT_NONE);
}

static void bad_input_is_refused(void **state)
{
    static const char *const hosts[] = {"a,DNS:evil", "a b", "x\n", "a/b", "*"};
    char          *path = phx_mem_printf("%s/tls/ca.key", dir);
    struct phx_err err;

    (void)state;
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
        assert_int_equal(phx_certs_ensure(dir, hosts[i], NULL), PHX_E_INVALID);
    assert_int_equal(phx_certs_ensure("/proc/none", NULL, &err), PHX_E_IO);
    /* a CA without its key must not be replaced behind the back of those who trust it */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(phx_certs_ensure(dir, NULL, &err), PHX_E_NOTFOUND);
    assert_non_null(strstr(err.text, "ca.key"));
    assert_int_equal(phx_file_write(path, "nonsense", 8, 0600, NULL), 0);
    assert_int_equal(phx_certs_ensure(dir, NULL, &err), PHX_E_FORMAT);
    phx_mem_free(path);
}

static int remove_all(void **state)
{
    char *command = phx_mem_printf("rm -rf %s", dir);
    int   rc = system(command);

    (void)state;
    phx_mem_free(command);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_made_once),
        cmocka_unit_test(keys_are_private),
        cmocka_unit_test(certificates_serve_their_purpose_only),
        cmocka_unit_test(ranks_get_short_lived_ones),
        cmocka_unit_test(users_get_a_name),
        cmocka_unit_test(roles_are_exact),
        cmocka_unit_test(bad_input_is_refused),
    };

    if (mkdtemp(dir) == NULL)
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_all);
}
