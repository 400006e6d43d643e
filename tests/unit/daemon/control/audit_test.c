/* SPDX-License-Identifier: Apache-2.0
 * Records, proofs that check against the signed root, pages. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/audit/audit.h"
#include "world.h"

static struct world w;
static struct forge forge;

static void fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(w.err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", w.err.text, text);
}

/* An intent and a result for each: receipt rcpt_<i>, request req-<i>. */
static int write_pairs(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int n = *(int *)ctx, rc = 0;

    for (int i = 0; rc == 0 && i < n; i++) {
        struct phx_record r;
        char              receipt[PHX_RECEIPT_BYTES], request[32];

        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", i);
        (void)snprintf(request, sizeof(request), "req-%d", i);
        phx_record_init(&r);
        phx_record_open(&r, "asked");
        phx_record_str(&r, "req_id", request);
        phx_record_close(&r);
        phx_record_int(&r, "at_ns", w.now_ns + i);
        phx_record_str(&r, "kind", "intent");
        phx_record_str(&r, "receipt", receipt);
        phx_record_int(&r, "v", 1);
        phx_record_open(&r, "who");
        phx_record_str(&r, "user", i % 2 == 0 ? "even" : "odd");
        phx_record_close(&r);
        rc = phx_audit_append(tx, "intent", receipt, i < 10 ? "acme" : "zeta", &r, err);
        phx_record_init(&r);
        phx_record_int(&r, "at_ns", w.now_ns + i);
        phx_record_str(&r, "kind", "result");
        phx_record_str(&r, "receipt", receipt);
        phx_record_int(&r, "v", 1);
        if (rc == 0)
            rc = phx_audit_append(tx, "result", receipt, i < 10 ? "acme" : "zeta", &r, err);
        else
            phx_record_fini(&r);
    }
    return rc;
}

static int read_number(void *ctx, const struct phx_value *c, int n)
{
    (void)n;
    *(int64_t *)ctx = c[0].number;
    return 0;
}

static int count_leaves(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT COUNT(*) FROM audit", NULL, 0, read_number, ctx, err);
}

static void open_log(int n)
{
    int64_t total = 0;

    world_open(&w, &forge, false);
    world_write(&w, write_pairs, &n);
    world_write(&w, count_leaves, &total);
    world_start(&w);
    for (int i = 0; i < 500 && (int64_t)phx_publisher_size(w.d.publisher) < total; i++)
        (void)usleep(10000);
    assert_true((int64_t)phx_publisher_size(w.d.publisher) >= total);
}

static void records_are_found_by_index_receipt_and_request(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_GET};
    struct phx_rpc_answer  a, b;

    (void)state;
    open_log(20);
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_RECEIPT, .receipt_id = "rcpt_7"};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_int_equal(a.u.audit_get.n_records, 2);
    assert_string_equal(a.u.audit_get.records[0].kind, "intent");
    assert_string_equal(a.u.audit_get.records[0].request_id, "req-7");
    assert_string_equal(a.u.audit_get.records[1].kind, "result");
    assert_string_equal(a.u.audit_get.records[1].request_id, "");
    assert_string_equal(a.u.audit_get.records[1].tenant, "acme");
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_REQUEST, .request_id = "req-7"};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &b), 0);
    assert_int_equal(b.u.audit_get.n_records, 2);
    assert_int_equal(b.u.audit_get.records[0].index, a.u.audit_get.records[0].index);
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_INDEX,
                                               .index = a.u.audit_get.records[1].index};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &b), 0);
    assert_int_equal(b.u.audit_get.n_records, 1);
    assert_string_equal(b.u.audit_get.records[0].kind, "result");
    q.u.audit_get.index = UINT64_MAX;
    fails(world_ask(&w, WORLD_AUDITOR, &q, &b), PHX_E_NOTFOUND, "no such record");
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_REQUEST, .request_id = "REQ-7"};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &b), PHX_E_NOTFOUND, "no such record"); /* to the letter */
    q.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_REQUEST, .request_id = "a\"b"};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &b), PHX_E_INVALID, "quotes");
    world_close(&w);
}

static void to_hashes(const struct phx_rpc_prove_answer *p, struct phx_tlog_hash *out)
{
    for (int i = 0; i < p->n_hashes; i++)
        memcpy(out[i].bytes, p->hashes[i].data, sizeof(out[i].bytes));
}

/* The checkpoint is a note: its text, then a blank line, then signatures. */
static struct phx_checkpoint parse(const struct phx_rpc_bytes *note)
{
    const char           *end = memmem(note->data, note->size, "\n\n", 2);
    struct phx_checkpoint c;

    assert_non_null(end);
    assert_int_equal(phx_checkpoint_parse(note->data, (size_t)(end + 1 - (const char *)note->data), &c,
                                          &w.err), 0);
    return c;
}

static void every_leaf_is_proven_in_the_signed_tree(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_PROVE};
    struct phx_rpc_answer  a;
    struct phx_checkpoint  c;
    struct phx_tlog_hash   hashes[PHX_TLOG_PROOF_MAX], leaf;

    (void)state;
    open_log(150); /* more than one tile */
    for (uint64_t i = 0; i < 300; i += 7) {
        q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_INDEX, .index = i};
        if (world_ask(&w, WORLD_AUDITOR, &q, &a) != 0)
            fail_msg("%s", w.err.text);
        c = parse(&a.u.audit_prove.checkpoint);
        assert_int_equal(c.size, a.u.audit_prove.tree_size);
        to_hashes(&a.u.audit_prove, hashes);
        phx_tlog_leaf(a.u.audit_prove.record.leaf.data, a.u.audit_prove.record.leaf.size, &leaf);
        assert_true(phx_tlog_check_inclusion(i, c.size, &leaf, hashes, a.u.audit_prove.n_hashes, &c.root));
        assert_int_equal(a.u.audit_prove.record.index, i);
    }
    q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_RECEIPT, .receipt_id = "rcpt_42"};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_string_equal(a.u.audit_prove.record.kind, "result");
    assert_non_null(memmem(a.u.audit_prove.record.leaf.data, a.u.audit_prove.record.leaf.size, "rcpt_42", 7));
    q.u.audit_prove.receipt_id = "rcpt_none";
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_NOTFOUND, "no such receipt");
    q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_INDEX, .index = 1 << 20};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_NOTFOUND, "is not in a tree");
    world_close(&w);
}

static void trees_of_any_size_lead_to_the_newest(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_PROVE};
    struct phx_rpc_answer  a, old;
    struct phx_checkpoint  c;
    struct phx_tlog_hash   hashes[PHX_TLOG_PROOF_MAX], inner[PHX_TLOG_PROOF_MAX], root, leaf;

    (void)state;
    open_log(20);
    for (uint64_t size = 1; size <= 40; size += 13) {
        /* the root of the old tree, from an inclusion proof of its last leaf */
        struct phx_tlog_frontier f;

        phx_tlog_frontier_init(&f);
        for (uint64_t i = 0; i < size; i++) {
            struct phx_rpc_request g = {.method = PHX_RPC_AUDIT_GET};

            g.u.audit_get = (struct phx_rpc_audit_get){.by = PHX_RPC_BY_INDEX, .index = i};
            assert_int_equal(world_ask(&w, WORLD_AUDITOR, &g, &a), 0);
            phx_tlog_leaf(a.u.audit_get.records[0].leaf.data, a.u.audit_get.records[0].leaf.size, &leaf);
            phx_tlog_frontier_push(&f, &leaf);
        }
        phx_tlog_frontier_root(&f, &root);
        q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_CONSISTENCY, .old_tree_size = size};
        if (world_ask(&w, WORLD_AUDITOR, &q, &a) != 0)
            fail_msg("%s", w.err.text);
        c = parse(&a.u.audit_prove.checkpoint);
        to_hashes(&a.u.audit_prove, hashes);
        assert_true(phx_tlog_check_consistency(size, c.size, &root, &c.root, hashes, a.u.audit_prove.n_hashes));
        assert_false(a.u.audit_prove.has_record);
        q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_INDEX, .index = size - 1,
                                                       .tree_size = size};
        assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &old), 0);
        to_hashes(&old.u.audit_prove, inner);
        assert_true(phx_tlog_check_inclusion(size - 1, size, &leaf, inner, old.u.audit_prove.n_hashes, &root));
        assert_int_equal(old.u.audit_prove.checkpoint.size, 0); /* only the newest is signed */
    }
    q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_CONSISTENCY, .old_tree_size = 0};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_INVALID, "old_tree_size is 0");
    q.u.audit_prove = (struct phx_rpc_audit_prove){.what = PHX_RPC_PROVE_INDEX, .tree_size = 1 << 20};
    fails(world_ask(&w, WORLD_AUDITOR, &q, &a), PHX_E_NOTFOUND, "the published log has");
    world_close(&w);
}

static void the_checkpoint_is_the_published_one(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_CHECKPOINT};
    struct phx_rpc_answer  a;
    struct phx_checkpoint  c;

    (void)state;
    open_log(5);
    assert_int_equal(world_ask(&w, WORLD_OPERATOR, &q, &a), 0);
    c = parse(&a.u.audit_checkpoint.checkpoint);
    assert_int_equal(c.size, a.u.audit_checkpoint.tree_size);
    assert_true(c.size >= 10);
    assert_string_equal(c.origin, "phalanx/test");
    world_close(&w);
}

static void searches_come_in_pages(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_SEARCH};
    struct phx_rpc_answer  a = {0};
    int                    n = 0, pages = 0;

    (void)state;
    open_log(120);
    q.u.audit_search = (struct phx_rpc_audit_search){.kind = "intent", .user = "odd", .page_size = 25};
    do {
        q.u.audit_search.page_token = pages > 0 ? a.u.audit_search.next_page_token : "";
        assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
        for (int i = 0; i < a.u.audit_search.n_records; i++, n++) {
            char want[32];

            (void)snprintf(want, sizeof(want), "req-%d", 2 * n + 1);
            assert_string_equal(a.u.audit_search.records[i].request_id, want);
        }
        pages++;
    } while (*a.u.audit_search.next_page_token != '\0');
    assert_int_equal(n, 60);
    assert_int_equal(pages, 3);
    q.u.audit_search = (struct phx_rpc_audit_search){.tenant = "acme", .from_unix_ns = w.now_ns + 3,
                                                     .to_unix_ns = w.now_ns + 6, .kind = "result"};
    assert_int_equal(world_ask(&w, WORLD_AUDITOR, &q, &a), 0);
    assert_int_equal(a.u.audit_search.n_records, 3);
    world_close(&w);
}

static void what_was_not_kept_cannot_be_replayed(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_AUDIT_REPLAY, .u.audit_replay = {"rcpt_none", ""}};

    (void)state;
    open_log(1);
    fails(world_ask(&w, WORLD_AUDITOR, &q, NULL), PHX_E_NOTFOUND, "");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_are_found_by_index_receipt_and_request),
        cmocka_unit_test(every_leaf_is_proven_in_the_signed_tree),
        cmocka_unit_test(trees_of_any_size_lead_to_the_newest),
        cmocka_unit_test(the_checkpoint_is_the_published_one),
        cmocka_unit_test(searches_come_in_pages),
        cmocka_unit_test(what_was_not_kept_cannot_be_replayed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
