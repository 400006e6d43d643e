/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/sim/seat_world.h"

static const int64_t DAY_NS = INT64_C(86400) * 1000000000;

static int32_t days_of(int32_t year, int32_t month)
{
    static const int32_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month] + (month == 1 && is_leap);
}

int64_t oracle_month_start(int32_t number)
{
    int64_t days = 0;

    for (int32_t i = 0; i < number; i++)
        days += days_of(1970 + i / 12, i % 12);
    return days * DAY_NS;
}

int32_t oracle_month_number(int64_t ns)
{
    int64_t days = ns / DAY_NS;
    int32_t number = 0;

    for (; days >= days_of(1970 + number / 12, number % 12); number++)
        days -= days_of(1970 + number / 12, number % 12);
    return number;
}

void oracle_month_text(int32_t number, char text[8])
{
    (void)snprintf(text, 8, "%04d-%02d", 1970 + number / 12, number % 12 + 1);
}

bool oracle_is_service(int32_t person)
{
    return person >= SERVICES_FROM;
}

bool oracle_is_exempt(int32_t person)
{
    return person % 3 == 2;
}

static struct oracle_month *find_month(struct oracle *o, int32_t number)
{
    for (int32_t i = 0; i < o->n_months; i++)
        if (o->months[i].number == number)
            return &o->months[i];
    assert_true(o->n_months < MONTHS_MAX);
    o->months[o->n_months].number = number;
    return &o->months[o->n_months++];
}

int64_t oracle_count(const struct oracle_month *m, enum oracle_seat kind)
{
    int64_t n = 0;

    for (int32_t i = 0; i < PEOPLE; i++)
        n += m->seats[i] == kind;
    return n;
}

bool oracle_has(struct oracle *o, int32_t person, int64_t t_ns)
{
    return find_month(o, oracle_month_number(t_ns))->seats[person] != SEAT_NONE;
}

static enum oracle_answer ask_new(const struct oracle_licence *l, const struct oracle_month *m, int32_t person)
{
    int64_t people = oracle_count(m, SEAT_PERSON) + oracle_count(m, SEAT_OVERDRAFT);
    int64_t indirect = oracle_count(m, SEAT_INDIRECT) + oracle_count(m, SEAT_INDIRECT_OVER);

    if (oracle_is_service(person))
        return indirect < l->indirect ? ANSWER_SERVE : ANSWER_REFUSE;
    if (people < l->limit)
        return ANSWER_SERVE;
    return people < l->limit + l->overdraft || !l->is_hard ? ANSWER_OVERDRAFT : ANSWER_REFUSE;
}

enum oracle_answer oracle_ask(struct oracle *o, int32_t person, int64_t t_ns)
{
    const struct oracle_licence *l = &o->licence;
    int32_t                      number = oracle_month_number(t_ns);
    const struct oracle_month   *before = find_month(o, number - 1), *now = find_month(o, number);
    bool                         is_member = now->seats[person] != SEAT_NONE;
    int64_t                      n_exempt = oracle_count(now, SEAT_EXEMPT);

    if (t_ns < l->end_ns + l->grace_ns)
        return is_member ? ANSWER_SERVE : ask_new(l, now, person);
    if (t_ns < l->end_ns + l->grace_ns + l->continuity_ns) {
        if (is_member)
            return ANSWER_SERVE;
        return before->seats[person] != SEAT_NONE ? ask_new(l, now, person) : ANSWER_REFUSE;
    }
    if (!oracle_is_exempt(person) || l->exempt_cap <= 0)
        return ANSWER_REFUSE;
    return is_member || n_exempt < l->exempt_cap ? ANSWER_SERVE : ANSWER_REFUSE;
}

void oracle_commit(struct oracle *o, int32_t person, int64_t t_ns, enum oracle_answer answer)
{
    const struct oracle_licence *l = &o->licence;
    enum oracle_seat            *seat = &find_month(o, oracle_month_number(t_ns))->seats[person];
    bool                         is_over = answer == ANSWER_OVERDRAFT;

    if (answer == ANSWER_REFUSE || *seat != SEAT_NONE)
        return;
    if (t_ns >= l->end_ns + l->grace_ns + l->continuity_ns)
        *seat = SEAT_EXEMPT;
    else if (oracle_is_service(person))
        *seat = is_over ? SEAT_INDIRECT_OVER : SEAT_INDIRECT;
    else
        *seat = is_over ? SEAT_OVERDRAFT : SEAT_PERSON;
}
