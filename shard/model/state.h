/* SPDX-License-Identifier: Apache-2.0
 * Inside a rank's model: bound weights, scratch, and the step in progress.  Private to shard/model.
 *
 * Letters: T rows of the step, D model dim, Hl / Kl local query and kv heads, Dh head dim, Fl local ffn
 * columns, E experts, Vl local vocabulary rows, V vocabulary. */
#ifndef PHX_SHARD_MODEL_STATE_H
#define PHX_SHARD_MODEL_STATE_H

#include "shard/model/model.h"
#include "shard/model/order.h"
#include "shard/model/transit.h"

/* One decoder layer.  A tensor whose data is NULL is absent in this model. */
struct phx_layer {
    int32_t            index;  /* local: the kv cache counts from 0 */
    int32_t            window; /* keys visible, 0 = all */
    struct phx_tensor  attn_norm;     /* [1, D] */
    struct phx_weight *attn_qkv;      /* [(Hl + 2 Kl) Dh, D]: rows of q, then k, then v */
    struct phx_tensor  attn_qkv_bias; /* [1, (Hl + 2 Kl) Dh] */
    struct phx_tensor  sinks;         /* [1, Hl] */
    struct phx_weight *attn_out;      /* [D, Hl Dh] in K-slices */
    struct phx_tensor  attn_out_bias; /* [1, D], whole: added once after the sum */
    struct phx_tensor  ffn_norm;      /* [1, D] */
    struct phx_weight *router;        /* [E, D]; mixtures only */
    struct phx_tensor  router_bias;   /* [1, E] */
    struct phx_weight *gate_up;       /* [2 Fl, D] (per expert): gate rows, then up rows */
    struct phx_tensor  gate_up_bias;  /* [1 or E, 2 Fl] */
    struct phx_weight *down;          /* [D, Fl] (per expert) in K-slices */
    struct phx_tensor  down_bias;     /* [1 or E, D], whole: added once after the sum */
};

struct phx_weights {
    struct phx_layer  *layers; /* [n_layers] */
    int32_t            n_layers;
    struct phx_weight *embedding;  /* [Vl, D]; first stage */
    struct phx_weight *head;       /* [Vl, D]; last stage; == embedding when tied on one stage */
    struct phx_tensor  final_norm; /* [1, D]; last stage */
    uint64_t           size_bytes; /* really allocated */
};

/* Views for the T rows of the step in progress; the memory behind them is the model's scratch. */
struct phx_step {
    const struct phx_batch *batch;
    struct phx_tensor       x;       /* [T, D] the residual stream */
    struct phx_tensor       norm;    /* [T, D] */
    struct phx_tensor       qkv;     /* [T, (Hl + 2 Kl) Dh] */
    struct phx_tensor       q, v; /* columns of qkv */
    struct phx_tensor       qk;      /* q and k together: what is rotated */
    struct phx_tensor       attn;    /* [T, Hl Dh] */
    struct phx_tensor       out;     /* [T, D] a block's output, partial until summed */
    struct phx_tensor       gate_up; /* [T, 2 Fl]; dense models */
    struct phx_tensor       act;     /* [T, Fl]; dense models */
    struct phx_tensor       router;  /* [T, E]; mixtures */
    struct phx_tensor       ids;     /* I32 [T, top_k] */
    struct phx_tensor       gates;   /* [T, top_k] */
};

struct phx_model {
    const struct phx_model_config *config; /* points at own_config */
    struct phx_model_config        own_config;
    struct phx_part                part;
    struct phx_model_options       limits; /* only its numbers are used after open */
    struct phx_backend            *backend;
    struct phx_comm               *comm;
    struct phx_weights             weights;
    struct phx_kv                 *kv;
    int32_t                        window;   /* the widest of the layers, 0 = all keys */
    struct phx_tensor              cos, sin; /* [max_context, Dh / 2] */
    struct phx_step                scratch;  /* at max_rows */
    struct phx_tensor              rows;     /* [max_logits, D] */
    struct phx_tensor              part_logits; /* [max_logits, Vl]; NULL when tp is 1 */
    struct phx_tensor              logits;   /* [max_logits, V] on tp 0; NULL when the backend's memory is the host's */
    struct phx_tensor              small;    /* [max_logits, PHX_LOGITS_SMALL]: what is wanted beside whole rows; NULL as above */
    float                         *small_host;
    struct phx_draw_row           *draws;    /* [2 max_logits] of the step */
    struct phx_logits_order        order;    /* of the step */
    struct phx_transit             transit;
    int32_t                       *vocab_first; /* per tp of the last stage, for the gather */
    int32_t                       *vocab_n;
    float                          attn_scale;
    uint64_t                       scratch_bytes;
    int                            failure; /* first failure of the step in progress */
    struct phx_err                 failure_text;
};

/* ---- weights.c ------------------------------------------------------------------------------ */

/* Binds and packs this rank's slices.  On failure what was allocated is freed. */
int  phx_weights_load(const struct phx_model_options *o, const struct phx_checkpoint *checkpoint,
                      struct phx_weights *w, struct phx_err *err) PHX_CHECKED;
void phx_weights_free(struct phx_backend *b, struct phx_weights *w);

/* ---- inventory.c ---------------------------------------------------------------------------- */

/* Every tensor of the architecture is there with the right shape and dtype, and nothing else is. */
int phx_inventory_check(const struct phx_model_config *c, const struct phx_checkpoint *checkpoint,
                        struct phx_err *err) PHX_CHECKED;

/* ---- forward.c: what the architectures share ------------------------------------------------ */

/* x = the embeddings of the step's tokens. */
void phx_forward_embed(struct phx_model *m, const struct phx_step *s);
/* Computes the logits of the wanted rows, or this rank's columns of them, where the backend computes. */
void phx_forward_head(struct phx_model *m, const struct phx_step *s, struct phx_tensor logits);
/* In which order the rows of logits are computed. */
void phx_forward_order(struct phx_model *m, const struct phx_batch *batch);
/* What of them is wanted, to host memory on tp 0. */
void phx_forward_fetch(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits);
/* norm = rmsnorm(x) of the first layer; each branch that ends makes the next one's with its sum (phx_add_norm). */
void phx_forward_norm(struct phx_model *m, const struct phx_step *s);
/* The gain of the norm behind layer i of this stage; data NULL behind the last. */
struct phx_tensor phx_forward_next_norm(const struct phx_model *m, int32_t i);
/* x += W_o attention(...) of norm, which becomes that of the layer's second half; the same in both architectures. */
void phx_forward_attention(struct phx_model *m, const struct phx_layer *w, const struct phx_step *s);
/* The sum over the tensor group, if it is more than this rank; a failure is kept for the end of the step. */
void phx_forward_sum(struct phx_model *m, struct phx_tensor x);
/* end->y summed over the tensor group, then phx_add_norm(). */
void phx_forward_end(struct phx_model *m, const struct phx_add_norm_args *end);
/* end->y = x W^T summed over the tensor group, then phx_add_norm(). */
void phx_forward_matmul_end(struct phx_model *m, struct phx_tensor x, const struct phx_weight *w,
                            const struct phx_add_norm_args *end);
/* Waits for the backend and keeps its failure for the end of the step. */
void phx_forward_sync(struct phx_model *m);
void phx_forward_fail(struct phx_model *m, int code, const char *what, const char *why);

/* ---- one file per architecture -------------------------------------------------------------- */

void phx_forward_gpt_oss(struct phx_model *m, const struct phx_step *s);
void phx_forward_llama(struct phx_model *m, const struct phx_step *s);

#endif
