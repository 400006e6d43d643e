/* SPDX-License-Identifier: Apache-2.0
 * Keeping and reading: round trips, what a changed row, a moved row and another key give. */
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/hash.h"
#include "rpc/base/mem.h"
#include "vault_world.h"

static const char question[] = "{\"prompt\":[11,22,33],\"v\":1}";
static const char answer[] = "{\"choices\":[[44,55]],\"v\":1}";
static const enum phx_privacy modes[] = {PHX_PRIVACY_COMMIT_ONLY, PHX_PRIVACY_ENCRYPTED, PHX_PRIVACY_CLEAR};

static struct kept kept_of(const char *receipt, enum phx_privacy mode)
{
    return (struct kept){receipt, "acme", "u-1", mode, NOV, 0, question, answer, "", ""};
}

static int setup(void **state)
{
    struct world *w = phx_mem_calloc(1, sizeof(*w));

    world_make(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world_remove(*state);
    phx_mem_free(*state);
    return 0;
}

static void test_names(void **state)
{
    enum phx_privacy p;

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(phx_privacy_parse(phx_privacy_name(modes[i]), &p, NULL), 0);
        assert_int_equal(p, modes[i]);
    }
    assert_int_equal(phx_privacy_parse("Clear", &p, NULL), PHX_E_INVALID);
    assert_int_equal(phx_privacy_parse("", &p, NULL), PHX_E_INVALID);
}

static void test_round_trip(void **state)
{
    struct world           *w = *state;
    struct phx_content_text t;
    struct kept             none = kept_of("rcpt_none", PHX_PRIVACY_COMMIT_ONLY);
    struct kept             sealed = kept_of("rcpt_sealed", PHX_PRIVACY_ENCRYPTED);
    struct kept             clear = kept_of("rcpt_clear", PHX_PRIVACY_CLEAR);
    char                    hash[65];

    assert_int_equal(put(w, &none), 0);
    assert_int_equal(put(w, &sealed), 0);
    assert_int_equal(put(w, &clear), 0);
    assert_string_equal(none.request_sha256, "");
    assert_string_equal(none.response_sha256, "");
    phx_sha256_hex(question, strlen(question), hash);
    assert_string_equal(clear.request_sha256, hash);
    assert_string_not_equal(sealed.request_sha256, hash);
    assert_int_equal(strlen(sealed.request_sha256), 64);
    assert_int_equal(strlen(sealed.response_sha256), 64);

    assert_reads(w, "rcpt_sealed", question, answer);
    assert_reads(w, "rcpt_clear", question, answer);
    assert_int_equal(get(w, "rcpt_none", &t), 0);
    assert_false(t.has_text);
    assert_int_equal(t.salt[31], 's');
    assert_int_equal(t.request.size, 0);
    phx_content_text_fini(&t);
    assert_int_equal(get(w, "rcpt_other", &t), PHX_E_NOTFOUND);
}

static void test_empty_and_open(void **state)
{
    struct world *w = *state;

    for (int i = 1; i < 3; i++) {
        struct kept k = kept_of(i == 1 ? "rcpt_1" : "rcpt_2", modes[i]);

        k.response = NULL; /* cut off by a crash */
        assert_int_equal(put(w, &k), 0);
        assert_reads(w, k.receipt, question, "");
        k.response = "";
        assert_int_equal(put_response(w, &k), 0);
        assert_reads(w, k.receipt, question, "");
        assert_int_equal(put_response(w, &k), PHX_E_STATE); /* an answer comes once */
    }
}

static void test_response_without_request(void **state)
{
    struct world *w = *state;
    struct kept   k = kept_of("rcpt_1", PHX_PRIVACY_ENCRYPTED);

    assert_int_equal(put_response(w, &k), PHX_E_NOTFOUND);
}

static void test_limits(void **state)
{
    struct world *w = *state;
    struct kept   k = kept_of("rcpt_1", PHX_PRIVACY_ENCRYPTED);
    char         *big = phx_mem_calloc(1, PHX_CONTENT_MAX_BYTES + 2);

    k.days = PHX_RETENTION_FLOOR_DAYS - 1;
    assert_int_equal(put_request(w, &k), PHX_E_INVALID);
    assert_non_null(strstr(w->err.text, "184"));
    k.days = 0;
    memset(big, 'x', PHX_CONTENT_MAX_BYTES + 1);
    k.request = big;
    k.response = NULL;
    assert_int_equal(put_request(w, &k), PHX_E_TOOBIG);
    big[PHX_CONTENT_MAX_BYTES] = '\0';
    assert_int_equal(put_request(w, &k), 0);
    assert_reads(w, "rcpt_1", big, "");
    phx_mem_free(big);
}

/* Equal texts of equal people look different at rest, and so do the keys. */
static void test_nothing_repeats(void **state)
{
    struct world *w = *state;
    struct kept   a = kept_of("rcpt_a", PHX_PRIVACY_ENCRYPTED), b = kept_of("rcpt_b", PHX_PRIVACY_ENCRYPTED);

    assert_int_equal(put(w, &a), 0);
    assert_int_equal(put(w, &b), 0);
    assert_string_not_equal(a.request_sha256, b.request_sha256);
    assert_int_equal(scratch_int(&w->s, "SELECT count(DISTINCT request) + count(DISTINCT response) +"
                                        " count(DISTINCT wrapped_dek) + count(DISTINCT salt) FROM content"),
                     8);
    assert_int_equal(scratch_int(&w->s, "SELECT count(*) FROM tenant_kek WHERE period = '2026-11'"), 1);
}

static void test_wrong_site_key(void **state)
{
    struct world           *w = *state;
    struct phx_content_text t;

    for (int i = 0; i < 3; i++) {
        char        receipt[16];
        struct kept k;

        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", i);
        k = kept_of(receipt, modes[i]);
        assert_int_equal(put(w, &k), 0);
        w->key[7] ^= 0x10;
        assert_int_equal(get(w, receipt, &t), PHX_E_STATE);
        assert_non_null(strstr(w->err.text, "content.key"));
        k.receipt = "rcpt_next";
        assert_int_equal(put_request(w, &k), PHX_E_STATE); /* never a second key beside the first */
        w->key[7] ^= 0x10;
    }
    assert_int_equal(leaves(w, "read", ""), 0); /* what was not shown was not read */
}

static void test_read_is_a_leaf(void **state)
{
    struct world *w = *state;
    struct kept   k = kept_of("rcpt_1", PHX_PRIVACY_ENCRYPTED);

    assert_int_equal(put(w, &k), 0);
    assert_reads(w, "rcpt_1", question, answer);
    assert_int_equal(leaves(w, "read", "\"by\":\"alice\""), 1);
    assert_int_equal(leaves(w, "read", "\"detail\":\"case 7\""), 1);
    assert_int_equal(leaves(w, "read", "\"subject\":\"rcpt_1\""), 1);
    assert_int_equal(leaves(w, "read", ""), 1);
}

/* ---- changed rows ------------------------------------------------------------------------------------------ */

static sqlite3 *open_other(const struct world *w)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(w->s.db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, 5000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA synchronous=OFF", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

struct cell {
    int           type;
    int64_t       number;
    size_t        size;
    unsigned char bytes[256];
};

static void load_cell(sqlite3 *db, const char *table, const char *column, const char *where,
                      struct cell *cell)
{
    sqlite3_stmt *stmt = NULL;
    char          sql[256];

    (void)snprintf(sql, sizeof(sql), "SELECT %s FROM %s WHERE %s", column, table, where);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    cell->type = sqlite3_column_type(stmt, 0);
    cell->number = sqlite3_column_int64(stmt, 0);
    if (cell->type == SQLITE_BLOB || cell->type == SQLITE_TEXT) {
        const void *data = sqlite3_column_blob(stmt, 0);

        cell->size = (size_t)sqlite3_column_bytes(stmt, 0);
        assert_true(cell->size <= sizeof(cell->bytes));
        memcpy(cell->bytes, data, cell->size);
    }
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
}

static void store_cell(sqlite3 *db, const char *table, const char *column, const char *where,
                       const struct cell *cell)
{
    sqlite3_stmt *stmt = NULL;
    char          sql[256];

    (void)snprintf(sql, sizeof(sql), "UPDATE %s SET %s = ? WHERE %s", table, column, where);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    if (cell->type == SQLITE_INTEGER)
        assert_int_equal(sqlite3_bind_int64(stmt, 1, cell->number), SQLITE_OK);
    else if (cell->type == SQLITE_TEXT)
        assert_int_equal(sqlite3_bind_text(stmt, 1, (const char *)cell->bytes, (int)cell->size,
                                           SQLITE_STATIC), SQLITE_OK);
    else
        assert_int_equal(sqlite3_bind_blob(stmt, 1, cell->bytes, (int)cell->size, SQLITE_STATIC), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
    assert_int_equal(sqlite3_changes(db), 1);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
}

/* Flips each bit of one column; reading must fail each time.  How many bits. */
static int flip_column(struct world *w, sqlite3 *db, const char *table, const char *column)
{
    struct phx_content_text t;
    struct cell             cell = {0};
    int                     n_bits;

    load_cell(db, table, column, "rowid = 1", &cell);
    if (cell.type == SQLITE_NULL)
        return 0;
    n_bits = cell.type == SQLITE_INTEGER ? 64 : (int)cell.size * 8;
    for (int bit = 0; bit < n_bits; bit++) {
        struct cell flipped = cell;

        flipped.bytes[(bit / 8) % 256] ^= (unsigned char)(1u << (bit % 8));
        flipped.number = (int64_t)((uint64_t)cell.number ^ (UINT64_C(1) << (bit % 64)));
        store_cell(db, table, column, "rowid = 1", &flipped);
        if (get(w, "rcpt_1", &t) == 0)
            fail_msg("%s.%s: bit %d was not noticed", table, column, bit);
        assert_int_not_equal(w->err.code, PHX_E_IO);
    }
    store_cell(db, table, column, "rowid = 1", &cell);
    return n_bits;
}

static void test_bit_flips(void **state)
{
    static const char *const columns[] = {"receipt", "tenant", "user", "period", "generation", "mode",
                                          "at_ns", "keep_until_ns", "salt", "wrapped_dek", "request",
                                          "request_tag", "response", "response_tag", "shredded_ns"};

    for (int m = 0; m < 3; m++) {
        struct world            w;
        struct phx_content_text t;
        sqlite3                *db;
        struct kept             k = kept_of("rcpt_1", modes[m]);
        int                     n = 0;

        world_make(&w);
        assert_int_equal(put(&w, &k), 0);
        db = open_other(&w);
        for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
            n += flip_column(&w, db, "content", columns[i]);
        n += flip_column(&w, db, "tenant_kek", "wrapped");
        n += flip_column(&w, db, "tenant_kek", "generation");
        assert_true(n > 1500);
        print_message("%s: %d bits flipped, all refused\n", phx_privacy_name(modes[m]), n);
        assert_int_equal(get(&w, "rcpt_1", &t), 0); /* put back, it opens again */
        phx_content_text_fini(&t);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        world_remove(&w);
    }
    (void)state;
}

static void expect_refused(struct world *w, const char *receipt)
{
    struct phx_content_text t;

    assert_int_equal(get(w, receipt, &t), PHX_E_FORMAT);
}

/* Whole cells of a good row in the place of others. */
static void test_swaps(void **state)
{
    static const char *const swaps[] = {
        "UPDATE content SET request = (SELECT request FROM content WHERE receipt = 'rcpt_2')"
        " WHERE receipt = 'rcpt_1'",
        "UPDATE content SET request = response, response = request WHERE receipt = 'rcpt_1'",
        "UPDATE content SET request = response, request_tag = response_tag, response = request,"
        " response_tag = request_tag WHERE receipt = 'rcpt_1'",
        "UPDATE content SET wrapped_dek = (SELECT wrapped_dek FROM content WHERE receipt = 'rcpt_2'),"
        " request = (SELECT request FROM content WHERE receipt = 'rcpt_2'),"
        " request_tag = (SELECT request_tag FROM content WHERE receipt = 'rcpt_2'),"
        " response = (SELECT response FROM content WHERE receipt = 'rcpt_2'),"
        " response_tag = (SELECT response_tag FROM content WHERE receipt = 'rcpt_2'),"
        " salt = (SELECT salt FROM content WHERE receipt = 'rcpt_2') WHERE receipt = 'rcpt_1'",
        "UPDATE content SET receipt = CASE receipt WHEN 'rcpt_1' THEN 'rcpt_x' ELSE 'rcpt_1' END",
        "UPDATE content SET request = NULL WHERE receipt = 'rcpt_1'",
        "UPDATE content SET mode = 'clear' WHERE receipt = 'rcpt_1' AND mode = 'encrypted'",
        "UPDATE content SET user = '' WHERE receipt = 'rcpt_1'",
        "UPDATE content SET keep_until_ns = 1 WHERE receipt = 'rcpt_1'",
    };

    for (int m = 1; m < 3; m++)
        for (size_t i = 0; i < sizeof(swaps) / sizeof(swaps[0]); i++) {
            struct world w;
            struct kept  a = kept_of("rcpt_1", modes[m]), b = kept_of("rcpt_2", modes[m]);

            if (strstr(swaps[i], "mode = 'clear'") != NULL && modes[m] == PHX_PRIVACY_CLEAR)
                continue;
            world_make(&w);
            b.request = "{\"prompt\":[9],\"v\":1}";
            b.response = "{\"choices\":[[8]],\"v\":1}";
            assert_int_equal(put(&w, &a), 0);
            assert_int_equal(put(&w, &b), 0);
            assert_reads(&w, "rcpt_1", question, answer);
            scratch_sql(&w.s, swaps[i]);
            expect_refused(&w, "rcpt_1");
            world_remove(&w);
        }
    (void)state;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

static void test_pseudonyms(void **state)
{
    struct world *w = *state;
    char          a[65], b[65];

    assert_int_equal(pseudonym(w, "acme", "u-1", NOV, a), 0);
    assert_int_equal(strlen(a), 64);
    assert_int_equal(pseudonym(w, "acme", "u-1", NOV + 30 * DAY, b), 0);
    assert_string_equal(a, b); /* one name for the year */
    assert_int_equal(pseudonym(w, "acme", "u-2", NOV, b), 0);
    assert_string_not_equal(a, b);
    assert_int_equal(pseudonym(w, "other", "u-1", NOV, b), 0);
    assert_string_not_equal(a, b);
    assert_int_equal(pseudonym(w, "acme", "u-1", NOV + 60 * DAY, b), 0);
    assert_string_not_equal(a, b);
    w->key[0] ^= 1;
    assert_int_equal(pseudonym(w, "acme", "u-1", NOV, b), PHX_E_STATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_and_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_response_without_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_site_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_is_a_leaf, setup, teardown),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_swaps),
        cmocka_unit_test_setup_teardown(test_pseudonyms, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
