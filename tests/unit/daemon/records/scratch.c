/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <dirent.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void scratch_make(struct scratch *s)
{
    (void)snprintf(s->dir, sizeof(s->dir), "/tmp/phx-records-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    (void)snprintf(s->db, sizeof(s->db), "%s/phalanx.db", s->dir);
}

void scratch_remove(struct scratch *s)
{
    DIR           *dir = opendir(s->dir);
    struct dirent *e;

    assert_non_null(dir);
    while ((e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(dir), e->d_name, 0), 0);
    (void)closedir(dir);
    assert_int_equal(rmdir(s->dir), 0);
}

static int64_t run(const struct scratch *s, const char *sql)
{
    sqlite3      *db = NULL;
    sqlite3_stmt *stmt = NULL;
    int64_t       value = 0;
    int           rc;

    assert_int_equal(sqlite3_open(s->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(db, 5000), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW)
        value = sqlite3_column_int64(stmt, 0);
    assert_int_equal(rc, SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return value;
}

void scratch_sql(const struct scratch *s, const char *sql)
{
    (void)run(s, sql);
}

int64_t scratch_int(const struct scratch *s, const char *sql)
{
    return run(s, sql);
}
