/* SPDX-License-Identifier: Apache-2.0
 * Dates of licences.  One spelling only, so that two readers cannot differ about an instant. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/license/terms.h"

enum { YEAR_MIN = 1970, YEAR_MAX = 2199, DAY_TEXT = 10, TIME_TEXT = 20 };

static int64_t read_digits(const char *text, int n)
{
    int64_t value = 0;

    for (int i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static int days_of_month(int64_t year, int64_t month)
{
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return month == 2 && is_leap ? 29 : days[month - 1];
}

static bool read_day(const char *text, struct tm *out)
{
    int64_t year = read_digits(text, 4), month, day;

    if (text[4] != '-' || year < YEAR_MIN || year > YEAR_MAX)
        return false;
    month = read_digits(text + 5, 2);
    if (text[7] != '-' || month < 1 || month > 12)
        return false;
    day = read_digits(text + 8, 2);
    if (day < 1 || day > days_of_month(year, month))
        return false;
    out->tm_year = (int)year - 1900;
    out->tm_mon = (int)month - 1;
    out->tm_mday = (int)day;
    return true;
}

bool phx_date_parse(const char *text, int64_t *ns)
{
    struct tm tm = {0};
    int64_t   hour, minute, second;

    if (strlen(text) != TIME_TEXT || !read_day(text, &tm) || text[10] != 'T' || text[13] != ':' ||
        text[16] != ':' || text[19] != 'Z')
        return false;
    hour = read_digits(text + 11, 2);
    minute = read_digits(text + 14, 2);
    second = read_digits(text + 17, 2);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
        return false;
    tm.tm_hour = (int)hour;
    tm.tm_min = (int)minute;
    tm.tm_sec = (int)second;
    *ns = (int64_t)timegm(&tm) * 1000000000;
    return true;
}

bool phx_date_parse_day(const char *text)
{
    struct tm tm = {0};

    return strlen(text) == DAY_TEXT && read_day(text, &tm);
}

void phx_date_format(int64_t ns, char text[PHX_DATE_BYTES])
{
    time_t    seconds = (time_t)(ns / 1000000000);
    struct tm tm;

    phx_assert(gmtime_r(&seconds, &tm) != NULL);
    phx_assert(strftime(text, PHX_DATE_BYTES, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
}
