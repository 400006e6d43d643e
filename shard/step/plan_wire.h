/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: a plan as bytes.  Little-endian, fixed layout, every count checked on decoding:
 * what MPI delivers is input from outside like any other.
 *
 *   u32 magic  u32 kind  u64 step  u32 n_seqs  u32 n_rows, then per sequence
 *   i32 slot  u32 flags (1 new, 2 sampled, 4 checked, 8 guessed)  i32 pos  i32 n_rows
 *   when checked: i32 n_checked   of the last rows, whose next tokens are compared
 *   when guessed (and sampled): i32 n_drafts, tokens   of the last rows; known behind the tokens of this step only
 *   i32 n_tokens, tokens   the ones that followers do not know yet (all of them when new)
 *   i32 n_blocks, blocks   likewise
 *   when new: i32 n_prompt, the sampling parameters with their bias list */
#ifndef PHX_SHARD_STEP_PLAN_WIRE_H
#define PHX_SHARD_STEP_PLAN_WIRE_H

#include "rpc/base/buf.h"
#include "shard/sched/sched.h"

enum phx_plan_kind { PHX_PLAN_STEP = 1, PHX_PLAN_STOP };

struct phx_plan_limits {
    int32_t max_seqs, max_rows, max_context, max_blocks; /* blocks of one sequence */
    int32_t n_blocks, vocab_size;
    int32_t max_results; /* of a step, max_seqs or more */
};

/* One sequence of a decoded plan; pointers lead into the decoder's memory. */
struct phx_wire_seq {
    int32_t             slot, pos, n_rows;
    bool                is_new, is_sampled;
    int32_t             n_checked; /* 0..n_rows; 0 when is_sampled */
    const int32_t      *drafts;
    int32_t             n_drafts;  /* n_rows - 1, or 0; only when is_sampled */
    const int32_t      *tokens;
    int32_t             n_tokens;
    const int32_t      *blocks;
    int32_t             n_blocks;
    int32_t             n_prompt; /* when new */
    struct phx_sampling sampling; /* when new; no stop ids: the head looks after them */
};

struct phx_wire_plan {
    enum phx_plan_kind   kind;
    uint64_t             step;
    int32_t              n_seqs, n_rows;
    int32_t              n_results; /* sampled, checked and guessed rows, at most max_results */
    struct phx_wire_seq *seqs; /* [max_seqs] */
};

/* What followers know of each slot; the encoder sends the rest. */
struct phx_plan_encoder;
struct phx_plan_encoder *phx_plan_encoder_create(const struct phx_plan_limits *limits);
void                     phx_plan_encoder_destroy(struct phx_plan_encoder *e);
/* Appends the bytes of a plan to out, where a multiple of 4 bytes is before them. */
void phx_plan_encode(struct phx_plan_encoder *e, const struct phx_sched *sched,
                     const struct phx_plan *plan, struct phx_buf *out);
void phx_plan_encode_stop(struct phx_buf *out);
/* The largest encoding that the limits allow. */
size_t phx_plan_max_bytes(const struct phx_plan_limits *limits);

struct phx_plan_decoder;
struct phx_plan_decoder *phx_plan_decoder_create(const struct phx_plan_limits *limits);
void                     phx_plan_decoder_destroy(struct phx_plan_decoder *d);
/* *plan is valid until the next call and while data is.  PHX_E_FORMAT naming the field. */
int phx_plan_decode(struct phx_plan_decoder *d, const void *data, size_t size,
                    const struct phx_wire_plan **plan, struct phx_err *err) PHX_CHECKED;

#endif
