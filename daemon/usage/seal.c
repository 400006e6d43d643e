/* SPDX-License-Identifier: Apache-2.0
 * The site's report key signs nothing but exports. */
#include <string.h>
#include <unistd.h>

#include "daemon/sign/sign.h"
#include "daemon/usage/usage.h"
#include "rpc/base/mem.h"

static int open_key(const char *key_dir, struct phx_sign_key *key, struct phx_err *err)
{
    char *secret = phx_mem_printf("%s/report.key", key_dir), *public_key = phx_mem_printf("%s/report.pub", key_dir);
    int   rc;

    if (access(secret, F_OK) == 0) {
        rc = phx_sign_key_read(secret, key, err);
    } else {
        phx_sign_key_make(key);
        rc = phx_sign_key_write(secret, key, err);
    }
    if (rc == 0 && access(public_key, F_OK) != 0)
        rc = phx_sign_public_write(public_key, key->public_key, err);
    phx_mem_free(secret);
    phx_mem_free(public_key);
    return rc;
}

int phx_usage_seal(const char *key_dir, const char *payload, char **envelope, struct phx_err *err)
{
    struct phx_sign_key key;
    int                 rc = phx_sign_init(err);

    *envelope = NULL;
    if (rc != 0)
        return rc;
    rc = open_key(key_dir, &key, err);
    if (rc == 0)
        *envelope = phx_dsse_seal(PHX_USAGE_EXPORT_PAYLOAD_TYPE, payload, strlen(payload), &key, 1);
    phx_sign_wipe(&key);
    return rc;
}
