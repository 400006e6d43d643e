/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/rpc/transport/certs.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "rpc/base/id.h"
#include "rpc/base/mem.h"

struct test_ca {
    EVP_PKEY *key;
    X509     *cert;
};

static char *to_pem(X509 *cert, EVP_PKEY *key)
{
    BIO  *bio = BIO_new(BIO_s_mem());
    char *data, *text;
    long  size;

    if (cert != NULL)
        phx_assert(PEM_write_bio_X509(bio, cert) == 1);
    else
        phx_assert(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    size = BIO_get_mem_data(bio, &data);
    text = phx_mem_strndup(data, (size_t)size);
    BIO_free(bio);
    return text;
}

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX      ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    phx_assert(e != NULL && X509_add_ext(cert, e, -1) == 1);
    X509_EXTENSION_free(e);
}

static X509 *make_cert(const char *name, EVP_PKEY *key)
{
    X509      *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);

    X509_set_version(cert, 2);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), phx_id_random_u64() >> 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    return cert;
}

struct test_ca *test_ca_create(const char *name)
{
    struct test_ca *ca = phx_mem_calloc(1, sizeof(*ca));

    ca->key = EVP_EC_gen("P-256");
    ca->cert = make_cert(name, ca->key);
    X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert));
    add_extension(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    phx_assert(X509_sign(ca->cert, ca->key, EVP_sha256()) > 0);
    return ca;
}

void test_ca_destroy(struct test_ca *ca)
{
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
    phx_mem_free(ca);
}

void test_ca_issue(struct test_ca *ca, const char *common_name, struct phx_rpc_tls *tls)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509     *cert = make_cert(common_name, key);

    X509_set_issuer_name(cert, X509_get_subject_name(ca->cert));
    add_extension(cert, ca->cert, NID_subject_alt_name,
                  "DNS:localhost,DNS:phalanxd,IP:127.0.0.1,URI:spiffe://phalanx/test");
    add_extension(cert, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth");
    phx_assert(X509_sign(cert, ca->key, EVP_sha256()) > 0);
    tls->ca_pem = to_pem(ca->cert, NULL);
    tls->cert_pem = to_pem(cert, NULL);
    tls->key_pem = to_pem(NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void test_tls_fini(struct phx_rpc_tls *tls)
{
    phx_mem_free((char *)tls->ca_pem);
    phx_mem_free((char *)tls->cert_pem);
    phx_mem_free((char *)tls->key_pem);
    memset(tls, 0, sizeof(*tls));
}
