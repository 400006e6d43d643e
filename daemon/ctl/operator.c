/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl/operator.h"

#include "daemon/ctl/ctl.h"
#include "rpc/base/buf.h"
#include "rpc/base/hash.h"

enum { PEM_MAX_BYTES = 1 << 20 };

static int read_pem(struct phx_buf *out, const char *data_dir, const char *name, struct phx_err *err)
{
    char *path = phx_ctl_path(data_dir, name);
    int   rc = phx_buf_read_file(out, path, PEM_MAX_BYTES, err);

    phx_mem_free(path);
    return rc;
}

static int find_target(const char *data_dir, struct phx_ctl_endpoint *endpoint, const char **target,
                       struct phx_err *err)
{
    int rc = phx_ctl_endpoint_load(data_dir, endpoint, err);

    if (rc == 0 && endpoint->grpc == NULL)
        rc = phx_fail(err, PHX_E_NOTFOUND, "run/ready.json names no gRPC address");
    *target = endpoint->grpc;
    return rc;
}

int phx_ctl_operator_open(const char *data_dir, const char *grpc, struct phx_rpc_client **out,
                          struct phx_err *err)
{
    struct phx_ctl_endpoint       endpoint = {0};
    struct phx_buf                ca = {0}, cert = {0}, key = {0};
    struct phx_rpc_client_options o = {.target = grpc};
    int                           rc = read_pem(&ca, data_dir, "tls/ca.crt", err);

    if (rc == 0)
        rc = read_pem(&cert, data_dir, "tls/operator.crt", err);
    if (rc == 0)
        rc = read_pem(&key, data_dir, "tls/operator.key", err);
    if (rc == 0 && grpc == NULL)
        rc = find_target(data_dir, &endpoint, &o.target, err);
    if (rc == 0) {
        o.tls = (struct phx_rpc_tls){ca.data, cert.data, key.data};
        rc = phx_rpc_client_open(out, &o, err);
    }
    if (key.data != NULL)
        phx_secret_wipe(key.data, key.size);
    phx_buf_fini(&ca);
    phx_buf_fini(&cert);
    phx_buf_fini(&key);
    phx_ctl_endpoint_fini(&endpoint);
    return rc;
}
