/* SPDX-License-Identifier: Apache-2.0
 * A folder for one test, and one-line SQL for looking at and damaging its database. */
#ifndef PHX_TESTS_RECORDS_SCRATCH_H
#define PHX_TESTS_RECORDS_SCRATCH_H

#include <stdint.h>

struct scratch {
    char dir[64];
    char db[96];
};

void scratch_make(struct scratch *s);
void scratch_remove(struct scratch *s);
/* Runs SQL on the file through its own connection. */
void scratch_sql(const struct scratch *s, const char *sql);
/* The one integer a query answers. */
int64_t scratch_int(const struct scratch *s, const char *sql);

#endif
