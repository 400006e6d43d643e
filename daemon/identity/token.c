/* SPDX-License-Identifier: Apache-2.0
 * JSON Web Tokens in the compact form: verified over the raw bytes before the claims are parsed.  What the
 * header may choose is narrow: a key of the file by its kid, and an algorithm that fits that key. */
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "daemon/identity/jwks.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum {
    SIGNATURE_MAX_BYTES = 1024,
    RAW_ECDSA_BYTES = 64,
    DER_ECDSA_MAX_BYTES = 80,
    AUDIENCES_MAX = 64,
    ROLES_MAX = 256
};
static const int64_t SECONDS_MAX = INT64_C(253402300799); /* the year 9999 */
static const int64_t SECOND_NS = 1000000000;

static const struct algorithm {
    const char       *name;
    enum phx_key_type type;
    bool              is_pss;
} algorithms[] = {{"RS256", PHX_KEY_RSA, false},
                  {"PS256", PHX_KEY_RSA, true},
                  {"ES256", PHX_KEY_P256, false},
                  {"EdDSA", PHX_KEY_ED25519, false}};

struct parts {
    const char *text; /* header '.' payload, as it was signed */
    size_t      signed_size, header_size;
    uint8_t     signature[SIGNATURE_MAX_BYTES];
    size_t      signature_size;
};

static int refuse(struct phx_err *err, const char *why)
{
    return phx_fail(err, PHX_E_UNAUTH, "the token is not valid: %s", why);
}

/* ---- form ------------------------------------------------------------------------------------------------ */

static int split(const char *token, struct parts *p, struct phx_err *err)
{
    size_t      size = strnlen(token, PHX_TOKEN_MAX_BYTES + 1);
    const char *first = memchr(token, '.', size);
    const char *second = first != NULL ? memchr(first + 1, '.', size - (size_t)(first + 1 - token)) : NULL;

    if (size > PHX_TOKEN_MAX_BYTES)
        return refuse(err, "it is longer than 16 KiB");
    if (second == NULL)
        return refuse(err, "it does not have three parts");
    p->text = token;
    p->header_size = (size_t)(first - token);
    p->signed_size = (size_t)(second - token);
    p->signature_size = sizeof(p->signature);
    if (!phx_base64url_decode(second + 1, size - p->signed_size - 1, p->signature, &p->signature_size))
        return refuse(err, "its signature is not base64url");
    return 0;
}

static int parse_part(const char *text, size_t size, const char *what, json_t **out, struct phx_err *err)
{
    uint8_t *data = phx_mem_calloc(1, size + 1);
    size_t   n = size;
    int      rc = 0;

    *out = NULL;
    if (!phx_base64url_decode(text, size, data, &n) ||
        phx_json_parse(out, (char *)data, n, PHX_TOKEN_MAX_BYTES, 8, what, NULL) != 0 ||
        !json_is_object(*out))
        rc = phx_fail(err, PHX_E_UNAUTH, "the token is not valid: its %s is not a JSON object", what);
    if (rc != 0) {
        json_decref(*out);
        *out = NULL;
    }
    phx_secret_wipe(data, size + 1);
    phx_mem_free(data);
    return rc;
}

/* ---- header and signature ----------------------------------------------------------------------------------- */

static bool is_access_type(const char *typ)
{
    return strcasecmp(typ, "JWT") == 0 || strcasecmp(typ, "at+jwt") == 0 ||
           strcasecmp(typ, "application/at+jwt") == 0;
}

static int choose(const json_t *header, const struct phx_jwks *keys, const struct phx_jwk **key,
                  const struct algorithm **algorithm, struct phx_err *err)
{
    const char *alg = "", *kid = "", *typ = "JWT";

    *algorithm = NULL;
    if (phx_json_get_str(header, "header", "alg", 16, &alg, NULL) != 0 ||
        phx_json_opt_str(header, "header", "kid", PHX_KID_MAX, &kid, NULL) != 0 ||
        phx_json_opt_str(header, "header", "typ", 32, &typ, NULL) != 0)
        return refuse(err, "its header needs a string alg, and kid and typ are strings");
    if (json_object_get(header, "crit") != NULL)
        return refuse(err, "its header has crit, and none of its extensions is known here");
    if (!is_access_type(typ))
        return refuse(err, "its typ is not that of an access or identity token");
    for (size_t i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++)
        if (strcmp(algorithms[i].name, alg) == 0)
            *algorithm = &algorithms[i];
    if (*algorithm == NULL)
        return refuse(err, "its algorithm is not RS256, PS256, ES256 or EdDSA");
    *key = phx_jwks_find(keys, kid);
    if (*key == NULL)
        return refuse(err, "its key is unknown");
    if ((*key)->type != (*algorithm)->type ||
        ((*key)->alg[0] != '\0' && strcmp((*key)->alg, (*algorithm)->name) != 0))
        return refuse(err, "its algorithm is not that of its key");
    return 0;
}

/* JWS writes r and s one after the other, OpenSSL wants them in DER. */
static size_t to_der(const uint8_t raw[RAW_ECDSA_BYTES], uint8_t der[DER_ECDSA_MAX_BYTES])
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM    *r = BN_bin2bn(raw, RAW_ECDSA_BYTES / 2, NULL);
    BIGNUM    *s = BN_bin2bn(raw + RAW_ECDSA_BYTES / 2, RAW_ECDSA_BYTES / 2, NULL);
    uint8_t   *end = der;
    int        n;

    phx_assert(sig != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(sig, r, s) == 1);
    n = i2d_ECDSA_SIG(sig, &end);
    phx_assert(n > 0 && n <= DER_ECDSA_MAX_BYTES);
    ECDSA_SIG_free(sig);
    return (size_t)n;
}

static bool check_signature(const struct parts *p, const struct phx_jwk *key, const struct algorithm *algorithm)
{
    EVP_MD_CTX    *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX  *options = NULL;
    uint8_t        der[DER_ECDSA_MAX_BYTES];
    const uint8_t *signature = p->signature;
    size_t         size = p->signature_size;
    bool           is_good;

    phx_assert(ctx != NULL);
    if (key->type != PHX_KEY_RSA && size != RAW_ECDSA_BYTES) {
        EVP_MD_CTX_free(ctx);
        return false;
    }
    if (key->type == PHX_KEY_P256) {
        size = to_der(signature, der);
        signature = der;
    }
    is_good = EVP_DigestVerifyInit(ctx, &options, key->type == PHX_KEY_ED25519 ? NULL : EVP_sha256(), NULL,
                                   key->key) == 1;
    if (is_good && algorithm->is_pss)
        is_good = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
                  EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
    is_good = is_good && EVP_DigestVerify(ctx, signature, size, (const uint8_t *)p->text,
                                          p->signed_size) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return is_good;
}

/* ---- claims ------------------------------------------------------------------------------------------------- */

/* A NumericDate: 0 = absent, 1 = read, or a refusal. */
static int read_time(const json_t *claims, const char *name, int64_t *out, struct phx_err *err)
{
    const json_t *v = json_object_get(claims, name);
    double        number = json_number_value(v);

    if (v == NULL)
        return 0;
    if (!json_is_number(v) || !(number >= 0 && number <= (double)SECONDS_MAX))
        return refuse(err, "exp, nbf and iat are seconds since 1970");
    *out = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)number;
    return 1;
}

static int check_times(const json_t *claims, int32_t leeway_s, int64_t now_ns, int64_t wall_ns,
                       struct phx_token_claims *out, struct phx_err *err)
{
    int64_t now = now_ns / SECOND_NS, exp = 0, nbf = 0, iat = 0;
    int64_t latest = (wall_ns > now_ns ? wall_ns : now_ns) / SECOND_NS;
    int     has_exp = read_time(claims, "exp", &exp, err);
    int     has_nbf = has_exp >= 0 ? read_time(claims, "nbf", &nbf, err) : has_exp;
    int     has_iat = has_nbf >= 0 ? read_time(claims, "iat", &iat, err) : has_nbf;

    if (has_iat < 0)
        return has_iat;
    if (has_exp == 0)
        return refuse(err, "it has no exp");
    if (now >= exp + leeway_s)
        return refuse(err, "it is expired");
    if (nbf > latest + leeway_s || iat > latest + leeway_s)
        return refuse(err, "it is of the future");
    out->expires_ns = exp > INT64_MAX / SECOND_NS ? INT64_MAX : exp * SECOND_NS;
    return 0;
}

static bool is_string(const json_t *v, const char *text)
{
    return json_is_string(v) && strcmp(json_string_value(v), text) == 0;
}

static bool has_audience(const json_t *claims, const char *audience)
{
    const json_t *aud = json_object_get(claims, "aud");

    if (json_array_size(aud) > AUDIENCES_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(aud); i++)
        if (is_string(json_array_get(aud, i), audience))
            return true;
    return is_string(aud, audience);
}

/* Text that goes into records and file names of others: no control characters. */
static int copy_subject(const json_t *claims, char *out, size_t size, struct phx_err *err)
{
    const char *sub = json_string_value(json_object_get(claims, "sub"));
    size_t      n = sub != NULL ? strlen(sub) : 0;

    if (n == 0 || n >= size)
        return refuse(err, "it needs a sub of 1 to 128 bytes");
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)sub[i] < 0x20 || sub[i] == 0x7f)
            return refuse(err, "its sub has control characters");
    memcpy(out, sub, n + 1);
    return 0;
}

static int copy_tenant(const json_t *claims, const struct phx_token_rules *rules, char out[65],
                       struct phx_err *err)
{
    const char *tenant = rules->tenant_claim[0] == '\0'
                             ? rules->tenant
                             : json_string_value(json_object_get(claims, rules->tenant_claim));

    if (tenant == NULL || phx_key_check_name("tenant", tenant, NULL) != 0)
        return refuse(err, "it does not name a tenant");
    (void)snprintf(out, 65, "%s", tenant);
    return 0;
}

/* Groups that are no roles of ours are passed over: providers put all of a person's groups there. */
static unsigned read_roles(const json_t *claims, const char *claim)
{
    const json_t *list = json_object_get(claims, claim);
    unsigned      roles = 0, bits = 0;

    if (claim[0] == '\0')
        return PHX_ROLE_BIT_USER;
    if (json_is_string(list) && phx_key_parse_roles(json_string_value(list), &bits, NULL) == 0)
        return bits;
    for (size_t i = 0; i < json_array_size(list) && i < ROLES_MAX; i++) {
        const char *name = json_string_value(json_array_get(list, i));

        if (name != NULL && strchr(name, ',') == NULL && phx_key_parse_roles(name, &bits, NULL) == 0)
            roles |= bits;
    }
    return roles;
}

static int read_claims(const json_t *claims, const struct phx_token_rules *rules, int64_t now_ns,
                       int64_t wall_ns, struct phx_token_claims *out, struct phx_err *err)
{
    int rc;

    if (!is_string(json_object_get(claims, "iss"), rules->issuer))
        return refuse(err, "it is of another issuer");
    if (!has_audience(claims, rules->audience))
        return refuse(err, "it is meant for another audience");
    rc = check_times(claims, rules->leeway_s, now_ns, wall_ns, out, err);
    if (rc == 0)
        rc = copy_subject(claims, out->subject, sizeof(out->subject), err);
    if (rc == 0)
        rc = copy_tenant(claims, rules, out->tenant, err);
    (void)snprintf(out->issuer, sizeof(out->issuer), "%s", rules->issuer);
    out->roles = read_roles(claims, rules->roles_claim);
    return rc;
}

int phx_token_verify(const struct phx_jwks *keys, const struct phx_token_rules *rules, const char *token,
                     int64_t now_ns, int64_t wall_ns, struct phx_token_claims *out, struct phx_err *err)
{
    const struct algorithm *algorithm = NULL;
    const struct phx_jwk   *key = NULL;
    struct parts            p;
    json_t                 *header = NULL, *claims = NULL;
    int                     rc = split(token, &p, err);

    memset(out, 0, sizeof(*out));
    if (rc == 0)
        rc = parse_part(token, p.header_size, "header", &header, err);
    if (rc == 0)
        rc = choose(header, keys, &key, &algorithm, err);
    if (rc == 0 && !check_signature(&p, key, algorithm))
        rc = refuse(err, "its signature is wrong");
    if (rc == 0)
        rc = parse_part(token + p.header_size + 1, p.signed_size - p.header_size - 1, "payload", &claims, err);
    if (rc == 0)
        rc = read_claims(claims, rules, now_ns, wall_ns, out, err);
    json_decref(claims);
    json_decref(header);
    if (rc != 0)
        memset(out, 0, sizeof(*out));
    return rc;
}
