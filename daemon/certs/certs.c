/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/certs/certs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "rpc/base/buf.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"

enum {
    CA_DAYS = 3650,
    LEAF_DAYS = 365,
    DAY_S = 86400,
    PEM_MAX_BYTES = 1 << 20,
    HOST_MAX_BYTES = 253
};

struct pair {
    X509     *cert;
    EVP_PKEY *key;
};

static void pair_fini(struct pair *p)
{
    X509_free(p->cert);
    EVP_PKEY_free(p->key);
    *p = (struct pair){NULL, NULL};
}

static int fail_ssl(const char *what, struct phx_err *err)
{
    unsigned long code = ERR_get_error();

    ERR_clear_error();
    return phx_fail(err, PHX_E_INTERNAL, "certificates: %s: %s", what,
                    code != 0 ? ERR_reason_error_string(code) : "failed");
}

static int write_bio(const char *path, BIO *bio, unsigned mode, struct phx_err *err)
{
    char *data;
    long  size = BIO_get_mem_data(bio, &data);

    return phx_file_write(path, data, (size_t)size, mode, err);
}

/* The key first: a certificate without its key would look complete. */
static int save(const struct pair *p, const char *cert_path, const char *key_path, struct phx_err *err)
{
    BIO *cert = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_mem());
    int  rc;

    if (cert == NULL || key == NULL || PEM_write_bio_X509(cert, p->cert) != 1 ||
        PEM_write_bio_PrivateKey(key, p->key, NULL, NULL, 0, NULL, NULL) != 1)
        rc = fail_ssl("PEM", err);
    else
        rc = write_bio(key_path, key, 0600, err);
    if (rc == 0)
        rc = write_bio(cert_path, cert, 0644, err);
    BIO_free(cert);
    BIO_free(key);
    return rc;
}

static int load(const char *cert_path, const char *key_path, struct pair *p, struct phx_err *err)
{
    struct phx_buf cert = {0}, key = {0};
    BIO           *bio = NULL;
    int            rc = phx_buf_read_file(&cert, cert_path, PEM_MAX_BYTES, err);

    *p = (struct pair){NULL, NULL};
    if (rc == 0)
        rc = phx_buf_read_file(&key, key_path, PEM_MAX_BYTES, err);
    if (rc == 0) {
        bio = BIO_new_mem_buf(cert.data, (int)cert.size);
        p->cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
        bio = BIO_new_mem_buf(key.data, (int)key.size);
        p->key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
        if (p->cert == NULL || p->key == NULL || X509_check_private_key(p->cert, p->key) != 1) {
            ERR_clear_error();
            rc = phx_fail(err, PHX_E_FORMAT, "%s and %s are not a certificate with its key", cert_path,
                          key_path);
        }
    }
    if (key.data != NULL)
        OPENSSL_cleanse(key.data, key.size);
    phx_buf_fini(&cert);
    phx_buf_fini(&key);
    if (rc != 0)
        pair_fini(p);
    return rc;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX      ctx;
    X509_EXTENSION *e;
    bool            is_added;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    is_added = e != NULL && X509_add_ext(cert, e, -1) == 1;
    X509_EXTENSION_free(e);
    return is_added;
}

/* Not in text form: a comma in it would begin another name. */
static bool add_uri(X509 *cert, const char *uri)
{
    GENERAL_NAMES  *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME   *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    bool            is_added;

    phx_assert(names != NULL && name != NULL && text != NULL);
    phx_assert(ASN1_STRING_set(text, uri, -1) == 1);
    GENERAL_NAME_set0_value(name, GEN_URI, text);
    phx_assert(sk_GENERAL_NAME_push(names, name) > 0);
    is_added = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
    GENERAL_NAMES_free(names);
    return is_added;
}

/* A certificate with a new key, not signed yet.  It is valid from 1970 on: the day of issue protects nothing, and a
 * machine whose clock has fallen back must still be able to start its ranks. */
static bool make(const char *common_name, int64_t valid_s, struct pair *p)
{
    X509_NAME *subject;

    p->key = EVP_EC_gen("P-256");
    p->cert = X509_new();
    if (p->key == NULL || p->cert == NULL)
        return false;
    subject = X509_get_subject_name(p->cert);
    return X509_set_version(p->cert, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(p->cert), phx_id_random_u64() >> 1) == 1 &&
           ASN1_TIME_set(X509_getm_notBefore(p->cert), 0) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(p->cert), (long)valid_s) != NULL &&
           X509_set_pubkey(p->cert, p->key) == 1 &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                      (const unsigned char *)common_name, -1, -1, 0) == 1;
}

static bool sign(struct pair *p, const struct pair *ca)
{
    return X509_set_issuer_name(p->cert, X509_get_subject_name(ca->cert)) == 1 &&
           add_extension(p->cert, ca->cert, NID_authority_key_identifier, "keyid") &&
           X509_sign(p->cert, ca->key, EVP_sha256()) > 0;
}

static int make_ca(struct pair *ca, const char *cert_path, const char *key_path, struct phx_err *err)
{
    bool is_made = make("phalanx cluster CA", (int64_t)CA_DAYS * DAY_S, ca) &&
                   X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)) == 1 &&
                   add_extension(ca->cert, ca->cert, NID_basic_constraints,
                                 "critical,CA:TRUE,pathlen:0") &&
                   add_extension(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                   add_extension(ca->cert, ca->cert, NID_subject_key_identifier, "hash") &&
                   X509_sign(ca->cert, ca->key, EVP_sha256()) > 0;

    return is_made ? save(ca, cert_path, key_path, err) : fail_ssl("CA", err);
}

/* Names go into an extension's text form: nothing but host names and addresses may pass. */
static int check_host(const char *host, struct phx_err *err)
{
    if (strlen(host) > HOST_MAX_BYTES ||
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-") !=
            strlen(host))
        return phx_fail(err, PHX_E_INVALID, "'%.60s' is not a host name or address", host);
    return 0;
}

static char *server_names(const char *host)
{
    struct in6_addr address;
    bool            is_address;

    if (host == NULL || host[0] == '\0')
        return phx_mem_strdup("DNS:localhost,DNS:phalanxd,IP:127.0.0.1,IP:::1");
    is_address = inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
    return phx_mem_printf("DNS:localhost,DNS:phalanxd,IP:127.0.0.1,IP:::1,%s:%s",
                          is_address ? "IP" : "DNS", host);
}

static int issue(const struct pair *ca, const char *common_name, const char *alt_names,
                 const char *uri, const char *usage, int64_t valid_s, const char *cert_path, const char *key_path,
                 struct phx_err *err)
{
    struct pair p = {NULL, NULL};
    bool        is_made = make(common_name, valid_s, &p) &&
                   add_extension(p.cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
                   add_extension(p.cert, ca->cert, NID_key_usage, "critical,digitalSignature") &&
                   add_extension(p.cert, ca->cert, NID_ext_key_usage, usage) &&
                   (alt_names == NULL ||
                    add_extension(p.cert, ca->cert, NID_subject_alt_name, alt_names)) &&
                   (uri == NULL || add_uri(p.cert, uri)) && sign(&p, ca);
    int rc = is_made ? save(&p, cert_path, key_path, err) : fail_ssl(common_name, err);

    pair_fini(&p);
    return rc;
}

/* Signed by this CA, with more than a third of its life left, and good for that host. */
static bool is_good(const struct pair *p, const struct pair *ca, const char *host)
{
    int  days = 0, seconds = 0;
    bool is_signed;

    if (p->cert == NULL || p->key == NULL)
        return false;
    is_signed = X509_verify(p->cert, X509_get0_pubkey(ca->cert)) == 1;
    ERR_clear_error();
    if (!is_signed || ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(p->cert)) != 1 ||
        days < LEAF_DAYS / 3)
        return false;
    if (host == NULL || host[0] == '\0')
        return true;
    return X509_check_host(p->cert, host, 0, 0, NULL) == 1 ||
           X509_check_ip_asc(p->cert, host, 0) == 1;
}

static int ensure_leaf(const struct pair *ca, const char *data_dir, enum phx_cert_role role,
                       const char *host, struct phx_err *err)
{
    bool        is_server = role == PHX_CERT_SERVER;
    const char *name = is_server ? "server" : "operator";
    char       *cert_path = phx_mem_printf("%s/tls/%s.crt", data_dir, name);
    char       *key_path = phx_mem_printf("%s/tls/%s.key", data_dir, name);
    char       *alt_names = is_server ? server_names(host) : NULL;
    struct pair old = {NULL, NULL};
    int         rc = 0;

    if (load(cert_path, key_path, &old, NULL) != 0 || !is_good(&old, ca, is_server ? host : NULL))
        rc = issue(ca, is_server ? "phalanxd" : "operator", alt_names, NULL,
                   is_server ? "serverAuth" : "clientAuth", (int64_t)LEAF_DAYS * DAY_S, cert_path,
                   key_path, err);
    pair_fini(&old);
    phx_mem_free(alt_names);
    phx_mem_free(cert_path);
    phx_mem_free(key_path);
    return rc;
}

/* The CA; made when neither file is there.  One file alone is an accident that nobody should paper over. */
static int ensure_ca(const char *data_dir, struct pair *ca, struct phx_err *err)
{
    char *cert_path = phx_mem_printf("%s/tls/ca.crt", data_dir);
    char *key_path = phx_mem_printf("%s/tls/ca.key", data_dir);
    bool  has_cert = access(cert_path, F_OK) == 0, has_key = access(key_path, F_OK) == 0;
    int   rc;

    if (has_cert && !has_key)
        rc = phx_fail(err, PHX_E_NOTFOUND, "%s is there but its key %s is not", cert_path, key_path);
    else if (has_cert)
        rc = load(cert_path, key_path, ca, err);
    else
        rc = make_ca(ca, cert_path, key_path, err); /* a key alone is what a crash in between leaves */
    phx_mem_free(cert_path);
    phx_mem_free(key_path);
    return rc;
}

/* Two processes that start at once must not make two CAs. */
static int lock_folder(const char *data_dir, int *fd, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/tls", data_dir);
    int   rc = 0;

    *fd = -1;
    if ((mkdir(data_dir, 0700) != 0 && errno != EEXIST) || (mkdir(path, 0700) != 0 && errno != EEXIST))
        rc = phx_fail(err, PHX_E_IO, "make folder %s: %s", path, strerror(errno));
    else if ((*fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || flock(*fd, LOCK_EX) != 0)
        rc = phx_fail(err, PHX_E_IO, "lock folder %s: %s", path, strerror(errno));
    phx_mem_free(path);
    return rc;
}

int phx_certs_ensure(const char *data_dir, const char *host, struct phx_err *err)
{
    struct pair ca = {NULL, NULL};
    int         fd;
    int         rc = host != NULL ? check_host(host, err) : 0;

    if (rc != 0)
        return rc;
    rc = lock_folder(data_dir, &fd, err);
    if (rc == 0)
        rc = ensure_ca(data_dir, &ca, err);
    if (rc == 0)
        rc = ensure_leaf(&ca, data_dir, PHX_CERT_SERVER, host, err);
    if (rc == 0)
        rc = ensure_leaf(&ca, data_dir, PHX_CERT_OPERATOR, NULL, err);
    pair_fini(&ca);
    if (fd >= 0)
        (void)close(fd); /* gives the lock back */
    return rc;
}

int phx_certs_issue(const char *data_dir, enum phx_cert_role role, const char *name, int64_t valid_s,
                    const char *cert_path, const char *key_path, struct phx_err *err)
{
    char       *ca_cert = phx_mem_printf("%s/tls/ca.crt", data_dir);
    char       *ca_key = phx_mem_printf("%s/tls/ca.key", data_dir);
    char       *common_name = role == PHX_CERT_RANK ? phx_mem_printf("rank:%s", name)
                                                    : phx_mem_strdup("operator");
    struct pair ca;
    int         rc;

    if (role != PHX_CERT_RANK && role != PHX_CERT_OPERATOR)
        rc = phx_fail(err, PHX_E_INVALID, "certificates: only clients are issued here");
    else if (strlen(common_name) > 64)
        rc = phx_fail(err, PHX_E_INVALID, "certificates: the name %.80s is too long", common_name);
    else if ((rc = load(ca_cert, ca_key, &ca, err)) == 0) {
        rc = issue(&ca, common_name, NULL, NULL, "clientAuth", valid_s, cert_path, key_path, err);
        pair_fini(&ca);
    }
    phx_mem_free(common_name);
    phx_mem_free(ca_cert);
    phx_mem_free(ca_key);
    return rc;
}

int phx_certs_issue_name(const char *data_dir, const char *common_name, const char *uri, int64_t valid_s,
                         const char *cert_path, const char *key_path, struct phx_err *err)
{
    char       *ca_cert = phx_mem_printf("%s/tls/ca.crt", data_dir);
    char       *ca_key = phx_mem_printf("%s/tls/ca.key", data_dir);
    const char *name;
    struct pair ca;
    int         rc;

    if (phx_certs_role(common_name, &name) != PHX_CERT_NONE || strlen(common_name) > 64)
        rc = phx_fail(err, PHX_E_INVALID, "certificates: '%.80s' cannot be the name of a user", common_name);
    else if ((rc = load(ca_cert, ca_key, &ca, err)) == 0) {
        rc = issue(&ca, common_name, NULL, uri, "clientAuth", valid_s, cert_path, key_path, err);
        pair_fini(&ca);
    }
    phx_mem_free(ca_cert);
    phx_mem_free(ca_key);
    return rc;
}

int phx_certs_fingerprint(const char *data_dir, char hex[65], struct phx_err *err)
{
    char    *path = phx_mem_printf("%s/tls/ca.crt", data_dir);
    FILE    *file = fopen(path, "r");
    X509    *cert = file == NULL ? NULL : PEM_read_X509(file, NULL, NULL, NULL);
    uint8_t *der = NULL;
    int      size = cert == NULL ? -1 : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    int      rc = 0;

    if (size <= 0)
        rc = phx_fail(err, PHX_E_IO, "%s: no certificate can be read; run phalanx up once", path);
    else
        phx_sha256_hex(der, (size_t)size, hex);
    OPENSSL_free(der);
    X509_free(cert);
    if (file != NULL)
        (void)fclose(file); /* was only read */
    phx_mem_free(path);
    return rc;
}

enum phx_cert_role phx_certs_role(const char *common_name, const char **name)
{
    *name = "";
    if (strcmp(common_name, "phalanxd") == 0)
        return PHX_CERT_SERVER;
    if (strcmp(common_name, "operator") == 0)
        return PHX_CERT_OPERATOR;
    if (strncmp(common_name, "rank:", 5) == 0 && common_name[5] != '\0') {
        *name = common_name + 5;
        return PHX_CERT_RANK;
    }
    return PHX_CERT_NONE;
}
