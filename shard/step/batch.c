/* SPDX-License-Identifier: Apache-2.0
 * How much a step takes at most. */
#include <string.h>

#include "shard/step/step.h"

void phx_step_set_batch(struct phx_step_options *o)
{
    bool is_cuda = strcmp(o->backend, "cuda") == 0;

    if (o->max_seqs == 0)
        o->max_seqs = is_cuda ? 256 : 16;
    if (o->max_rows == 0)
        o->max_rows = is_cuda ? 2048 : 512;
}

/* A step with fewer rows than a tile of the processor's takes about as long as one that fills it; results of that
 * many rows cost little memory, so that a replica of few sequences can guess as well. */
int32_t phx_step_max_results(const struct phx_step_options *o)
{
    return o->draft_rows > o->max_seqs ? o->draft_rows : o->max_seqs;
}
