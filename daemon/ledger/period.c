/* SPDX-License-Identifier: Apache-2.0
 * Months and days in UTC, and the windows that budgets count in. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/ledger/row.h"

enum { DAY_S = 86400, SECOND_NS = 1000000000 };

static void split_day(int64_t at_ns, struct tm *out)
{
    int64_t seconds = at_ns / SECOND_NS - (at_ns % SECOND_NS < 0 ? 1 : 0);
    time_t  t = (time_t)seconds;

    phx_assert(gmtime_r(&t, out) != NULL); /* 64-bit nanoseconds end in 2262 */
}

static int64_t start_of(int year, int month, int day)
{
    struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day};

    return (int64_t)timegm(&tm) * SECOND_NS; /* carries month 13 and day 32 over */
}

static bool read_digits(const char *text, int n, int *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (text[i] - '0');
    }
    return true;
}

int phx_period_parse(const char *period, int64_t *from_ns, int64_t *to_ns, struct phx_err *err)
{
    int year, month;

    if (strlen(period) != 7 || period[4] != '-' || !read_digits(period, 4, &year) ||
        !read_digits(period + 5, 2, &month) || year < 1970 || year > 2200 || month < 1 || month > 12)
        return phx_fail(err, PHX_E_INVALID, "period: '%.20s' is not YYYY-MM", period);
    *from_ns = start_of(year, month, 1);
    *to_ns = start_of(year, month + 1, 1);
    return 0;
}

void phx_period_format(int64_t at_ns, char period[8])
{
    struct tm tm;

    split_day(at_ns, &tm);
    (void)strftime(period, 8, "%Y-%m", &tm); /* always fits: years have 4 digits */
}

void phx_window_format(enum phx_budget_period period, int64_t at_ns, char window[WINDOW_BYTES])
{
    struct tm tm;

    if (period == PHX_PERIOD_TOTAL) {
        memcpy(window, "total", sizeof("total"));
        return;
    }
    split_day(at_ns, &tm);
    (void)strftime(window, WINDOW_BYTES, period == PHX_PERIOD_DAY ? "%Y-%m-%d" : "%Y-%m", &tm);
}

int phx_window_range(const char *window, int64_t *from_ns, int64_t *end_ns, struct phx_err *err)
{
    char month[8];
    int  day;

    if (strcmp(window, "total") == 0) {
        *from_ns = INT64_MIN;
        *end_ns = 0;
        return 0;
    }
    (void)snprintf(month, sizeof(month), "%.7s", window);
    if (strlen(window) == 7)
        return phx_period_parse(month, from_ns, end_ns, err);
    if (strlen(window) != 10 || window[7] != '-' || !read_digits(window + 8, 2, &day) || day < 1 || day > 31)
        return phx_fail(err, PHX_E_FORMAT, "budget_sum: '%.20s' is not a window", window);
    if (phx_period_parse(month, from_ns, end_ns, err) != 0)
        return PHX_E_FORMAT;
    *from_ns += (int64_t)(day - 1) * DAY_S * SECOND_NS;
    *end_ns = *from_ns + (int64_t)DAY_S * SECOND_NS;
    return 0;
}
