/* SPDX-License-Identifier: Apache-2.0
 * From a request to its service. */
#include "daemon/control/control.h"

#include <stdio.h>
#include <string.h>

#include "daemon/control/job.h"
#include "daemon/time/time.h"

bool phx_control_has(enum phx_rpc_method method)
{
    return method >= PHX_RPC_ADMIT && method < PHX_RPC_METHODS;
}

static void name_caller(struct phx_control_job *job)
{
    if (job->who.tenant[0] == '\0')
        (void)snprintf(job->by, sizeof(job->by), "%s", job->who.user);
    else
        (void)snprintf(job->by, sizeof(job->by), "%s/%s", job->who.tenant,
                       job->who.user[0] != '\0' ? job->who.user : job->who.service);
}

static void serve(struct phx_control_job *job, const struct phx_rpc_request *request)
{
    if (request->method <= PHX_RPC_CANCEL_LEASE)
        phx_control_admission(job, request);
    else if (request->method <= PHX_RPC_LICENSE_ACCEPT_CLOCK)
        phx_control_license(job, request);
    else if (request->method == PHX_RPC_METERING_EXPORT)
        phx_control_export(job, &request->u.usage_export);
    else if (request->method == PHX_RPC_METERING_QUERY)
        phx_control_metering(job, request);
    else
        phx_control_audit(job, request);
}

void phx_control_request(struct phx_control *c, struct phx_rpc_call *call,
                         const struct phx_rpc_request *request)
{
    struct phx_control_job *job;
    struct phx_identity     who;
    struct phx_err          err = {0};

    phx_assert(phx_control_has(request->method));
    if (phx_control_authorize(phx_control_daemon(c)->identities, request, &who, &err) != 0) {
        phx_rpc_refuse(call, &err, err.code == PHX_E_DENIED ? "role" : "identity", -1);
        return;
    }
    job = phx_control_job_create(c, call);
    if (job == NULL) {
        (void)phx_fail(&err, PHX_E_LIMIT, "too many reports are being made: try again"); /* told */
        phx_rpc_refuse(call, &err, "capacity", 1000);
        return;
    }
    job->method = request->method;
    job->who = who;
    job->now_ns = phx_time_now(job->d->time);
    name_caller(job);
    serve(job, request);
}
