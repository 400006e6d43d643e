/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/control/job.h"
#include "daemon/replay/replay.h"
#include "daemon/store/store.h"

enum {
    DEFAULT_RECORDS = 100,
    PAGE_MAX_BYTES = 4 << 20,   /* of leaves */
    SCAN_MAX_LEAVES = 200000,   /* looked at for one page: a rare thing takes several, and none takes long */
    REQUEST_LEAVES_MAX = 64     /* of one receipt or request */
};

struct page {
    struct phx_control_job *job;
    struct phx_leaf_query   query;
    const char             *receipt; /* Get by receipt */
    int32_t                 max, n;
    size_t                  bytes;
    struct phx_rpc_record  *rows;
    bool                    is_more;
    uint64_t                next; /* where the next page begins */
};

/* The value of "req_id", "" when there is none or it is spelled with escapes. */
static const char *find_request(struct phx_arena *arena, const struct phx_leaf *leaf)
{
    static const char key[] = "\"req_id\":\"";
    const char *at = memmem(leaf->record, leaf->record_size, key, sizeof(key) - 1), *end;

    if (at == NULL)
        return "";
    at += sizeof(key) - 1;
    end = memchr(at, '"', leaf->record_size - (size_t)(at - leaf->record));
    if (end == NULL || end - at > PHX_RPC_NAME_MAX || memchr(at, '\\', (size_t)(end - at)) != NULL)
        return "";
    return phx_arena_strndup(arena, at, (size_t)(end - at));
}

static int keep_leaf(void *ctx, const struct phx_leaf *leaf)
{
    struct page      *p = ctx;
    struct phx_arena *arena = p->job->arena;
    char             *record;

    if (p->n == p->max || (p->n > 0 && p->bytes + leaf->record_size > PAGE_MAX_BYTES)) {
        p->is_more = true;
        p->next = leaf->index;
        return 1; /* ends the walk */
    }
    record = phx_arena_calloc(arena, 1, leaf->record_size + 1);
    memcpy(record, leaf->record, leaf->record_size);
    p->bytes += leaf->record_size;
    p->rows[p->n++] = (struct phx_rpc_record){
        .index = leaf->index,
        .kind = phx_arena_strdup(arena, leaf->kind),
        .unix_ns = leaf->at_ns,
        .request_id = find_request(arena, leaf),
        .tenant = phx_arena_strdup(arena, leaf->tenant),
        .leaf = {record, leaf->record_size},
    };
    return 0;
}

static struct page *make_page(struct phx_control_job *job, int32_t max)
{
    struct page *p = phx_arena_calloc(job->arena, 1, sizeof(*p));

    p->job = job;
    p->max = max;
    p->rows = phx_arena_calloc(job->arena, (size_t)max, sizeof(*p->rows));
    job->state = p;
    return p;
}

/* ---- Get ------------------------------------------------------------------------------------------- */

struct found {
    char receipt[PHX_RECEIPT_BYTES];
};

static int take_receipt(void *ctx, const struct phx_leaf *leaf)
{
    struct found *f = ctx;

    (void)snprintf(f->receipt, sizeof(f->receipt), "%s", leaf->receipt);
    return 1; /* one is enough */
}

/* The intent carries the request's id, the result only the receipt. */
static int read_request(struct phx_tx *tx, struct page *p, struct phx_err *err)
{
    struct found f = {""};
    int          rc = phx_audit_search(tx, &p->query, take_receipt, &f, err);

    if (rc < 0 || f.receipt[0] == '\0')
        return rc < 0 ? rc : 0;
    return phx_audit_find(tx, f.receipt, keep_leaf, p, err);
}

static int read_records(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct page *p = ctx;
    int          rc;

    if (p->receipt != NULL)
        rc = phx_audit_find(tx, p->receipt, keep_leaf, p, err);
    else if (p->query.request_id != NULL)
        rc = read_request(tx, p, err);
    else
        rc = phx_audit_search(tx, &p->query, keep_leaf, p, err);
    if (rc < 0)
        return rc;
    return p->n > 0 ? 0 : phx_fail(err, PHX_E_NOTFOUND, "the audit log has no such record");
}

static int work_get(struct phx_control_job *job, struct phx_err *err)
{
    struct page *p = job->state;
    int          rc = phx_store_read(job->d->store, read_records, p, err);

    job->answer.u.audit_get = (struct phx_rpc_records_answer){p->rows, p->n};
    return rc;
}

static void get(struct phx_control_job *job, const struct phx_rpc_audit_get *in)
{
    struct page   *p = make_page(job, REQUEST_LEAVES_MAX);
    struct phx_err err = {0};

    if (in->by == PHX_RPC_BY_RECEIPT) {
        p->receipt = phx_control_keep(job, in->receipt_id);
    } else if (in->by == PHX_RPC_BY_REQUEST) {
        p->query.kind = "intent";
        p->query.request_id = phx_control_keep(job, in->request_id);
    } else if (in->index >= INT64_MAX) {
        (void)phx_fail(&err, PHX_E_NOTFOUND, "the audit log has no such record"); /* told */
        phx_control_fail(job, &err, -1);
        return;
    } else {
        p->query.from = in->index;
        p->query.below = in->index + 1;
    }
    phx_control_read(job, work_get, phx_control_finish);
}

/* ---- Search ---------------------------------------------------------------------------------------- */

static int read_page(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct page *p = ctx;
    int64_t      last = -1;
    int          rc = phx_audit_search(tx, &p->query, keep_leaf, p, err);

    if (rc == 0)
        rc = phx_audit_last(tx, &last, err);
    if (rc == 0 && !p->is_more && (int64_t)p->query.below <= last) {
        p->is_more = true;
        p->next = p->query.below;
    }
    return rc > 0 ? 0 : rc;
}

static int work_search(struct phx_control_job *job, struct phx_err *err)
{
    struct page *p = job->state;
    char         token[24] = "";
    int          rc = phx_store_read(job->d->store, read_page, p, err);

    if (p->is_more)
        (void)snprintf(token, sizeof(token), "%" PRIu64, p->next);
    job->answer.u.audit_search =
        (struct phx_rpc_search_answer){p->rows, p->n, phx_arena_strdup(job->arena, token)};
    return rc;
}

static void search(struct phx_control_job *job, const struct phx_rpc_audit_search *in)
{
    struct page   *p = make_page(job, in->page_size > 0 ? in->page_size : DEFAULT_RECORDS);
    struct phx_err err = {0};

    p->query = (struct phx_leaf_query){
        .from_ns = in->from_unix_ns,
        .to_ns = in->to_unix_ns,
        .kind = phx_control_filter(job, in->kind),
        .tenant = phx_control_filter(job, in->tenant),
        .user = phx_control_filter(job, in->user),
        .manifest_root = phx_control_filter(job, in->model_digest),
    };
    if (*in->page_token != '\0' && phx_control_token(in->page_token, &p->query.from, 1, &err) != 0) {
        phx_control_fail(job, &err, -1);
        return;
    }
    p->query.below = p->query.from + SCAN_MAX_LEAVES;
    phx_control_read(job, work_search, phx_control_finish);
}

/* ---- Prove ----------------------------------------------------------------------------------------- */

static int work_prove(struct phx_control_job *job, struct phx_err *err)
{
    return phx_control_prove(job, job->state, err);
}

static void prove(struct phx_control_job *job, const struct phx_rpc_audit_prove *in)
{
    struct phx_rpc_audit_prove *request = phx_arena_calloc(job->arena, 1, sizeof(*request));

    *request = *in;
    request->receipt_id = phx_control_keep(job, in->receipt_id);
    job->state = request;
    phx_control_read(job, work_prove, phx_control_finish);
}

/* ---- Checkpoint ------------------------------------------------------------------------------------ */

static void checkpoint(struct phx_control_job *job)
{
    char                *note = job->d->publisher != NULL ? phx_publisher_checkpoint(job->d->publisher) : NULL;
    struct phx_err       err = {0};
    const char          *size;

    if (note == NULL) {
        (void)phx_fail(&err, PHX_E_BUSY, "no checkpoint is published yet"); /* told */
        phx_control_fail(job, &err, 1000);
        return;
    }
    size = strchr(note, '\n'); /* origin, then the size */
    job->answer.u.audit_checkpoint = (struct phx_rpc_checkpoint_answer){
        {note, strlen(note)}, size != NULL ? strtoull(size + 1, NULL, 10) : 0};
    if (job->call != NULL)
        phx_rpc_reply(job->call, &job->answer);
    phx_mem_free(note);
    phx_control_end(job);
}

/* ---- Replay ---------------------------------------------------------------------------------------- */

static void on_replayed(void *ctx, const struct phx_replay_verdict *v, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;
    char                    tolerance[160];

    if (err != NULL) {
        phx_control_finish(job, err);
        return;
    }
    if (strcmp(v->run_class, "A") == 0)
        (void)snprintf(tolerance, sizeof(tolerance), "none: the same token ids");
    else
        (void)snprintf(tolerance, sizeof(tolerance),
                       "each token within %.3f of the best logit, or %.4f of probability for a draw; "
                       "the largest gap is %.3g",
                       PHX_REPLAY_LOGIT_GAP, PHX_REPLAY_MASS_GAP, v->max_gap);
    job->answer.u.audit_replay = (struct phx_rpc_replay_answer){
        .receipt_id = v->receipt,
        .replay_class = v->run_class,
        .is_equal = v->is_equal,
        .n_tokens = v->n_tokens,
        .n_checked = v->n_checked,
        .first_difference = v->first_difference,
        .tolerance = tolerance,
    };
    phx_control_reply(job);
}

void phx_control_audit(struct phx_control_job *job, const struct phx_rpc_request *request)
{
    switch (request->method) {
    case PHX_RPC_AUDIT_GET:
        get(job, &request->u.audit_get);
        break;
    case PHX_RPC_AUDIT_PROVE:
        prove(job, &request->u.audit_prove);
        break;
    case PHX_RPC_AUDIT_CHECKPOINT:
        checkpoint(job);
        break;
    case PHX_RPC_AUDIT_SEARCH:
        search(job, &request->u.audit_search);
        break;
    default:
        phx_replay_run(job->d, request->u.audit_replay.receipt_id, request->u.audit_replay.as_class, job->by,
                       on_replayed, job);
        break;
    }
}
