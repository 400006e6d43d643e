/* SPDX-License-Identifier: Apache-2.0
 * Throwaway certificates for tests: a CA and leaves signed by it, all in memory. */
#ifndef PHX_TESTS_CERTS_H
#define PHX_TESTS_CERTS_H

#include "rpc/rpc.h"

struct test_ca;

struct test_ca *test_ca_create(const char *name);
void            test_ca_destroy(struct test_ca *ca);
/* A key pair with that common name, good for "localhost", "phalanxd" and 127.0.0.1.  The three PEM texts
 * are owned by `tls`: test_tls_fini(). */
void test_ca_issue(struct test_ca *ca, const char *common_name, struct phx_rpc_tls *tls);
void test_tls_fini(struct phx_rpc_tls *tls);

#endif
