/* SPDX-License-Identifier: Apache-2.0
 * Serves Admission, License, Metering and Audit over gRPC: who may, what is read, what is written down about it.
 *
 * Reading goes on a thread of its own over a database connection of its own, so that neither the loop nor
 * the writer waits for a report; writing goes through the store.  Loop thread, but for that. */
#ifndef PHX_DAEMON_CONTROL_H
#define PHX_DAEMON_CONTROL_H

#include <stdbool.h>

#include "daemon/keys/keys.h"
#include "rpc/rpc.h"

struct phx_daemon;
struct phx_identities;
struct phx_control;

/* ---- who may ------------------------------------------------------------------------------------- */

/* The table of roles and methods; what is not in it is denied.  roles: bits of enum phx_key_role. */
bool phx_control_may(enum phx_rpc_method method, unsigned roles);
/* Who calls: by the bearer, else by the certificate (the operator's has all roles but user); ranks and
 * servers are nobody.  PHX_E_UNAUTH, PHX_E_DENIED. */
int phx_control_identify(struct phx_identities *i, const struct phx_rpc_peer *peer,
                         struct phx_identity *out, struct phx_err *err) PHX_CHECKED;
/* Both; PHX_E_DENIED naming the roles that may. */
int phx_control_authorize(struct phx_identities *i, const struct phx_rpc_request *request,
                          struct phx_identity *out, struct phx_err *err) PHX_CHECKED;

/* ---- the services -------------------------------------------------------------------------------- */

/* d must have base, config, store, time, identities, license and admission; publisher and engine are used when they
 * are there. */
int  phx_control_open(struct phx_daemon *d, struct phx_control **out, struct phx_err *err) PHX_CHECKED;
/* After the RPC server was closed and the store drained, before the store is closed.  NULL is allowed. */
void phx_control_close(struct phx_control *c);
/* Is it a method that phx_control_request() answers? */
bool phx_control_has(enum phx_rpc_method method);
/* Answers, now or later. */
void phx_control_request(struct phx_control *c, struct phx_rpc_call *call,
                         const struct phx_rpc_request *request);
/* The client of a call is gone (any call: one that is not ours changes nothing). */
void phx_control_cancelled(struct phx_control *c, const struct phx_rpc_call *call);

#endif
