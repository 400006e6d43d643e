/* SPDX-License-Identifier: Apache-2.0
 * Reports into memory, and reading CSV back. */
#ifndef PHX_TESTS_USAGE_REPORT_H
#define PHX_TESTS_USAGE_REPORT_H

#include "book.h"
#include "daemon/usage/usage.h"
#include "rpc/base/buf.h"

#define CLUSTER "00112233445566778899aabbccddeeff"

/* The whole report of all rows by tenant, user, model; asserts that it can be made. */
void report_make(struct book *b, const struct phx_usage_report *r, enum phx_usage_format format,
                 struct phx_buf *out);
/* A report of November 2026. */
struct phx_usage_report report_november(void);

enum { CELLS_MAX = 64 };
struct csv {
    char *text; /* walked through and changed */
    int   n_columns;
    char *header[CELLS_MAX], *cells[CELLS_MAX];
};
/* Strict RFC 4180: CRLF, quotes doubled, the same number of cells in each line.  Owns text (a NUL behind). */
void        csv_begin(struct csv *c, char *text);
bool        csv_next(struct csv *c); /* false at the end */
const char *csv_cell(const struct csv *c, const char *column);
int64_t     csv_number(const struct csv *c, const char *column);

#endif
