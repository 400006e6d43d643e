/* SPDX-License-Identifier: Apache-2.0
 * A Sigstore bundle with one DSSE signature made with an EC key (https://github.com/secure-systems-lab/dsse,
 * protocol.md; the hash goes by the curve, as in the model signing specification). */
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "rpc/base/hash.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/manifest/entry.h"

#define BUNDLE_TYPE "application/vnd.dev.sigstore.bundle.v0.3+json"
#define PAYLOAD_TYPE "application/vnd.in-toto+json"

enum { SIGNATURE_MAX_BYTES = 256, DEPTH_MAX = 16 };

/* ---- keys ------------------------------------------------------------------------------------------------ */

static EVP_PKEY *read_key(const char *path, bool is_private, struct phx_err *err)
{
    BIO      *bio = BIO_new_file(path, "r");
    EVP_PKEY *key = NULL;

    if (bio != NULL)
        key = is_private ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL)
                         : PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (key == NULL)
        (void)phx_fail(err, PHX_E_IO, "%s: not a readable PEM %s key", path, is_private ? "private" : "public");
    else if (EVP_PKEY_base_id(key) != EVP_PKEY_EC) {
        (void)phx_fail(err, PHX_E_UNSUPPORTED, "%s: not an EC key (P-256, P-384 or P-521)", path);
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

static const EVP_MD *hash_of(const EVP_PKEY *key)
{
    int bits = EVP_PKEY_bits(key);

    return bits == 256 ? EVP_sha256() : bits == 384 ? EVP_sha384() : bits == 521 ? EVP_sha512() : NULL;
}

/* SHA-256 of the public key's PEM: by it a verifier sees which key was used. */
static void hint_of(EVP_PKEY *key, char hint[PHX_SHA256_HEX])
{
    BIO  *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long  size = 0;

    hint[0] = '\0';
    if (bio != NULL && PEM_write_bio_PUBKEY(bio, key) == 1 && (size = BIO_get_mem_data(bio, &text)) > 0)
        phx_sha256_hex(text, (size_t)size, hint);
    BIO_free(bio);
}

static void put_pae(const struct phx_buf *payload, struct phx_buf *out)
{
    phx_buf_init(out, 0);
    phx_buf_printf(out, "DSSEv1 %zu %s %zu ", strlen(PAYLOAD_TYPE), PAYLOAD_TYPE, payload->size);
    phx_buf_put(out, payload->data, payload->size);
}

/* ---- base64 ------------------------------------------------------------------------------------------------ */

static void put_base64(struct phx_buf *out, const void *data, size_t size)
{
    uint8_t *text = phx_mem_calloc(1, 4 * (size / 3 + 1) + 1);

    (void)EVP_EncodeBlock(text, data, (int)size); /* bounded by PHX_MANIFEST_MAX_BYTES */
    phx_buf_puts(out, (const char *)text);
    phx_mem_free(text);
}

static int get_base64(const char *text, const char *what, struct phx_buf *out, struct phx_err *err)
{
    size_t   size = strlen(text), padding = 0;
    uint8_t *data = phx_mem_calloc(1, size + 1);
    int      n = size % 4 == 0 ? EVP_DecodeBlock(data, (const uint8_t *)text, (int)size) : -1;

    while (padding < 2 && padding < size && text[size - 1 - padding] == '=')
        padding++;
    if (n >= (int)padding)
        phx_buf_put(out, data, (size_t)n - padding);
    phx_mem_free(data);
    return n >= (int)padding ? 0 : phx_fail(err, PHX_E_FORMAT, "%s: not base64", what);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int verify(const struct phx_buf *payload, const struct phx_buf *signature, const char *hint,
                  const char *public_key, struct phx_err *err)
{
    EVP_PKEY      *key = read_key(public_key, false, err);
    EVP_MD_CTX    *ctx = EVP_MD_CTX_new();
    char           own[PHX_SHA256_HEX];
    struct phx_buf pae;
    bool           is_good = false;

    if (key == NULL) {
        EVP_MD_CTX_free(ctx);
        return err->code;
    }
    hint_of(key, own);
    put_pae(payload, &pae);
    if (hash_of(key) != NULL && EVP_DigestVerifyInit(ctx, NULL, hash_of(key), NULL, key) == 1)
        is_good = EVP_DigestVerify(ctx, (const uint8_t *)signature->data, signature->size,
                                   (const uint8_t *)pae.data, pae.size) == 1;
    phx_buf_fini(&pae);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    if (hint[0] != '\0' && strcmp(hint, own) != 0)
        return phx_fail(err, PHX_E_DENIED, PHX_MANIFEST_FILE ": signed with another key (%.16s...) than %s",
                        hint, public_key);
    return is_good ? 0 : phx_fail(err, PHX_E_DENIED, PHX_MANIFEST_FILE ": the signature does not verify with %s",
                                  public_key);
}

static int read_bundle(const json_t *root, const char **payload, const char **signature, const char **hint,
                       struct phx_err *err)
{
    const json_t *material, *key = NULL, *envelope = NULL, *signatures = NULL, *first;
    const char   *type = "";
    int           rc = phx_json_check_object(root, "", err);

    *hint = "";
    if (rc == 0)
        rc = phx_json_get_object(root, "", "verificationMaterial", &material, err);
    if (rc == 0)
        rc = phx_json_opt_object(material, "verificationMaterial", "publicKey", &key, err);
    if (rc == 0 && key == NULL)
        rc = phx_fail(err, PHX_E_UNSUPPORTED,
                      "verificationMaterial: only signatures made with a key are supported");
    if (rc == 0)
        rc = phx_json_opt_str(key, "verificationMaterial.publicKey", "hint", 128, hint, err);
    if (rc == 0)
        rc = phx_json_get_object(root, "", "dsseEnvelope", &envelope, err);
    if (rc == 0)
        rc = phx_json_get_str(envelope, "dsseEnvelope", "payloadType", 128, &type, err);
    if (rc == 0 && strcmp(type, PAYLOAD_TYPE) != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "dsseEnvelope.payloadType: must be " PAYLOAD_TYPE);
    if (rc == 0)
        rc = phx_json_get_str(envelope, "dsseEnvelope", "payload", PHX_MANIFEST_MAX_BYTES, payload, err);
    if (rc == 0)
        rc = phx_json_get_array(envelope, "dsseEnvelope", "signatures", 1, &signatures, err);
    first = rc == 0 ? json_array_get(signatures, 0) : NULL;
    if (rc == 0)
        rc = phx_json_check_object(first, "dsseEnvelope.signatures[0]", err);
    return rc != 0 ? rc
                   : phx_json_get_str(first, "dsseEnvelope.signatures[0]", "sig", 4 * SIGNATURE_MAX_BYTES,
                                      signature, err);
}

int phx_bundle_open(const char *text, size_t size, const char *path, const char *public_key,
                    struct phx_buf *payload, bool *is_verified, struct phx_err *err)
{
    struct phx_buf signature;
    json_t        *root = NULL;
    const char    *body = "", *sig = "", *hint = "";
    int            rc = phx_json_parse(&root, text, size, PHX_MANIFEST_MAX_BYTES, DEPTH_MAX, path, err);

    phx_buf_init(payload, PHX_MANIFEST_MAX_BYTES);
    phx_buf_init(&signature, SIGNATURE_MAX_BYTES);
    *is_verified = false;
    if (rc == 0)
        rc = read_bundle(root, &body, &sig, &hint, err);
    if (rc == 0)
        rc = get_base64(body, "dsseEnvelope.payload", payload, err);
    if (rc == 0)
        rc = get_base64(sig, "dsseEnvelope.signatures[0].sig", &signature, err);
    if (rc == 0)
        rc = phx_buf_check(&signature, "signature", err);
    if (rc == 0 && public_key[0] != '\0') {
        rc = verify(payload, &signature, hint, public_key, err);
        *is_verified = rc == 0;
    }
    json_decref(root);
    phx_buf_fini(&signature);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

int phx_bundle_seal(const struct phx_buf *payload, const char *private_key, struct phx_buf *out,
                    struct phx_err *err)
{
    EVP_PKEY      *key = read_key(private_key, true, err);
    EVP_MD_CTX    *ctx = EVP_MD_CTX_new();
    struct phx_buf pae;
    uint8_t        signature[SIGNATURE_MAX_BYTES];
    size_t         size = sizeof(signature);
    char           hint[PHX_SHA256_HEX];
    bool           is_made = false;

    if (key == NULL) {
        EVP_MD_CTX_free(ctx);
        return err->code;
    }
    hint_of(key, hint);
    put_pae(payload, &pae);
    if (hash_of(key) != NULL && EVP_DigestSignInit(ctx, NULL, hash_of(key), NULL, key) == 1)
        is_made = EVP_DigestSign(ctx, signature, &size, (const uint8_t *)pae.data, pae.size) == 1;
    phx_buf_fini(&pae);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    if (!is_made)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: cannot sign; an EC key on P-256, P-384 or P-521 is needed",
                        private_key);
    phx_buf_puts(out, "{\"mediaType\":\"" BUNDLE_TYPE "\",\"verificationMaterial\":{\"publicKey\":{\"hint\":\"");
    phx_buf_puts(out, hint);
    phx_buf_puts(out, "\"},\"tlogEntries\":[]},\"dsseEnvelope\":{\"payload\":\"");
    put_base64(out, payload->data, payload->size);
    phx_buf_puts(out, "\",\"payloadType\":\"" PAYLOAD_TYPE "\",\"signatures\":[{\"sig\":\"");
    put_base64(out, signature, size);
    phx_buf_puts(out, "\",\"keyid\":\"\"}]}}\n");
    return 0;
}
