/* SPDX-License-Identifier: Apache-2.0
 * The licence: a DSSE envelope around a JSON payload, signed with Ed25519 by an issuer whose public key the
 * site trusts.  The signature is checked over the raw bytes before anything is parsed. */
#ifndef PHX_DAEMON_LICENSE_H
#define PHX_DAEMON_LICENSE_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_license;

#define PHX_LICENSE_PAYLOAD_TYPE "application/vnd.phalanx.licence+json;v=1"

enum phx_license_state {
    PHX_LICENSE_NONE = 0,
    PHX_LICENSE_EARLY,      /* before not_before */
    PHX_LICENSE_VALID,
    PHX_LICENSE_EXPIRING,   /* valid, within warn_days of its end */
    PHX_LICENSE_GRACE,      /* after not_after: everybody is served */
    PHX_LICENSE_CONTINUITY, /* after that: known users are served, new ones refused */
    PHX_LICENSE_EXPIRED     /* after that: nobody */
};
const char *phx_license_state_name(enum phx_license_state state); /* "valid", ... */

struct phx_license_facts {
    char    id[65], customer[129], class_name[33], issuer[65]; /* issuer: hex of the key's SHA-256 */
    int64_t serial;
    int64_t not_before_ns, not_after_ns;
    int32_t warn_days, grace_days, continuity_days;
    int32_t max_concurrent; /* requests at once; 0 = no limit */
    char    digest[65];     /* SHA-256 of the payload, hex */
};

/* Reads and verifies `file` against the public keys in `issuers_file` (one hex key a line, # comments).
 * PHX_E_LICENSE for a bad or unknown signature, PHX_E_FORMAT / _INVALID naming the field, PHX_E_IO. */
int  phx_license_open(const char *file, const char *issuers_file, struct phx_license **out,
                      struct phx_err *err) PHX_CHECKED;
/* The same from memory. */
int  phx_license_parse(const void *data, size_t size, const uint8_t (*issuers)[32], size_t n_issuers,
                       struct phx_license **out, struct phx_err *err) PHX_CHECKED;
void phx_license_close(struct phx_license *l); /* NULL is allowed */

const struct phx_license_facts *phx_license_facts(const struct phx_license *l); /* borrowed */
enum phx_license_state phx_license_state(const struct phx_license *l, int64_t now_wall_ns);
/* May a request be served now?  PHX_E_LICENSE with the reason and what to do; *rule is then the rule's
 * name ("licence.expired", ...; static), else "". */
int phx_license_check(const struct phx_license *l, int64_t now_wall_ns, const char **rule,
                      struct phx_err *err) PHX_CHECKED;
/* "evaluation licence 01AB.. serial 1, valid until 2026-02-14" into text. */
void phx_license_format(const struct phx_license *l, int64_t now_wall_ns, char *text, size_t size);

/* Signs a payload (JSON text) into an envelope; owned text in *out. */
int phx_license_sign(const char *payload, const uint8_t secret_key[64], char **out,
                     struct phx_err *err) PHX_CHECKED;
/* For `phalanx up`: makes an issuer key of this site and an evaluation licence signed by it, unless
 * both files exist. */
int phx_license_ensure_evaluation(const char *file, const char *issuers_file,
                                  struct phx_err *err) PHX_CHECKED;

#endif
