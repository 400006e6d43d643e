/* SPDX-License-Identifier: Apache-2.0
 * Two small layers with every op, for tests of what a backend does around ops. */
#ifndef PHX_TESTS_UNIT_KERNELS_SMALL_MODEL_H
#define PHX_TESTS_UNIT_KERNELS_SMALL_MODEL_H

#include "kernels/backend.h"

enum { SMALL_VOCAB = 40, SMALL_BEST = 4, SMALL_ROWS = 24, SMALL_BLOCKS = 200, SMALL_POSITIONS = 1100, SMALL_WINDOW = 90 };

struct small_model {
    struct phx_backend *b;
    struct phx_weight  *table, *q, *kv_proj, *router, *up, *down, *head;
    struct phx_kv      *kv;
    float              *memory;
    struct phx_tensor   x, norm, gain, query, key, value, attn, logits, gates, ids, mixed, scores, cos, sin, bias;
    struct phx_tensor   best, lse, best_ids;
};

/* Opens the backend "cuda" (is_eager: without graphs) and fills the model with numbers that are always the same; with
 * has_prompt the cache too.  False when something is short; small_model_close() either way. */
bool small_model_open(struct small_model *m, bool has_prompt, bool is_eager);
void small_model_close(struct small_model *m);

/* All ops of a step: scores [n_picked, V], and the best of them. */
void small_model_ops(struct small_model *m, const struct phx_step_inputs *in);

#endif
