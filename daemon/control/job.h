/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/control: one call, from its request to its answer.  A job belongs to the loop, but while
 * its work runs it belongs to the reading thread. */
#ifndef PHX_DAEMON_CONTROL_JOB_H
#define PHX_DAEMON_CONTROL_JOB_H

#include "daemon/control/control.h"
#include "daemon/daemon.h"
#include "rpc/base/buf.h"

struct phx_tx;
struct phx_control_job;

/* Reading thread: reads, and fills job->answer from job->arena. */
typedef int (*phx_control_work_fn)(struct phx_control_job *job, struct phx_err *err);
/* Loop; err NULL = it went well.  Ends the job. */
typedef void (*phx_control_done_fn)(struct phx_control_job *job, const struct phx_err *err);

struct phx_control_job {
    struct phx_control     *control;
    struct phx_daemon      *d;
    struct phx_rpc_call    *call; /* NULL = the client is gone */
    struct phx_control_job *prev, *next;
    struct phx_arena       *arena;
    enum phx_rpc_method     method;
    struct phx_identity     who;
    char                    by[PHX_KEY_NAME_MAX + PHX_SUBJECT_MAX + 2]; /* "tenant/user", for the log */
    int64_t                 now_ns;
    struct phx_rpc_answer   answer;
    void                   *state; /* of the service, in the arena */
    bool                    is_waiting; /* for the client alone: ends with it */
    /* while it is read */
    phx_control_work_fn work;
    phx_control_done_fn done;
    struct phx_err      err;
    int                 rc;
};

struct phx_daemon *phx_control_daemon(const struct phx_control *c);
/* NULL = too many are open. */
struct phx_control_job *phx_control_job_create(struct phx_control *c, struct phx_rpc_call *call);
/* Each ends the job.  Nothing is sent when the client is gone. */
void phx_control_reply(struct phx_control_job *job);
void phx_control_fail(struct phx_control_job *job, const struct phx_err *err, int64_t retry_after_ms);
void phx_control_end(struct phx_control_job *job); /* the call was ended by its service */
/* Replies, or fails. */
void phx_control_finish(struct phx_control_job *job, const struct phx_err *err);

/* Runs work on the reading thread, then done on the loop. */
void phx_control_read(struct phx_control_job *job, phx_control_work_fn work, phx_control_done_fn done);
/* Copies into the job; NULL is "". */
const char *phx_control_keep(struct phx_control_job *job, const char *s);
/* NULL for "", as filters want it. */
const char *phx_control_filter(struct phx_control_job *job, const char *s);
/* A page token of ours: decimal numbers joined by dots.  PHX_E_INVALID unless it holds exactly n. */
int phx_control_token(const char *token, uint64_t *numbers, int n, struct phx_err *err) PHX_CHECKED;

/* admission_service.c, license_service.c, metering_service.c, export.c, audit_service.c */
void phx_control_admission(struct phx_control_job *job, const struct phx_rpc_request *request);
void phx_control_license(struct phx_control_job *job, const struct phx_rpc_request *request);
void phx_control_metering(struct phx_control_job *job, const struct phx_rpc_request *request);
void phx_control_export(struct phx_control_job *job, const struct phx_rpc_usage_export *request);
void phx_control_audit(struct phx_control_job *job, const struct phx_rpc_request *request);

/* Who sees whose usage: users their own alone.  Narrows the filter; PHX_E_DENIED. */
struct phx_usage_filter;
int phx_control_usage_filter(struct phx_control_job *job, const struct phx_rpc_usage_filter *in,
                             struct phx_usage_filter *out, struct phx_err *err) PHX_CHECKED;

/* proof.c: reading thread. */
int phx_control_prove(struct phx_control_job *job, const struct phx_rpc_audit_prove *request,
                      struct phx_err *err) PHX_CHECKED;

/* facts.c: the licence as the loop knows it (strings are copied into the job), then the seats of `period`. */
enum phx_rpc_license_state phx_control_license_state(int license_state);
void phx_control_facts(struct phx_control_job *job, struct phx_rpc_license *out);
int  phx_control_facts_seats(struct phx_tx *tx, struct phx_rpc_license *facts, struct phx_err *err) PHX_CHECKED;

#endif
