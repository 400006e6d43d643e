/* SPDX-License-Identifier: Apache-2.0
 * The records of a request: canonical JSON (sorted keys, integers and strings), written with the ledger row
 * in one transaction, so that the two can never disagree. */
#include "daemon/admission/record.h"

#include <inttypes.h>
#include <string.h>

#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"

enum { RECORD_MAX_BYTES = 8192 };

static void put(struct phx_buf *out, const char *key, const char *text)
{
    phx_buf_printf(out, "%s\"%s\":", out->size > 1 ? "," : "", key);
    phx_json_put_str(out, text, strlen(text));
}

static void put_int(struct phx_buf *out, const char *key, int64_t value)
{
    phx_buf_printf(out, "%s\"%s\":%" PRId64, out->size > 1 ? "," : "", key, value);
}

/* Reals are recorded in millionths: records hold integers and strings only. */
static void put_sampling(struct phx_buf *out, const struct phx_sampling *s)
{
    phx_buf_printf(out,
                   ",\"sampling\":{\"frequency_penalty_e6\":%lld,\"ignore_eos\":%d,\"min_p_e6\":%lld,"
                   "\"n_bias\":%d,\"presence_penalty_e6\":%lld,\"repetition_penalty_e6\":%lld,"
                   "\"seed\":\"%" PRIu64 "\",\"temperature_e6\":%lld,\"top_k\":%d,\"top_p_e6\":%lld}",
                   (long long)((double)s->frequency_penalty * 1e6), s->ignore_eos ? 1 : 0,
                   (long long)((double)s->min_p * 1e6), s->n_bias,
                   (long long)((double)s->presence_penalty * 1e6),
                   (long long)((double)s->repetition_penalty * 1e6), s->seed,
                   (long long)((double)s->temperature * 1e6), s->top_k,
                   (long long)((double)s->top_p * 1e6));
}

static int append(struct phx_tx *tx, const char *kind, const char *receipt, struct phx_buf *record,
                  const uint8_t *salt, struct phx_err *err)
{
    int rc = phx_buf_check(record, "audit record", err);

    if (rc == 0)
        rc = phx_audit_append(tx, kind, receipt, record->data, salt, err);
    phx_buf_fini(record);
    return rc;
}

static struct phx_ledger_row row_of(const struct phx_lease *l)
{
    return (struct phx_ledger_row){
        .receipt = l->receipt,
        .tenant = l->who.tenant,
        .user = l->who.user,
        .key_id = l->who.key_id,
        .model = l->a->model_name,
        .request_id = l->request_id,
        .at_ns = phx_clock_wall_ns(),
        .epoch = l->a->epoch,
        .reserved = (int64_t)l->n_prompt + (int64_t)l->max_new * l->n_choices,
        .prompt = l->n_prompt,
        .finish = "",
    };
}

int phx_record_intent(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_lease *l = ctx;
    struct phx_ledger_row   row = row_of(l);
    struct phx_buf          r;
    int                     rc = phx_ledger_put(tx, "reserve", &row, err);

    if (rc != 0)
        return rc;
    phx_buf_init(&r, RECORD_MAX_BYTES);
    phx_buf_putc(&r, '{');
    put_int(&r, "at_ns", row.at_ns);
    put(&r, "build", l->a->build);
    put(&r, "end_user", l->end_user);
    put(&r, "endpoint", l->endpoint);
    put_int(&r, "epoch", l->a->epoch);
    put(&r, "key_id", l->who.key_id);
    put(&r, "kind", "intent");
    put(&r, "licence", phx_license_facts(l->a->license)->id);
    put_int(&r, "max_new", l->max_new);
    put(&r, "model", l->a->model_name);
    put(&r, "model_digest", l->a->model_digest);
    put_int(&r, "n_choices", l->n_choices);
    put_int(&r, "n_prompt", l->n_prompt);
    put(&r, "prompt", l->prompt_commitment);
    put(&r, "receipt", l->receipt);
    put(&r, "request_id", l->request_id);
    put_sampling(&r, &l->sampling);
    put(&r, "tenant", l->who.tenant);
    put(&r, "user", l->who.user);
    put_int(&r, "v", 1);
    phx_buf_putc(&r, '}');
    return append(tx, "intent", l->receipt, &r, l->salt, err);
}

/* The result leaf of a row; output is a commitment or "". */
static int append_result(struct phx_tx *tx, const struct phx_ledger_row *row, const char *output,
                         struct phx_err *err)
{
    struct phx_buf r;

    phx_buf_init(&r, RECORD_MAX_BYTES);
    phx_buf_putc(&r, '{');
    put_int(&r, "at_ns", row->at_ns);
    put_int(&r, "epoch", row->epoch);
    put(&r, "finish", row->finish);
    put_int(&r, "first_ms", row->first_ms);
    put(&r, "kind", "result");
    put(&r, "output", output);
    put_int(&r, "queue_ms", row->queue_ms);
    put(&r, "receipt", row->receipt);
    put(&r, "request_id", row->request_id);
    phx_buf_printf(&r,
                   ",\"tokens\":{\"cached\":%" PRId64 ",\"output\":%" PRId64 ",\"prompt\":%" PRId64
                   ",\"reasoning\":%" PRId64 "}",
                   row->cached, row->output, row->prompt, row->reasoning);
    put_int(&r, "total_ms", row->total_ms);
    put_int(&r, "v", 1);
    phx_buf_putc(&r, '}');
    return append(tx, "result", row->receipt, &r, NULL, err);
}

int phx_record_result(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_lease *l = ctx;
    struct phx_ledger_row   row = row_of(l);
    int                     rc;

    row.cached = l->n_cached;
    row.output = l->n_output;
    row.reasoning = l->n_reasoning;
    row.queue_ms = l->queue_ms;
    row.first_ms = l->first_token_ms;
    row.total_ms = l->total_ms;
    row.finish = l->finish;
    rc = phx_ledger_put(tx, "commit", &row, err);
    return rc == 0 ? append_result(tx, &row, l->output_commitment, err) : rc;
}

int phx_record_progress(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_ledger_row *row = ctx;

    return phx_ledger_put(tx, "progress", row, err);
}

int phx_record_refusal(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_refusal_record *f = ctx;
    char                             receipt[PHX_RECEIPT_BYTES];
    struct phx_buf                   r;

    phx_receipt_make(receipt);
    phx_buf_init(&r, RECORD_MAX_BYTES);
    phx_buf_putc(&r, '{');
    put_int(&r, "at_ns", phx_clock_wall_ns());
    put(&r, "key_id", f->key_id);
    put(&r, "kind", "refusal");
    put(&r, "receipt", receipt);
    put(&r, "request_id", f->request_id);
    put(&r, "rule", f->rule);
    put(&r, "tenant", f->tenant);
    put(&r, "user", f->user);
    put_int(&r, "v", 1);
    phx_buf_putc(&r, '}');
    return append(tx, "refusal", receipt, &r, NULL, err);
}

/* ---- recovery --------------------------------------------------------------------------------- */

enum { CRASHED_MAX = 1 << 16 };

struct crashed {
    struct phx_arena *arena;
    struct list {
        struct list          *next;
        struct phx_ledger_row row;
    } *first;
    int32_t n;
};

static int keep_row(void *ctx, const struct phx_ledger_row *row)
{
    struct crashed *c = ctx;
    struct list    *item;

    if (c->n++ == CRASHED_MAX)
        return PHX_E_TOOBIG;
    item = phx_arena_calloc(c->arena, 1, sizeof(*item));
    item->row = *row;
    item->row.receipt = phx_arena_strdup(c->arena, row->receipt);
    item->row.tenant = phx_arena_strdup(c->arena, row->tenant);
    item->row.user = phx_arena_strdup(c->arena, row->user);
    item->row.key_id = phx_arena_strdup(c->arena, row->key_id);
    item->row.model = phx_arena_strdup(c->arena, row->model);
    item->row.request_id = phx_arena_strdup(c->arena, row->request_id);
    item->row.finish = "crash";
    item->next = c->first;
    c->first = item;
    return 0;
}

static int read_epoch(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

int phx_record_recover(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_admission *a = ctx;
    struct crashed        c = {.arena = phx_arena_create()};
    int rc = phx_tx_exec(tx, "UPDATE meta SET value = value + 1 WHERE name = 'epoch'", NULL, 0, NULL,
                         NULL, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'epoch'", NULL, 0, read_epoch,
                         &a->epoch, err);
    if (rc == 0)
        rc = phx_ledger_open_rows(tx, keep_row, &c, err);
    for (struct list *i = c.first; i != NULL && rc == 0; i = i->next) {
        i->row.at_ns = phx_clock_wall_ns();
        i->row.epoch = a->epoch;
        rc = phx_ledger_put(tx, "commit", &i->row, err);
        if (rc == 0)
            rc = append_result(tx, &i->row, "", err);
    }
    if (rc == 0)
        rc = phx_audit_admin(tx, "daemon.start", a->build, err);
    phx_arena_destroy(c.arena);
    return rc;
}
