/* SPDX-License-Identifier: Apache-2.0
 * The cluster's own certificates (ECDSA P-256) under DIR/tls: a CA, one for the server, one for the
 * operator, and short-lived ones for each launch of a replica.  A certificate's role is its common name:
 * "phalanxd", "operator", "rank:REPLICA". */
#ifndef PHX_DAEMON_CERTS_H
#define PHX_DAEMON_CERTS_H

#include <stdint.h>

#include "rpc/base/err.h"

enum phx_cert_role { PHX_CERT_NONE = 0, PHX_CERT_SERVER, PHX_CERT_OPERATOR, PHX_CERT_RANK };

/* Makes what is missing: tls/ca.{crt,key}, tls/server.{crt,key}, tls/operator.{crt,key}.  host (may be
 * NULL) is one more name or address of the server certificate beside localhost and 127.0.0.1.  A server or
 * operator certificate in its last third of life, or not of this CA, is made anew.  Keys have mode 0600. */
int phx_certs_ensure(const char *data_dir, const char *host, struct phx_err *err) PHX_CHECKED;
/* Issues a client certificate from DIR/tls/ca.* into two files; name is the REPLICA of a rank. */
int phx_certs_issue(const char *data_dir, enum phx_cert_role role, const char *name, int64_t valid_s,
                    const char *cert_path, const char *key_path, struct phx_err *err) PHX_CHECKED;
/* A client certificate whose URI name says who it is (daemon/identity); common_name must not be a role of ours
 * (PHX_E_INVALID), as it would open the cluster's own doors. */
int phx_certs_issue_name(const char *data_dir, const char *common_name, const char *uri, int64_t valid_s,
                         const char *cert_path, const char *key_path, struct phx_err *err) PHX_CHECKED;
/* What a licence binds to: hex SHA-256 of the CA's public key (SubjectPublicKeyInfo, DER). */
int phx_certs_fingerprint(const char *data_dir, char hex[65], struct phx_err *err) PHX_CHECKED;
/* The role that a verified peer's common name says; *name = REPLICA for a rank (borrowed), else "". */
enum phx_cert_role phx_certs_role(const char *common_name, const char **name);

#endif
