/* SPDX-License-Identifier: Apache-2.0
 * A licensor for tests: three roots, two issuers, payloads to bend. */
#ifndef PHX_TESTS_LICENSE_FORGE_H
#define PHX_TESTS_LICENSE_FORGE_H

#include <jansson.h>

#include "daemon/license/license.h"
#include "daemon/sign/sign.h"

struct forge {
    struct phx_sign_key      roots[3], issuers[2];
    struct phx_license_roots trusted; /* 2 of the 3 */
    struct phx_key_set       keys;    /* version 3: both issuers, 2026 to 2030 and 2028 to 2034 */
};
void forge_init(struct forge *f);
/* A valid payload (serial 7, 500 seats, 2027 and 2028); owned, to be changed. */
json_t *forge_payload(const struct forge *f);
/* Signed without any check by the issuer; owned text. */
char *forge_sign(const json_t *payload, const struct phx_sign_key *issuer);
/* A key set's payload of that version with both issuers. */
json_t *forge_key_set(const struct forge *f, int version);
char   *forge_sign_key_set(const json_t *payload, const struct phx_sign_key *roots, int n_roots);
int64_t forge_time(const char *text); /* "2027-01-01T00:00:00Z" */
/* Parses text with the forge's keys; the code, the error in *err. */
int forge_parse(const struct forge *f, const char *text, struct phx_license **out, struct phx_err *err);
/* Signs the payload (which is released) and expects that it parses; owned. */
struct phx_license *forge_license(const struct forge *f, json_t *payload);

#endif
