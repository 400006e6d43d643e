/* SPDX-License-Identifier: Apache-2.0
 * What a row must obey before it may be written. */
#include <inttypes.h>
#include <string.h>

#include "daemon/ledger/row.h"
#include "rpc/base/mem.h"

static const char *const kind_names[] = {"none", "reserve", "progress", "commit", "void", "correct"};

const char *phx_ledger_kind_name(enum phx_ledger_kind kind)
{
    return kind_names[kind >= PHX_LEDGER_NONE && kind <= PHX_LEDGER_CORRECT ? kind : PHX_LEDGER_NONE];
}

static int check_numbers(const struct phx_ledger_row *row, struct phx_err *err)
{
    const struct {
        const char *name;
        int64_t     n;
    } fields[] = {
        {"reserved", row->reserved},     {"prompt", row->prompt},     {"cached", row->cached},
        {"output", row->output},         {"reasoning", row->reasoning}, {"upper", row->upper},
        {"compute_ms", row->compute_ms}, {"queue_ms", row->queue_ms}, {"first_ms", row->first_ms},
        {"total_ms", row->total_ms},
    };
    int64_t low = row->kind == PHX_LEDGER_CORRECT ? -PHX_LEDGER_COUNT_MAX : 0;

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].n < low || fields[i].n > PHX_LEDGER_COUNT_MAX)
            return phx_fail(err, PHX_E_INVALID, "%s: %" PRId64 " is not between %" PRId64 " and %" PRId64,
                            fields[i].name, fields[i].n, low, PHX_LEDGER_COUNT_MAX);
    return 0;
}

/* Reports group by these texts: one that is too long would make every report of its month fail. */
static int check_texts(const struct phx_ledger_row *row, struct phx_err *err)
{
    const struct {
        const char *name, *text;
    } fields[] = {
        {"tenant", row->tenant},           {"user", row->user},   {"key_id", row->key_id},
        {"cost_centre", row->cost_centre}, {"model", row->model}, {"request_id", row->request_id},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].text == NULL || strlen(fields[i].text) >= PHX_USAGE_GROUP_BYTES)
            return phx_fail(err, PHX_E_INVALID, "%s: a text of at most %d bytes is needed", fields[i].name,
                            PHX_USAGE_GROUP_BYTES - 1);
    return 0;
}

static int check_reserve(const struct phx_ledger_row *row, struct phx_err *err)
{
    if (check_texts(row, err) != 0)
        return PHX_E_INVALID;
    if (strchr(row->tenant, '/') != NULL) /* it ends a tenant's name in the name of a user's budget */
        return phx_fail(err, PHX_E_INVALID, "tenant: a '/' is not allowed");
    if (row->prompt > row->reserved)
        return phx_fail(err, PHX_E_INVALID, "reserved: %" PRId64 " does not hold the prompt of %" PRId64,
                        row->reserved, row->prompt);
    return 0;
}

int phx_ledger_row_check(const struct phx_ledger_row *row, struct phx_err *err)
{
    int rc = check_numbers(row, err);

    if (rc == 0 && (row->lease == NULL || row->lease[0] == '\0' || strlen(row->lease) >= PHX_LEASE_BYTES))
        rc = phx_fail(err, PHX_E_INVALID, "lease: 1 to %d bytes", PHX_LEASE_BYTES - 1);
    if (rc != 0 || row->kind == PHX_LEDGER_RESERVE)
        return rc == 0 ? check_reserve(row, err) : rc;
    if (row->kind == PHX_LEDGER_CORRECT)
        return row->note != NULL && row->note[0] != '\0'
                   ? 0
                   : phx_fail(err, PHX_E_INVALID, "note: a correction needs its reason");
    if (row->cached > row->prompt)
        return phx_fail(err, PHX_E_INVALID, "cached: %" PRId64 " is more than the prompt of %" PRId64,
                        row->cached, row->prompt);
    if (row->reasoning > row->output)
        return phx_fail(err, PHX_E_INVALID, "reasoning: %" PRId64 " is more than the output of %" PRId64,
                        row->reasoning, row->output);
    if (row->kind == PHX_LEDGER_VOID && row->prompt + row->output != 0)
        return phx_fail(err, PHX_E_INVALID, "void: nothing was produced, so prompt and output are 0");
    if (row->kind == PHX_LEDGER_COMMIT && row->upper < row->output)
        return phx_fail(err, PHX_E_INVALID, "upper: %" PRId64 " is below the output of %" PRId64,
                        row->upper, row->output);
    return 0;
}

static int inherit(const char *field, const char *begin, const char **text, struct phx_err *err)
{
    if (*text == NULL)
        *text = begin;
    return strcmp(*text, begin) == 0
               ? 0
               : phx_fail(err, PHX_E_INVALID, "%s: another one than in the reserve", field);
}

int phx_ledger_row_follow(const struct phx_ledger_row *begin, struct phx_ledger_row *row,
                          struct phx_err *err)
{
    int rc = inherit("tenant", begin->tenant, &row->tenant, err);

    rc = rc == 0 ? inherit("user", begin->user, &row->user, err) : rc;
    rc = rc == 0 ? inherit("key_id", begin->key_id, &row->key_id, err) : rc;
    rc = rc == 0 ? inherit("cost_centre", begin->cost_centre, &row->cost_centre, err) : rc;
    rc = rc == 0 ? inherit("model", begin->model, &row->model, err) : rc;
    rc = rc == 0 ? inherit("request_id", begin->request_id, &row->request_id, err) : rc;
    if (rc != 0 || row->kind == PHX_LEDGER_CORRECT)
        return rc;
    if (row->prompt + row->output > begin->reserved) /* each is below 2^48 */
        return phx_fail(err, PHX_E_INVALID,
                        "usage: %" PRId64 " prompt and %" PRId64 " output tokens are more than the %" PRId64
                        " reserved",
                        row->prompt, row->output, begin->reserved);
    return 0;
}
