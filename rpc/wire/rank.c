/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "rpc/wire/convert.h"

Phalanx__V1__RankInfo *phx_wire_rank_info_encode(const struct phx_rank_info *in,
                                                 struct phx_arena *arena)
{
    Phalanx__V1__RankInfo *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__rank_info__init(m);
    m->rank = in->rank;
    m->pid = in->pid;
    m->host = phx_wire_str(in->host);
    m->pp = in->pp;
    m->tp = in->tp;
    m->device = phx_wire_str(in->device);
    return m;
}

int phx_wire_rank_info_decode(const Phalanx__V1__RankInfo *in, struct phx_rank_info *out,
                              struct phx_err *err)
{
    int rc;

    *out = (struct phx_rank_info){.host = "", .device = ""};
    if (in == NULL)
        return 0;
    *out = (struct phx_rank_info){in->rank, in->pid, in->host, in->pp, in->tp, in->device};
    rc = phx_wire_range("RankInfo.rank", in->rank, 0, PHX_RPC_RANKS_MAX - 1, err);
    if (rc == 0)
        rc = phx_wire_range("RankInfo.pid", in->pid, 0, INT32_MAX, err);
    if (rc == 0)
        rc = phx_wire_range("RankInfo.pp", in->pp, 0, PHX_RPC_RANKS_MAX - 1, err);
    if (rc == 0)
        rc = phx_wire_range("RankInfo.tp", in->tp, 0, PHX_RPC_RANKS_MAX - 1, err);
    return rc;
}

Phalanx__V1__RankFacts *phx_wire_rank_facts_encode(const struct phx_rank_facts *in,
                                                   struct phx_arena *arena)
{
    Phalanx__V1__RankFacts *m = phx_arena_calloc(arena, 1, sizeof(*m));

    phalanx__v1__rank_facts__init(m);
    m->rank = in->rank;
    m->weights_bytes = in->weights_bytes;
    m->kv_bytes = in->kv_bytes;
    m->scratch_bytes = in->scratch_bytes;
    return m;
}

void phx_wire_rank_facts_decode(const Phalanx__V1__RankFacts *in, struct phx_rank_facts *out)
{
    *out = (struct phx_rank_facts){0};
    if (in != NULL)
        *out = (struct phx_rank_facts){in->rank, in->weights_bytes, in->kv_bytes,
                                       in->scratch_bytes};
}
