/* SPDX-License-Identifier: Apache-2.0
 * Names in client certificates of the cluster's CA. */
#include <stdio.h>
#include <string.h>

#include "daemon/identity/identity.h"

static const char PREFIX[] = "spiffe://phalanx/";

static int refuse(struct phx_err *err)
{
    return phx_fail(err, PHX_E_UNAUTH,
                    "the certificate's name is not spiffe://phalanx/tenant/T/user/U or .../service/S");
}

/* Cuts the next segment off *rest; NULL = there is none. */
static char *take_segment(char **rest)
{
    return strsep(rest, "/");
}

static bool is_segment(char **rest, const char *expected)
{
    const char *segment = take_segment(rest);

    return segment != NULL && strcmp(segment, expected) == 0;
}

static bool copy_name(char **rest, char *out, size_t size)
{
    const char *name = take_segment(rest);

    if (name == NULL || phx_key_check_name("name", name, NULL) != 0)
        return false;
    (void)snprintf(out, size, "%s", name);
    return true;
}

int phx_identity_parse_uri(const char *uri, struct phx_identity *out, struct phx_err *err)
{
    char        copy[PHX_IDENTITY_URI_BYTES];
    char       *rest = copy;
    const char *kind, *roles;

    memset(out, 0, sizeof(*out));
    if (strncmp(uri, PREFIX, sizeof(PREFIX) - 1) != 0)
        return 0;
    if (strlen(uri) >= sizeof(copy))
        return refuse(err);
    (void)snprintf(copy, sizeof(copy), "%s", uri + sizeof(PREFIX) - 1);
    if (!is_segment(&rest, "tenant") || !copy_name(&rest, out->tenant, sizeof(out->tenant)))
        return refuse(err);
    kind = take_segment(&rest);
    if (kind == NULL || (strcmp(kind, "user") != 0 && strcmp(kind, "service") != 0) ||
        !copy_name(&rest, out->user, sizeof(out->user)))
        return refuse(err);
    out->auth = PHX_AUTH_CERT;
    out->is_person = strcmp(kind, "user") == 0;
    out->roles = PHX_ROLE_BIT_USER;
    (void)snprintf(out->issuer, sizeof(out->issuer), "phalanx");
    if (rest == NULL)
        return 1;
    if (!is_segment(&rest, "roles") || (roles = take_segment(&rest)) == NULL || rest != NULL ||
        phx_key_parse_roles(roles, &out->roles, NULL) != 0)
        return refuse(err);
    return 1;
}

void phx_identity_format_uri(const struct phx_identity *id, char uri[PHX_IDENTITY_URI_BYTES])
{
    char roles[64];

    phx_key_format_roles(id->roles, roles);
    (void)snprintf(uri, PHX_IDENTITY_URI_BYTES, "%stenant/%s/%s/%s/roles/%s", PREFIX, id->tenant,
                   id->is_person ? "user" : "service", id->user, roles);
}
