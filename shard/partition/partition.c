/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/partition/partition.h"

#include <string.h>

#include "shard/partition/cut.h"

static int check(const struct phx_partition_request *q, struct phx_err *err)
{
    if (q->tp < 1 || q->tp > PHX_TP_MAX)
        return phx_fail(err, PHX_E_INVALID, "tp %d: 1 to %d", q->tp, PHX_TP_MAX);
    if (q->pp < 1 || q->pp > PHX_PP_MAX || q->pp > q->config->n_layers)
        return phx_fail(err, PHX_E_INVALID, "pp %d: 1 to %d, a layer per stage", q->pp,
                        q->config->n_layers);
    if (q->tp * q->pp > PHX_RANKS_MAX)
        return phx_fail(err, PHX_E_INVALID, "tp %d x pp %d: at most %d ranks", q->tp, q->pp,
                        PHX_RANKS_MAX);
    if (q->block_tokens < 1 || q->max_step_rows < 1 || q->max_seqs < 1)
        return phx_fail(err, PHX_E_INVALID, "block_tokens, max_step_rows and max_seqs must be at least 1");
    if (q->kv_dtype != PHX_DTYPE_F32 && q->kv_dtype != PHX_DTYPE_BF16 && !phx_kv_has_scales(q->kv_dtype))
        return phx_fail(err, PHX_E_INVALID, "the cache holds F32, BF16, I8 or F8_E4M3");
    if (q->config->n_experts > 0 && q->config->expert_dtype == PHX_DTYPE_MXFP4 &&
        (q->config->dim % PHX_MX_BLOCK != 0 || q->config->ffn_dim % PHX_MX_BLOCK != 0))
        return phx_fail(err, PHX_E_UNSUPPORTED, "MXFP4 experts need hidden_size %d and "
                        "intermediate_size %d to be multiples of %d", q->config->dim,
                        q->config->ffn_dim, PHX_MX_BLOCK);
    return 0;
}

int phx_partition(const struct phx_partition_request *q, struct phx_part *parts, struct phx_err *err)
{
    int rc = check(q, err);

    if (rc != 0)
        return rc;
    memset(parts, 0, (size_t)(q->tp * q->pp) * sizeof(*parts));
    for (int32_t rank = 0; rank < q->tp * q->pp && rc == 0; rank++) {
        struct phx_part *p = &parts[rank];

        p->rank = rank;
        p->pp = rank / q->tp;
        p->pp_size = q->pp;
        p->has_head = p->pp == q->pp - 1;
        p->has_embedding = p->pp == 0 || (p->has_head && q->config->is_tied);
        rc = phx_cut_tensor(q->config, rank % q->tp, q->tp, p, err);
    }
    if (rc == 0)
        rc = phx_cut_stages(q, parts, err);
    for (int32_t rank = 0; rank < q->tp * q->pp && rc == 0; rank++)
        phx_part_bytes(q, &parts[rank]);
    if (rc == 0 && parts[0].kv_bytes_per_block == 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "backend %s has no cache of this type (engine.kv_dtype) for heads of %d",
                      q->backend != NULL ? phx_backend_name(q->backend) : "cpu", q->config->head_dim);
    return rc;
}

bool phx_kv_dtype_parse(const char *text, enum phx_dtype *out)
{
    static const struct {
        const char    *name;
        enum phx_dtype dtype;
    } names[] = {{"f32", PHX_DTYPE_F32}, {"bf16", PHX_DTYPE_BF16}, {"int8", PHX_DTYPE_I8}, {"fp8", PHX_DTYPE_F8_E4M3}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i].name) == 0) {
            *out = names[i].dtype;
            return true;
        }
    return false;
}
