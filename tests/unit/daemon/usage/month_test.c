/* SPDX-License-Identifier: Apache-2.0
 * Closing a large month: every format, within a minute.  100,000 rows, or as many as the first argument says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "report.h"
#include "rpc/base/clock.h"

enum { SECONDS_MAX = 60 };

static int n_rows = 100000;

struct job {
    struct phx_usage_report report;
    enum phx_usage_format   format;
    int64_t                 n_bytes;
};

static int drop(void *ctx, const void *data, size_t size)
{
    (void)data;
    *(int64_t *)ctx += (int64_t)size;
    return 0;
}

static int write_report(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct job *j = ctx;

    return phx_usage_write(tx, &j->report, j->format, drop, &j->n_bytes, err);
}

static void a_month_closes(void **state)
{
    struct book b;
    int64_t     begin_ns, total_ns = 0;
    char        sql[1024];

    (void)state;
    book_open(&b);
    (void)snprintf(sql, sizeof(sql),
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                " INSERT INTO ledger SELECT i, 'commit', 'rcpt_' || printf('%%032x', i),"
                " 1793491200000000000 + i * 2400000000, 1, 'tenant' || i %% 50, 'user' || i %% 5000, 'key',"
                " 'centre' || i %% 10, 'model', 'req' || i, 0, 1000, 100, 500, 50, 500, 900, 3, 10, 900,"
                " 'stop', 0, '' FROM n",
                n_rows);
    scratch_sql(&b.scratch, sql);
    for (int f = PHX_USAGE_JSON; f <= PHX_USAGE_FOCUS; f++) {
        struct job j = {.report = report_november(), .format = f};

        begin_ns = phx_clock_mono_ns();
        assert_int_equal(phx_store_read(b.store, write_report, &j, &b.err), 0);
        total_ns += phx_clock_mono_ns() - begin_ns;
        print_message("%s: %d rows, %lld MB, %.2f s\n", phx_usage_format_name(f), n_rows,
                      (long long)(j.n_bytes >> 20), (double)(phx_clock_mono_ns() - begin_ns) / 1e9);
    }
    assert_true(total_ns < SECONDS_MAX * INT64_C(1000000000));
    book_close(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_month_closes)};

    if (argc > 1)
        n_rows = (int)strtol(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
