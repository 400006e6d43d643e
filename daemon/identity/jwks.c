/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/identity/jwks.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum {
    FILE_MAX_BYTES = 256 << 10,
    KEYS_MAX = 64,
    RSA_MIN_BYTES = 256, /* 2048 bits */
    RSA_MAX_BYTES = 1024,
    COORDINATE_BYTES = 32,
    FIELD_MAX_BYTES = 2048
};

struct phx_jwks {
    struct phx_jwk keys[KEYS_MAX];
    size_t         n;
};

bool phx_base64url_decode(const char *text, size_t text_size, uint8_t *out, size_t *size)
{
    size_t room = *size;

    *size = 0;
    for (size_t i = 0; i < text_size; i++) { /* libsodium 1.0.18 takes some bytes above 127 for letters */
        char c = text[i];

        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
              c == '_'))
            return false;
    }
    return sodium_base642bin(out, room, text, text_size, NULL, size, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

/* ---- one key -------------------------------------------------------------------------------------------- */

static int read_bytes(const json_t *entry, const char *where, const char *key, uint8_t *out, size_t *size,
                      struct phx_err *err)
{
    const char *text;
    int         rc = phx_json_get_str(entry, where, key, FIELD_MAX_BYTES, &text, err);

    if (rc == 0 && !phx_base64url_decode(text, strlen(text), out, size))
        rc = phx_fail(err, PHX_E_INVALID, "%s.%s: not base64url of at most %zu bytes", where, key, *size);
    return rc;
}

static EVP_PKEY *build_key(const char *type, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM   *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY     *key = NULL;

    if (params == NULL || ctx == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return key;
}

static int read_rsa(const json_t *entry, const char *where, struct phx_jwk *out, struct phx_err *err)
{
    uint8_t         n[RSA_MAX_BYTES], e[8];
    size_t          n_size = sizeof(n), e_size = sizeof(e);
    OSSL_PARAM_BLD *build;
    BIGNUM         *bn, *be;
    int             rc = read_bytes(entry, where, "n", n, &n_size, err);

    if (rc == 0)
        rc = read_bytes(entry, where, "e", e, &e_size, err);
    if (rc != 0)
        return rc;
    /* an exponent of 1 or an even modulus would verify what nobody signed */
    if (n_size < RSA_MIN_BYTES || (n[0] & 0x80) == 0 || (n[n_size - 1] & 1) == 0)
        return phx_fail(err, PHX_E_INVALID, "%s.n: an odd number of 2048 to 8192 bits is needed", where);
    if (e_size == 0 || (e_size == 1 && e[0] < 3) || e[0] == 0 || (e[e_size - 1] & 1) == 0)
        return phx_fail(err, PHX_E_INVALID, "%s.e: an odd number of 3 or more is needed", where);
    build = OSSL_PARAM_BLD_new();
    bn = BN_bin2bn(n, (int)n_size, NULL);
    be = BN_bin2bn(e, (int)e_size, NULL);
    phx_assert(build != NULL && bn != NULL && be != NULL);
    if (OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, bn) == 1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, be) == 1)
        out->key = build_key("RSA", build);
    out->type = PHX_KEY_RSA;
    BN_free(be);
    BN_free(bn);
    OSSL_PARAM_BLD_free(build);
    return 0;
}

static int read_ec(const json_t *entry, const char *where, struct phx_jwk *out, struct phx_err *err)
{
    uint8_t         point[1 + 2 * COORDINATE_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};
    size_t          x_size = COORDINATE_BYTES, y_size = COORDINATE_BYTES;
    OSSL_PARAM_BLD *build;
    int             rc = read_bytes(entry, where, "x", point + 1, &x_size, err);

    if (rc == 0)
        rc = read_bytes(entry, where, "y", point + 1 + COORDINATE_BYTES, &y_size, err);
    if (rc != 0)
        return rc;
    if (x_size != COORDINATE_BYTES || y_size != COORDINATE_BYTES)
        return phx_fail(err, PHX_E_INVALID, "%s: x and y of P-256 have %d bytes", where, COORDINATE_BYTES);
    build = OSSL_PARAM_BLD_new();
    phx_assert(build != NULL);
    if (OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1)
        out->key = build_key("EC", build); /* none for a point beside the curve */
    OSSL_PARAM_BLD_free(build);
    out->type = PHX_KEY_P256;
    return 0;
}

static int read_ed25519(const json_t *entry, const char *where, struct phx_jwk *out, struct phx_err *err)
{
    uint8_t x[COORDINATE_BYTES];
    size_t  size = sizeof(x);
    int     rc = read_bytes(entry, where, "x", x, &size, err);

    if (rc != 0)
        return rc;
    if (size != sizeof(x))
        return phx_fail(err, PHX_E_INVALID, "%s.x: a key of Ed25519 has %zu bytes", where, sizeof(x));
    out->key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, size);
    out->type = PHX_KEY_ED25519;
    return 0;
}

/* ---- the set ---------------------------------------------------------------------------------------------- */

static bool is_equal(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* What kind of key it is; 0 = one that no algorithm of ours uses. */
static int find_type(const json_t *entry, const char *where, struct phx_jwk *out, struct phx_err *err)
{
    const char *kty = "", *crv = "", *use = "sig", *alg = "", *kid = "";
    int         rc = phx_json_get_str(entry, where, "kty", 16, &kty, err);

    if (rc == 0)
        rc = phx_json_opt_str(entry, where, "crv", 32, &crv, err);
    if (rc == 0)
        rc = phx_json_opt_str(entry, where, "use", 32, &use, err);
    if (rc == 0)
        rc = phx_json_opt_str(entry, where, "alg", 32, &alg, err);
    if (rc == 0)
        rc = phx_json_opt_str(entry, where, "kid", PHX_KID_MAX, &kid, err);
    if (rc != 0)
        return rc;
    if (is_equal(kty, "oct") || json_object_get(entry, "d") != NULL || json_object_get(entry, "k") != NULL)
        return phx_fail(err, PHX_E_INVALID,
                        "%s: a secret key; this file holds public keys only", where);
    (void)snprintf(out->kid, sizeof(out->kid), "%s", kid);
    out->type = is_equal(kty, "RSA")                                ? PHX_KEY_RSA
                : is_equal(kty, "EC") && is_equal(crv, "P-256")     ? PHX_KEY_P256
                : is_equal(kty, "OKP") && is_equal(crv, "Ed25519") ? PHX_KEY_ED25519
                                                                     : (enum phx_key_type)0;
    if (alg[0] != '\0' && !is_equal(alg, "RS256") && !is_equal(alg, "PS256") && !is_equal(alg, "ES256") &&
        !is_equal(alg, "EdDSA"))
        out->type = (enum phx_key_type)0; /* made for something else, as RSA-OAEP */
    (void)snprintf(out->alg, sizeof(out->alg), "%.7s", alg);
    if (!is_equal(use, "sig"))
        out->type = (enum phx_key_type)0;
    return 0;
}

static int read_key(const json_t *entry, const char *where, struct phx_jwk *out, struct phx_err *err)
{
    int rc = phx_json_check_object(entry, where, err);

    memset(out, 0, sizeof(*out));
    if (rc == 0)
        rc = find_type(entry, where, out, err);
    if (rc != 0 || out->type == 0)
        return rc;
    rc = out->type == PHX_KEY_RSA    ? read_rsa(entry, where, out, err)
         : out->type == PHX_KEY_P256 ? read_ec(entry, where, out, err)
                                     : read_ed25519(entry, where, out, err);
    if (rc == 0 && out->key == NULL)
        rc = phx_fail(err, PHX_E_INVALID, "%s: not a valid public key", where);
    ERR_clear_error();
    return rc;
}

/* By kid, a key must be told from the others. */
static int check_kid(const struct phx_jwks *j, const struct phx_jwk *key, const char *where,
                     struct phx_err *err)
{
    for (size_t i = 0; i < j->n; i++)
        if (is_equal(j->keys[i].kid, key->kid))
            return phx_fail(err, PHX_E_INVALID, "%s.kid: another key has the same, or none either", where);
    return 0;
}

static int read_keys(struct phx_jwks *j, const json_t *entries, struct phx_err *err)
{
    for (size_t i = 0; i < json_array_size(entries); i++) {
        struct phx_jwk *key = &j->keys[j->n];
        char            where[32];
        int             rc;

        (void)snprintf(where, sizeof(where), "keys[%zu]", i);
        rc = read_key(json_array_get(entries, i), where, key, err);
        if (rc == 0 && key->type != 0)
            rc = check_kid(j, key, where, err);
        if (rc != 0) {
            EVP_PKEY_free(key->key);
            return rc;
        }
        j->n += key->type != 0;
    }
    if (j->n == 0)
        return phx_fail(err, PHX_E_INVALID,
                        "keys: no key for RS256, PS256, ES256 or EdDSA signatures is in the file");
    return 0;
}

int phx_jwks_parse(const void *data, size_t size, struct phx_jwks **out, struct phx_err *err)
{
    struct phx_jwks *j = NULL;
    json_t          *root = NULL;
    const json_t    *entries;
    int              rc = phx_json_parse(&root, data, size, FILE_MAX_BYTES, 8, "key set", err);

    *out = NULL;
    if (rc == 0)
        rc = phx_json_check_object(root, "", err);
    if (rc == 0)
        rc = phx_json_get_array(root, "", "keys", KEYS_MAX, &entries, err);
    if (rc == 0) {
        j = phx_mem_calloc(1, sizeof(*j));
        rc = read_keys(j, entries, err);
    }
    json_decref(root);
    if (rc != 0) {
        phx_jwks_free(j);
        return rc;
    }
    *out = j;
    return 0;
}

void phx_jwks_free(struct phx_jwks *j)
{
    if (j == NULL)
        return;
    for (size_t i = 0; i < j->n; i++)
        EVP_PKEY_free(j->keys[i].key);
    phx_mem_free(j);
}

const struct phx_jwk *phx_jwks_find(const struct phx_jwks *j, const char *kid)
{
    if (kid[0] == '\0')
        return j->n == 1 ? &j->keys[0] : NULL;
    for (size_t i = 0; i < j->n; i++)
        if (is_equal(j->keys[i].kid, kid))
            return &j->keys[i];
    return NULL;
}
