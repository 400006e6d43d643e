/* SPDX-License-Identifier: Apache-2.0
 * Sums in pages that hold together, exports that can be broken off and resumed to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/usage/usage.h"
#include "rpc/base/buf.h"
#include "world.h"

static struct world w;
static struct forge forge;

static void fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(w.err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", w.err.text, text);
}

static void sums_come_in_pages_of_one_moment(void **state)
{
    static const char *const groups[] = {"user", "hour"};
    struct phx_rpc_request   q = {.method = PHX_RPC_METERING_QUERY};
    struct phx_rpc_answer    a = {0};
    int64_t                  n = 0, output = 0, requests = 0;
    uint64_t                 index = 0;

    (void)state;
    world_open(&w, &forge, false);
    world_use(&w, "acme", "ann", 70);
    world_use(&w, "acme", "bob", 30);
    world_start(&w);
    q.u.usage_query = (struct phx_rpc_usage_query){.group_by = groups, .n_group_by = 2, .page_size = 40};
    for (int page = 0; page < 3; page++) {
        if (world_ask(&w, WORLD_AUDITOR, &q, &a) != 0)
            fail_msg("%s", w.err.text);
        for (int i = 0; i < a.u.usage_query.n_rows; i++, n++) {
            assert_int_equal(a.u.usage_query.rows[i].n_group, 2);
            requests += a.u.usage_query.rows[i].totals.requests;
            output += a.u.usage_query.rows[i].totals.output_tokens;
        }
        index = page == 0 ? a.u.usage_query.ledger_index : index;
        assert_int_equal(a.u.usage_query.ledger_index, index);
        q.u.usage_query.page_token = a.u.usage_query.next_page_token;
        if (page == 0)
            world_use(&w, "acme", "cid", 50); /* later than the first page: not in the next ones */
    }
    assert_string_equal(a.u.usage_query.next_page_token, "");
    assert_int_equal(n, 100);
    assert_int_equal(requests, 100);
    assert_int_equal(output, 70 * 5 + 69 * 70 / 2 + 30 * 5 + 29 * 30 / 2);
    assert_int_equal(index, 200); /* rows of the ledger then */
    q.u.usage_query = (struct phx_rpc_usage_query){.page_size = 1};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_int_equal(a.u.usage_query.rows[0].totals.requests, 150);
    world_close(&w);
}

static void users_see_their_own_alone(void **state)
{
    static const char *const groups[] = {"tenant", "user"};
    struct phx_rpc_request   q = {.method = PHX_RPC_METERING_QUERY};
    struct phx_rpc_answer    a;

    (void)state;
    world_open(&w, &forge, false);
    world_use(&w, "acme", "ann", 3);
    world_use(&w, "acme", "bob", 4);
    world_use(&w, "zeta", "ann", 5);
    world_start(&w);
    q.u.usage_query = (struct phx_rpc_usage_query){.group_by = groups, .n_group_by = 2};
    assert_int_equal(world_ask(&w, WORLD_USER, &q, &a), 0);
    assert_int_equal(a.u.usage_query.n_rows, 1);
    assert_string_equal(a.u.usage_query.rows[0].group[0], "acme");
    assert_string_equal(a.u.usage_query.rows[0].group[1], "ann");
    assert_int_equal(a.u.usage_query.rows[0].totals.requests, 3);
    q.u.usage_query.filter.tenant = "zeta";
    fails(world_ask(&w, WORLD_USER, &q, &a), PHX_E_DENIED, "their own usage alone");
    q.u.usage_query.filter = (struct phx_rpc_usage_filter){.user = "bob"};
    fails(world_ask(&w, WORLD_USER, &q, &a), PHX_E_DENIED, "their own usage alone");
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_int_equal(a.u.usage_query.rows[0].totals.requests, 4);
    world_close(&w);
}

static void what_cannot_be_asked_is_named(void **state)
{
    static const char *const wrong[] = {"colour"}, *const twice[] = {"day", "day"};
    struct phx_rpc_request   q = {.method = PHX_RPC_METERING_QUERY};

    (void)state;
    world_open(&w, &forge, false);
    world_start(&w);
    q.u.usage_query = (struct phx_rpc_usage_query){.group_by = wrong, .n_group_by = 1};
    fails(world_ask(&w, WORLD_AUDITOR, &q, NULL), PHX_E_INVALID, "'colour' is none of");
    q.u.usage_query = (struct phx_rpc_usage_query){.group_by = twice, .n_group_by = 2};
    fails(world_ask(&w, WORLD_AUDITOR, &q, NULL), PHX_E_INVALID, "'day' is there twice");
    for (int i = 0; i < 5; i++) {
        static const char *const tokens[] = {"x", "1", "1.2.3", "-1.2", "1.9999999999999999999"};

        q.u.usage_query = (struct phx_rpc_usage_query){.page_token = tokens[i]};
        fails(world_ask(&w, WORLD_AUDITOR, &q, NULL), PHX_E_INVALID, "page_token");
    }
    world_close(&w);
}

/* ---- exports ----------------------------------------------------------------------------------------- */

/* Takes at most `parts` messages (0 = all) into text; the cursor of the last. */
static uint64_t export(struct phx_rpc_usage_export what, int parts, struct phx_buf *text)
{
    struct phx_rpc_request q = {.method = PHX_RPC_METERING_EXPORT, .u.usage_export = what};
    struct phx_rpc_stream *stream;
    struct phx_rpc_answer  a;
    uint64_t               next = 0;
    int                    n = 0, rc;

    assert_int_equal(phx_rpc_stream_open(w.clients[WORLD_AUDITOR], 20000, &q, &stream, &w.err), 0);
    while ((rc = phx_rpc_stream_recv(stream, w.arena, &a, &w.err)) == 1) {
        phx_buf_put(text, a.u.usage_export.data.data, a.u.usage_export.data.size);
        next = a.u.usage_export.next_index;
        if (++n == parts)
            break;
    }
    if (rc < 0)
        fail_msg("%s", w.err.text);
    phx_rpc_stream_close(stream);
    return next;
}

static int take(void *ctx, const void *data, size_t size)
{
    phx_buf_put(ctx, data, size);
    return 0;
}

struct whole {
    enum phx_usage_format format;
    struct phx_buf       *text;
};

static int write_whole(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct whole            *x = ctx;
    const struct phx_usage_report  r = {.cluster_id = w.d.cluster_id, .firm = w.d.cluster_id,
                                        .filter = {.from_id = 1}};

    return phx_usage_write(tx, &r, x->format, take, x->text, err);
}

static void assert_same(const struct phx_buf *a, const struct phx_buf *b)
{
    assert_int_equal(a->size, b->size);
    assert_memory_equal(a->data, b->data, a->size);
}

static void an_export_is_the_report_and_can_be_resumed(void **state)
{
    static const struct {
        enum phx_rpc_export_format asked;
        enum phx_usage_format      format;
    } formats[] = {{PHX_RPC_EXPORT_CSV, PHX_USAGE_CSV}, {PHX_RPC_EXPORT_CLOUDEVENTS, PHX_USAGE_CLOUDEVENTS},
                   {PHX_RPC_EXPORT_FOCUS, PHX_USAGE_FOCUS}};

    (void)state;
    world_open(&w, &forge, false);
    world_use(&w, "acme", "ann", 6000);
    world_use(&w, "zeta", "=cmd()", 500);
    world_start(&w);
    for (int f = 0; f < 3; f++) {
        struct phx_rpc_usage_export what = {.format = formats[f].asked};
        struct phx_buf              whole, got, again, rest;
        struct whole                x = {formats[f].format, &whole};
        uint64_t                    next;

        phx_buf_init(&whole, 0);
        phx_buf_init(&got, 0);
        phx_buf_init(&again, 0);
        phx_buf_init(&rest, 0);
        world_write(&w, write_whole, &x);
        assert_int_equal(export(what, 0, &got), 13001);
        assert_same(&got, &whole);
        if (formats[f].asked != PHX_RPC_EXPORT_FOCUS) { /* broken off after a part, then resumed */
            next = export(what, 2, &again);
            assert_in_range(next, 2, 13000);
            what.from_index = next;
            assert_int_equal(export(what, 0, &rest), 13001);
            if (formats[f].asked == PHX_RPC_EXPORT_CSV) /* each stream names its columns first */
                phx_buf_consume(&rest, (size_t)(strchr(rest.data, '\n') + 1 - rest.data));
            phx_buf_put(&again, rest.data, rest.size);
            assert_same(&again, &whole);
        }
        what = (struct phx_rpc_usage_export){.format = formats[f].asked, .from_index = 13001};
        phx_buf_clear(&rest);
        assert_int_equal(export(what, 0, &rest), 13001); /* nothing new: the cursor stays */
        assert_int_equal(rest.size, 0);
        phx_buf_fini(&whole);
        phx_buf_fini(&got);
        phx_buf_fini(&again);
        phx_buf_fini(&rest);
    }
    world_close(&w);
}

/* A client that asks for everything and reads nothing: others are served, and leaving it is no harm. */
static void a_client_that_does_not_read_holds_up_nobody(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_METERING_EXPORT}, other = {.method = PHX_RPC_METERING_QUERY};
    struct phx_rpc_stream *streams[8];

    (void)state;
    world_open(&w, &forge, false);
    world_use(&w, "acme", "ann", 20000);
    world_start(&w);
    q.u.usage_export.format = PHX_RPC_EXPORT_CLOUDEVENTS;
    for (int i = 0; i < 8; i++)
        assert_int_equal(phx_rpc_stream_open(w.clients[WORLD_AUDITOR], 0, &q, &streams[i], &w.err), 0);
    for (int i = 0; i < 20; i++)
        if (world_ask(&w, WORLD_ADMIN, &other, NULL) != 0)
            fail_msg("%s", w.err.text);
    for (int i = 0; i < 8; i++)
        phx_rpc_stream_close(streams[i]);
    assert_int_equal(world_ask(&w, WORLD_ADMIN, &other, NULL), 0);
    world_close(&w);
}

static void exports_are_leaves(void **state)
{
    struct phx_rpc_request search = {.method = PHX_RPC_AUDIT_SEARCH, .u.audit_search = {.kind = "admin"}};
    struct phx_rpc_answer  a;
    struct phx_buf         text;
    bool                   is_there = false;

    (void)state;
    world_open(&w, &forge, false);
    world_start(&w);
    phx_buf_init(&text, 0);
    (void)export((struct phx_rpc_usage_export){.format = PHX_RPC_EXPORT_CSV}, 0, &text);
    phx_buf_fini(&text);
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &search, &a), 0);
    for (int i = 0; i < a.u.audit_search.n_records; i++) {
        const struct phx_rpc_bytes *leaf = &a.u.audit_search.records[i].leaf;

        is_there = is_there || (memmem(leaf->data, leaf->size, "usage.stream", 12) != NULL &&
                                memmem(leaf->data, leaf->size, "acme/aud", 8) != NULL);
    }
    assert_true(is_there);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_come_in_pages_of_one_moment),
        cmocka_unit_test(users_see_their_own_alone),
        cmocka_unit_test(what_cannot_be_asked_is_named),
        cmocka_unit_test(an_export_is_the_report_and_can_be_resumed),
        cmocka_unit_test(a_client_that_does_not_read_holds_up_nobody),
        cmocka_unit_test(exports_are_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
