/* SPDX-License-Identifier: Apache-2.0
 * A rank that is not the head: runs what it is told. */
#include "rpc/base/mem.h"
#include "shard/step/stage.h"

int phx_step_follow(struct phx_step *s, struct phx_err *err)
{
    struct phx_plan_limits   limits;
    const struct phx_result *result;
    struct phx_buf           out;
    size_t                   capacity, size;
    unsigned char           *plan;
    bool                     is_stop = false;
    int                      rc = 0;

    phx_step_plan_limits(s, &limits);
    capacity = phx_plan_max_bytes(&limits);
    plan = phx_mem_calloc(1, capacity);
    phx_buf_init(&out, phx_result_max_bytes(limits.max_results));
    while (rc == 0) {
        rc = phx_comm_bcast(s->comm, plan, capacity, &size);
        if (rc != 0) {
            rc = phx_fail(err, rc, "waiting for the head: %s", phx_err_text(rc));
            break;
        }
        rc = phx_stage_run(s->stage, plan, size, &is_stop, &result, err);
        if (rc != 0 || is_stop)
            break;
        if (result == NULL)
            continue;
        phx_buf_clear(&out);
        phx_result_encode(result, &out);
        rc = phx_comm_result_send(s->comm, out.data, out.size);
        if (rc != 0)
            rc = phx_fail(err, rc, "sending tokens to the head: %s", phx_err_text(rc));
    }
    phx_buf_fini(&out);
    phx_mem_free(plan);
    return rc;
}
