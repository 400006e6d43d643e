/* SPDX-License-Identifier: Apache-2.0
 * DSSE v1 (https://github.com/secure-systems-lab/dsse, protocol.md and envelope.md). */
#include <string.h>

#include <sodium.h>

#include "daemon/sign/base64.h"
#include "daemon/sign/sign.h"
#include "rpc/base/json.h"

/* "DSSEv1 <length of type> <type> <length of payload> <payload>" */
static void put_signed(const char *type, const void *payload, size_t size, struct phx_buf *out)
{
    phx_buf_init(out, 0);
    phx_buf_printf(out, "DSSEv1 %zu %s %zu ", strlen(type), type, size);
    phx_buf_put(out, payload, size);
}

static int read_type(const json_t *root, const char *type, struct phx_err *err)
{
    static const char *const keys[] = {"payload", "payloadType", "signatures", NULL};
    const char              *found = "";
    int                      rc = phx_json_check_object(root, "", err);

    if (rc == 0)
        rc = phx_json_check_keys(root, "", keys, err);
    if (rc == 0)
        rc = phx_json_get_str(root, "", "payloadType", 256, &found, err);
    if (rc == 0 && strcmp(found, type) != 0)
        rc = phx_fail(err, PHX_E_FORMAT, "payloadType: must be %s", type);
    return rc;
}

static int read_signature(const json_t *item, uint8_t sig[64], struct phx_err *err)
{
    static const char *const keys[] = {"keyid", "sig", NULL};
    struct phx_buf           bytes;
    const char              *text = "", *key_id = "";
    int                      rc = phx_json_check_object(item, "signatures", err);

    if (rc == 0)
        rc = phx_json_check_keys(item, "signatures", keys, err);
    if (rc == 0)
        rc = phx_json_opt_str(item, "signatures", "keyid", 256, &key_id, err);
    if (rc == 0)
        rc = phx_json_get_str(item, "signatures", "sig", 128, &text, err);
    phx_buf_init(&bytes, 128);
    if (rc == 0 && (!phx_base64_get(text, strlen(text), &bytes) || bytes.size != 64))
        rc = phx_fail(err, PHX_E_FORMAT, "signatures.sig: must be 64 bytes in base64");
    if (rc == 0)
        memcpy(sig, bytes.data, 64);
    phx_buf_fini(&bytes);
    return rc;
}

static bool is_counted(const struct phx_dsse_signers *s, int32_t key)
{
    for (int32_t i = 0; i < s->n; i++)
        if (s->index[i] == key)
            return true;
    return false;
}

/* keyid is a hint of the signer's and proves nothing: every key is tried. */
static int verify_all(const json_t *root, const struct phx_buf *signed_bytes, const uint8_t (*keys)[32],
                      size_t n_keys, struct phx_dsse_signers *signers, struct phx_err *err)
{
    const json_t *list = NULL;
    uint8_t       sig[64];
    int           rc = phx_json_get_array(root, "", "signatures", PHX_DSSE_SIGNATURES_MAX, &list, err);

    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        rc = read_signature(json_array_get(list, i), sig, err);
        for (size_t k = 0; rc == 0 && k < n_keys; k++)
            if (!is_counted(signers, (int32_t)k) &&
                phx_sign_verify(keys[k], signed_bytes->data, signed_bytes->size, sig)) {
                signers->index[signers->n++] = (int32_t)k;
                break;
            }
    }
    return rc;
}

int phx_dsse_open(const void *data, size_t size, size_t max_bytes, const char *payload_type,
                  const uint8_t (*keys)[32], size_t n_keys, int32_t threshold, struct phx_buf *payload,
                  struct phx_dsse_signers *signers, struct phx_err *err)
{
    struct phx_buf bytes = {0}, body;
    json_t        *root = NULL;
    const char    *text = "";
    int            rc = phx_json_parse(&root, data, size, max_bytes, PHX_DSSE_DEPTH_MAX, "envelope", err);

    signers->n = 0;
    phx_buf_init(&body, max_bytes);
    if (rc == 0)
        rc = read_type(root, payload_type, err);
    if (rc == 0)
        rc = phx_json_get_str(root, "", "payload", max_bytes, &text, err);
    if (rc == 0 && !phx_base64_get(text, strlen(text), &body))
        rc = phx_fail(err, PHX_E_FORMAT, "payload: not base64");
    if (rc == 0) {
        put_signed(payload_type, body.data != NULL ? body.data : "", body.size, &bytes);
        rc = verify_all(root, &bytes, keys, n_keys, signers, err);
    }
    if (rc == 0 && (threshold < 1 || signers->n < threshold))
        rc = phx_fail(err, PHX_E_LICENSE, "signatures: %d of %d known keys have signed this; %d are needed",
                      (int)signers->n, (int)n_keys, (int)threshold);
    if (rc == 0)
        phx_buf_put(payload, body.data != NULL ? body.data : "", body.size);
    phx_buf_fini(&bytes);
    phx_buf_fini(&body);
    json_decref(root);
    return rc;
}

char *phx_dsse_seal(const char *payload_type, const void *payload, size_t size,
                    const struct phx_sign_key *keys, int32_t n_keys)
{
    struct phx_buf bytes, out;

    put_signed(payload_type, payload, size, &bytes);
    phx_buf_init(&out, 0);
    phx_buf_puts(&out, "{\"payloadType\":");
    phx_json_put_str(&out, payload_type, strlen(payload_type));
    phx_buf_puts(&out, ",\"payload\":\"");
    phx_base64_put(&out, payload, size);
    phx_buf_puts(&out, "\",\"signatures\":[");
    for (int32_t i = 0; i < n_keys; i++) {
        char    id[PHX_KEY_ID_BYTES];
        uint8_t sig[64];

        phx_sign_key_id(keys[i].public_key, id);
        phx_sign_bytes(&keys[i], bytes.data, bytes.size, sig);
        phx_buf_printf(&out, "%s{\"keyid\":\"%s\",\"sig\":\"", i > 0 ? "," : "", id);
        phx_base64_put(&out, sig, sizeof(sig));
        phx_buf_puts(&out, "\"}");
    }
    phx_buf_puts(&out, "]}\n");
    phx_buf_fini(&bytes);
    return phx_buf_take(&out);
}
