/* SPDX-License-Identifier: Apache-2.0
 * The beginning and end of a step. */
#include "kernels/door.h"

static bool check_inputs(struct phx_backend *b, const struct phx_step_inputs *in)
{
    static const char op[] = "step_begin";

    if (in->n_rows < 1 || in->n_picked < 0)
        return fail(b, "%s: %d rows, %d picked", op, in->n_rows, in->n_picked);
    for (int32_t i = 0; i < in->n_picked; i++)
        if (in->picked[i] < 0 || in->picked[i] >= in->n_rows)
            return fail(b, "%s: row %d of %d is picked", op, in->picked[i], in->n_rows);
    return check_spans(b, op, in->spans, in->n_rows) &&
           check_blocks(b, op, in->spans, &in->kv->desc, in->window);
}

bool phx_step_can_record(const struct phx_backend *b)
{
    return b->ops->step_begin != NULL && !b->is_eager && b->trace == NULL;
}

bool phx_step_begin(struct phx_backend *b, const struct phx_step_inputs *in)
{
    struct phx_step_inputs here = *in;

    b->step = NULL;
    if (b->has_failed || !check_inputs(b, in))
        return false;
    b->step = in;
    here.is_recordable = in->is_recordable && b->trace == NULL;
    return b->ops->step_begin != NULL && b->ops->step_begin(b->device, &here);
}

bool phx_step_end(struct phx_backend *b)
{
    bool is_again = b->step != NULL && b->ops->step_end != NULL && b->ops->step_end(b->device);

    if (is_again && !b->has_failed)
        return true;
    if (is_again)
        (void)b->ops->step_end(b->device); /* what was called wrongly is not called again */
    b->step = NULL;
    return false;
}
