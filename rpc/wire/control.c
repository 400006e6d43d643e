/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

static const struct phx_map_pair pairs[] = {
    {PHX_RPC_ADMIT, &phx_map_admit, &phx_map_admit_answer},
    {PHX_RPC_RENEW, &phx_map_renew, &phx_map_renew_answer},
    {PHX_RPC_SETTLE, &phx_map_settle, &phx_map_settle_answer},
    {PHX_RPC_CANCEL_LEASE, &phx_map_cancel_lease, &phx_map_cancel_lease_answer},
    {PHX_RPC_LICENSE_GET, &phx_map_license_get, &phx_map_license_answer},
    {PHX_RPC_LICENSE_INSTALL, &phx_map_license_install, &phx_map_license_install_answer},
    {PHX_RPC_LICENSE_SEATS, &phx_map_seats, &phx_map_seats_answer},
    {PHX_RPC_LICENSE_ACCEPT_CLOCK, &phx_map_accept_clock, &phx_map_accept_clock_answer},
    {PHX_RPC_METERING_QUERY, &phx_map_usage_query, &phx_map_usage_answer},
    {PHX_RPC_METERING_EXPORT, &phx_map_usage_export, &phx_map_usage_part},
    {PHX_RPC_AUDIT_GET, &phx_map_audit_get, &phx_map_audit_get_answer},
    {PHX_RPC_AUDIT_PROVE, &phx_map_audit_prove, &phx_map_prove_answer},
    {PHX_RPC_AUDIT_CHECKPOINT, &phx_map_checkpoint, &phx_map_checkpoint_answer},
    {PHX_RPC_AUDIT_SEARCH, &phx_map_audit_search, &phx_map_search_answer},
    {PHX_RPC_AUDIT_REPLAY, &phx_map_audit_replay, &phx_map_replay_answer},
};

const struct phx_map_pair *phx_map_find(enum phx_rpc_method method)
{
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        if (pairs[i].method == method)
            return &pairs[i];
    return NULL;
}
