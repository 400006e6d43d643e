/* SPDX-License-Identifier: Apache-2.0
 * The one table of who may call what.  A method without a row is denied. */
#include <stdio.h>
#include <string.h>

#include "daemon/certs/certs.h"
#include "daemon/control/control.h"
#include "daemon/identity/identity.h"

#define USER PHX_ROLE_BIT_USER
#define OPERATOR PHX_ROLE_BIT_OPERATOR
#define AUDITOR PHX_ROLE_BIT_AUDITOR
#define ADMIN PHX_ROLE_BIT_ADMIN

static const unsigned allowed[PHX_RPC_METHODS] = {
    [PHX_RPC_CLUSTER_GET] = OPERATOR | ADMIN,
    [PHX_RPC_CLUSTER_WATCH] = OPERATOR | ADMIN,
    [PHX_RPC_CLUSTER_DRAIN] = OPERATOR | ADMIN,
    [PHX_RPC_CLUSTER_RESTART] = OPERATOR | ADMIN,
    [PHX_RPC_INFERENCE_GENERATE] = USER,
    [PHX_RPC_ADMIT] = USER,
    [PHX_RPC_RENEW] = USER,
    [PHX_RPC_SETTLE] = USER,
    [PHX_RPC_CANCEL_LEASE] = USER,
    [PHX_RPC_LICENSE_GET] = OPERATOR | AUDITOR | ADMIN,
    [PHX_RPC_LICENSE_INSTALL] = ADMIN,
    [PHX_RPC_LICENSE_SEATS] = AUDITOR | ADMIN,
    [PHX_RPC_LICENSE_ACCEPT_CLOCK] = ADMIN,
    [PHX_RPC_METERING_QUERY] = USER | OPERATOR | AUDITOR | ADMIN,
    [PHX_RPC_METERING_EXPORT] = AUDITOR | ADMIN,
    [PHX_RPC_AUDIT_GET] = AUDITOR,
    [PHX_RPC_AUDIT_PROVE] = AUDITOR,
    [PHX_RPC_AUDIT_CHECKPOINT] = OPERATOR | AUDITOR | ADMIN,
    [PHX_RPC_AUDIT_SEARCH] = AUDITOR,
    [PHX_RPC_AUDIT_REPLAY] = AUDITOR,
};

static unsigned allowed_for(enum phx_rpc_method method)
{
    return method > PHX_RPC_NONE && method < PHX_RPC_METHODS ? allowed[method] : 0;
}

bool phx_control_may(enum phx_rpc_method method, unsigned roles)
{
    return (allowed_for(method) & roles) != 0;
}

int phx_control_identify(struct phx_identities *i, const struct phx_rpc_peer *peer,
                         struct phx_identity *out, struct phx_err *err)
{
    struct phx_credentials c = {peer->bearer, peer->on_behalf_of, peer->alt_names, peer->n_alt_names};
    const char            *name;
    enum phx_cert_role     role = phx_certs_role(peer->common_name, &name);

    memset(out, 0, sizeof(*out));
    if (role == PHX_CERT_RANK || role == PHX_CERT_SERVER)
        return phx_fail(err, PHX_E_DENIED, "a certificate of the cluster itself may not call this");
    if (role != PHX_CERT_OPERATOR || peer->bearer != NULL)
        return phx_identify(i, &c, out, err);
    if (peer->on_behalf_of != NULL)
        return phx_fail(err, PHX_E_DENIED, "an operator's certificate asks on nobody's behalf");
    out->auth = PHX_AUTH_CERT;
    (void)snprintf(out->user, sizeof(out->user), "operator");
    (void)snprintf(out->issuer, sizeof(out->issuer), "phalanx");
    out->roles = OPERATOR | AUDITOR | ADMIN;
    return 0;
}

int phx_control_authorize(struct phx_identities *i, const struct phx_rpc_request *request,
                          struct phx_identity *out, struct phx_err *err)
{
    char names[64];
    int  rc = phx_control_identify(i, &request->peer, out, err);

    if (rc != 0)
        return rc;
    if (phx_control_may(request->method, out->roles))
        return 0;
    phx_key_format_roles(allowed_for(request->method), names);
    return phx_fail(err, PHX_E_DENIED, "this needs a role (%s) that the caller does not have", names);
}
