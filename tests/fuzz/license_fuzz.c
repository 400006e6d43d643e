/* SPDX-License-Identifier: Apache-2.0
 * Licences: any bytes as a file must be refused (the fuzzer has no key), and any bytes as a payload must be
 * read or refused; what is read must hold its own bounds. */
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_terms(const struct phx_license *l)
{
    const struct phx_license_terms *t = &l->terms;

    phx_assert(t->serial > t->supersedes && t->not_after_ns > t->not_before_ns);
    phx_assert(t->n_models >= 1 && t->n_models <= PHX_LICENSE_MODELS_MAX);
    phx_assert(t->n_clusters <= PHX_LICENSE_CLUSTERS_MAX && t->limits.seats >= -1);
    phx_assert(phx_license_exempt_cap(l) >= 0 && strlen(t->digest) == 64);
    for (int32_t i = 0; i < t->n_models; i++)
        phx_assert(phx_license_find_model(l, t->models[i].manifest_root) != NULL);
    phx_assert(phx_license_state(l, t->not_before_ns) != PHX_LICENSE_EARLY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct phx_key_set keys;
    struct phx_license       *l = NULL;
    struct phx_err            err;

    if (keys.version == 0) {
        struct phx_sign_key key;

        phx_assert(phx_sign_init(&err) == 0);
        phx_sign_key_make(&key);
        memcpy(keys.issuers[0].public_key, key.public_key, 32);
        keys.version = keys.n_issuers = 1;
    }
    phx_assert(phx_license_parse(data, size, &keys, &l, &err) != 0);
    if (phx_license_read(data, size, &l, &err) == 0)
        check_terms(l);
    phx_license_free(l);
    return 0;
}
