/* SPDX-License-Identifier: Apache-2.0
 * What must come out: the sets of people a month, kept by an oracle that knows nothing of the store, of seat
 * ids and of the table of states. */
#ifndef PHX_TESTS_SIM_SEAT_WORLD_H
#define PHX_TESTS_SIM_SEAT_WORLD_H

#include <stdbool.h>
#include <stdint.h>

enum { PEOPLE = 60, SERVICES_FROM = 50, MONTHS_MAX = 64 };

enum oracle_seat { SEAT_NONE = 0, SEAT_PERSON, SEAT_OVERDRAFT, SEAT_INDIRECT, SEAT_INDIRECT_OVER, SEAT_EXEMPT };
enum oracle_answer { ANSWER_REFUSE = 0, ANSWER_SERVE, ANSWER_OVERDRAFT };

struct oracle_licence {
    int64_t limit, overdraft, indirect, exempt_cap; /* people; overdraft beside the limit */
    int64_t end_ns, grace_ns, continuity_ns;
    bool    is_hard;
};
struct oracle_month {
    int32_t          number; /* months since 1970 */
    enum oracle_seat seats[PEOPLE];
};
struct oracle {
    struct oracle_licence licence;
    struct oracle_month   months[MONTHS_MAX];
    int32_t               n_months;
};

int32_t oracle_month_number(int64_t ns);
int64_t oracle_month_start(int32_t number);
void    oracle_month_text(int32_t number, char text[8]);
bool    oracle_is_service(int32_t person);
bool    oracle_is_exempt(int32_t person); /* its tenant is */
/* What a request of that person gets at that time, by the rules as the customer reads them. */
enum oracle_answer oracle_ask(struct oracle *o, int32_t person, int64_t t_ns);
/* The request was committed. */
void oracle_commit(struct oracle *o, int32_t person, int64_t t_ns, enum oracle_answer answer);
bool oracle_has(struct oracle *o, int32_t person, int64_t t_ns);
int64_t oracle_count(const struct oracle_month *m, enum oracle_seat kind);

#endif
