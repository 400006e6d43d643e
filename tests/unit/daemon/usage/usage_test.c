/* SPDX-License-Identifier: Apache-2.0
 * The formats agree with each other and with a count made beside them, whatever the names are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "report.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"

enum { N_REQUESTS = 11000, N_NAMES = 8 };

/* Names as clients may choose them. */
static const char *const names[N_NAMES] = {"plain",
                                           "=HYPERLINK(\"x\")",
                                           "quote\"comma,",
                                           "line\r\nbreak",
                                           "-1+1",
                                           "@cmd",
                                           "\ttab",
                                           "Zo\xc3\xab \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\xa6\x8a"};

struct totals {
    int64_t requests, prompt, cached, output, reasoning, compute_ms, queue_ms, n_rows;
};

struct world {
    uint64_t      random;
    struct totals all, by_tenant[N_NAMES];
};

static int64_t draw(struct world *w, int64_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (int64_t)(w->random % (uint64_t)n);
}

static void count(struct totals *t, const struct phx_ledger_row *row)
{
    t->requests += row->kind == PHX_LEDGER_COMMIT;
    t->prompt += row->prompt;
    t->cached += row->cached;
    t->output += row->output;
    t->reasoning += row->reasoning;
    t->compute_ms += row->compute_ms;
    t->queue_ms += row->queue_ms;
    t->n_rows++;
}

static int put_counted(struct phx_tx *tx, struct world *w, int tenant, struct phx_ledger_row *row,
                       struct phx_err *err)
{
    int rc = phx_ledger_put(tx, row, err);

    if (rc == 0 && (row->kind == PHX_LEDGER_COMMIT || row->kind == PHX_LEDGER_CORRECT)) {
        count(&w->all, row);
        count(&w->by_tenant[tenant], row);
    }
    return rc;
}

static int fill_one(struct phx_tx *tx, struct world *w, int i, struct phx_err *err)
{
    int64_t               at_ns = MONDAY_NS + draw(w, 6 * 24) * HOUR_NS + draw(w, HOUR_NS);
    int                   tenant = (int)draw(w, N_NAMES);
    char                  lease[16];
    struct phx_ledger_row row = row_reserve(lease, at_ns, 0, 4000);
    int                   rc;

    (void)snprintf(lease, sizeof(lease), "l%d", i);
    row.tenant = names[tenant];
    row.user = names[draw(w, N_NAMES)];
    row.model = names[draw(w, N_NAMES)];
    row.cost_centre = draw(w, 4) == 0 ? "" : names[draw(w, N_NAMES)];
    row.request_id = names[draw(w, N_NAMES)];
    rc = put_counted(tx, w, tenant, &row, err);
    row = row_end(draw(w, 10) == 0 ? PHX_LEDGER_VOID : PHX_LEDGER_COMMIT, lease, at_ns + draw(w, HOUR_NS), 0, 0);
    if (row.kind == PHX_LEDGER_COMMIT) {
        row.prompt = draw(w, 2000);
        row.cached = draw(w, row.prompt + 1);
        row.output = row.upper = draw(w, 2000);
        row.reasoning = draw(w, row.output + 1);
        row.compute_ms = draw(w, 5000);
        row.queue_ms = draw(w, 5000);
    }
    if (rc == 0)
        rc = put_counted(tx, w, tenant, &row, err);
    if (rc != 0 || row.kind == PHX_LEDGER_VOID || row.output == 0 || draw(w, 20) != 0)
        return rc;
    row = row_end(PHX_LEDGER_CORRECT, lease, at_ns + 2 * HOUR_NS, 0, -row.output + row.reasoning);
    row.note = names[draw(w, N_NAMES)];
    return put_counted(tx, w, tenant, &row, err);
}

static int fill(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int rc = 0;

    for (int i = 0; i < N_REQUESTS && rc == 0; i++)
        rc = fill_one(tx, ctx, i, err);
    return rc;
}

static void check_equal(const struct totals *a, const struct totals *b)
{
    assert_int_equal(a->requests, b->requests);
    assert_int_equal(a->prompt, b->prompt);
    assert_int_equal(a->cached, b->cached);
    assert_int_equal(a->output, b->output);
    assert_int_equal(a->reasoning, b->reasoning);
    assert_int_equal(a->compute_ms, b->compute_ms);
    assert_int_equal(a->queue_ms, b->queue_ms);
}

/* ---- reading them back ---------------------------------------------------------------------------------- */

static int64_t number(const json_t *object, const char *key)
{
    int64_t        n = 0;
    struct phx_err err = {0};

    assert_int_equal(phx_json_get_int(object, "", key, -PHX_LEDGER_COUNT_MAX, PHX_LEDGER_COUNT_MAX, &n, &err),
                     0);
    return n;
}

static void add_json(struct totals *t, const json_t *o)
{
    t->requests += json_object_get(o, "requests") != NULL
                       ? number(o, "requests")
                       : strcmp(json_string_value(json_object_get(o, "kind")), "commit") == 0;
    t->prompt += number(o, "prompt_tokens");
    t->cached += number(o, "cached_tokens");
    t->output += number(o, "output_tokens");
    t->reasoning += number(o, "reasoning_tokens");
    t->compute_ms += number(o, "compute_ms");
    t->queue_ms += number(o, "queue_ms");
    t->n_rows++;
}

static int tenant_of(const char *name)
{
    for (int i = 0; i < N_NAMES; i++)
        if (strcmp(names[i], name[0] == '\'' ? name + 1 : name) == 0)
            return i;
    fail_msg("tenant '%s' was never there", name);
    return 0;
}

static void check_json(struct book *b, const struct world *w)
{
    struct phx_usage_report r = report_november();
    struct totals           rows = {0}, total = {0}, tenants[N_NAMES] = {{0}};
    struct phx_buf          text;
    json_t                 *root = NULL, *row;
    size_t                  i;

    report_make(b, &r, PHX_USAGE_JSON, &text);
    assert_int_equal(phx_json_parse(&root, text.data, text.size, SIZE_MAX, 0, "report", &b->err), 0);
    json_array_foreach(json_object_get(root, "rows"), i, row)
    {
        add_json(&rows, row);
        add_json(&tenants[tenant_of(json_string_value(json_object_get(row, "tenant")))], row);
    }
    add_json(&total, json_object_get(root, "total"));
    check_equal(&rows, &w->all);
    check_equal(&total, &w->all);
    for (i = 0; i < N_NAMES; i++)
        check_equal(&tenants[i], &w->by_tenant[i]);
    json_decref(root);
    phx_buf_fini(&text);
}

/* What a spreadsheet would take for a formula never begins a cell, but for numbers. */
static void check_cells(const struct csv *c)
{
    for (int i = 0; i < c->n_columns; i++)
        if (c->cells[i][0] != '\0' && strchr("=+@\t\r", c->cells[i][0]) != NULL)
            fail_msg("cell %s is a formula", c->header[i]);
        else if (c->cells[i][0] == '-')
            (void)csv_number(c, c->header[i]);
}

static void check_csv(struct book *b, const struct world *w)
{
    struct phx_usage_report r = report_november();
    struct totals           all = {0}, tenants[N_NAMES] = {{0}};
    struct phx_buf          text;
    struct csv              c;

    report_make(b, &r, PHX_USAGE_CSV, &text);
    csv_begin(&c, text.data);
    while (csv_next(&c)) {
        struct phx_ledger_row row = {.prompt = csv_number(&c, "prompt_tokens"),
                                     .cached = csv_number(&c, "cached_tokens"),
                                     .output = csv_number(&c, "output_tokens"),
                                     .reasoning = csv_number(&c, "reasoning_tokens"),
                                     .compute_ms = csv_number(&c, "compute_ms"),
                                     .queue_ms = csv_number(&c, "queue_ms")};

        row.kind = strcmp(csv_cell(&c, "kind"), "commit") == 0 ? PHX_LEDGER_COMMIT : PHX_LEDGER_CORRECT;
        assert_memory_equal(csv_cell(&c, "at"), "2026-11-", 8);
        check_cells(&c);
        count(&all, &row);
        count(&tenants[tenant_of(csv_cell(&c, "tenant"))], &row);
    }
    check_equal(&all, &w->all);
    assert_int_equal(all.n_rows, w->all.n_rows);
    for (int i = 0; i < N_NAMES; i++)
        check_equal(&tenants[i], &w->by_tenant[i]);
    phx_buf_fini(&text);
}

static void check_event(struct book *b, const json_t *event)
{
    char           name[96], id[PHX_SHA256_HEX], subject[400];
    const json_t  *data = json_object_get(event, "data");
    int            n;

    assert_string_equal(json_string_value(json_object_get(event, "specversion")), "1.0");
    assert_string_equal(json_string_value(json_object_get(event, "type")), "phalanx.inference.v1");
    assert_string_equal(json_string_value(json_object_get(event, "source")), "/cluster/" CLUSTER);
    n = snprintf(name, sizeof(name), CLUSTER "%lld", (long long)number(data, "ledger_id"));
    phx_sha256_hex(name, (size_t)n, id);
    assert_string_equal(json_string_value(json_object_get(event, "id")), id);
    (void)snprintf(subject, sizeof(subject), "%s/%s", json_string_value(json_object_get(data, "tenant")),
                   json_string_value(json_object_get(data, "cost_centre")));
    assert_string_equal(json_string_value(json_object_get(event, "subject")), subject);
    (void)b;
}

static void check_events(struct book *b, const struct world *w)
{
    struct phx_usage_report r = report_november();
    struct totals           all = {0}, tenants[N_NAMES] = {{0}};
    struct phx_buf          text;
    char                   *save = NULL;

    report_make(b, &r, PHX_USAGE_CLOUDEVENTS, &text);
    for (char *line = strtok_r(text.data, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        json_t       *event = NULL;
        const json_t *data;

        assert_int_equal(phx_json_parse(&event, line, strlen(line), 65536, 0, "event", &b->err), 0);
        check_event(b, event);
        data = json_object_get(event, "data");
        add_json(&all, data);
        add_json(&tenants[tenant_of(json_string_value(json_object_get(data, "tenant")))], data);
        json_decref(event);
    }
    check_equal(&all, &w->all);
    assert_int_equal(all.n_rows, w->all.n_rows);
    for (int i = 0; i < N_NAMES; i++)
        check_equal(&tenants[i], &w->by_tenant[i]);
    phx_buf_fini(&text);
}

static void add_focus(struct totals *t, const struct csv *c)
{
    int64_t     quantity = csv_number(c, "ConsumedQuantity");
    const char *meter = csv_cell(c, "SkuMeter");

    if (strcmp(meter, "output_tokens") == 0)
        t->output += quantity;
    else
        t->prompt += quantity;
    if (strcmp(meter, "cached_prompt_tokens") == 0)
        t->cached += quantity;
    t->requests += csv_number(c, "x_Requests");
    t->reasoning += csv_number(c, "x_ReasoningTokens");
    t->compute_ms += csv_number(c, "x_ComputeMs");
    t->queue_ms += csv_number(c, "x_QueueMs");
}

static void check_focus(struct book *b, const struct world *w)
{
    static const char *const mandatory[] = {
        "BilledCost",        "BillingAccountId", "BillingCurrency",    "BillingPeriodEnd", "BillingPeriodStart",
        "ChargeCategory",    "ChargePeriodEnd",  "ChargePeriodStart",  "ContractedCost",   "EffectiveCost",
        "InvoiceIssuerName", "ListCost",         "ProviderName",       "PublisherName",    "ServiceCategory",
        "ServiceName",       "PricingQuantity",  "BillingAccountName", "ChargeDescription", "PricingUnit"};
    struct phx_usage_report r = report_november();
    struct totals           all = {0}, tenants[N_NAMES] = {{0}};
    struct phx_buf          text;
    struct csv              c;

    report_make(b, &r, PHX_USAGE_FOCUS, &text);
    csv_begin(&c, text.data);
    while (csv_next(&c)) {
        for (size_t i = 0; i < sizeof(mandatory) / sizeof(mandatory[0]); i++)
            assert_true(csv_cell(&c, mandatory[i])[0] != '\0');
        assert_string_equal(csv_cell(&c, "ChargeClass"), "");
        assert_string_equal(csv_cell(&c, "BillingPeriodStart"), "2026-11-01T00:00:00Z");
        assert_string_equal(csv_cell(&c, "BillingPeriodEnd"), "2026-12-01T00:00:00Z");
        assert_string_equal(csv_cell(&c, "ProviderName"), "Acme, \"the firm\"");
        assert_true(strcmp(csv_cell(&c, "ChargePeriodStart"), csv_cell(&c, "ChargePeriodEnd")) < 0);
        check_cells(&c);
        add_focus(&all, &c);
        add_focus(&tenants[tenant_of(csv_cell(&c, "SubAccountId"))], &c);
    }
    check_equal(&all, &w->all);
    for (int i = 0; i < N_NAMES; i++)
        check_equal(&tenants[i], &w->by_tenant[i]);
    phx_buf_fini(&text);
}

static void all_formats_agree_to_the_token(void **state)
{
    struct world w = {.random = 88172645463325252u};
    struct book  b;

    (void)state;
    book_open(&b);
    if (phx_store_run(b.store, fill, &w, &b.err) != 0)
        fail_msg("%s", b.err.text);
    assert_true(w.all.n_rows > 10000 && w.all.n_rows > w.all.requests + 200); /* there are corrections */
    check_json(&b, &w);
    check_csv(&b, &w);
    check_events(&b, &w);
    check_focus(&b, &w);
    print_message("%lld rows, %lld tokens\n", (long long)w.all.n_rows,
                  (long long)(w.all.prompt + w.all.output));
    book_close(&b);
}

/* ---- single cases ----------------------------------------------------------------------------------------- */

static void put_request(struct book *b, const char *lease, int64_t at_ns, const char *user)
{
    struct phx_ledger_row row = row_reserve(lease, at_ns, 10, 40);

    row.user = user;
    assert_int_equal(book_put(b, &row), 0);
    row = row_end(PHX_LEDGER_COMMIT, lease, at_ns + HOUR_NS / 2, 10, 20);
    row.cached = 4;
    assert_int_equal(book_put(b, &row), 0);
}

static void a_cell_is_never_a_formula(void **state)
{
    static const char *const users[] = {"=1+1", "+1", "-1", "@x", "\tx", "\rx", "x=1", "a\"b", "a\r\nb,c"};
    static const char *const cells[] = {"\"'=1+1\"", "\"'+1\"", "\"'-1\"",   "\"'@x\"",        "\"'\tx\"",
                                        "\"'\rx\"",  "\"x=1\"", "\"a\"\"b\"", "\"a\r\nb,c\""};
    struct phx_usage_report  r = report_november();
    struct phx_buf           text;
    struct book              b;

    (void)state;
    for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
        book_open(&b);
        put_request(&b, "a", MONDAY_NS, users[i]);
        report_make(&b, &r, PHX_USAGE_CSV, &text);
        assert_non_null(strstr(text.data, cells[i]));
        phx_buf_fini(&text);
        book_close(&b);
    }
}

static void an_event_is_exactly_so(void **state)
{
    struct phx_usage_report r = report_november();
    struct phx_buf          text;
    struct book             b;

    (void)state;
    book_open(&b);
    put_request(&b, "rcpt_1", MONDAY_NS, "ann");
    report_make(&b, &r, PHX_USAGE_CLOUDEVENTS, &text);
    assert_string_equal(
        text.data,
        "{\"specversion\":\"1.0\",\"id\":\"14850e58d9cf40a7d6e7a52212dfc6801b31f05a3a4ca1c6a27c87999599839e\""
        ",\"type\":\"phalanx.inference.v1\",\"source\":\"/cluster/" CLUSTER
        "\",\"time\":\"2026-11-23T00:30:00.000Z\",\"subject\":\"acme/lab\",\"datacontenttype\":"
        "\"application/json\",\"data\":{\"kind\":\"commit\",\"receipt\":\"rcpt_1\",\"tenant\":\"acme\","
        "\"user\":\"ann\",\"key_id\":\"k1\",\"cost_centre\":\"lab\",\"model\":\"m\",\"request_id\":\"r\","
        "\"outcome\":\"stop\",\"prompt_tokens\":10,\"cached_tokens\":4,\"output_tokens\":20,"
        "\"reasoning_tokens\":0,\"compute_ms\":0,\"queue_ms\":0,\"upper_tokens\":20,\"ledger_id\":2,"
        "\"corrects_id\":0,\"note\":\"\"}}\n");
    phx_buf_fini(&text);
    book_close(&b);
}

static void a_late_correction_has_its_class(void **state)
{
    struct phx_usage_report r = report_november();
    struct phx_ledger_row   row = row_end(PHX_LEDGER_CORRECT, "a", MONDAY_NS, -2, -3);
    struct phx_buf          text;
    struct book             b;
    struct csv              c;

    (void)state;
    book_open(&b);
    put_request(&b, "a", MONDAY_NS - 30 * DAY_NS, "ann"); /* in October */
    put_request(&b, "b", MONDAY_NS, "ann");
    assert_int_equal(book_put(&b, &row), 0);
    row = row_end(PHX_LEDGER_CORRECT, "b", MONDAY_NS, 0, -1);
    assert_int_equal(book_put(&b, &row), 0);
    report_make(&b, &r, PHX_USAGE_FOCUS, &text);
    csv_begin(&c, text.data);
    for (int i = 0; csv_next(&c); i++) {
        static const char *const meters[] = {"uncached_prompt_tokens", "cached_prompt_tokens", "output_tokens",
                                             "output_tokens", "uncached_prompt_tokens", "output_tokens"};
        static const char *const quantities[] = {"6", "4", "20", "-1", "-2", "-3"};

        assert_true(i < 6);
        assert_string_equal(csv_cell(&c, "SkuMeter"), meters[i]);
        assert_string_equal(csv_cell(&c, "ConsumedQuantity"), quantities[i]);
        assert_string_equal(csv_cell(&c, "ChargeClass"), i < 4 ? "" : "Correction");
        assert_string_equal(csv_cell(&c, "x_LedgerKind"), i < 3 ? "commit" : "correct");
        assert_string_equal(csv_cell(&c, "ChargePeriodEnd"), "2026-11-23T01:00:00Z");
        assert_string_equal(csv_cell(&c, "Tags"), "{\"cost_centre\":\"lab\"}");
        assert_int_equal(csv_number(&c, "x_Requests"), i == 2);
    }
    phx_buf_fini(&text);
    book_close(&b);
}

static void the_table_moves_no_cursor(void **state)
{
    struct phx_usage_report r = report_november();
    struct phx_buf          text;
    struct book             b;

    (void)state;
    book_open(&b);
    put_request(&b, "a", MONDAY_NS, "\x1b[2Jann\n");
    report_make(&b, &r, PHX_USAGE_TABLE, &text);
    assert_null(strchr(text.data, '\x1b'));
    assert_non_null(strstr(text.data, "?[2Jann?"));
    assert_non_null(strstr(text.data, "total"));
    phx_buf_fini(&text);
    book_close(&b);
}

static void groups_are_named(void **state)
{
    enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX];

    (void)state;
    assert_int_equal(phx_usage_groups_parse("month,tenant", groups, NULL), 0);
    assert_int_equal(groups[0], PHX_GROUP_MONTH);
    assert_int_equal(groups[1], PHX_GROUP_TENANT);
    assert_int_equal(groups[2], PHX_GROUP_NONE);
    assert_int_equal(phx_usage_groups_parse("tenant,tenant", groups, NULL), PHX_E_INVALID);
    assert_int_equal(phx_usage_groups_parse("", groups, NULL), PHX_E_INVALID);
    assert_int_equal(phx_usage_groups_parse("tenant,", groups, NULL), PHX_E_INVALID);
    assert_int_equal(phx_usage_groups_parse("tenant,user,model,day,hour", groups, NULL), PHX_E_INVALID);
    assert_int_equal(phx_usage_groups_parse("sql", groups, NULL), PHX_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_formats_agree_to_the_token),
        cmocka_unit_test(a_cell_is_never_a_formula),
        cmocka_unit_test(an_event_is_exactly_so),
        cmocka_unit_test(a_late_correction_has_its_class),
        cmocka_unit_test(the_table_moves_no_cursor),
        cmocka_unit_test(groups_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
