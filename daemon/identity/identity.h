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
/* RFC 7517 file: RSA (RS256, PS256), EC P-256 (ES256), OKP Ed25519 (EdDSA) keys; at most 64.  Keys of other
 * kinds or uses are passed over; a private or symmetric key, two keys of one kid, and a file without a usable
 * key are PHX_E_INVALID naming the entry.  Owned: phx_jwks_free(). */
int  phx_jwks_parse(const void *data, size_t size, struct phx_jwks **out, struct phx_err *err) PHX_CHECKED;
void phx_jwks_free(struct phx_jwks *j); /* NULL is allowed */

struct phx_token_rules {
    const char *issuer, *audience;      /* must be equal */
    const char *tenant_claim, *roles_claim; /* "" = the rule's fixed tenant / role user */
    const char *tenant;                 /* fixed tenant, used when tenant_claim is "" */
    int32_t     leeway_s;
};
enum { PHX_TOKEN_MAX_BYTES = 16 << 10 };
struct phx_token_claims {
    char    subject[129], tenant[65], issuer[129];
    unsigned roles;
    int64_t expires_ns;
};
/* PHX_E_UNAUTH: signature, algorithm (none and HMAC are refused), issuer, audience, time, missing sub.
 * `exp` is judged by now_ns, `nbf` and `iat` by the later of now_ns and wall_ns: while a suspect clock is
 * held, the issuer's time may be that of the wall. */
int phx_token_verify(const struct phx_jwks *keys, const struct phx_token_rules *rules, const char *token,
                     int64_t now_ns, int64_t wall_ns, struct phx_token_claims *out,
                     struct phx_err *err) PHX_CHECKED;

/* ---- names in client certificates (pure) ----------------------------------------------------------------- */

/* "spiffe://phalanx/tenant/<t>/user/<u>[/roles/<r,r>]" or ".../service/<s>...".  1 = filled *out, 0 = not a
 * name of ours, PHX_E_UNAUTH = looks like one and is not. */
int phx_identity_parse_uri(const char *uri, struct phx_identity *out, struct phx_err *err) PHX_CHECKED;
/* The same back, PHX_IDENTITY_URI_BYTES at most. */
enum { PHX_IDENTITY_URI_BYTES = 320 };
void phx_identity_format_uri(const struct phx_identity *id, char uri[PHX_IDENTITY_URI_BYTES]);

/* ---- the daemon's ---------------------------------------------------------------------------------------------- */

struct phx_identities;
int  phx_identities_open(const struct phx_config *config, struct phx_keys *keys, struct phx_time *time,
                         struct phx_identities **out, struct phx_err *err) PHX_CHECKED;
void phx_identities_close(struct phx_identities *i); /* NULL is allowed */
/* bearer: an API key or a token, NULL = none; on_behalf_of: a token of the end user, only taken from a service
 * account's call, NULL = none; alt_names: of a verified client certificate, used when there is no bearer. */
struct phx_credentials {
    const char *bearer, *on_behalf_of;
    const char *const *alt_names; /* phx_identity_parse_uri() */
    int32_t     n_alt_names;
};
/* Loop thread.  PHX_E_UNAUTH; PHX_E_DENIED: on_behalf_of from somebody who is no service account. */
int phx_identify(struct phx_identities *i, const struct phx_credentials *c, struct phx_identity *out,
                 struct phx_err *err) PHX_CHECKED;

#endif
