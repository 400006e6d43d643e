/* SPDX-License-Identifier: Apache-2.0
 * CloudEvents 1.0, a JSON line per commit or correction.  The id follows from cluster and row, so that a
 * consumer that has seen an event can drop it when the same range is exported again. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/usage/out.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"

static void put_str(struct out *o, const char *key, const char *value)
{
    phx_buf_printf(&o->text, ",\"%s\":", key);
    phx_json_put_str(&o->text, value, strlen(value));
}

static void put_int(struct out *o, const char *key, int64_t value)
{
    phx_buf_printf(&o->text, ",\"%s\":%" PRId64, key, value);
}

static void put_data(struct out *o, const struct phx_ledger_row *row)
{
    phx_buf_printf(&o->text, ",\"data\":{\"kind\":\"%s\"", phx_ledger_kind_name(row->kind));
    put_str(o, "receipt", row->lease);
    put_str(o, "tenant", row->tenant);
    put_str(o, "user", row->user);
    put_str(o, "key_id", row->key_id);
    put_str(o, "cost_centre", row->cost_centre);
    put_str(o, "model", row->model);
    put_str(o, "request_id", row->request_id);
    put_str(o, "outcome", row->outcome);
    put_int(o, "prompt_tokens", row->prompt);
    put_int(o, "cached_tokens", row->cached);
    put_int(o, "output_tokens", row->output);
    put_int(o, "reasoning_tokens", row->reasoning);
    put_int(o, "compute_ms", row->compute_ms);
    put_int(o, "queue_ms", row->queue_ms);
    put_int(o, "upper_tokens", row->upper);
    put_int(o, "ledger_id", row->id);
    put_int(o, "corrects_id", row->ref);
    put_str(o, "note", row->note);
    phx_buf_puts(&o->text, "}}\n");
}

static int write_row(void *ctx, const struct phx_ledger_row *row)
{
    struct out *o = ctx;
    char        name[96], id[PHX_SHA256_HEX], at[32], subject[2 * PHX_USAGE_GROUP_BYTES];
    int         n = snprintf(name, sizeof(name), "%.64s%" PRId64, o->report->cluster_id, row->id);

    phx_sha256_hex(name, (size_t)n, id);
    phx_clock_format_utc(row->at_ns, at);
    (void)snprintf(subject, sizeof(subject), "%s/%s", row->tenant, row->cost_centre);
    phx_buf_printf(&o->text, "{\"specversion\":\"1.0\",\"id\":\"%s\",\"type\":\"phalanx.inference.v1\"", id);
    phx_buf_printf(&o->text, ",\"source\":\"/cluster/%.64s\",\"time\":\"%s\"", o->report->cluster_id, at);
    put_str(o, "subject", subject);
    put_str(o, "datacontenttype", "application/json");
    put_data(o, row);
    return phx_out_pass(o);
}

int phx_usage_write_events(struct out *o)
{
    return phx_ledger_usage_rows(o->tx, &o->report->filter, write_row, o, o->err);
}
