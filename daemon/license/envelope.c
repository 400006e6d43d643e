/* SPDX-License-Identifier: Apache-2.0
 * DSSE (github.com/secure-systems-lab/dsse, protocol.md): the signature is over
 *   "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload */
#include "daemon/license/envelope.h"

#include <sodium.h>
#include <string.h>

#include "daemon/license/license.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { ENVELOPE_MAX_BYTES = 64 << 10, SIGNATURES_MAX = 4, DEPTH_MAX = 4 };

static void put_signed_bytes(struct phx_buf *out, const void *payload, size_t size)
{
    phx_buf_init(out, 0);
    phx_buf_printf(out, "DSSEv1 %zu %s %zu ", strlen(PHX_LICENSE_PAYLOAD_TYPE),
                   PHX_LICENSE_PAYLOAD_TYPE, size);
    phx_buf_put(out, payload, size);
}

static int decode(const char *text, void *out, size_t capacity, size_t *size, const char *what,
                  struct phx_err *err)
{
    if (sodium_base642bin(out, capacity, text, strlen(text), NULL, size, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0)
        return phx_fail(err, PHX_E_FORMAT, "%s: not base64", what);
    return 0;
}

static int verify(const json_t *root, const struct phx_buf *payload, const uint8_t (*issuers)[32],
                  size_t n_issuers, size_t *issuer, struct phx_err *err)
{
    const json_t  *list;
    struct phx_buf bytes;
    bool           is_good = false;
    int rc = phx_json_get_array(root, "", "signatures", SIGNATURES_MAX, &list, err);

    if (rc != 0)
        return rc;
    put_signed_bytes(&bytes, payload->data, payload->size);
    for (size_t i = 0; i < json_array_size(list) && !is_good; i++) {
        const char *text = json_string_value(json_object_get(json_array_get(list, i), "sig"));
        uint8_t     signature[crypto_sign_BYTES];
        size_t      size = 0;

        if (text == NULL || decode(text, signature, sizeof(signature), &size, "sig", NULL) != 0 ||
            size != sizeof(signature))
            continue;
        for (size_t j = 0; j < n_issuers && !is_good; j++)
            if (crypto_sign_verify_detached(signature, (const unsigned char *)bytes.data, bytes.size,
                                            issuers[j]) == 0) {
                is_good = true;
                *issuer = j;
            }
    }
    phx_buf_fini(&bytes);
    if (!is_good)
        return phx_fail(err, PHX_E_LICENSE, "no signature of a trusted issuer fits");
    return 0;
}

int phx_envelope_open(const void *data, size_t size, const uint8_t (*issuers)[32], size_t n_issuers,
                      struct phx_buf *payload, size_t *issuer, struct phx_err *err)
{
    static const char *const keys[] = {"payloadType", "payload", "signatures", NULL};
    json_t                  *root = NULL;
    const char              *type, *text;
    unsigned char           *raw = NULL;
    size_t                   n = 0;
    int rc = phx_json_parse(&root, data, size, ENVELOPE_MAX_BYTES, DEPTH_MAX, "envelope", err);

    phx_buf_init(payload, ENVELOPE_MAX_BYTES);
    if (rc == 0)
        rc = phx_json_check_object(root, "", err);
    if (rc == 0)
        rc = phx_json_check_keys(root, "", keys, err);
    if (rc == 0)
        rc = phx_json_get_str(root, "", "payloadType", 128, &type, err);
    if (rc == 0 && strcmp(type, PHX_LICENSE_PAYLOAD_TYPE) != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "payloadType: not a licence of this version");
    if (rc == 0)
        rc = phx_json_get_str(root, "", "payload", ENVELOPE_MAX_BYTES, &text, err);
    if (rc == 0) {
        raw = phx_mem_calloc(1, ENVELOPE_MAX_BYTES);
        rc = decode(text, raw, ENVELOPE_MAX_BYTES, &n, "payload", err);
    }
    if (rc == 0) {
        phx_buf_put(payload, raw, n);
        rc = verify(root, payload, issuers, n_issuers, issuer, err);
    }
    phx_mem_free(raw);
    json_decref(root);
    return rc;
}

static void put_base64(struct phx_buf *out, const void *data, size_t size)
{
    size_t capacity = sodium_base64_encoded_len(size, sodium_base64_VARIANT_ORIGINAL);
    char  *text = phx_mem_calloc(1, capacity);

    phx_buf_puts(out, sodium_bin2base64(text, capacity, data, size, sodium_base64_VARIANT_ORIGINAL));
    phx_mem_free(text);
}

int phx_envelope_seal(const void *payload, size_t size, const uint8_t secret_key[64], char **out,
                      struct phx_err *err)
{
    uint8_t        signature[crypto_sign_BYTES];
    char           key_id[PHX_SHA256_HEX];
    struct phx_buf bytes, text;

    *out = NULL;
    if (size > ENVELOPE_MAX_BYTES / 2)
        return phx_fail(err, PHX_E_TOOBIG, "licence payload: %zu bytes", size);
    put_signed_bytes(&bytes, payload, size);
    (void)crypto_sign_detached(signature, NULL, (const unsigned char *)bytes.data, bytes.size,
                               secret_key); /* always answers 0 */
    phx_sha256_hex(secret_key + 32, 32, key_id); /* the public half */
    phx_buf_init(&text, 0);
    phx_buf_puts(&text, "{\"payloadType\":\"" PHX_LICENSE_PAYLOAD_TYPE "\",\"payload\":\"");
    put_base64(&text, payload, size);
    phx_buf_printf(&text, "\",\"signatures\":[{\"keyid\":\"%s\",\"sig\":\"", key_id);
    put_base64(&text, signature, sizeof(signature));
    phx_buf_puts(&text, "\"}]}\n");
    *out = phx_buf_take(&text);
    phx_buf_fini(&bytes);
    return 0;
}
