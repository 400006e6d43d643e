/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/stage.h"

int phx_step_start_stage(struct phx_step *s, struct phx_err *err)
{
    struct phx_plan_limits limits;

    phx_step_plan_limits(s, &limits);
    return phx_stage_create(s, &limits, &s->stage, err);
}

void phx_step_end_stage(struct phx_step *s)
{
    phx_stage_destroy(s->stage);
    s->stage = NULL;
}

void phx_step_message_bytes(const struct phx_step_options *o, int32_t max_context, size_t *plan, size_t *result)
{
    struct phx_step        s = {.options = o, .max_context = max_context};
    struct phx_plan_limits limits;

    phx_step_plan_limits(&s, &limits);
    *plan = phx_plan_max_bytes(&limits);
    *result = phx_result_max_bytes(limits.max_results);
}
