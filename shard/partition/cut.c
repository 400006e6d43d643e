/* SPDX-License-Identifier: Apache-2.0
 * Tensor parallelism: which columns and rows of a layer a rank owns.
 *
 * Products that are split along k are cut at eight fixed places that depend on the model alone.  When tp
 * divides 8 a rank owns whole slices, and every such layout adds the same numbers in the same order. */
#include "shard/partition/cut.h"

enum { VOCAB_GRANULE = 16 };

/* Borders of slice i of n units of k elements; the last slice takes what does not fill a unit. */
static int32_t slice_cut(int32_t n, int32_t unit, int32_t i, int32_t count)
{
    return i == count ? n : (int32_t)((int64_t)(n / unit) * i / count) * unit;
}

/* Columns of the ffn are cut at quantisation blocks; plain weights may use finer pieces, of pairs at
 * least, so that small models still fill eight slices. */
static int32_t ffn_unit(const struct phx_model_config *c)
{
    if (c->n_experts > 0 && c->expert_dtype == PHX_DTYPE_MXFP4)
        return PHX_MX_BLOCK;
    for (int32_t unit = PHX_MX_BLOCK; unit > 2; unit /= 2)
        if (c->ffn_dim % unit == 0 && c->ffn_dim / unit >= PHX_SLICES_MAX)
            return unit;
    return 2;
}

static struct phx_range share(int32_t n, int32_t unit, int32_t i, int32_t count)
{
    return (struct phx_range){slice_cut(n, unit, i, count), slice_cut(n, unit, i + 1, count)};
}

/* The largest and the smallest tp on either side of `tp` that divide the heads. */
static int refuse_tp(const struct phx_model_config *c, int32_t tp, struct phx_err *err)
{
    int32_t below = tp, above = tp;

    while (below > 1 && (below > c->n_heads || c->n_heads % below != 0))
        below--;
    while (above < c->n_heads && c->n_heads % above != 0)
        above++;
    if (above > tp && above <= PHX_TP_MAX && c->n_heads % above == 0)
        return phx_fail(err, PHX_E_INVALID, "tp %d does not divide the %d query heads; nearest: %d, %d",
                        tp, c->n_heads, below, above);
    return phx_fail(err, PHX_E_INVALID, "tp %d does not divide the %d query heads; nearest: %d", tp,
                    c->n_heads, below);
}

static int refuse_empty(const char *what, int32_t n, int32_t unit, int32_t tp_size,
                        struct phx_err *err)
{
    return phx_fail(err, PHX_E_INVALID, "tp %d leaves a rank without %s: %d in pieces of %d; at most "
                    "tp %d", tp_size, what, n, unit, n / unit > 0 ? n / unit : 1);
}

/* Local ends of the owned slices [first, end) of the eight. */
static void set_slices(int32_t n, int32_t unit, int32_t first, int32_t end,
                       int32_t ends[PHX_SLICES_MAX])
{
    int32_t start = slice_cut(n, unit, first, PHX_SLICES_MAX);

    for (int32_t i = first; i < end; i++)
        ends[i - first] = slice_cut(n, unit, i + 1, PHX_SLICES_MAX) - start;
}

void phx_slice_ends(const struct phx_model_config *c, bool is_ffn, int32_t ends[PHX_SLICES_MAX])
{
    if (is_ffn)
        set_slices(c->ffn_dim, ffn_unit(c), 0, PHX_SLICES_MAX, ends);
    else /* head_dim is even, so these cuts meet the borders of the heads wherever tp does */
        set_slices(c->n_heads * c->head_dim, 2, 0, PHX_SLICES_MAX, ends);
}

int phx_cut_tensor(const struct phx_model_config *c, int32_t tp, int32_t tp_size,
                   struct phx_part *part, struct phx_err *err)
{
    int32_t group = c->n_heads / c->n_kv_heads, unit = ffn_unit(c);
    int32_t vocab_unit = c->vocab_size / VOCAB_GRANULE >= tp_size ? VOCAB_GRANULE : 1;
    int32_t n_k = c->n_heads * c->head_dim;

    part->tp = tp;
    part->tp_size = tp_size;
    if (c->n_heads % tp_size != 0)
        return refuse_tp(c, tp_size, err);
    part->heads = share(c->n_heads, 1, tp, tp_size);
    part->kv_heads.first = part->heads.first / group;
    part->kv_heads.end = (part->heads.end - 1) / group + 1;
    part->vocab = share(c->vocab_size, vocab_unit, tp, tp_size);
    if (part->vocab.end <= part->vocab.first)
        return refuse_empty("vocabulary rows", c->vocab_size, 1, tp_size, err);
    part->is_layout_invariant = PHX_SLICES_MAX % tp_size == 0;
    if (part->is_layout_invariant) {
        int32_t first = PHX_SLICES_MAX / tp_size * tp, end = first + PHX_SLICES_MAX / tp_size;

        part->n_slices = end - first;
        part->ffn.first = slice_cut(c->ffn_dim, unit, first, PHX_SLICES_MAX);
        part->ffn.end = slice_cut(c->ffn_dim, unit, end, PHX_SLICES_MAX);
        set_slices(n_k, 2, first, end, part->attn_slice_end); /* as phx_slice_ends() has them */
        set_slices(c->ffn_dim, unit, first, end, part->ffn_slice_end);
    } else {
        part->n_slices = 1;
        part->ffn = share(c->ffn_dim, unit, tp, tp_size);
        part->attn_slice_end[0] = (part->heads.end - part->heads.first) * c->head_dim;
        part->ffn_slice_end[0] = part->ffn.end - part->ffn.first;
    }
    if (part->ffn.end <= part->ffn.first)
        return refuse_empty("ffn columns", c->ffn_dim, unit, tp_size, err);
    return 0;
}
