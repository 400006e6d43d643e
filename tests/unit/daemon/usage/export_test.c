/* SPDX-License-Identifier: Apache-2.0
 * Corrections, and the true-up export: the same bytes again, counts only, a log that is proven to have grown. */
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/audit/audit.h"
#include "daemon/seat/seat.h"
#include "daemon/sign/sign.h"
#include "report.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

#define DECEMBER_NS (MONDAY_NS + 8 * DAY_NS)

struct site {
    struct book book;
    char        audit[96], keys[96];
};

static void site_open(struct site *s)
{
    book_open(&s->book);
    (void)snprintf(s->audit, sizeof(s->audit), "%s/audit", s->book.scratch.dir);
    (void)snprintf(s->keys, sizeof(s->keys), "%s/keys", s->book.scratch.dir);
    assert_int_equal(mkdir(s->keys, 0700), 0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void site_close(struct site *s)
{
    phx_store_close(s->book.store);
    assert_int_equal(nftw(s->book.scratch.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* What the daemon does while it runs: everything durable is published. */
static void publish(struct site *s)
{
    const struct phx_publisher_options o = {s->audit, s->keys, "phalanx/" CLUSTER, 1000, 86400};
    struct phx_publisher              *p = NULL;

    if (phx_publisher_open(s->book.store, &o, &p, &s->book.err) != 0)
        fail_msg("%s", s->book.err.text);
    phx_publisher_close(p);
}

static int add_leaf(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_audit_event(tx, ctx, "test", "", "", "", MONDAY_NS, err);
}

static void log_events(struct site *s, const char *kind, int n)
{
    char text[16];

    (void)snprintf(text, sizeof(text), "%s", kind);
    for (int i = 0; i < n; i++)
        assert_int_equal(phx_store_run(s->book.store, add_leaf, text, &s->book.err), 0);
}

static void add_request(struct site *s, const char *lease, int64_t at_ns, int64_t output)
{
    assert_int_equal(book_reserve(&s->book, lease, at_ns, 10, 200), 0);
    assert_int_equal(book_commit(&s->book, lease, at_ns + 5, 10, output), 0);
}

static int add_seats(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int rc = 0;

    for (uint8_t i = 0; i < 7 && rc == 0; i++) {
        struct phx_seat seat = {.period = "2026-11",
                                .seat_id = {i},
                                .tenant = "secret-tenant",
                                .first_ns = MONDAY_NS,
                                .is_overdraft = i == 1,
                                .is_indirect = i > 4};

        rc = phx_seat_add(tx, &seat, err);
    }
    (void)ctx;
    return rc;
}

static int try_export(struct site *s, const char *period, const char *message, int64_t now_ns, char **payload)
{
    const struct phx_usage_export e = {s->audit, CLUSTER, period, message, "ann.exporter", now_ns};

    return phx_usage_export(s->book.store, &e, payload, &s->book.err);
}

static json_t *export_json(struct site *s, const char *period, int64_t now_ns)
{
    char   *payload = NULL;
    json_t *root = NULL;

    if (try_export(s, period, "CHG-1", now_ns, &payload) != 0)
        fail_msg("%s", s->book.err.text);
    assert_int_equal(phx_json_parse(&root, payload, strlen(payload), SIZE_MAX, 0, "export", NULL), 0);
    phx_mem_free(payload);
    return root;
}

static int64_t number(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);

    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void read_checkpoint(const json_t *root, const char *key, struct phx_checkpoint *out)
{
    const char *text = json_string_value(json_object_get(json_object_get(root, "log"), key));

    assert_int_equal(phx_checkpoint_parse(text, strlen(text), out, NULL), 0);
    assert_string_equal(out->origin, "phalanx/" CLUSTER);
}

static bool is_consistent(const json_t *root)
{
    const json_t         *list = json_object_get(json_object_get(root, "log"), "consistency");
    struct phx_tlog_hash  proof[PHX_TLOG_PROOF_MAX];
    struct phx_checkpoint before, now;
    int                   n = (int)json_array_size(list);

    read_checkpoint(root, "before", &before);
    read_checkpoint(root, "now", &now);
    for (int i = 0; i < n; i++)
        assert_int_equal(phx_hex_decode(proof[i].bytes, sizeof(proof[i].bytes),
                                        json_string_value(json_array_get(list, (size_t)i)), NULL),
                         0);
    return phx_tlog_check_consistency(before.size, now.size, &before.root, &now.root, proof, n);
}

static void an_export_counts_and_names_nobody(void **state)
{
    struct site s;
    json_t     *root;
    char       *text;

    (void)state;
    site_open(&s);
    add_request(&s, "rcpt_secret1", MONDAY_NS, 50);
    add_request(&s, "rcpt_secret2", MONDAY_NS + 2, 70); /* both at once */
    add_request(&s, "rcpt_secret3", DECEMBER_NS, 1);
    assert_int_equal(phx_store_run(s.book.store, add_seats, NULL, &s.book.err), 0);
    log_events(&s, "clock", 3);
    publish(&s);
    root = export_json(&s, "2026-11", DECEMBER_NS);
    assert_int_equal(number(root, "requests"), 2);
    assert_int_equal(number(root, "peak_concurrency"), 2);
    assert_int_equal(number(root, "clock_events"), 3);
    assert_int_equal(number(json_object_get(root, "seats"), "people"), 5);
    assert_int_equal(number(json_object_get(root, "seats"), "overdraft"), 1);
    assert_int_equal(number(json_object_get(root, "seats"), "indirect"), 2);
    assert_int_equal(number(json_array_get(json_object_get(root, "models"), 0), "output_tokens"), 120);
    assert_int_equal(number(json_object_get(root, "ledger"), "first"), 2);
    assert_int_equal(number(json_object_get(root, "ledger"), "last"), 4);
    text = json_dumps(root, 0);
    assert_null(strstr(text, "secret"));
    assert_null(strstr(text, "acme"));
    assert_null(strstr(text, "exporter"));
    free(text);
    json_decref(root);
    site_close(&s);
}

static void an_export_again_is_the_same_bytes(void **state)
{
    struct site s;
    char       *first = NULL, *again = NULL, *sealed = NULL, *sealed_again = NULL;

    (void)state;
    site_open(&s);
    add_request(&s, "a", MONDAY_NS, 50);
    log_events(&s, "clock", 300);
    publish(&s);
    assert_int_equal(try_export(&s, "2026-11", "CHG-1", DECEMBER_NS - 1, &first), PHX_E_STATE); /* not over */
    assert_int_equal(try_export(&s, "2026-11", "CHG-1", DECEMBER_NS, &first), 0);
    assert_int_equal(phx_usage_seal(s.keys, first, &sealed, &s.book.err), 0);
    add_request(&s, "b", DECEMBER_NS, 60);
    add_request(&s, "late", MONDAY_NS, 60); /* cannot happen with a saved time mark; would still not count */
    log_events(&s, "clock", 300);
    publish(&s);
    scratch_sql(&s.book.scratch, "INSERT INTO license VALUES(9, x'00', 1796083200000000001)");
    assert_int_equal(try_export(&s, "2026-11", "CHG-1", DECEMBER_NS + DAY_NS, &again), 0);
    assert_string_equal(first, again);
    assert_int_equal(phx_usage_seal(s.keys, again, &sealed_again, &s.book.err), 0);
    assert_string_equal(sealed, sealed_again);
    assert_int_equal(scratch_int(&s.book.scratch, "SELECT COUNT(*) FROM audit WHERE record LIKE"
                                                  " '%usage.export%'"),
                     1);
    phx_mem_free(first);
    phx_mem_free(again);
    phx_mem_free(sealed);
    phx_mem_free(sealed_again);
    site_close(&s);
}

static void the_next_export_proves_that_the_log_only_grew(void **state)
{
    struct site           s;
    struct phx_checkpoint first, before;
    json_t               *root;
    char                 *payload = NULL;

    (void)state;
    site_open(&s);
    log_events(&s, "clock", 700);
    publish(&s);
    root = export_json(&s, "2026-11", DECEMBER_NS);
    assert_true(is_consistent(root)); /* with the empty log */
    read_checkpoint(root, "now", &first);
    assert_int_equal(first.size, scratch_int(&s.book.scratch, "SELECT COUNT(*) FROM audit") - 1);
    json_decref(root);
    log_events(&s, "clock", 900);
    publish(&s);
    root = export_json(&s, "2026-12", DECEMBER_NS + 31 * DAY_NS);
    read_checkpoint(root, "before", &before);
    assert_int_equal(before.size, first.size);
    assert_memory_equal(before.root.bytes, first.root.bytes, sizeof(first.root.bytes));
    assert_true(is_consistent(root));
    json_array_remove(json_object_get(json_object_get(root, "log"), "consistency"), 0);
    assert_false(is_consistent(root));
    json_decref(root);
    /* the folder of an older day: the log would have shrunk */
    scratch_sql(&s.book.scratch, "UPDATE export_cursor SET next_id = 100000 WHERE name LIKE '%12/log'");
    assert_int_equal(try_export(&s, "2027-01", "CHG-1", DECEMBER_NS + 70 * DAY_NS, &payload), PHX_E_STATE);
    assert_null(payload);
    site_close(&s);
}

static void a_sealed_export_opens_with_the_site_key(void **state)
{
    struct site             s;
    struct phx_buf          payload = {0};
    struct phx_dsse_signers signers;
    char                   *envelope = NULL;
    uint8_t                 key[1][32];
    char                    path[128];

    (void)state;
    site_open(&s);
    assert_int_equal(phx_usage_seal(s.keys, "{\"a\":1}", &envelope, &s.book.err), 0);
    (void)snprintf(path, sizeof(path), "%s/report.pub", s.keys);
    assert_int_equal(phx_sign_public_read(path, key[0], &s.book.err), 0);
    phx_buf_init(&payload, 0);
    assert_int_equal(phx_dsse_open(envelope, strlen(envelope), 1 << 16, PHX_USAGE_EXPORT_PAYLOAD_TYPE,
                                   (const uint8_t(*)[32])key, 1, 1, &payload, &signers, &s.book.err),
                     0);
    assert_string_equal(payload.data, "{\"a\":1}");
    phx_buf_fini(&payload);
    phx_mem_free(envelope);
    site_close(&s);
}

static void an_export_refuses_bad_requests(void **state)
{
    struct site s;
    char       *payload = NULL;
    char        message[PHX_USAGE_MESSAGE_MAX + 2];

    (void)state;
    site_open(&s);
    memset(message, 'm', sizeof(message));
    message[PHX_USAGE_MESSAGE_MAX + 1] = '\0';
    assert_int_equal(try_export(&s, "2026-13", "m", DECEMBER_NS, &payload), PHX_E_INVALID);
    assert_int_equal(try_export(&s, "2026-11", "", DECEMBER_NS, &payload), PHX_E_INVALID);
    assert_int_equal(try_export(&s, "2026-11", "\xff", DECEMBER_NS, &payload), PHX_E_INVALID);
    assert_int_equal(try_export(&s, "2026-11", message, DECEMBER_NS, &payload), PHX_E_INVALID);
    assert_true(try_export(&s, "2026-11", "m", DECEMBER_NS, &payload) < 0); /* nothing is published */
    assert_null(payload);
    site_close(&s);
}

/* ---- corrections ------------------------------------------------------------------------------------------ */

struct correct_job {
    struct phx_usage_correction c;
    int64_t                     row_id;
};

static int correct(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct correct_job *j = ctx;

    return phx_usage_correct(tx, &j->c, &j->row_id, err);
}

static int try_correct(struct site *s, const char *by, const char *approved_by, int64_t output)
{
    struct correct_job j = {{.receipt = "a",
                             .output = output,
                             .reason = "double answer",
                             .by = by,
                             .approved_by = approved_by,
                             .at_ns = MONDAY_NS + HOUR_NS},
                            0};

    return phx_store_run(s->book.store, correct, &j, &s->book.err);
}

static void a_correction_needs_two_people_and_leaves_a_leaf(void **state)
{
    struct site s;

    (void)state;
    site_open(&s);
    assert_int_equal(try_correct(&s, "ann", "bob", -10), PHX_E_NOTFOUND);
    add_request(&s, "a", MONDAY_NS, 50);
    assert_int_equal(try_correct(&s, "ann", "ann", -10), PHX_E_INVALID);
    assert_int_equal(try_correct(&s, "ann", "ANN", -10), PHX_E_INVALID);
    assert_int_equal(try_correct(&s, "ann", "", -10), PHX_E_INVALID);
    assert_int_equal(try_correct(&s, "ann", "bob", 0), PHX_E_INVALID);
    assert_int_equal(try_correct(&s, "ann", "bob", -51), PHX_E_INVALID);
    assert_int_equal(scratch_int(&s.book.scratch, "SELECT COUNT(*) FROM audit"), 0);
    assert_int_equal(try_correct(&s, "ann", "bob", -10), 0);
    assert_int_equal(scratch_int(&s.book.scratch,
                                 "SELECT COUNT(*) FROM audit WHERE kind = 'correct' AND receipt = 'a' AND"
                                 " record LIKE '%\"approved_by\":\"bob\"%\"output\":-10%'"),
                     1);
    assert_int_equal(scratch_int(&s.book.scratch, "SELECT SUM(output) FROM ledger WHERE kind IN"
                                                  " ('commit', 'correct')"),
                     40);
    site_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_counts_and_names_nobody),
        cmocka_unit_test(an_export_again_is_the_same_bytes),
        cmocka_unit_test(the_next_export_proves_that_the_log_only_grew),
        cmocka_unit_test(a_sealed_export_opens_with_the_site_key),
        cmocka_unit_test(an_export_refuses_bad_requests),
        cmocka_unit_test(a_correction_needs_two_people_and_leaves_a_leaf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
