/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: what every rank keeps of the running sequences, and how a plan's bytes become the
 * model's batch and, on the sampler rank, tokens. */
#ifndef PHX_SHARD_STEP_STAGE_H
#define PHX_SHARD_STEP_STAGE_H

#include "shard/sample/sample.h"
#include "shard/step/plan_wire.h"
#include "shard/step/step.h"

/* One sampled token with what was asked for about it. */
struct phx_result_token {
    int32_t slot, token;
    float   logprob;
    float   gap; /* of a checked row, finite, 0 or more; else 0 */
    int32_t n_top;
    int32_t top_ids[PHX_TOP_LOGPROBS_MAX];
    float   top_logprobs[PHX_TOP_LOGPROBS_MAX];
};

struct phx_result {
    uint64_t                 step;
    int32_t                  code; /* 0, or why the step was dropped */
    int32_t                  n_tokens;
    struct phx_result_token *tokens; /* [max_results] in the order of the plan's rows, without those behind a wrong guess */
};

struct phx_stage;

int  phx_stage_create(struct phx_step *s, const struct phx_plan_limits *limits, struct phx_stage **out,
                      struct phx_err *err) PHX_CHECKED;
void phx_stage_destroy(struct phx_stage *g);
void phx_step_plan_limits(const struct phx_step *s, struct phx_plan_limits *limits);

/* Runs one plan.  *is_stop: it was the stop plan.  On the sampler rank *result is filled (borrowed until
 * the next call), elsewhere NULL.  PHX_E_PEER and PHX_E_FORMAT end the rank; a dropped step does not. */
int phx_stage_run(struct phx_stage *g, const void *data, size_t size, bool *is_stop,
                  const struct phx_result **result, struct phx_err *err) PHX_CHECKED;

/* What the host does during every plan to come while a device computes (phx_batch.meanwhile). */
void   phx_stage_set_meanwhile(struct phx_stage *g, void (*meanwhile)(void *ctx), void *ctx);
bool   phx_stage_is_sampler(const struct phx_stage *g);
size_t phx_result_max_bytes(int32_t max_results);
void   phx_result_encode(const struct phx_result *r, struct phx_buf *out);
/* Fills *r, whose tokens have room for max_results. */
int phx_result_decode(const void *data, size_t size, const struct phx_plan_limits *limits,
                      struct phx_result *r, struct phx_err *err) PHX_CHECKED;

#endif
