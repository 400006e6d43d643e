/* SPDX-License-Identifier: Apache-2.0
 * `phalanx license keygen|keyset|issue`: the licensor's side, on a machine of its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/license.h"
#include "daemon/sign/sign.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

static int check_absent(const char *path, struct phx_err *err)
{
    if (access(path, F_OK) != 0)
        return 0;
    return phx_fail(err, PHX_E_STATE, "%s is there already; a key is never overwritten", path);
}

int phx_ctl_license_keygen(const struct phx_ctl_license *a, struct phx_err *err)
{
    char               *secret = phx_mem_printf("%s/%s.secret", a->out, a->name);
    char               *public_key = phx_mem_printf("%s/%s.pub", a->out, a->name);
    char                id[PHX_KEY_ID_BYTES], hex[PHX_SHA256_HEX];
    struct phx_sign_key k;
    int                 rc = 0;

    if (mkdir(a->out, 0700) != 0 && errno != EEXIST)
        rc = phx_fail(err, PHX_E_IO, "mkdir %s: %s", a->out, strerror(errno));
    if (rc == 0)
        rc = check_absent(secret, err);
    if (rc == 0)
        rc = check_absent(public_key, err);
    phx_sign_key_make(&k);
    if (rc == 0)
        rc = phx_sign_key_write(secret, &k, err);
    if (rc == 0)
        rc = phx_sign_public_write(public_key, k.public_key, err);
    if (rc == 0) {
        phx_sign_key_id(k.public_key, id);
        phx_hex_encode(hex, sizeof(hex), k.public_key, sizeof(k.public_key));
        if (a->is_json)
            printf("{\"kid\":\"%s\",\"public_key\":\"%s\"}\n", id, hex);
        else
            printf("kid        %s\npublic_key %s\n", id, hex);
    }
    phx_sign_wipe(&k);
    phx_mem_free(secret);
    phx_mem_free(public_key);
    return rc;
}

static int read_payload(const char *path, struct phx_buf *out, struct phx_err *err)
{
    int rc = phx_buf_read_file(out, path, PHX_LICENSE_MAX_BYTES, err);

    if (rc == 0 && memchr(out->data, '\0', out->size) != NULL) {
        phx_buf_fini(out);
        rc = phx_fail(err, PHX_E_FORMAT, "%s: not a text file", path);
    }
    return rc;
}

static int write_out(const struct phx_ctl_license *a, const char *text, struct phx_err *err)
{
    int rc = phx_file_write(a->out, text, strlen(text), 0644, err);

    if (rc == 0 && a->is_json)
        phx_ctl_print_json(json_pack("{s:s}", "out", a->out));
    else if (rc == 0)
        printf("%s: written and verified\n", a->out);
    return rc;
}

int phx_ctl_license_keyset(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_sign_key roots[PHX_CTL_KEYS_MAX];
    struct phx_buf      payload = {0};
    char               *file = NULL;
    int                 rc = read_payload(a->payload, &payload, err);

    memset(roots, 0, sizeof(roots));
    for (int i = 0; i < a->n_keys && rc == 0; i++)
        rc = phx_sign_key_read(a->keys[i], &roots[i], err);
    if (rc == 0)
        rc = phx_key_set_issue(payload.data, roots, a->n_keys, &file, err);
    if (rc == 0)
        rc = write_out(a, file, err);
    for (int i = 0; i < PHX_CTL_KEYS_MAX; i++)
        phx_sign_wipe(&roots[i]);
    phx_buf_fini(&payload);
    phx_mem_free(file);
    return rc;
}

static int renew(const struct phx_ctl_license *a, const struct phx_sign_key *issuer, struct phx_buf *payload,
                 struct phx_err *err)
{
    struct phx_buf before = {0};
    char          *text = NULL;
    int            rc = read_payload(a->renews, &before, err);

    if (rc == 0)
        rc = phx_license_renew(payload->data, before.data, issuer, &text, err);
    if (rc == 0) {
        phx_buf_fini(payload);
        phx_buf_init(payload, 0);
        phx_buf_puts(payload, text);
    }
    phx_mem_free(text);
    phx_buf_fini(&before);
    return rc;
}

int phx_ctl_license_issue(const struct phx_ctl_license *a, struct phx_err *err)
{
    struct phx_sign_key issuer = {0};
    struct phx_buf      payload = {0};
    char               *file = NULL;
    int                 rc = read_payload(a->payload, &payload, err);

    if (rc == 0)
        rc = phx_sign_key_read(a->keys[0], &issuer, err);
    if (rc == 0 && a->renews != NULL)
        rc = renew(a, &issuer, &payload, err);
    if (rc == 0)
        rc = phx_license_issue(payload.data, &issuer, phx_clock_wall_ns(), &file, err);
    if (rc == 0)
        rc = write_out(a, file, err);
    phx_sign_wipe(&issuer);
    phx_buf_fini(&payload);
    phx_mem_free(file);
    return rc;
}
