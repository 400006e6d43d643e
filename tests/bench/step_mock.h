/* SPDX-License-Identifier: Apache-2.0
 * The head of a replica without a model: scheduler, plan encoder and decoder, and a device whose answers depend on
 * slot and position alone. */
#ifndef PHX_TESTS_BENCH_STEP_MOCK_H
#define PHX_TESTS_BENCH_STEP_MOCK_H

#include "shard/step/plan_wire.h"
#include "shard/step/stage.h"

struct mock_options {
    int32_t n_seqs;
    int32_t min_context, max_context; /* prompt tokens of the first and of the last sequence */
    int32_t max_new;                  /* tokens that each will generate */
    int32_t draft_rows;               /* as phx_sched_options has it */
    int32_t period;                   /* answers repeat after so many tokens; 0 = they look random */
    bool    has_prefix_cache;
};

struct mock {
    struct mock_options      options;
    struct phx_plan_limits   limits;
    struct phx_sched        *sched;
    struct phx_plan_encoder *encoder;
    struct phx_plan_decoder *decoder;
    struct phx_buf           bytes, result_bytes;
    struct phx_result        made, result; /* by the device; as the head has decoded it */
    struct phx_sampled      *sampled;
    struct phx_sched_event  *events;
    uint64_t                 n_told, checksum; /* of all events */
};

/* What one step took, ns. */
struct mock_times {
    int64_t plan, encode, decode, result, complete, all;
};

/* All sequences are submitted and their prompts read. */
void mock_create(struct mock *m, const struct mock_options *options);
void mock_destroy(struct mock *m);
/* One step of all of them; false when nothing is left to do.  times may be NULL. */
bool mock_step(struct mock *m, struct mock_times *times);

#endif
