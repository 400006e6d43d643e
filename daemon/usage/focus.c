/* SPDX-License-Identifier: Apache-2.0
 * FOCUS 1.2 (FinOps Open Cost and Usage Specification): all its mandatory columns, the conditional ones that
 * apply, and our own behind them.  Quantities are tokens; the service has no price of its own, so costs are 0.
 *
 * The three meters do not overlap: prompt tokens that were not cached, cached ones, output. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/usage/out.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"

static const char header[] =
    "BilledCost,BillingAccountId,BillingAccountName,BillingCurrency,BillingPeriodEnd,BillingPeriodStart,"
    "ChargeCategory,ChargeClass,ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,"
    "ConsumedQuantity,ConsumedUnit,ContractedCost,EffectiveCost,InvoiceIssuerName,ListCost,PricingQuantity,"
    "PricingUnit,ProviderName,PublisherName,ResourceId,ResourceType,ServiceCategory,ServiceName,"
    "ServiceSubcategory,SkuId,SkuMeter,SubAccountId,Tags,x_Requests,x_ReasoningTokens,x_ComputeMs,x_QueueMs,"
    "x_LedgerKind,x_LedgerFrom,x_LedgerTo\r\n";

struct focus_times {
    char billing_start[32], billing_end[32], charge_start[32], charge_end[32];
};

/* FOCUS writes whole seconds. */
static void format_time(int64_t at_ns, char text[32])
{
    phx_clock_format_utc(at_ns, text);
    memcpy(text + 19, "Z", 2);
}

/* hour: "2026-11-23T05:00:00Z" */
static int make_times(const char *hour, struct focus_times *t, struct phx_err *err)
{
    int64_t from_ns, to_ns, start_ns;
    char    month[8];
    int     rc, day = (hour[8] - '0') * 10 + hour[9] - '0', n = (hour[11] - '0') * 10 + hour[12] - '0';

    (void)snprintf(month, sizeof(month), "%.7s", hour);
    rc = phx_period_parse(month, &from_ns, &to_ns, err);
    if (rc != 0)
        return rc;
    start_ns = from_ns + ((day - 1) * INT64_C(24) + n) * INT64_C(3600000000000);
    format_time(from_ns, t->billing_start);
    format_time(to_ns, t->billing_end);
    format_time(start_ns, t->charge_start);
    format_time(start_ns + INT64_C(3600000000000), t->charge_end);
    return 0;
}

static void put_tags(struct out *o, const char *cost_centre)
{
    struct phx_buf json;

    if (cost_centre[0] == '\0') {
        phx_out_cell(o, "");
        return;
    }
    phx_buf_init(&json, 0);
    phx_buf_puts(&json, "{\"cost_centre\":");
    phx_json_put_str(&json, cost_centre, strlen(cost_centre));
    phx_buf_putc(&json, '}');
    phx_out_cell(o, json.data);
    phx_buf_fini(&json);
}

static void put_who(struct out *o, const struct focus_times *t, const char *meter, const char *model)
{
    char text[2 * PHX_USAGE_GROUP_BYTES];

    phx_out_number(o, 0); /* BilledCost */
    phx_out_cell(o, o->report->cluster_id);
    phx_out_cell(o, o->report->firm);
    phx_out_cell(o, "USD");
    phx_out_cell(o, t->billing_end);
    phx_out_cell(o, t->billing_start);
    phx_out_cell(o, "Usage");
    /* within its own billing period a correction has no class, says the specification */
    phx_out_cell(o, o->usage_class == PHX_USAGE_CORRECTIONS_EARLIER ? "Correction" : "");
    (void)snprintf(text, sizeof(text), "%s of %s", meter, model);
    phx_out_cell(o, text);
    phx_out_cell(o, "Usage-Based");
    phx_out_cell(o, t->charge_end);
    phx_out_cell(o, t->charge_start);
}

static void put_what(struct out *o, const char *meter, const char *model, int64_t quantity)
{
    char sku[2 * PHX_USAGE_GROUP_BYTES];

    phx_out_number(o, quantity);
    phx_out_cell(o, "Tokens");
    phx_out_number(o, 0); /* ContractedCost */
    phx_out_number(o, 0); /* EffectiveCost */
    phx_out_cell(o, o->report->firm);
    phx_out_number(o, 0); /* ListCost */
    phx_out_number(o, quantity);
    phx_out_cell(o, "Tokens");
    phx_out_cell(o, o->report->firm);
    phx_out_cell(o, o->report->firm);
    phx_out_cell(o, o->report->cluster_id);
    phx_out_cell(o, "Cluster");
    phx_out_cell(o, "AI and Machine Learning");
    phx_out_cell(o, model);
    phx_out_cell(o, "Generative AI");
    (void)snprintf(sku, sizeof(sku), "%s/%s", model, meter);
    phx_out_cell(o, sku);
    phx_out_cell(o, meter);
}

struct meter {
    const char *name;
    int64_t     quantity;
    bool        has_counts; /* requests and times, once per sum, so that the columns can be added up */
};

static void put_line(struct out *o, const struct phx_usage_row *row, const struct focus_times *t,
                     const struct meter *m)
{
    put_who(o, t, m->name, row->group[3]);
    put_what(o, m->name, row->group[3], m->quantity);
    phx_out_cell(o, row->group[1]);
    put_tags(o, row->group[2]);
    phx_out_number(o, m->has_counts ? row->requests : 0);
    phx_out_number(o, m->has_counts ? row->reasoning : 0);
    phx_out_number(o, m->has_counts ? row->compute_ms : 0);
    phx_out_number(o, m->has_counts ? row->queue_ms : 0);
    phx_out_cell(o, o->usage_class == PHX_USAGE_COMMITS ? "commit" : "correct");
    phx_out_number(o, row->first_id);
    phx_out_number(o, row->last_id);
    phx_out_end(o);
}

static int write_sum(void *ctx, const struct phx_usage_row *row)
{
    struct out        *o = ctx;
    const struct meter meters[] = {
        {"uncached_prompt_tokens", row->prompt - row->cached, false},
        {"cached_prompt_tokens", row->cached, false},
        {"output_tokens", row->output, true},
    };
    struct focus_times t;
    int                rc = make_times(row->group[0], &t, o->err);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof(meters) / sizeof(meters[0]); i++)
        if (meters[i].quantity != 0 || meters[i].has_counts)
            put_line(o, row, &t, &meters[i]);
    return phx_out_pass(o);
}

int phx_usage_write_focus(struct out *o)
{
    static const enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX] = {
        PHX_GROUP_HOUR, PHX_GROUP_TENANT, PHX_GROUP_COST_CENTRE, PHX_GROUP_MODEL};
    struct phx_usage_filter filter = o->report->filter;
    int64_t                 at_id;
    int                     rc = 0;

    if (!o->report->has_no_header)
        phx_buf_puts(&o->text, header);
    for (int c = PHX_USAGE_COMMITS; c <= PHX_USAGE_CORRECTIONS_EARLIER && rc == 0; c++) {
        o->usage_class = filter.usage_class = c;
        rc = phx_ledger_usage(o->tx, &filter, groups, write_sum, o, &at_id, o->err);
    }
    return rc;
}
