/* SPDX-License-Identifier: Apache-2.0
 * Who asks: from an API key, a client certificate or a signed token (OIDC).  A header that can be spoofed is
 * never an identity. */
#ifndef PHX_DAEMON_IDENTITY_H
#define PHX_DAEMON_IDENTITY_H

#include <stdint.h>

#include "daemon/keys/keys.h"
#include "rpc/base/err.h"

struct phx_config;
struct phx_store;
struct phx_time;

/* ---- signed tokens (pure) ---------------------------------------------------------------------------------- */

struct phx_jwks;
/* RFC 7517 file: RSA (RS256, PS256), EC P-256 (ES256), OKP (EdDSA) keys; at most 64.  Owned. */
int  phx_jwks_parse(const void *data, size_t size, struct phx_jwks **out, struct phx_err *err) PHX_CHECKED;
void phx_jwks_free(struct phx_jwks *j);

struct phx_token_rules {
    const char *issuer, *audience;      /* must be equal */
    const char *tenant_claim, *roles_claim; /* "" = the rule's fixed tenant / role user */
    const char *tenant;                 /* fixed tenant, used when tenant_claim is "" */
    int32_t     leeway_s;
};
struct phx_token_claims {
    char    subject[129], tenant[65], issuer[129];
    unsigned roles;
    int64_t expires_ns;
};
/* PHX_E_UNAUTH: signature, algorithm (none and HMAC are refused), issuer, audience, time, missing sub. */
int phx_token_verify(const struct phx_jwks *keys, const struct phx_token_rules *rules, const char *token,
                     int64_t now_ns, struct phx_token_claims *out, struct phx_err *err) PHX_CHECKED;

/* ---- the daemon's ---------------------------------------------------------------------------------------------- */

struct phx_identities;
int  phx_identities_open(const struct phx_config *config, struct phx_keys *keys, struct phx_time *time,
                         struct phx_identities **out, struct phx_err *err) PHX_CHECKED;
void phx_identities_close(struct phx_identities *i); /* NULL is allowed */
/* bearer: an API key or a token; on_behalf_of: a token of the end user, only taken from a service account's
 * call, NULL = none; cert_name / alt_names: of a verified client certificate.  PHX_E_UNAUTH. */
struct phx_credentials {
    const char *bearer, *on_behalf_of, *cert_name;
    const char *const *alt_names; /* "spiffe://phalanx/tenant/<t>/user/<u>" names a user */
    int32_t     n_alt_names;
};
int phx_identify(struct phx_identities *i, const struct phx_credentials *c, struct phx_identity *out,
                 struct phx_err *err) PHX_CHECKED;

#endif
