/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/transport/server.h"

/* Everything the protos declare.  An unserved method says so, it is not hidden. */
static const struct phx_method methods[] = {
    {"/phalanx.v1.RankLink/Attach", PHX_METHOD_LINK, PHX_RPC_NONE},
    {"/phalanx.v1.Cluster/Get", PHX_METHOD_CALL, PHX_RPC_CLUSTER_GET},
    {"/phalanx.v1.Cluster/Watch", PHX_METHOD_CALL, PHX_RPC_CLUSTER_WATCH},
    {"/phalanx.v1.Cluster/Drain", PHX_METHOD_CALL, PHX_RPC_CLUSTER_DRAIN},
    {"/phalanx.v1.Cluster/Restart", PHX_METHOD_CALL, PHX_RPC_CLUSTER_RESTART},
    {"/phalanx.v1.Cluster/LoadAdapter", PHX_METHOD_UNSERVED, PHX_RPC_NONE},
    {"/phalanx.v1.Inference/Generate", PHX_METHOD_CALL, PHX_RPC_INFERENCE_GENERATE},
    {"/phalanx.v1.Admission/Admit", PHX_METHOD_CALL, PHX_RPC_ADMIT},
    {"/phalanx.v1.Admission/Renew", PHX_METHOD_CALL, PHX_RPC_RENEW},
    {"/phalanx.v1.Admission/Settle", PHX_METHOD_CALL, PHX_RPC_SETTLE},
    {"/phalanx.v1.Admission/Cancel", PHX_METHOD_CALL, PHX_RPC_CANCEL_LEASE},
    {"/phalanx.v1.License/Get", PHX_METHOD_CALL, PHX_RPC_LICENSE_GET},
    {"/phalanx.v1.License/Install", PHX_METHOD_CALL, PHX_RPC_LICENSE_INSTALL},
    {"/phalanx.v1.License/ListSeats", PHX_METHOD_CALL, PHX_RPC_LICENSE_SEATS},
    {"/phalanx.v1.License/AcceptClock", PHX_METHOD_CALL, PHX_RPC_LICENSE_ACCEPT_CLOCK},
    {"/phalanx.v1.Metering/Query", PHX_METHOD_CALL, PHX_RPC_METERING_QUERY},
    {"/phalanx.v1.Metering/Export", PHX_METHOD_CALL, PHX_RPC_METERING_EXPORT},
    {"/phalanx.v1.Audit/Get", PHX_METHOD_CALL, PHX_RPC_AUDIT_GET},
    {"/phalanx.v1.Audit/Prove", PHX_METHOD_CALL, PHX_RPC_AUDIT_PROVE},
    {"/phalanx.v1.Audit/Checkpoint", PHX_METHOD_CALL, PHX_RPC_AUDIT_CHECKPOINT},
    {"/phalanx.v1.Audit/Search", PHX_METHOD_CALL, PHX_RPC_AUDIT_SEARCH},
    {"/phalanx.v1.Audit/Replay", PHX_METHOD_CALL, PHX_RPC_AUDIT_REPLAY},
    {"/grpc.health.v1.Health/Check", PHX_METHOD_HEALTH_CHECK, PHX_RPC_NONE},
    {"/grpc.health.v1.Health/Watch", PHX_METHOD_HEALTH_WATCH, PHX_RPC_NONE},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", PHX_METHOD_REFLECTION,
     PHX_RPC_NONE},
    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", PHX_METHOD_REFLECTION,
     PHX_RPC_NONE},
};

static const char *const services[] = {
    "phalanx.v1.RankLink",   "phalanx.v1.Cluster",
    "phalanx.v1.Inference",  "phalanx.v1.Admission",
    "phalanx.v1.License",    "phalanx.v1.Metering",
    "phalanx.v1.Audit",      "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    NULL,
};

enum { N_METHODS = sizeof(methods) / sizeof(methods[0]) };

const struct phx_method *phx_method_find(grpc_slice path)
{
    for (int i = 0; i < N_METHODS; i++)
        if (grpc_slice_str_cmp(path, methods[i].path) == 0)
            return &methods[i];
    return NULL;
}

const char *const *phx_method_services(void)
{
    return services;
}

const char *phx_method_path(enum phx_rpc_method method)
{
    int i = 0;

    while (methods[i].method != method)
        i++;
    return methods[i].path;
}
