/* SPDX-License-Identifier: Apache-2.0
 * `reconcile`: the bill equals the log, line by line.  The first pass finds the part of the log that the file
 * covers, the second compares in both directions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/mem.h"

enum { CSV_MAX = 1 << 30, COLUMNS_MAX = 64, N_COUNTS = 4 };
enum column { C_RECEIPT, C_KIND, C_TENANT, C_USER, C_PROMPT, C_CACHED, C_OUTPUT, C_REASONING, C_COUNT };

static const char *const column_names[C_COUNT] = {"receipt", "kind", "tenant", "user", "prompt_tokens",
                                                  "cached_tokens", "output_tokens", "reasoning_tokens"};
static const enum phx_field_id count_fields[N_COUNTS] = {PHX_F_PROMPT, PHX_F_CACHED, PHX_F_OUTPUT, PHX_F_REASONING};

struct row {
    const char *receipt, *tenant, *user;
    int64_t     counts[N_COUNTS];
    int64_t     line;
    bool        is_seen;
};
struct reconcile {
    struct phx_report report;
    struct phx_buf    file;
    struct row       *rows; /* of kind commit, by receipt */
    size_t            n, capacity;
    int64_t           n_lines, n_other;
    int               columns[C_COUNT]; /* position in a line */
    json_t           *users;            /* "tenant\npseudonym" -> user */
    bool              has_range;
    uint64_t          first, last;
};

/* ---- the file ----------------------------------------------------------------------------------------------- */

/* Takes one cell off *p, in place.  '\0', ',' or '\n' is what ended it. */
static char take_cell(char **p, char **cell)
{
    char *in = *p, *out = *p, end;
    bool  is_quoted = *in == '"';

    *cell = out;
    for (in += is_quoted; *in != '\0'; in++) {
        if (is_quoted && *in == '"') {
            if (in[1] != '"') {
                in++;
                break;
            }
            in++;
        } else if (!is_quoted && (*in == ',' || *in == '\n')) {
            break;
        }
        *out++ = *in;
    }
    if (!is_quoted && out > *cell && out[-1] == '\r')
        out--;
    if (*in == '\r')
        in++;
    end = *in;
    *p = *in == '\0' ? in : in + 1;
    *out = '\0';
    if ((*cell)[0] == '\'' && (*cell)[1] != '\0' && strchr("=+-@\t\r", (*cell)[1]) != NULL)
        (*cell)++; /* the mark against formulas */
    return end == '\0' || end == ',' || end == '\n' ? end : '?';
}

/* Number of cells of the next line, or -1. */
static int take_line(char **p, char *cells[COLUMNS_MAX])
{
    int  n = 0;
    char end;

    do {
        if (n == COLUMNS_MAX)
            return -1;
        end = take_cell(p, &cells[n++]);
    } while (end == ',');
    return end == '?' ? -1 : n;
}

static int read_header(struct reconcile *r, char **p, struct phx_err *err)
{
    char *cells[COLUMNS_MAX];
    int   n = take_line(p, cells);

    for (int c = 0; c < C_COUNT; c++) {
        r->columns[c] = -1;
        for (int i = 0; i < n; i++)
            if (strcmp(cells[i], column_names[c]) == 0)
                r->columns[c] = i;
        if (r->columns[c] < 0)
            return phx_fail(err, PHX_E_INVALID, "the file has no column '%s'", column_names[c]);
    }
    return 0;
}

static bool read_count(const char *text, int64_t *out)
{
    size_t n = strspn(text, "0123456789");

    *out = strtoll(text, NULL, 10);
    return n > 0 && n <= 18 && text[n] == '\0';
}

static int add_row(struct reconcile *r, char *const *cells, int64_t line, struct phx_err *err)
{
    struct row row = {.receipt = cells[r->columns[C_RECEIPT]],
                      .tenant = cells[r->columns[C_TENANT]],
                      .user = cells[r->columns[C_USER]],
                      .line = line};

    if (strcmp(cells[r->columns[C_KIND]], "commit") != 0) {
        r->n_other++;
        return 0;
    }
    for (int i = 0; i < N_COUNTS; i++)
        if (!read_count(cells[r->columns[C_PROMPT + i]], &row.counts[i]))
            return phx_fail(err, PHX_E_INVALID, "line %lld: %s is not a number", (long long)line,
                            column_names[C_PROMPT + i]);
    if (r->n == r->capacity) {
        r->capacity = r->capacity == 0 ? 1024 : r->capacity * 2;
        r->rows = phx_mem_realloc(r->rows, r->capacity, sizeof(*r->rows));
    }
    r->rows[r->n++] = row;
    return 0;
}

static int compare_rows(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->receipt, ((const struct row *)b)->receipt);
}

static int load_file(struct reconcile *r, const char *path, struct phx_err *err)
{
    char *cells[COLUMNS_MAX], *p;
    int   last = 0, rc = phx_buf_read_file(&r->file, path, CSV_MAX, err) != 0 ? err->code = PHX_E_INVALID : 0;

    p = r->file.data;
    if (rc == 0)
        rc = r->file.size == 0 ? phx_fail(err, PHX_E_INVALID, "%.100s: empty", path) : read_header(r, &p, err);
    for (int c = 0; c < C_COUNT; c++)
        last = r->columns[c] > last ? r->columns[c] : last;
    for (int64_t line = 2; rc == 0 && *p != '\0'; line++) {
        int n = take_line(&p, cells);

        if (n == 1 && cells[0][0] == '\0')
            continue;
        r->n_lines++;
        rc = n <= last ? phx_fail(err, PHX_E_INVALID, "line %lld: malformed", (long long)line)
                       : add_row(r, cells, line, err);
    }
    if (rc == 0 && r->n > 0)
        qsort(r->rows, r->n, sizeof(*r->rows), compare_rows);
    for (size_t i = 1; rc == 0 && i < r->n; i++)
        if (strcmp(r->rows[i].receipt, r->rows[i - 1].receipt) == 0)
            phx_report_add(&r->report, PHX_E_FORMAT, "line %lld: a second row of %.60s", (long long)r->rows[i].line,
                           r->rows[i].receipt);
    return rc;
}

static struct row *find_row(struct reconcile *r, struct phx_slice receipt)
{
    char       text[64];
    struct row key = {.receipt = text};

    if (receipt.size >= sizeof(text) || r->n == 0)
        return NULL;
    memcpy(text, receipt.at, receipt.size);
    text[receipt.size] = '\0';
    return bsearch(&key, r->rows, r->n, sizeof(*r->rows), compare_rows);
}

/* ---- the log ------------------------------------------------------------------------------------------------ */

static bool scan(const char *bytes, size_t size, struct phx_fields *f)
{
    return phx_record_scan(bytes, size, f, NULL) == 0 && phx_record_check(f, NULL) == 0;
}

static int find_range(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err)
{
    struct reconcile *r = ctx;
    struct phx_fields f;

    (void)err;
    if (!scan(bytes, size, &f) || !phx_slice_is(f.f[PHX_F_KIND].text, "result") ||
        find_row(r, f.f[PHX_F_RECEIPT].text) == NULL)
        return 0;
    if (!r->has_range)
        r->first = leaf;
    r->has_range = true;
    r->last = leaf;
    return 0;
}

/* The log holds a pseudonym: all rows of one pseudonym must be of one user. */
static bool is_same_user(struct reconcile *r, const struct row *row, struct phx_slice user)
{
    const json_t *known;
    char         *key;
    bool          is_same;

    if (phx_slice_means(user, row->user))
        return true;
    if (user.size != 64)
        return false;
    key = phx_mem_printf("%s\n%.*s", row->tenant, (int)user.size, user.at);
    known = json_object_get(r->users, key);
    if (known == NULL)
        json_object_set_new(r->users, key, json_string(row->user));
    is_same = known == NULL || strcmp(json_string_value(known), row->user) == 0;
    phx_mem_free(key);
    return is_same;
}

static void compare_result(struct reconcile *r, uint64_t leaf, struct row *row, const struct phx_fields *f)
{
    if (row->is_seen) /* verify calls the log itself wrong */
        return;
    row->is_seen = true;
    for (int i = 0; i < N_COUNTS; i++)
        if (f->f[count_fields[i]].number != row->counts[i])
            phx_report_add(&r->report, PHX_E_FORMAT, "line %lld: %s is %lld, record %llu says %lld",
                           (long long)row->line, column_names[C_PROMPT + i], (long long)row->counts[i],
                           (unsigned long long)leaf, (long long)f->f[count_fields[i]].number);
}

static int compare_record(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err)
{
    struct reconcile *r = ctx;
    struct phx_fields f;
    struct row       *row;

    (void)err;
    if (!scan(bytes, size, &f))
        return 0;
    row = find_row(r, f.f[PHX_F_RECEIPT].text);
    if (phx_slice_is(f.f[PHX_F_KIND].text, "intent") && row != NULL) {
        if (!phx_slice_means(f.f[PHX_F_WHO_TENANT].text, row->tenant) ||
            !is_same_user(r, row, f.f[PHX_F_WHO_USER].text))
            phx_report_add(&r->report, PHX_E_FORMAT, "line %lld: not the tenant or user of record %llu",
                           (long long)row->line, (unsigned long long)leaf);
    } else if (phx_slice_is(f.f[PHX_F_KIND].text, "result")) {
        bool is_commit = f.f[PHX_F_LEDGER].type != PHX_V_STR || phx_slice_is(f.f[PHX_F_LEDGER].text, "commit");

        if (row != NULL)
            compare_result(r, leaf, row, &f);
        else if (is_commit && r->has_range && leaf >= r->first && leaf <= r->last)
            phx_report_add(&r->report, PHX_E_FORMAT, "record %llu: %.*s has no row", (unsigned long long)leaf,
                           f.f[PHX_F_RECEIPT].text.size < 60 ? (int)f.f[PHX_F_RECEIPT].text.size : 60,
                           f.f[PHX_F_RECEIPT].text.at);
    }
    return 0;
}

static int compare_all(struct reconcile *r, const struct phx_options *o, struct phx_err *err)
{
    struct phx_log l;
    int            rc = phx_log_open(&l, o->args[0], o, err);

    if (rc != 0)
        return rc;
    rc = phx_log_walk(&l, find_range, r, err);
    if (rc == 0)
        rc = phx_log_walk(&l, compare_record, r, err);
    for (size_t i = 0; rc == 0 && i < r->n; i++)
        if (!r->rows[i].is_seen)
            phx_report_add(&r->report, PHX_E_FORMAT, "line %lld: %.60s has no result in the log",
                           (long long)r->rows[i].line, r->rows[i].receipt);
    phx_log_close(&l);
    return rc;
}

static void finish(struct reconcile *r)
{
    phx_report_fact(&r->report, "rows", json_integer(r->n_lines));
    phx_report_fact(&r->report, "commits", json_integer((json_int_t)r->n));
    if (r->n_other > 0)
        phx_report_skip(&r->report, "%lld rows of other kinds than commit", (long long)r->n_other);
    if (r->has_range)
        phx_report_skip(&r->report, "results before record %llu and behind record %llu: the file names none",
                        (unsigned long long)r->first, (unsigned long long)r->last);
    phx_report_skip(&r->report, "the log itself (verify), and that a pseudonym is of the user of its rows");
}

enum phx_verdict phx_cmd_reconcile(const struct phx_options *o)
{
    struct reconcile r = {.users = json_object()};
    struct phx_err   err = {0};
    enum phx_verdict verdict;
    int              rc;

    phx_report_init(&r.report, o->args[1]);
    rc = load_file(&r, o->args[1], &err);
    if (rc == 0)
        rc = compare_all(&r, o, &err);
    if (rc == 0)
        finish(&r);
    else
        phx_report_err(&r.report, &err);
    verdict = phx_report_show(&r.report, o->is_json);
    phx_report_fini(&r.report);
    phx_buf_fini(&r.file);
    phx_mem_free(r.rows);
    json_decref(r.users);
    return verdict;
}
