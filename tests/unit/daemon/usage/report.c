/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct job {
    const struct phx_usage_report *report;
    enum phx_usage_format          format;
    struct phx_buf                *out;
};

static int keep(void *ctx, const void *data, size_t size)
{
    phx_buf_put(ctx, data, size);
    return 0;
}

static int write_report(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct job *j = ctx;

    return phx_usage_write(tx, j->report, j->format, keep, j->out, err);
}

void report_make(struct book *b, const struct phx_usage_report *r, enum phx_usage_format format,
                 struct phx_buf *out)
{
    struct job j = {r, format, out};

    phx_buf_init(out, 0);
    if (phx_store_read(b->store, write_report, &j, &b->err) != 0)
        fail_msg("%s", b->err.text);
    assert_int_equal(phx_buf_check(out, "report", NULL), 0);
}

struct phx_usage_report report_november(void)
{
    struct phx_usage_report r = {.cluster_id = CLUSTER,
                                 .firm = "Acme, \"the firm\"",
                                 .groups = {PHX_GROUP_TENANT, PHX_GROUP_USER, PHX_GROUP_MODEL}};

    assert_int_equal(phx_period_parse("2026-11", &r.filter.from_ns, &r.filter.to_ns, NULL), 0);
    return r;
}

static char *take_quoted(struct csv *c, char **cell)
{
    char *to = c->text + 1, *from = to;

    *cell = to;
    for (; from[0] != '"' || from[1] == '"'; from++) {
        assert_true(from[0] != '\0');
        from += from[0] == '"';
        *to++ = *from;
    }
    *to = '\0';
    return from + 1;
}

static char *take_plain(struct csv *c, char **cell)
{
    *cell = c->text;
    return c->text + strcspn(c->text, ",\r\n\"");
}

static int take_line(struct csv *c, char **cells)
{
    int  n = 0;
    char end;

    do {
        char *behind;

        assert_true(n < CELLS_MAX);
        behind = c->text[0] == '"' ? take_quoted(c, &cells[n]) : take_plain(c, &cells[n]);
        end = *behind;
        n++;
        *behind = '\0';
        c->text = behind + 1;
    } while (end == ',');
    assert_int_equal(end, '\r');
    assert_int_equal(*c->text, '\n');
    c->text++;
    return n;
}

void csv_begin(struct csv *c, char *text)
{
    *c = (struct csv){.text = text};
    c->n_columns = take_line(c, c->header);
}

bool csv_next(struct csv *c)
{
    if (*c->text == '\0')
        return false;
    assert_int_equal(take_line(c, c->cells), c->n_columns);
    return true;
}

const char *csv_cell(const struct csv *c, const char *column)
{
    for (int i = 0; i < c->n_columns; i++)
        if (strcmp(c->header[i], column) == 0)
            return c->cells[i];
    fail_msg("no column %s", column);
    return "";
}

int64_t csv_number(const struct csv *c, const char *column)
{
    const char *text = csv_cell(c, column);
    char       *end;
    int64_t     n = strtoll(text, &end, 10);

    assert_true(end != text && *end == '\0');
    return n;
}
